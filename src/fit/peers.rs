//! Cards that share every layer of a model (tensor parallelism): each reads and computes its part, and
//! after attention and after the feed-forward part all of them add up what they have.

use crate::catalog::hardware::Device;

/// Bytes of a value that cards add up.
const VALUE: f64 = 2.0;
/// Sums of a layer: after attention, and after the feed-forward part (Megatron-LM, Shoeybi et al. 2019).
const SUMS: f64 = 2.0;

/// Seconds of a sum of little over links between the cards, and over the bus: assumed; with them single users of
/// dense models are 0.82 to 1.04 times as fast as predicted (`cmd/calibrate/together.csv`).
const LINKED_WAIT: f64 = 10e-6;
const BUS_WAIT: f64 = 30e-6;

/// Several cards that are as fast as the slowest of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Peers {
    /// How many.
    pub cards: f64,
    /// Bytes a second that each sends to another.
    bandwidth: f64,
    /// Seconds that a sum takes however little is added up.
    wait: f64,
}

impl Peers {
    /// Those of `devices`; `None` where there is one.
    pub fn of(devices: &[Device]) -> Option<Self> {
        let others = devices.len().saturating_sub(1) as f64;
        let sends = |device: &Device| {
            let part = device.link_peers.map_or(1.0, |peers| (others / f64::from(peers)).min(1.0));
            device.link.map_or(0.0, |link| link.0 * part)
        };
        let slowest = devices.iter().map(sends).reduce(f64::min);
        let (bandwidth, wait) = match slowest.filter(|slowest| *slowest > 0.0) {
            Some(slowest) => (slowest * 1e9, LINKED_WAIT),
            None => (super::site::LINK, BUS_WAIT),
        };
        (devices.len() > 1).then_some(Self { cards: devices.len() as f64, bandwidth, wait })
    }

    /// Seconds in which the cards add up what they have of each layer for `tokens`, `hidden` values for
    /// each: every card sends all but its own part and gets the sums back (a ring).
    pub fn sums(&self, layers: f64, hidden: f64, tokens: f64) -> f64 {
        let others = (self.cards - 1.0) / self.cards;
        let bytes = 2.0 * others * tokens * hidden * VALUE;
        SUMS * layers * (self.wait + bytes / self.bandwidth)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fit::machine::Machine;

    fn peers(machine: &str) -> Option<Peers> {
        Peers::of(&Machine::parse(machine, &[]).unwrap().devices)
    }

    #[test]
    fn links_are_those_of_all_cards() {
        assert_eq!(peers("h100-sxm-80gb"), None);
        let seconds = |machine: &str| peers(machine).unwrap().sums(32.0, 4096.0, 2048.0);
        // 64 sums of 16 MiB, half of which each of two cards sends twice.
        let moved = 64.0 * 2048.0 * 4096.0 * 2.0;
        let linked = 64.0 * LINKED_WAIT + moved / 450e9;
        assert!((seconds("2x h100-sxm-80gb") / linked - 1.0).abs() < 1e-9);
        let bus = 64.0 * BUS_WAIT + moved / crate::fit::site::LINK;
        assert!((seconds("2x rtx-4090") / bus - 1.0).abs() < 1e-9);
        // One without a link, and all use the bus.
        assert!((seconds("h100-sxm-80gb + rtx-4090") / bus - 1.0).abs() < 1e-9);
        assert!(seconds("8x h100-sxm-80gb") > seconds("2x h100-sxm-80gb"));
        // Without a switch two have one of seven links.
        let pair = 64.0 * LINKED_WAIT + moved / 64e9;
        assert!((seconds("2x mi300x") / pair - 1.0).abs() < 1e-9);
        let all = 64.0 * LINKED_WAIT + moved * 2.0 * 7.0 / 8.0 / 448e9;
        assert!((seconds("8x mi300x") / all - 1.0).abs() < 1e-9);
    }
}
