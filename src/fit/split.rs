//! Which layers lie where: on one device or several, and what is left to the processor.

use crate::units::Bytes;

use super::memory::{Memory, Plan};
use super::packed::Weights;
use crate::units::Tokens;

/// Where the model's layers lie.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// All of it on the devices.
    Fits,
    /// All of it but the routed experts of the first layers (llama.cpp's `--n-cpu-moe`).
    ExpertsOnCpu {
        /// Layers whose experts are on the processor.
        layers: u32,
        /// All layers with experts.
        of: u32,
    },
    /// So many of its layers on the devices, the first ones on the processor (`-ngl`).
    Partly {
        /// Layers on the devices.
        layers: u32,
        /// All layers.
        of: u32,
    },
    /// Nowhere.
    DoesNotFit {
        /// What is lacking.
        short_by: Bytes,
    },
    /// A number that it takes is not known.
    Unknown(String),
}

/// A share of a model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share {
    /// Of its layers, with their caches, without routed experts.
    pub layers: f64,
    /// Of its routed experts.
    pub experts: f64,
}

impl Share {
    /// All of it.
    pub const WHOLE: Self = Self { layers: 1.0, experts: 1.0 };
    /// Nothing.
    pub const NONE: Self = Self { layers: 0.0, experts: 0.0 };
}

/// The layers of one model, by where they lie.
#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    /// In a word.
    pub verdict: Verdict,
    /// Layers on each device.
    pub counts: Vec<u32>,
    /// What each device does.
    pub devices: Vec<Share>,
    /// What the processor beside them does.
    pub host: Share,
    /// Weights and caches of layers in the host's memory, without what is only looked up.
    pub on_host: Bytes,
}

impl Split {
    /// All of it on one device.
    pub fn whole() -> Self {
        Self {
            verdict: Verdict::Fits,
            counts: Vec::new(),
            devices: vec![Share::WHOLE],
            host: Share::NONE,
            on_host: Bytes(0),
        }
    }
}

/// Room for a model on several devices, and beside them.
#[derive(Clone, Debug, PartialEq)]
pub struct Rooms {
    /// Bytes on each device.
    pub devices: Vec<u64>,
    /// Whether a processor can take layers.
    pub has_host: bool,
    /// Bytes that the host can hold, where that is known.
    pub host: Option<u64>,
}

/// Puts a model with a context of `tokens` into `rooms`; `memory` is what it needs there and
/// `needed` all of it on the devices.
pub fn split(
    weights: &Weights,
    plan: &Plan,
    tokens: Tokens,
    memory: &Memory,
    needed: Bytes,
    rooms: &Rooms,
) -> Split {
    let total: u64 = rooms.devices.iter().sum();
    let short = |bytes: u64| Split {
        verdict: Verdict::DoesNotFit { short_by: Bytes(bytes.max(1)) },
        counts: Vec::new(),
        devices: Vec::new(),
        host: Share::NONE,
        on_host: Bytes(0),
    };
    let nowhere = || short(needed.0.saturating_sub(total));
    if rooms.devices.len() == 1 && needed.0 <= total {
        return Split::whole();
    }
    if rooms.devices.len() == 1 && !rooms.has_host {
        return nowhere();
    }
    let caches = plan.layer_caches(tokens);
    let layers: Vec<Layer> = weights
        .layers
        .iter()
        .enumerate()
        .map(|(i, l)| Layer {
            kept: l.dense.saturating_add(caches.get(i).copied().unwrap_or(0)),
            experts: l.experts,
        })
        .collect();
    // What the host holds beside looked-up weights, or by how much it is too small.
    let beside = |split: Split| {
        let needed = split.on_host.0.saturating_add(memory.lookup.0);
        match rooms.host {
            Some(room) if needed > room => short(needed - room),
            _ => split,
        }
    };
    let frame = Frame { layers: &layers, outside: weights.outside.0, compute: memory.compute.0 };
    if let Some(counts) = frame.fit(&rooms.devices, 0, 0) {
        return frame.described(Verdict::Fits, counts, 0, 0);
    }
    if !rooms.has_host {
        return nowhere();
    }
    let with_experts = layers.iter().filter(|l| l.experts > 0).count() as u32;
    if with_experts > 0 {
        // The fewest first layers whose experts have to go.
        let mut moved = 0;
        for (i, layer) in layers.iter().enumerate() {
            if layer.experts == 0 {
                continue;
            }
            moved += 1;
            if let Some(counts) = frame.fit(&rooms.devices, 0, i + 1) {
                let verdict = Verdict::ExpertsOnCpu { layers: moved, of: with_experts };
                return beside(frame.described(verdict, counts, 0, i + 1));
            }
        }
    }
    for first in 1..layers.len() {
        if let Some(counts) = frame.fit(&rooms.devices, first, 0) {
            let of = layers.len() as u32;
            let verdict = Verdict::Partly { layers: of - first as u32, of };
            return beside(frame.described(verdict, counts, first, 0));
        }
    }
    nowhere()
}

/// Bytes of one layer.
#[derive(Clone, Copy)]
struct Layer {
    /// Weights without routed experts, and the cache.
    kept: u64,
    experts: u64,
}

struct Frame<'a> {
    layers: &'a [Layer],
    outside: u64,
    compute: u64,
}

