//! Room for the rows of one step, made once.

use crate::activations::{Activations, Forms};
use crate::experts::Room;
use crate::rope::Rope;
use crate::rows::{rms_norm, rms_norm_in_place};
use crate::shape::Shape;
use crate::threads::{Shared, Threads};

/// Room for the rows of one step, made once.
pub struct Buffers {
    /// The residual stream.
    pub stream: Vec<f32>,
    /// Normed rows, and results that are normed before they join the stream.
    pub normed: Vec<f32>,
    /// Queries, keys and values of each row.
    pub projected: Vec<f32>,
    /// What attention gave.
    pub attended: Vec<f32>,
    /// Between gate and down.
    pub hidden: Vec<f32>,
    /// A row for each token whose logits are wanted.
    pub logits: Vec<f32>,
    /// The left sides of products.
    pub activations: Activations,
    /// The experts' own room.
    pub experts: Room,
    /// The turns of layers that see everything, and of layers with a window.
    pub ropes: [Rope; 2],
}

impl Buffers {
    /// Room for `rows` rows a step and the logits of `slots` of them.
    pub fn new(
        shape: &Shape,
        vocabulary: usize,
        rows: usize,
        slots: usize,
        ropes: [Rope; 2],
    ) -> Self {
        let room = |width: usize| vec![0.0; rows * width];
        Self {
            stream: room(shape.hidden),
            normed: room(shape.hidden),
            projected: room(shape.projected()),
            attended: room(shape.heads * shape.head_dim),
            hidden: room(if shape.experts.is_none() { shape.feed_forward } else { 0 }),
            logits: vec![0.0; slots * vocabulary],
            activations: Activations::default(),
            experts: Room::default(),
            ropes,
        }
    }

    /// Bytes of the room.
    pub fn bytes(&self) -> usize {
        let floats = [
            &self.stream,
            &self.normed,
            &self.projected,
            &self.attended,
            &self.hidden,
            &self.logits,
        ];
        floats.iter().map(|f| size_of_val(&f[..])).sum::<usize>()
            + self.activations.bytes()
            + self.experts.bytes()
            + self.ropes.iter().map(Rope::bytes).sum::<usize>()
    }

    /// The stream's rows, normed, as activations.
    pub fn norm(
        &mut self,
        threads: Threads,
        norm: &[f32],
        shape: &Shape,
        rows: usize,
        forms: Forms,
    ) {
        let (stream, hidden) = (&self.stream, shape.hidden);
        let normed = Shared::new(&mut self.normed);
        self.activations.fill(
            threads,
            rows,
            hidden,
            forms,
            |i| i,
            |i| {
                // SAFETY: each row has its own part.
                let row = unsafe { normed.part(i * hidden..(i + 1) * hidden) };
                rms_norm(&stream[i * hidden..][..hidden], norm, shape.norm_eps, row);
                row
            },
        );
    }

    /// Norms the rows of results and adds them to the stream.
    pub fn join(&mut self, threads: Threads, norm: &[f32], shape: &Shape, rows: usize) {
        let hidden = shape.hidden;
        let normed = Shared::new(&mut self.normed);
        let stream = Shared::new(&mut self.stream);
        threads.share(rows, 8, |range| {
            for i in range {
                // SAFETY: each row has its own parts.
                let (row, stream) = unsafe {
                    let range = i * hidden..(i + 1) * hidden;
                    (normed.part(range.clone()), stream.part(range))
                };
                rms_norm_in_place(row, norm, shape.norm_eps);
                for (x, &y) in stream.iter_mut().zip(row.iter()) {
                    *x += y;
                }
            }
        });
    }

    /// Moves the rows that are kept to the front.
    pub fn keep(&mut self, rows: &[usize], hidden: usize, width: usize) {
        for (to, &from) in rows.iter().enumerate() {
            self.stream.copy_within(from * hidden..(from + 1) * hidden, to * hidden);
            self.attended.copy_within(from * width..(from + 1) * width, to * width);
        }
    }
}
