//! The keys and values of all sequences, made once at full size.

use half::f16;

use crate::simd::Element;
use crate::threads::Shared;

/// Positions of a tile of keys.
pub const TILE: usize = 16;

/// Keys and values of every layer and sequence.
///
/// Keys lie in tiles of sixteen positions, in a tile first the first value of all sixteen, then the
/// second …: products with a query need no sums across lanes. Values lie position by position.
pub struct Cache<E> {
    keys: Vec<E>,
    values: Vec<E>,
    /// Heads of a layer.
    heads: usize,
    /// Sequences.
    slots: usize,
    /// Positions of a sequence, a multiple of [`TILE`].
    positions: usize,
    /// Width of a head.
    dim: usize,
}

/// The cache in the element type of the settings.
pub enum AnyCache {
    /// Halves, as llama.cpp's default.
    F16(Cache<f16>),
    /// Floats.
    F32(Cache<f32>),
}

impl<E: Element> Cache<E> {
    /// An empty cache.
    pub fn new(layers: usize, heads: usize, dim: usize, slots: usize, positions: usize) -> Self {
        let positions = positions.next_multiple_of(TILE);
        let len = layers * slots * heads * positions * dim;
        let (keys, values) = (vec![E::default(); len], vec![E::default(); len]);
        Self { keys, values, heads, slots, positions, dim }
    }

    /// Bytes of the cache.
    pub fn bytes(&self) -> usize {
        size_of_val(&self.keys[..]) + size_of_val(&self.values[..])
    }

    /// Positions that a sequence has room for.
    pub fn positions(&self) -> usize {
        self.positions
    }

    fn start(&self, layer: usize, slot: usize, head: usize) -> usize {
        ((layer * self.slots + slot) * self.heads + head) * self.positions * self.dim
    }

    /// The keys and values of one head.
    pub fn head(&self, layer: usize, slot: usize, head: usize) -> (&[E], &[E]) {
        let range = self.start(layer, slot, head)..self.start(layer, slot, head + 1);
        (&self.keys[range.clone()], &self.values[range])
    }

    /// A handle that several threads write positions through.
    pub fn writer(&mut self) -> Writer<'_, E> {
        let keys = Shared::new(&mut self.keys);
        let values = Shared::new(&mut self.values);
        Writer { keys, values, cache: self }
    }
}

/// Writes positions of a [`Cache`].
pub struct Writer<'a, E> {
    keys: Shared<E>,
    values: Shared<E>,
    cache: &'a Cache<E>,
}

impl<E: Element> Writer<'_, E> {
    /// # Safety
    /// No other thread writes or reads this position of this head.
    #[inline]
    pub unsafe fn write(
        &self,
        (layer, slot, head): (usize, usize, usize),
        position: usize,
        key: &[f32],
        value: &[f32],
    ) {
        let (start, dim) = (self.cache.start(layer, slot, head), self.cache.dim);
        assert!(position < self.cache.positions);
        let first = start + position / TILE * TILE * dim + position % TILE;
        for (i, &key) in key.iter().enumerate() {
            let at = first + i * TILE;
            // SAFETY: the caller's promise; positions of a tile lie in each other's gaps.
            unsafe { self.keys.part(at..at + 1)[0] = E::narrow(key) };
        }
        let first = start + position * dim;
        // SAFETY: the caller's promise.
        let room = unsafe { self.values.part(first..first + dim) };
        for (room, &value) in room.iter_mut().zip(value) {
            *room = E::narrow(value);
        }
    }
}