impl Frame<'_> {
    /// Bytes of layer `i` on a device when the experts of the first `without` layers are not there.
    fn bytes(&self, i: usize, without: usize) -> u64 {
        let layer = self.layers[i];
        layer.kept.saturating_add(if i < without { 0 } else { layer.experts })
    }

    /// How many of the layers from `first` on each device gets; `None` where they do not fit.
    fn fit(&self, rooms: &[u64], first: usize, without: usize) -> Option<Vec<u32>> {
        let sizes = (first..self.layers.len()).map(|i| self.bytes(i, without));
        let sum = sizes.fold(self.outside, u64::saturating_add);
        let all = rooms.iter().fold(0_u64, |n, room| n + room.saturating_sub(self.compute));
        if sum > all {
            return None;
        }
        if rooms.len() == 1 {
            return Some(vec![(self.layers.len() - first) as u32]);
        }
        self.in_proportion(rooms, first, without)
            .or_else(|| self.one_after_other(rooms, first, without))
    }

    /// As llama.cpp splits when it is told nothing: in proportion to free memory
    /// (`llama_model_base::load_tensors`, the output projection counts as one layer more).
    fn in_proportion(&self, rooms: &[u64], first: usize, without: usize) -> Option<Vec<u32>> {
        let total: f64 = rooms.iter().map(|&r| r as f64).sum();
        let count = self.layers.len() - first + 1;
        let mut ends = Vec::with_capacity(rooms.len());
        let mut sum = 0.0;
        for &room in rooms {
            sum += room as f64 / total;
            ends.push(sum);
        }
        let device = |i: usize| {
            let at = i as f64 / count as f64;
            ends.iter().position(|&end| end > at).unwrap_or(rooms.len() - 1)
        };
        let mut used = vec![self.compute; rooms.len()];
        let mut counts = vec![0; rooms.len()];
        for i in 0..count - 1 {
            used[device(i)] = used[device(i)].saturating_add(self.bytes(first + i, without));
            counts[device(i)] += 1;
        }
        used[device(count - 1)] += self.outside;
        used.iter().zip(rooms).all(|(used, room)| used <= room).then_some(counts)
    }

    /// Each device filled before the next, as `--tensor-split` can have it.
    fn one_after_other(&self, rooms: &[u64], first: usize, without: usize) -> Option<Vec<u32>> {
        let mut counts = vec![0; rooms.len()];
        let mut device = 0;
        let mut used = self.compute;
        for i in first..self.layers.len() {
            let bytes = self.bytes(i, without);
            while used.saturating_add(bytes) > rooms[device] {
                device += 1;
                used = self.compute;
                if device == rooms.len() {
                    return None;
                }
            }
            used += bytes;
            counts[device] += 1;
        }
        let last = rooms.len() - 1;
        let used = if device == last { used } else { self.compute };
        (used + self.outside <= rooms[last]).then_some(counts)
    }

    fn described(&self, verdict: Verdict, counts: Vec<u32>, first: usize, without: usize) -> Split {
        let all: u64 = self.layers.iter().map(|l| l.experts).sum();
        let part = |bytes: u64| if all == 0 { 0.0 } else { bytes as f64 / all as f64 };
        let of_layers = |n: u32| f64::from(n) / self.layers.len().max(1) as f64;
        let mut devices = Vec::with_capacity(counts.len());
        let mut at = first;
        for &count in &counts {
            let end = at + count as usize;
            let experts = (at.max(without)..end.max(without)).map(|i| self.layers[i].experts).sum();
            devices.push(Share { layers: of_layers(count), experts: part(experts) });
            at = end;
        }
        let there = |i: &usize| *i < first || *i < without;
        let experts: u64 =
            (0..self.layers.len()).filter(there).map(|i| self.layers[i].experts).sum();
        let kept = self.layers[..first].iter().fold(0, |n: u64, l| n.saturating_add(l.kept));
        Split {
            verdict,
            counts,
            devices,
            host: Share { layers: of_layers(first as u32), experts: part(experts) },
            on_host: Bytes(kept.saturating_add(experts)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn frame(layers: &[Layer]) -> Frame<'_> {
        Frame { layers, outside: GIB, compute: 0 }
    }

    #[test]
    fn unlike_cards_get_layers_in_proportion_to_their_memory() {
        let layers = [Layer { kept: GIB, experts: 0 }; 31];
        let counts = frame(&layers).fit(&[24 * GIB, 12 * GIB], 0, 0).unwrap();
        // 32 parts with the output: two thirds on the first.
        assert_eq!(counts, [22, 9]);
        let split = frame(&layers).described(Verdict::Fits, counts, 0, 0);
        assert!((split.devices.iter().map(|s| s.layers).sum::<f64>() - 1.0).abs() < 1e-9);
    }

    #[test]
    fn what_a_proportional_split_cannot_hold_is_filled_card_by_card() {
        // The last layers are large: in proportion, the second card would hold too much.
        let mut layers = [Layer { kept: GIB, experts: 0 }; 12];
        layers[6..].iter_mut().for_each(|l| l.kept = 2 * GIB);
        let counts = frame(&layers).fit(&[12 * GIB, 8 * GIB], 0, 0).unwrap();
        assert_eq!(counts, [9, 3]);
        assert_eq!(frame(&layers).fit(&[11 * GIB, 6 * GIB], 0, 0), None);
    }

    #[test]
    fn experts_leave_before_layers_do() {
        let layers = [Layer { kept: GIB, experts: 3 * GIB }; 8];
        let frame = frame(&layers);
        assert_eq!(frame.fit(&[12 * GIB], 0, 0), None);
        assert_eq!(frame.fit(&[12 * GIB], 0, 6), None);
        let counts = frame.fit(&[12 * GIB], 0, 7).unwrap();
        let split = frame.described(Verdict::ExpertsOnCpu { layers: 7, of: 8 }, counts, 0, 7);
        assert_eq!(split.on_host, Bytes(21 * GIB));
        assert_eq!(split.devices[0].layers, 1.0);
        assert!((split.devices[0].experts - 1.0 / 8.0).abs() < 1e-9);
        assert!((split.host.experts - 7.0 / 8.0).abs() < 1e-9);
        assert_eq!(split.host.layers, 0.0);
    }
}
