//! The answer as sentences, tables and charts.

use crate::capacity::{Missed, Outcome, Routing, Size, Times, Tried, Who, exceeded};
use crate::fit::basis::Basis;
use crate::report::plot::Plot;
use crate::report::{Figure, Report, Section, Table};
use crate::units::{ABSENT, Nanos, Share, grouped, or_absent, significant};

use super::asked::who_words;
use super::charts;
use super::work::{Day, Detail, Offer, Question, breaks};

/// The offers that tables show.
const SHOWN: usize = 10;

/// All that was worked out.
pub struct Answer<'a> {
    pub question: &'a Question<'a>,
    /// Those that serve first, the cheapest of them first.
    pub offers: Vec<Offer>,
    pub left_out: Vec<(String, String)>,
    /// Of the first offer.
    pub detail: Option<Detail>,
    /// `qwen3-8b Q4_K_M`.
    pub model: String,
}

impl Answer<'_> {
    /// The whole answer.
    pub fn report(&self) -> Report {
        let asked = self.question.asked;
        let title = format!("Capacity for {} of {}", asked.who, asked.name);
        let mut sections = vec![Section { text: self.sentences(), ..Section::default() }];
        if self.offers.is_empty() {
            sections[0].notes = self.reasons();
        } else {
            sections.push(self.machines());
        }
        if self.at_peak().next().is_some() {
            sections.extend([self.times(), self.use_of()]);
        }
        if let Some(detail) = &self.detail {
            sections.extend([self.growth(detail), self.what_if(detail), self.day(detail)]);
        }
        sections.push(self.rests_on());
        Report { title, sections }
    }

    /// The offers of which there is a peak to tell: no number of the others would do.
    fn at_peak(&self) -> impl Iterator<Item = &Offer> {
        let shown = self.offers.iter().take(SHOWN);
        shown.filter(|offer| !matches!(offer.size, Size::Never(_)))
    }

    /// The answer in one sentence.
    pub fn sentence(&self) -> String {
        let asked = self.question.asked;
        let promise = format!("{} for {} of the requests", asked.promise(), asked.attainment);
        let Some(offer) = self.offers.first() else {
            return match self.left_out.as_slice() {
                [(name, reason)] => format!("{name} cannot serve: {reason}."),
                several => {
                    let first = several.first().map_or_else(String::new, |(name, reason)| {
                        format!(" The first, {name}: {reason}.")
                    });
                    format!("None of {} machines can serve.{first}", several.len())
                }
            };
        };
        let basis = offer.machinery.basis;
        let Some(count) = offer.count() else {
            return self.cannot(offer, &promise);
        };
        let name = match count {
            0 => format!("The {} devices that are there", self.question.objective.beside.len()),
            _ => offer.name(),
        };
        let each = if count == 1 { "serves" } else { "serve" };
        let money = offer.owning.as_ref().map_or_else(String::new, |owning| {
            format!(" It costs {} a month.", owning.usd_per_month)
        });
        let sure = match offer.range() {
            _ if basis == Basis::Measured => "from measured steps".to_owned(),
            (Some(low), Some(high)) if low == high => {
                format!("{basis}, the same at both ends of its speed's interval")
            }
            (Some(low), Some(high)) => {
                format!("{basis}: {low} to {high} at the ends of its speed's interval")
            }
            (Some(_), None) if self.question.count.is_some() => {
                format!("{basis}; too few at the slow end of its speed's interval")
            }
            (Some(low), None) => {
                let slow = match &offer.ends[0] {
                    Size::TooMany(tried) => format!("more than {}", tried.count),
                    _ => "no number".to_owned(),
                };
                format!(
                    "{basis}: {low} at the fast end of its speed's interval, {slow} at the slow end"
                )
            }
            (None, _) => basis.to_string(),
        };
        format!(
            "{name} {each} {} of {} with {promise} ({}; {sure}).{money}",
            asked.who,
            asked.name,
            self.setting(offer)
        )
    }

    /// `qwen3-8b Q4_K_M, llama-server, 16 at once`.
    fn setting(&self, offer: &Offer) -> String {
        format!("{}, {}, {} at once", self.model, offer.engine.name, offer.engine.sequences)
    }

    /// Why an offer is none.
    fn cannot(&self, offer: &Offer, promise: &str) -> String {
        let asked = self.question.asked;
        let Short { kept, most, cause } = self.short(offer);
        match &offer.size {
            Size::Never(_) => {
                let others = match self.offers.len() {
                    1 => String::new(),
                    n => format!(" Nor does any of the {} others, which are slower.", n - 1),
                };
                format!(
                    "No number of {} keeps {promise}: of requests that have a device to themselves \
                     {kept} keep it, and {most}. Shorter prompts, a faster machine or a smaller \
                     model would ({}).{others}",
                    offer.machinery.name,
                    self.setting(offer)
                )
            }
            _ if self.question.count.is_some() => format!(
                "{} cannot serve {} of {} with {promise}: {kept} keep it, {most}; {cause} ({}).",
                offer.name(),
                asked.who,
                asked.name,
                self.setting(offer)
            ),
            _ => format!(
                "{} are too few for {} of {} with {promise}: {kept} keep it, {most}; {cause}. Try \
                 more with --most ({}).",
                offer.name(),
                asked.who,
                asked.name,
                self.setting(offer)
            ),
        }
    }

    fn short(&self, offer: &Offer) -> Short {
        let tried = offer.tried();
        let broken = breaks(self.question, offer, tried);
        let most = match exceeded(broken.missed, &tried.outcome, 95.0) {
            Some(time) => format!("{} is {time} at the 95th percentile", broken.missed),
            None => format!("{} is what they miss", broken.missed),
        };
        let kept = or_absent(tried.outcome.attainment().map(Share));
        Short { kept, most, cause: broken.cause.to_string() }
    }

    /// Why machines below the first one do not keep the objective; of many, the first ones.
    fn others_short(&self) -> Vec<String> {
        let others = self.offers.iter().skip(1).filter(|offer| offer.count().is_none()).take(6);
        others
            .map(|offer| {
                let Short { kept, most, cause } = self.short(offer);
                match &offer.size {
                    Size::Never(_) => format!(
                        "{}, never: of requests that have a device to themselves {kept} keep the \
                         objective, and {most}.",
                        offer.machinery.name
                    ),
                    _ => format!("{}: {kept} keep the objective, {most}; {cause}.", offer.name()),
                }
            })
            .collect()
    }

    fn sentences(&self) -> Vec<String> {
        let mut text = vec![self.sentence()];
        let Some(offer) = self.offers.first().filter(|offer| offer.count().is_some()) else {
            return text;
        };
        let outcome = &offer.tried().outcome;
        let sure = outcome
            .attainment_interval()
            .map_or_else(String::new, |interval| format!(" (surely {})", Share(interval.low)));
        text.push(format!(
            "At the peak first words come after {} and the next every {} (P50/P95/P99); {} keep all \
             limits{sure}. The devices compute {} of the time, {} requests wait on average and {} \
             at most.",
            three(&outcome.ttft),
            three(&outcome.tpot),
            or_absent(outcome.attainment().map(Share)),
            Share(outcome.busy),
            mean(outcome.waiting),
            grouped(outcome.most_waiting),
        ));
        if let Some(detail) = &self.detail {
            text.extend(self.breaking(detail));
            let fewer = detail.what_if.iter().find(|what| what.tried.count < offer.tried().count);
            if let Some(fewer) = fewer {
                let outcome = &fewer.tried.outcome;
                let surely = outcome.attainment_interval().map(|interval| Share(interval.low));
                text.push(format!(
                    "With one device fewer {} of the requests would keep them (surely only {}).",
                    or_absent(outcome.attainment().map(Share)),
                    or_absent(surely)
                ));
            }
        }
        text
    }

    /// How much more it carries, and what breaks then.
    fn breaking(&self, detail: &Detail) -> Vec<String> {
        let demand = &self.question.asked.demand;
        let load = |factor: f64| {
            let scaled = demand.scaled(factor);
            who_words(&scaled.who, &scaled.mix)
        };
        let growth = &detail.growth;
        let Some(carries) = growth.carries else {
            return vec!["Not even a small part of this load is carried.".to_owned()];
        };
        let spare = Share(carries - 1.0);
        Vec::from([match &growth.breaks {
            Some((factor, broken)) => format!(
                "It carries {} (headroom {spare}); at {} {} breaks first: {}.",
                load(carries),
                load(*factor),
                broken.missed,
                broken.cause
            ),
            None => format!("It carries {} and more: nothing breaks so far.", load(carries)),
        }])
    }

    fn machines(&self) -> Section {
        let mut table = Table::new(&[
            "machine",
            ">at once",
            ">need",
            ">range",
            ">a month",
            ">purchase",
            "speed",
        ]);
        let mut notes = Vec::new();
        for offer in self.offers.iter().take(SHOWN) {
            let range = match offer.range() {
                (Some(low), Some(high)) if low == high => low.to_string(),
                (Some(low), Some(high)) => format!("{low}–{high}"),
                (Some(low), None) => format!("{low}–{}", offer.slow_end()),
                (None, _) => ABSENT.to_owned(),
            };
            let need = match &offer.size {
                Size::Enough(tried) => tried.count.to_string(),
                Size::TooMany(tried) => format!("> {}", tried.count),
                Size::Never(_) => "never".to_owned(),
            };
            let owning = offer.owning.as_ref();
            table.rows.push(vec![
                offer.machinery.name.clone(),
                offer.engine.sequences.to_string(),
                need,
                if offer.machinery.basis == Basis::Measured { String::new() } else { range },
                or_absent(owning.map(|owning| owning.usd_per_month)),
                or_absent(owning.map(|owning| owning.purchase_usd)),
                offer.machinery.basis.to_string(),
            ]);
        }
        notes.push(
            "at once: sequences on each device. need: devices that keep the objective at the peak \
             with confidence; range: at the fast and at the slow end of the speeds' interval. a \
             month: owning them, as `bench cost` counts."
                .to_owned(),
        );
        notes.extend(self.others_short());
        notes.extend(self.first_price());
        if self.offers.len() > SHOWN {
            notes.push(format!("{} more machines: --format csv.", self.offers.len() - SHOWN));
        }
        notes.extend(self.offers.iter().take(SHOWN).filter_map(|o| {
            Some(format!("{}: no price: {}.", o.machinery.name, o.unpriced.as_ref()?))
        }));
        notes.extend(self.reasons());
        Section { heading: "Machines".into(), table: Some(table), notes, ..Section::default() }
    }

    fn first_price(&self) -> Option<String> {
        let offer = self.offers.first()?;
        let owning = offer.owning.as_ref()?;
        Some(format!(
            "{}: {} to {} a month over the range of its price: {}.",
            offer.name(),
            owning.usd_per_month_low,
            owning.usd_per_month_high,
            owning.price_source
        ))
    }

    /// Why machines were left out: each that was named; of all, how many.
    fn reasons(&self) -> Vec<String> {
        if self.left_out.len() <= 6 {
            let each = self.left_out.iter();
            return each.map(|(name, why)| format!("{name}: left out: {why}.")).collect();
        }
        let names: Vec<&str> = self.left_out.iter().map(|(name, _)| name.as_str()).collect();
        vec![format!(
            "Left out, as they do not hold the model or their speed is not known (--device NAME \
             says why): {}.",
            names.join(", ")
        )]
    }

    fn times(&self) -> Section {
        let mut table = Table::new(&["machines", ">TTFT", ">TPOT", ">end to end"]);
        for offer in self.at_peak() {
            let outcome = &offer.tried().outcome;
            table.rows.push(vec![
                offer.name(),
                three(&outcome.ttft),
                three(&outcome.tpot),
                three(&outcome.e2e),
            ]);
        }
        let notes = vec![
            "50th, 95th and 99th percentile of all requests at the peak. TTFT: from a request to its \
             first token; TPOT: for each further one."
                .to_owned(),
        ];
        Section {
            heading: "Times at the peak".into(),
            table: Some(table),
            notes,
            ..Section::default()
        }
    }

    fn use_of(&self) -> Section {
        let mut table = Table::new(&[
            "machines", ">kept", ">good/s", ">tok/s", ">busy", ">wait", ">cache", ">refused",
        ]);
        for offer in self.at_peak() {
            let outcome = &offer.tried().outcome;
            let number = |value: Option<f64>| or_absent(value.map(|v| significant(v, 3)));
            table.rows.push(vec![
                offer.name(),
                or_absent(outcome.attainment().map(Share)),
                number(outcome.goodput_per_s()),
                number(outcome.system_tok_s()),
                Share(outcome.busy).to_string(),
                format!("{}/{}", mean(outcome.waiting), outcome.most_waiting),
                format!("{}/{}", Share(outcome.cache), Share(outcome.most_cache)),
                (outcome.refused + outcome.too_long).to_string(),
            ]);
        }
        let mut notes = vec![
            "kept: requests that kept all limits; good/s: those a second; tok/s: generated by all. \
             busy: share of the time in which devices compute. wait: requests that wait, mean and \
             most; cache: share of its tokens in use, mean and most. refused: requests that found \
             the queue full or have no room in any cache."
                .to_owned(),
        ];
        for offer in self.at_peak() {
            if let Some(overload) = offer.tried().outcome.overload {
                notes.push(format!(
                    "{}: overloaded: {} requests waited after {}, and would for ever longer.",
                    offer.name(),
                    grouped(overload.waiting),
                    overload.at
                ));
            }
        }
        Section {
            heading: "Use at the peak".into(),
            table: Some(table),
            notes,
            ..Section::default()
        }
    }

    fn growth(&self, detail: &Detail) -> Section {
        let demand = &self.question.asked.demand;
        let mut table = Table::new(&["load", ">kept", ">TTFT", ">TPOT", "breaks"]);
        for (factor, tried) in &detail.ladder {
            let scaled = demand.scaled(*factor);
            let broken = breaks(self.question, &self.offers[0], tried);
            table.rows.push(vec![
                who_words(&scaled.who, &scaled.mix),
                or_absent(tried.outcome.attainment().map(Share)),
                three(&tried.outcome.ttft),
                three(&tried.outcome.tpot),
                if tried.kept { String::new() } else { short(broken.missed).to_owned() },
            ]);
        }
        let name = self.offers[0].name();
        let plot = charts::latencies(self.question.asked, &name, &detail.ladder);
        Section {
            heading: format!("{name} under other loads"),
            table: Some(table),
            figures: figure("capacity-latency", plot),
            ..Section::default()
        }
    }

    fn what_if(&self, detail: &Detail) -> Section {
        let mut table = Table::new(&["what if", ">kept", ">TTFT", ">TPOT", ">needs"]);
        for what in &detail.what_if {
            let needs = match &what.needs {
                None => String::new(),
                Some(Size::Enough(tried)) => tried.count.to_string(),
                Some(Size::TooMany(tried)) => format!("> {}", tried.count),
                Some(Size::Never(_)) => "never".to_owned(),
            };
            table.rows.push(vec![
                what.change.clone(),
                or_absent(what.tried.outcome.attainment().map(Share)),
                three(&what.tried.outcome.ttft),
                three(&what.tried.outcome.tpot),
                needs,
            ]);
        }
        let mut notes = Vec::new();
        if self.question.what_if {
            notes.push(
                "Changed loads are on the same number of devices, in the same context; needs: \
                 devices that keep the objective then."
                    .to_owned(),
            );
        }
        Section { heading: "What if".into(), table: Some(table), notes, ..Section::default() }
    }

    fn day(&self, detail: &Detail) -> Section {
        let heading = match self.question.asked.demand.who {
            Who::Trace { .. } => "The trace",
            _ => "A day",
        };
        let outcome = match &detail.day {
            Day::LeftOut(why) => {
                let text = vec![format!("Left out: {why}.")];
                return Section { heading: heading.into(), text, ..Section::default() };
            }
            Day::Simulated(outcome) => outcome,
        };
        let mut table = Table::new(&[
            "from", ">asked", ">kept", ">TTFT", ">wait", ">running", ">busy", ">cache",
        ]);
        for bin in outcome.bins.iter().filter(|bin| bin.asked > 0 || bin.busy > 0.0) {
            let kept = (bin.asked > 0).then(|| Share(bin.met as f64 / bin.asked as f64));
            table.rows.push(vec![
                self.moment(bin.start),
                grouped(bin.asked),
                or_absent(kept),
                or_absent(bin.ttft),
                mean(bin.waiting),
                mean(bin.running),
                Share(bin.busy).to_string(),
                Share(bin.cache).to_string(),
            ]);
        }
        let name = self.offers[0].name();
        let plot = charts::queue(self.question.asked, &name, outcome);
        Section {
            heading: format!("{heading} of {name}"),
            text: vec![whole(outcome)],
            table: Some(table),
            notes: vec!["TTFT, wait, running, busy, cache: means of the part.".to_owned()],
            figures: figure("capacity-day", plot),
            ..Section::default()
        }
    }

    fn moment(&self, start: Nanos) -> String {
        match self.question.asked.demand.who {
            Who::Trace { .. } => start.to_string(),
            _ => format!("{:02}:00", (start.seconds() / 3600.0).round() as u32),
        }
    }

    fn rests_on(&self) -> Section {
        let asked = self.question.asked;
        let mut notes = vec![
            format!("Requests: {}.", asked.requests),
            format!(
                "Promised: {} for {} of the requests, by the lower end of a 95 % interval.",
                asked.promise(),
                asked.attainment
            ),
        ];
        let mix = &asked.demand.mix;
        if mix.think.0 > 0 && !matches!(asked.demand.who, Who::Trace { .. }) {
            notes.push(format!(
                "Pauses vary at random around {}, as those of people who do not wait for each other.",
                mix.think
            ));
        }
        notes.extend(asked.notes.iter().cloned());
        let beside = &self.question.objective.beside;
        if !beside.is_empty() {
            notes.push(format!(
                "{} devices are there already and work beside those that are counted.",
                beside.len()
            ));
        }
        let turns = mix.turns;
        if turns > 1 && self.offers.iter().any(|offer| offer.tried().count > 1) {
            let stays = self.question.objective.routing == Routing::Sticky;
            notes.push(if stays {
                "With several devices, a conversation stays on the one that it began on, where its \
                 cache is (--routing)."
                    .to_owned()
            } else {
                "With several devices, each turn goes to the one that is free and computes the \
                 conversation anew where it was not before; --routing sticky keeps a conversation \
                 on one device."
                    .to_owned()
            });
        }
        if let Some(offer) = self.offers.first() {
            notes.extend(offer.machinery.sources.iter().cloned());
        }
        notes.push(
            "All times and shares are simulated from these steps; none was observed.".to_owned(),
        );
        notes.push(format!("Seed {}; made by:", self.question.objective.seed));
        Section {
            heading: "What this rests on".into(),
            text: notes,
            commands: vec![self.question.command.clone()],
            ..Section::default()
        }
    }
}

