//! Sixteen floats at a time: AVX-512 registers where the build has them, arrays elsewhere, with the
//! same results.

use half::{bf16, f16};

#[cfg(target_feature = "avx512f")]
use std::arch::x86_64::*;

/// Floats in a [`Lanes`].
pub const LANES: usize = 16;

#[cfg(target_feature = "avx512f")]
type Repr = __m512;
#[cfg(not(target_feature = "avx512f"))]
type Repr = [f32; LANES];

/// Sixteen floats.
#[derive(Clone, Copy)]
pub struct Lanes(pub Repr);

/// An element type of weights and caches that is widened to `f32` for computing.
pub trait Element: Copy + Send + Sync + Default + 'static {
    /// The nearest value.
    fn narrow(value: f32) -> Self;
    /// The exact value.
    fn widen(self) -> f32;
    /// Sixteen values.
    ///
    /// # Safety
    /// Sixteen elements can be read at `from`.
    unsafe fn load(from: *const Self) -> Lanes;
}

impl Element for f32 {
    fn narrow(value: f32) -> Self {
        value
    }
    fn widen(self) -> f32 {
        self
    }
    #[inline(always)]
    unsafe fn load(from: *const Self) -> Lanes {
        // SAFETY: the caller's promise.
        unsafe { Lanes::load(from) }
    }
}

impl Element for f16 {
    fn narrow(value: f32) -> Self {
        f16::from_f32(value)
    }
    fn widen(self) -> f32 {
        self.to_f32()
    }
    #[inline(always)]
    unsafe fn load(from: *const Self) -> Lanes {
        #[cfg(target_feature = "avx512f")]
        // SAFETY: the caller's promise; `f16` is two bytes of IEEE half precision.
        unsafe {
            Lanes(_mm512_cvtph_ps(_mm256_loadu_si256(from.cast())))
        }
        #[cfg(not(target_feature = "avx512f"))]
        // SAFETY: the caller's promise.
        unsafe {
            Lanes((*from.cast::<[f16; LANES]>()).map(f16::to_f32))
        }
    }
}

impl Element for bf16 {
    fn narrow(value: f32) -> Self {
        bf16::from_f32(value)
    }
    fn widen(self) -> f32 {
        self.to_f32()
    }
    #[inline(always)]
    unsafe fn load(from: *const Self) -> Lanes {
        #[cfg(target_feature = "avx512f")]
        // SAFETY: the caller's promise; a `bf16` is the upper half of an `f32`.
        unsafe {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
            Lanes(_mm512_castsi512_ps(_mm512_slli_epi32(wide, 16)))
        }
        #[cfg(not(target_feature = "avx512f"))]
        // SAFETY: the caller's promise.
        unsafe {
            Lanes((*from.cast::<[bf16; LANES]>()).map(bf16::to_f32))
        }
    }
}

