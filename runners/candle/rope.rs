//! Rotary position embeddings, with the scalings that GGUF files ask for.

/// Which values of a head turn together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pairs {
    /// 0 with 1, 2 with 3 …
    Adjacent,
    /// 0 with the first of the second half …
    Halves,
}

/// How positions become angles.
#[derive(Clone, Debug)]
pub struct Scaling {
    /// Which values turn together.
    pub pairs: Pairs,
    /// Values of a head that turn.
    pub dims: usize,
    /// The base of the frequencies.
    pub base: f32,
    /// Factor of all positions.
    pub frequency_scale: f32,
    /// Whether low frequencies are scaled and high ones kept (YaRN, arXiv:2309.00071).
    pub yarn: bool,
    /// Factor of the turned values.
    pub attention_factor: f32,
    /// Tokens that the model was trained with before scaling.
    pub original_tokens: usize,
}

/// Angles per position, and the cosines and sines of one step's positions.
pub struct Rope {
    pairs: Pairs,
    /// The angle of position 1 for each pair.
    frequencies: Vec<f64>,
    magnitude: f32,
    /// For each token of the step `dims / 2` cosines, then as many sines.
    turns: Vec<f32>,
}

impl Rope {
    /// `factors` divide the frequencies, where the file has them.
    pub fn new(scaling: &Scaling, factors: Option<&[f32]>, tokens: usize) -> Self {
        let half = scaling.dims / 2;
        let dims = scaling.dims as f64;
        let base = f64::from(scaling.base);
        let scale = f64::from(scaling.frequency_scale);
        // The pair that turns `turns` times over the original context; YaRN's section 3.2, with
        // the paper's 32 and 1 turns as the ends of the ramp.
        let pair_of = |turns: f64| {
            let wavelength = scaling.original_tokens as f64 / (turns * std::f64::consts::TAU);
            dims * wavelength.ln() / (2.0 * base.ln())
        };
        let low = pair_of(32.0).floor().max(0.0);
        let high = pair_of(1.0).ceil().min(dims - 1.0);
        let frequencies = (0..half)
            .map(|i| {
                let factor = factors.map_or(1.0, |f| f64::from(f[i]));
                let frequency = base.powf(-2.0 * i as f64 / dims) / factor;
                let kept = if scaling.yarn {
                    1.0 - ((i as f64 - low) / (high - low).max(0.001)).clamp(0.0, 1.0)
                } else {
                    0.0
                };
                frequency * (scale * (1.0 - kept) + kept)
            })
            .collect();
        let mut magnitude = scaling.attention_factor;
        if scaling.yarn && scaling.frequency_scale < 1.0 {
            magnitude *= 1.0 + 0.1 * (1.0 / scaling.frequency_scale).ln();
        }
        Self { pairs: scaling.pairs, frequencies, magnitude, turns: vec![0.0; tokens * half * 2] }
    }

    /// Bytes of the tables.
    pub fn bytes(&self) -> usize {
        size_of_val(&self.turns[..])
    }

    /// Works out the angles of a step's tokens.
    pub fn set_positions(&mut self, positions: impl Iterator<Item = u32>) {
        let half = self.frequencies.len();
        for (position, turns) in positions.zip(self.turns.chunks_exact_mut(2 * half)) {
            let (cosines, sines) = turns.split_at_mut(half);
            for (i, frequency) in self.frequencies.iter().enumerate() {
                let (sine, cosine) = reduced(f64::from(position) * frequency).sin_cos();
                cosines[i] = cosine * self.magnitude;
                sines[i] = sine * self.magnitude;
            }
        }
    }

    /// The cosines and the sines of the step's first `tokens` tokens.
    pub fn tables(&self, tokens: usize) -> (Vec<f32>, Vec<f32>) {
        let half = self.frequencies.len();
        let rows = || self.turns.chunks_exact(2 * half).take(tokens);
        (
            rows().flat_map(|row| &row[..half]).copied().collect(),
            rows().flat_map(|row| &row[half..]).copied().collect(),
        )
    }

    /// Turns one head of the step's token `token`.
    #[inline]
    pub fn turn(&self, token: usize, head: &mut [f32]) {
        let half = self.frequencies.len();
        let (cosines, sines) = self.turns[token * 2 * half..][..2 * half].split_at(half);
        match self.pairs {
            Pairs::Halves => {
                let (first, second) = head[..2 * half].split_at_mut(half);
                for i in 0..half {
                    let (a, b) = (first[i], second[i]);
                    first[i] = a * cosines[i] - b * sines[i];
                    second[i] = a * sines[i] + b * cosines[i];
                }
            }
            Pairs::Adjacent => {
                for (i, pair) in head[..2 * half].as_chunks_mut::<2>().0.iter_mut().enumerate() {
                    let [a, b] = *pair;
                    *pair = [a * cosines[i] - b * sines[i], a * sines[i] + b * cosines[i]];
                }
            }
        }
    }
}

/// An angle within one turn, small enough for `f32`.
fn reduced(angle: f64) -> f32 {
    (angle % std::f64::consts::TAU) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(pairs: Pairs) -> Scaling {
        Scaling {
            pairs,
            dims: 4,
            base: 10_000.0,
            frequency_scale: 1.0,
            yarn: false,
            attention_factor: 1.0,
            original_tokens: 1000,
        }
    }

    #[test]
    fn the_first_pair_turns_by_one_radian_a_position() {
        for (pairs, other) in [(Pairs::Adjacent, 1), (Pairs::Halves, 2)] {
            let mut rope = Rope::new(&plain(pairs), None, 2);
            rope.set_positions([0, 3].into_iter());
            let mut head = [1.0, 0.0, 0.0, 0.0];
            rope.turn(0, &mut head);
            assert_eq!(head, [1.0, 0.0, 0.0, 0.0]);
            rope.turn(1, &mut head);
            assert!((head[0] - 3.0_f32.cos()).abs() < 1e-6);
            assert!((head[other] - 3.0_f32.sin()).abs() < 1e-6);
        }
    }

    #[test]
    fn yarn_keeps_high_frequencies_and_scales_low_ones() {
        let scaling = Scaling {
            dims: 128,
            base: 1e6,
            frequency_scale: 0.25,
            yarn: true,
            original_tokens: 32_768,
            ..plain(Pairs::Halves)
        };
        let scaled = Rope::new(&scaling, None, 1);
        let unscaled =
            Rope::new(&Scaling { yarn: false, frequency_scale: 1.0, ..scaling }, None, 1);
        let ratio = |i: usize| scaled.frequencies[i] / unscaled.frequencies[i];
        assert_eq!(ratio(0), 1.0);
        assert!((ratio(63) - 0.25).abs() < 1e-9);
        assert!((scaled.magnitude - (1.0 + 0.1 * 4.0_f32.ln())).abs() < 1e-6);
    }

    #[test]
    fn factors_divide_the_frequencies() {
        let rope = Rope::new(&plain(Pairs::Halves), Some(&[1.0, 8.0]), 1);
        assert_eq!(rope.frequencies, [1.0, 0.01 / 8.0]);
    }
}
