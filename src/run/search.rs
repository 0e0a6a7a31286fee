//! The search for the highest load that meets an objective: which load to try next, in at most
//! ten probes. A higher load is taken to meet it no better than a lower one.

/// The most probes of a search.
pub const MOST_PROBES: usize = 10;

/// Where the two ends are this close, relative to the upper one, the search is over.
const CLOSE: f64 = 0.05;

/// Probes that miss before the lowest load is tried.
const MISSES: usize = 2;

/// A search for the highest load: requests a second, or users.
#[derive(Clone, Debug, PartialEq)]
pub struct Search {
    /// The load to begin with.
    start: f64,
    /// The lowest load that can be tried.
    lowest: f64,
    /// Loads are whole numbers.
    whole: bool,
    probes: Vec<(f64, bool)>,
}

impl Search {
    /// A search over rates, from `start` on and not below `lowest`.
    pub fn rates(start: f64, lowest: f64) -> Self {
        let lowest = lowest.min(start);
        Self { start, lowest, whole: false, probes: Vec::new() }
    }

    /// A search over numbers of users.
    pub fn users(start: u32) -> Self {
        Self { start: f64::from(start.max(1)), lowest: 1.0, whole: true, probes: Vec::new() }
    }

    /// The highest load that met the objective.
    pub fn met(&self) -> Option<f64> {
        self.probes.iter().filter(|(_, met)| *met).map(|(load, _)| *load).max_by(f64::total_cmp)
    }

    /// The lowest load that missed it.
    pub fn missed(&self) -> Option<f64> {
        self.probes.iter().filter(|(_, met)| !*met).map(|(load, _)| *load).min_by(f64::total_cmp)
    }

    /// What has been tried, in order.
    pub fn probes(&self) -> &[(f64, bool)] {
        &self.probes
    }

    /// The place of the probe whose figures stand for the search: the highest that met the
    /// objective, else the lowest.
    pub fn best(&self) -> Option<usize> {
        let best = self.met().or(self.missed())?;
        self.probes.iter().position(|(load, _)| *load == best)
    }

    /// The load to try next; none: the search is over.
    pub fn next(&self) -> Option<f64> {
        if self.probes.len() >= MOST_PROBES {
            return None;
        }
        let next = match (self.met(), self.missed()) {
            (None, None) => self.start,
            (Some(met), None) => met * 2.0,
            (None, Some(missed)) if missed <= self.lowest => return None,
            (None, Some(_)) if self.probes.len() >= MISSES => self.lowest,
            (None, Some(missed)) => missed / 2.0,
            (Some(met), Some(missed)) if self.is_close(met, missed) => return None,
            (Some(met), Some(missed)) => f64::midpoint(met, missed),
        };
        let next = if self.whole { next.floor() } else { next };
        Some(next.max(self.lowest))
    }

    fn is_close(&self, met: f64, missed: f64) -> bool {
        let least = if self.whole { 1.0 } else { 0.0 };
        // A load that met above one that missed is noise at the edge: there is nothing between.
        missed - met <= (missed * CLOSE).max(least)
    }

    /// Notes what a probe of `load` found.
    pub fn note(&mut self, load: f64, met: bool) {
        self.probes.push((load, met));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Searches where every load up to `capacity` meets the objective.
    fn found(mut search: Search, capacity: f64) -> Search {
        while let Some(load) = search.next() {
            search.note(load, load <= capacity);
        }
        search
    }

    #[test]
    fn a_rate_is_found_to_five_per_cent_from_a_start_within_a_factor_of_three() {
        for capacity in [0.37, 0.8, 1.0, 1.31, 2.9] {
            let search = found(Search::rates(1.0, 0.01), capacity);
            let (met, missed) = (search.met().unwrap(), search.missed().unwrap());
            assert!(met <= capacity && capacity < missed, "{search:?}");
            assert!((missed - met) / missed <= CLOSE, "{search:?}");
            assert!(search.probes().len() <= MOST_PROBES);
        }
    }

    #[test]
    fn users_are_found_exactly_or_to_five_per_cent() {
        for capacity in 1..=64 {
            let search = found(Search::users(8), f64::from(capacity));
            let (met, missed) = (search.met().unwrap(), search.missed().unwrap());
            assert!(met <= f64::from(capacity) && missed > f64::from(capacity), "{search:?}");
            assert!(missed - met <= (missed * CLOSE).max(1.0), "{search:?}");
            assert!(search.probes().len() <= MOST_PROBES);
        }
    }

    #[test]
    fn where_no_load_meets_it_the_lowest_one_was_tried() {
        let search = found(Search::rates(8.0, 0.5), 0.1);
        assert_eq!((search.met(), search.missed()), (None, Some(0.5)));
        assert_eq!(search.probes().len(), 3);
        let search = found(Search::users(16), 0.0);
        assert_eq!((search.met(), search.missed()), (None, Some(1.0)));
    }

    #[test]
    fn where_every_load_meets_it_the_highest_tried_is_a_lower_bound() {
        let search = found(Search::rates(1.0, 0.1), f64::INFINITY);
        assert_eq!(search.missed(), None);
        assert_eq!(search.met(), Some(512.0));
        assert_eq!(search.probes().len(), MOST_PROBES);
    }

    #[test]
    fn a_lowest_load_that_meets_it_after_misses_is_searched_upwards() {
        let search = found(Search::rates(8.0, 0.1), 0.3);
        assert!(search.met().is_some_and(|met| met <= 0.3), "{search:?}");
        assert!(search.missed().is_some_and(|missed| missed < 0.4), "{search:?}");
    }

    #[test]
    fn noise_at_the_edge_ends_the_search() {
        let mut search = Search::rates(1.0, 0.1);
        for (load, met) in [(1.0, false), (0.5, true), (1.2, true)] {
            search.note(load, met);
        }
        assert_eq!(search.next(), None);
    }
}