/// The two implementations of a lane-wise operation.
macro_rules! lanewise {
    ($($(#[$doc:meta])* $name:ident($($arg:ident),*) = $intrinsic:expr, $portable:expr;)*) => {$(
        $(#[$doc])*
        #[inline(always)]
        #[must_use]
        pub fn $name(self $(, $arg: Self)*) -> Self {
            #[cfg(target_feature = "avx512f")]
            // SAFETY: the build has AVX-512F.
            #[allow(unused_unsafe)]
            unsafe {
                Self($intrinsic(self.0 $(, $arg.0)*))
            }
            #[cfg(not(target_feature = "avx512f"))]
            {
                Self(std::array::from_fn(|i| $portable(self.0[i] $(, $arg.0[i])*)))
            }
        }
    )*};
}

impl Lanes {
    /// All zero.
    #[inline(always)]
    pub fn zero() -> Self {
        Self::splat(0.0)
    }

    /// All `value`.
    #[inline(always)]
    pub fn splat(value: f32) -> Self {
        #[cfg(target_feature = "avx512f")]
        // SAFETY: the build has AVX-512F.
        #[allow(unused_unsafe)]
        unsafe {
            Self(_mm512_set1_ps(value))
        }
        #[cfg(not(target_feature = "avx512f"))]
        Self([value; LANES])
    }

    /// # Safety
    /// Sixteen floats can be read at `from`.
    #[inline(always)]
    pub unsafe fn load(from: *const f32) -> Self {
        #[cfg(target_feature = "avx512f")]
        // SAFETY: the caller's promise.
        unsafe {
            Self(_mm512_loadu_ps(from))
        }
        #[cfg(not(target_feature = "avx512f"))]
        // SAFETY: the caller's promise.
        unsafe {
            Self(*from.cast::<Repr>())
        }
    }

    /// # Safety
    /// Sixteen floats can be written at `to`.
    #[inline(always)]
    pub unsafe fn store(self, to: *mut f32) {
        #[cfg(target_feature = "avx512f")]
        // SAFETY: the caller's promise.
        unsafe {
            _mm512_storeu_ps(to, self.0);
        }
        #[cfg(not(target_feature = "avx512f"))]
        // SAFETY: the caller's promise.
        unsafe {
            *to.cast::<Repr>() = self.0;
        }
    }

    /// The values, which are whole numbers from -128 to 127, as bytes.
    #[inline(always)]
    pub fn store_bytes(self, to: &mut [i8]) {
        assert!(to.len() >= LANES);
        #[cfg(target_feature = "avx512f")]
        // SAFETY: sixteen bytes are there.
        unsafe {
            let bytes = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(self.0));
            _mm_storeu_si128(to.as_mut_ptr().cast(), bytes);
        }
        #[cfg(not(target_feature = "avx512f"))]
        for (byte, value) in to.iter_mut().zip(self.0) {
            *byte = value as i8;
        }
    }

    /// The values as an array.
    #[inline(always)]
    pub fn to_array(self) -> [f32; LANES] {
        let mut array = [0.0; LANES];
        // SAFETY: the array has sixteen floats.
        unsafe { self.store(array.as_mut_ptr()) };
        array
    }

    lanewise! {
        /// `self + other`
        add(other) = _mm512_add_ps, |a: f32, b: f32| a + b;
        /// `self - other`
        sub(other) = _mm512_sub_ps, |a: f32, b: f32| a - b;
        /// `self × other`
        mul(other) = _mm512_mul_ps, |a: f32, b: f32| a * b;
        /// `self ÷ other`
        div(other) = _mm512_div_ps, |a: f32, b: f32| a / b;
        /// The larger ones.
        max(other) = _mm512_max_ps, |a: f32, b: f32| if a > b { a } else { b };
        /// The smaller ones.
        min(other) = _mm512_min_ps, |a: f32, b: f32| if a < b { a } else { b };
        /// `self × factor + addend`, rounded once.
        mul_add(factor, addend) = _mm512_fmadd_ps, |a: f32, b: f32, c: f32| a.mul_add(b, c);
        /// The magnitudes.
        abs() = _mm512_abs_ps, f32::abs;
        /// The nearest whole numbers.
        round() = (|x| _mm512_roundscale_ps::<0>(x)), f32::round_ties_even;
    }

    /// The sum of all lanes.
    #[inline(always)]
    pub fn sum(self) -> f32 {
        self.fold(|a, b| a + b)
    }

    /// The largest lane.
    #[inline(always)]
    pub fn largest(self) -> f32 {
        self.fold(f32::max)
    }

    /// Halves folded onto each other, in one order on every machine.
    #[inline(always)]
    fn fold(self, join: impl Fn(f32, f32) -> f32) -> f32 {
        let mut values = self.to_array();
        for width in [8, 4, 2, 1] {
            for i in 0..width {
                values[i] = join(values[i], values[i + width]);
            }
        }
        values[0]
    }

    /// e to the power of each lane, within 2 units in the last place; 0 below -87.3.
    #[inline(always)]
    pub fn exp(self) -> Self {
        // exp(x) = 2^n · exp(r), |r| ≤ ln 2 / 2, with ln 2 in two parts (Cody and Waite).
        let clamped = self.max(Self::splat(-87.33)).min(Self::splat(88.7));
        let n = clamped.mul(Self::splat(std::f32::consts::LOG2_E)).round();
        let r = n.mul_add(Self::splat(-0.693_359_4), clamped);
        let r = n.mul_add(Self::splat(2.121_944_4e-4), r);
        // The Taylor series to r^6: the rest is below 2^-26 on this range.
        let mut p = Self::splat(1.0 / 720.0);
        for c in [1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
            p = p.mul_add(r, Self::splat(c));
        }
        let result = p.times_power_of_two(n);
        #[cfg(target_feature = "avx512f")]
        // SAFETY: the build has AVX-512F.
        #[allow(unused_unsafe)]
        unsafe {
            let live = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(self.0, _mm512_set1_ps(-87.33));
            Self(_mm512_maskz_mov_ps(live, result.0))
        }
        #[cfg(not(target_feature = "avx512f"))]
        Self(std::array::from_fn(|i| if self.0[i] > -87.33 { result.0[i] } else { 0.0 }))
    }

    #[inline(always)]
    fn times_power_of_two(self, n: Self) -> Self {
        #[cfg(target_feature = "avx512f")]
        // SAFETY: the build has AVX-512F.
        #[allow(unused_unsafe)]
        unsafe {
            Self(_mm512_scalef_ps(self.0, n.0))
        }
        #[cfg(not(target_feature = "avx512f"))]
        Self(std::array::from_fn(|i| {
            // Two factors: 2^128 alone would be infinite where the product is not.
            let half = (n.0[i] * 0.5).trunc();
            let power = |e: f32| f32::from_bits(((e as i32 + 127) as u32) << 23);
            self.0[i] * power(half) * power(n.0[i] - half)
        }))
    }
}

/// Applies `f` to the values of `row`, sixteen at a time; what stands beyond a short row's end is 0.
#[inline(always)]
pub fn map_in_place(row: &mut [f32], f: impl Fn(Lanes) -> Lanes) {
    let mut chunks = row.chunks_exact_mut(LANES);
    for chunk in &mut chunks {
        // SAFETY: the chunk has sixteen floats.
        unsafe { f(Lanes::load(chunk.as_ptr())).store(chunk.as_mut_ptr()) };
    }
    let rest = chunks.into_remainder();
    if !rest.is_empty() {
        let mut padded = [0.0; LANES];
        padded[..rest.len()].copy_from_slice(rest);
        // SAFETY: the array has sixteen floats.
        let result = f(unsafe { Lanes::load(padded.as_ptr()) }).to_array();
        rest.copy_from_slice(&result[..rest.len()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_exact_to_a_few_units_in_the_last_place() {
        for i in -8700..8800 {
            let x = i as f32 / 100.0;
            let got = Lanes::splat(x).exp().to_array()[3];
            let want = f64::from(x).exp();
            assert!((f64::from(got) - want).abs() <= 4e-7 * want, "exp({x}) is {want}, not {got}");
        }
        assert_eq!(Lanes::splat(f32::NEG_INFINITY).exp().to_array()[0], 0.0);
        assert_eq!(Lanes::zero().exp().to_array()[0], 1.0);
    }

    #[test]
    fn narrow_types_are_widened_exactly() {
        let values: Vec<f32> = (0..16).map(|i| i as f32 * 0.375 - 2.0).collect();
        let halves: Vec<f16> = values.iter().map(|&v| f16::from_f32(v)).collect();
        let brains: Vec<bf16> = values.iter().map(|&v| bf16::from_f32(v)).collect();
        // SAFETY: each vector has sixteen elements.
        unsafe {
            assert_eq!(f16::load(halves.as_ptr()).to_array().to_vec(), values);
            assert_eq!(bf16::load(brains.as_ptr()).to_array().to_vec(), values);
        }
    }

    #[test]
    fn sums_and_maxima_take_every_lane() {
        let values: [f32; 16] = std::array::from_fn(|i| i as f32);
        // SAFETY: the array has sixteen floats.
        let lanes = unsafe { Lanes::load(values.as_ptr()) };
        assert_eq!((lanes.sum(), lanes.largest()), (120.0, 15.0));
    }

    #[test]
    fn rows_of_any_length_are_mapped_whole() {
        let mut row: Vec<f32> = (0..21).map(|i| i as f32).collect();
        map_in_place(&mut row, |x| x.add(Lanes::splat(1.0)));
        assert!(row.iter().enumerate().all(|(i, &v)| v == i as f32 + 1.0));
    }
}
