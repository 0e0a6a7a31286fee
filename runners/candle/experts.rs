//! Mixtures of experts: each token goes through the few experts that its router chooses.

use crate::activations::{Activations, Forms, PANEL};
use crate::matrix::{Matrix, Product, multiply};
use crate::rows::Gate;
use crate::threads::{Shared, Threads};

/// The weights of a layer's experts.
pub struct Experts {
    /// Scores each expert for a token.
    pub router: Matrix,
    /// For each expert its gate, up and down weights.
    pub experts: Vec<[Matrix; 3]>,
    /// Experts of a token.
    pub used: usize,
}

/// A token with one of its experts.
#[derive(Clone, Copy)]
struct Choice {
    expert: usize,
    token: usize,
    weight: f32,
    /// Its row among the rows that are sorted by expert, each expert's from a panel on.
    row: usize,
}

/// Room for one step's tokens, made once.
#[derive(Default)]
pub struct Room {
    scores: Vec<f32>,
    choices: Vec<Choice>,
    /// Each active expert, its first row and its number of rows.
    groups: Vec<(usize, usize, usize)>,
    hidden: Vec<f32>,
    out: Vec<f32>,
    input: Activations,
    middle: Activations,
}

impl Experts {
    /// Rows of the sorted layout for `tokens` tokens.
    fn rows(&self, tokens: usize) -> usize {
        let choices = tokens * self.used;
        (choices + self.experts.len().min(choices) * (PANEL - 1)).next_multiple_of(PANEL)
    }

    fn forms(&self) -> (Forms, Forms) {
        let join = |forms: Forms, matrix: &Matrix| forms.or(matrix.forms());
        let experts = || self.experts.iter();
        (
            experts().flat_map(|e| &e[..2]).fold(Forms::default(), join),
            experts().map(|e| &e[2]).fold(Forms::default(), join),
        )
    }

    /// Makes room for `tokens` tokens.
    pub fn reserve(&self, room: &mut Room, tokens: usize) {
        let rows = self.rows(tokens);
        let [gate, _, down] = &self.experts[0];
        let grow = |room: &mut Vec<f32>, len: usize| room.resize(room.len().max(len), 0.0);
        grow(&mut room.scores, tokens * self.experts.len());
        grow(&mut room.hidden, rows * gate.n);
        grow(&mut room.out, rows * down.n);
        room.choices.reserve(tokens * self.used);
        room.groups.reserve(self.experts.len());
        let (input, middle) = self.forms();
        room.input.reserve(rows, gate.k, input);
        room.middle.reserve(rows, down.k, middle);
    }

    /// Bytes of weights.
    pub fn bytes(&self) -> usize {
        self.router.bytes() + self.experts.iter().flatten().map(Matrix::bytes).sum::<usize>()
    }

    /// Adds the experts' results for `tokens` rows to `out`. `routed` has the same rows in the
    /// router's form.
    pub fn run(
        &self,
        threads: Threads,
        room: &mut Room,
        gate: Gate,
        routed: &Activations,
        rows: &[f32],
        out: &mut [f32],
    ) -> anyhow::Result<()> {
        let hidden = self.router.k;
        let tokens = rows.len() / hidden;
        let count = self.experts.len();
        multiply(threads, routed, &[product(&self.router, 0, tokens, &mut room.scores)])?;
        choose(&room.scores[..tokens * count], count, self.used, &mut room.choices);
        room.place();

        let (input, middle) = self.forms();
        let choices = &room.choices;
        let row_of = |i: usize| choices[i].row;
        room.input.fill(threads, choices.len(), hidden, input, row_of, |i| {
            &rows[choices[i].token * hidden..][..hidden]
        });
        let width = self.experts[0][0].n;
        let shared = Shared::new(&mut room.hidden);
        let ups: Vec<_> = room
            .groups
            .iter()
            .map(|&(expert, row, rows)| {
                let [g, up, _] = &self.experts[expert];
                let gate = Some((g, gate));
                let (panel, offset, out) = (row / PANEL, row * width, shared);
                Product { gate, panel, rows, offset, stride: width, out, ..blank(up, shared) }
            })
            .collect();
        multiply(threads, &room.input, &ups)?;

        let values = &room.hidden;
        room.middle.fill(threads, choices.len(), width, middle, row_of, |i| {
            &values[choices[i].row * width..][..width]
        });
        let shared = Shared::new(&mut room.out);
        let downs: Vec<_> = room
            .groups
            .iter()
            .map(|&(expert, row, rows)| {
                let down = &self.experts[expert][2];
                let (panel, offset) = (row / PANEL, row * hidden);
                Product { panel, rows, offset, stride: hidden, ..blank(down, shared) }
            })
            .collect();
        multiply(threads, &room.middle, &downs)?;

        // By token again, in the order of the experts: the same sum on every run.
        for choice in &room.choices {
            let from = &room.out[choice.row * hidden..][..hidden];
            let to = &mut out[choice.token * hidden..][..hidden];
            for (to, &from) in to.iter_mut().zip(from) {
                *to += choice.weight * from;
            }
        }
        Ok(())
    }
}