/// How far an offer is from the objective, in words.
struct Short {
    kept: String,
    most: String,
    cause: String,
}

/// A mean number of requests; what is next to nothing is told so.
fn mean(count: f64) -> String {
    match count {
        c if c > 0.0 && c < 0.01 => "< 0.01".to_owned(),
        c => significant(c, 2),
    }
}

fn whole(outcome: &Outcome) -> String {
    let kept = or_absent(outcome.attainment().map(Share));
    format!(
        "{} requests, of which {kept} keep all limits; {} tokens; devices compute {} of the time.",
        grouped(outcome.asked),
        grouped(outcome.new_tokens),
        Share(outcome.busy)
    )
}

fn figure(name: &str, plot: Plot) -> Vec<Figure> {
    if plot.is_empty() {
        return Vec::new();
    }
    let note = Some("Simulated, from the steps named below.".to_owned());
    vec![Figure { name: name.to_owned(), plot, note }]
}

fn short(missed: Missed) -> &'static str {
    match missed {
        Missed::FirstToken => "TTFT",
        Missed::PerToken => "TPOT",
        Missed::Whole => "end to end",
        Missed::Refused | Missed::Queue => "queue",
        Missed::Nothing => "nothing",
        Missed::TooLong => "cache",
    }
}

/// Three percentiles in the unit of the longest: `0.21/0.64/0.93 s`.
pub fn three(times: &Times) -> String {
    let times = [50.0, 95.0, 99.0].map(|p| times.percentile(p).map(Nanos::seconds));
    let Some(longest) = times.iter().flatten().copied().reduce(f64::max) else {
        return ABSENT.to_owned();
    };
    let (unit, factor) = match longest {
        s if s < 1.0 => ("ms", 1e3),
        s if s < 600.0 => ("s", 1.0),
        _ => ("min", 1.0 / 60.0),
    };
    let shown = times.map(|t| t.map_or(ABSENT.to_owned(), |s| significant(s * factor, 2)));
    format!("{} {unit}", shown.join("/"))
}

/// Whether an outcome can be drawn: something was answered.
pub fn is_drawable(tried: &Tried) -> bool {
    tried.outcome.ttft.count() > 0
}