impl Room {
    /// Bytes of the room.
    pub fn bytes(&self) -> usize {
        size_of_val(&self.scores[..])
            + size_of_val(&self.hidden[..])
            + size_of_val(&self.out[..])
            + self.input.bytes()
            + self.middle.bytes()
    }

    /// Sorts the choices by expert and gives each expert's rows their panels.
    fn place(&mut self) {
        self.choices.sort_by_key(|choice| (choice.expert, choice.token));
        self.groups.clear();
        let mut next = 0;
        for choice in &mut self.choices {
            match self.groups.last_mut() {
                Some((expert, first, rows)) if *expert == choice.expert => {
                    choice.row = *first + *rows;
                    *rows += 1;
                }
                _ => {
                    choice.row = usize::next_multiple_of(next, PANEL);
                    self.groups.push((choice.expert, choice.row, 1));
                }
            }
            next = choice.row + 1;
        }
    }
}

fn blank<'a>(matrix: &'a Matrix, out: Shared<f32>) -> Product<'a> {
    Product {
        matrix,
        gate: None,
        bias: None,
        panel: 0,
        rows: 0,
        out,
        offset: 0,
        stride: matrix.n,
        add: false,
    }
}

fn product<'a>(matrix: &'a Matrix, panel: usize, rows: usize, out: &mut [f32]) -> Product<'a> {
    Product { panel, rows, ..blank(matrix, Shared::new(out)) }
}

/// The `used` best experts of each token; their weights are the softmax over all experts,
/// normalised over the chosen ones.
fn choose(scores: &[f32], count: usize, used: usize, choices: &mut Vec<Choice>) {
    choices.clear();
    let mut order: Vec<usize> = Vec::with_capacity(count);
    for (token, scores) in scores.chunks_exact(count).enumerate() {
        order.clear();
        order.extend(0..count);
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
        order.truncate(used);
        // The softmax's denominator cancels out.
        let largest = scores[order[0]];
        let total: f32 = order.iter().map(|&e| (scores[e] - largest).exp()).sum();
        choices.extend(order.iter().map(|&expert| {
            let weight = (scores[expert] - largest).exp() / total;
            Choice { expert, token, weight, row: 0 }
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_experts_share_a_weight_of_one() {
        let mut choices = Vec::new();
        choose(&[0.0, 2.0, 1.0, -1.0, 5.0, 4.0, 4.5, 0.0], 4, 2, &mut choices);
        let experts: Vec<_> = choices.iter().map(|c| (c.token, c.expert)).collect();
        assert_eq!(experts, [(0, 1), (0, 2), (1, 0), (1, 2)]);
        for token in choices.chunks(2) {
            assert!((token[0].weight + token[1].weight - 1.0).abs() < 1e-6);
            assert!(token[0].weight > token[1].weight);
        }
        assert!((choices[0].weight - 1.0 / (1.0 + (-1.0_f32).exp())).abs() < 1e-6);
    }

    #[test]
    fn each_experts_rows_start_a_panel() {
        let choice = |expert, token| Choice { expert, token, weight: 1.0, row: 0 };
        let mut room = Room {
            choices: vec![choice(3, 0), choice(0, 0), choice(3, 1), choice(1, 1)],
            ..Room::default()
        };
        room.place();
        assert_eq!(room.groups, [(0, 0, 1), (1, 16, 1), (3, 32, 2)]);
        let rows: Vec<_> = room.choices.iter().map(|c| c.row).collect();
        assert_eq!(rows, [0, 16, 32, 33]);
    }
}
