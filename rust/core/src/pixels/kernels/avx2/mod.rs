//! AVX2 with FMA. A multiplication takes two taps at once: bytes of two inputs are interleaved, widened to 16 bits and
//! summed in pairs by `madd`, which is exact in 32 bits; so the bits are those of the plain loops in any order.

use std::arch::x86_64::*;

mod convert;

use super::PictureKernels;
use super::table::{Set, table};
use crate::machine::cpu::{self, Isa};
use crate::pixels::convert::Formula;
use crate::pixels::taps::{LANES, LOW_BITS, Taps};

/// The loops for machines with AVX2 and FMA; nothing else gives this table, or what is in it, to the outside.
pub(super) fn kernels(_: cpu::Avx2) -> &'static PictureKernels {
    const { &table::<Avx2>() }
}

struct Avx2;

impl Set for Avx2 {
    const NAME: &str = Isa::Avx2.name();
    const REGISTER: usize = 32;

    #[target_feature(enable = "avx2,fma")]
    unsafe fn transpose(from: *const u8, from_stride: usize, to: *mut u8, to_stride: usize) {
        // SAFETY: the caller's promise is the same.
        unsafe {
            // Rows that lie apart come from, or go to, memory that is not in the first cache yet.
            match (from_stride > 4 * LANES, to_stride > 4 * LANES) {
                (true, _) => transpose::<true, false>(from, from_stride, to, to_stride),
                (_, true) => transpose::<false, true>(from, from_stride, to, to_stride),
                _ => transpose::<false, false>(from, from_stride, to, to_stride),
            }
        }
    }

    #[target_feature(enable = "avx2,fma")]
    unsafe fn weigh_rows(rows: &[&[u8]], taps: &Taps, output: usize, out: &mut [u8]) {
        // SAFETY: the caller's promise is the same.
        unsafe {
            match (taps.parts(), taps.count(output).div_ceil(2)) {
                // What enlarging takes: two, four and six taps.
                (1, 1) => weigh_rows_of_pairs::<1>(rows, taps, output, out),
                (1, 2) => weigh_rows_of_pairs::<2>(rows, taps, output, out),
                (1, 3) => weigh_rows_of_pairs::<3>(rows, taps, output, out),
                (1, _) => weigh_rows_of_many(rows, taps, output, out),
                _ => weigh_rows::<2>(rows, taps, output, out),
            }
        }
    }

    #[target_feature(enable = "avx2,fma")]
    unsafe fn weigh_pixels(block: &[u8], stride: usize, taps: &Taps, first: usize, out: &mut [u8]) {
        // SAFETY: the caller's promise is the same; the constant strides are the stride.
        unsafe {
            match (taps.parts(), stride) {
                (1, 96) => weigh_pixels_of_bytes::<3>(block, taps, first, out),
                (1, 128) => weigh_pixels_of_bytes::<4>(block, taps, first, out),
                (1, _) => weigh_pixels::<1>(block, stride, taps, first, out),
                _ => weigh_pixels::<2>(block, stride, taps, first, out),
            }
        }
    }

    #[target_feature(enable = "avx2,fma")]
    unsafe fn to_f32<const STREAM: bool>(bytes: &[u8], formula: &Formula, out: &mut [f32]) {
        // SAFETY: the caller's promise is the same.
        unsafe {
            if STREAM && !formula.scales() {
                convert::to_f32::<STREAM, false>(bytes, formula, out);
            } else {
                convert::to_f32::<STREAM, true>(bytes, formula, out);
            }
        }
    }

    #[target_feature(enable = "avx2,fma")]
    unsafe fn to_bf16(bytes: &[u8], formula: &Formula, out: &mut [u16]) {
        // SAFETY: the caller's promise is the same.
        unsafe { convert::to_bf16(bytes, formula, out) }
    }

    #[target_feature(enable = "avx2,fma")]
    unsafe fn fill(out: &mut [i64], value: i64) {
        let lanes = _mm256_set1_epi64x(value);
        for to in out.chunks_exact_mut(4) {
            // SAFETY: four values are a register, and the caller has seen to the alignment.
            unsafe { _mm256_stream_si256(to.as_mut_ptr().cast(), lanes) };
        }
    }

    fn fence() {
        fence();
    }
}

pub(super) fn fence() {
    // SAFETY: every x86-64 CPU has SSE.
    unsafe { _mm_sfence() };
}

/// The square, what it needs a few columns further on fetched meanwhile.
///
/// # Safety
/// There must be 32 rows of 32 bytes at both strides, and the machine must have AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
unsafe fn transpose<const FETCH_FROM: bool, const FETCH_TO: bool>(
    from: *const u8,
    from_stride: usize,
    to: *mut u8,
    to_stride: usize,
) {
    if FETCH_FROM {
        prefetch::<_MM_HINT_T0>(from, from_stride);
    }
    if FETCH_TO {
        prefetch::<_MM_HINT_ET0>(to, to_stride);
    }
    for half in 0..2 {
        // Register i holds 16 bytes of row i in its lower half and of row i + 16 in its upper half.
        let mut rows = [_mm256_setzero_si256(); 16];
        let mut lower = from.wrapping_add(half * 16);
        let mut upper = lower.wrapping_add(16 * from_stride);
        for row in &mut rows {
            // SAFETY: rows 0..32 of at least 32 bytes, as the caller asserted.
            unsafe {
                let lower = _mm_loadu_si128(lower.cast());
                let upper = _mm_loadu_si128(upper.cast());
                *row = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(lower), upper);
            }
            lower = lower.wrapping_add(from_stride);
            upper = upper.wrapping_add(from_stride);
        }
        // Interleaving row i with row i + 8 four times moves the index of the row into the index of the byte.
        for _ in 0..4 {
            let mut next = rows;
            for i in 0..8 {
                next[2 * i] = _mm256_unpacklo_epi8(rows[i], rows[i + 8]);
                next[2 * i + 1] = _mm256_unpackhi_epi8(rows[i], rows[i + 8]);
            }
            rows = next;
        }
        let mut place = to.wrapping_add(half * 16 * to_stride);
        for column in rows {
            // SAFETY: columns 0..32 of 32 bytes, as the caller asserted.
            unsafe { _mm256_storeu_si256(place.cast(), column) };
            place = place.wrapping_add(to_stride);
        }
    }
}

/// Ask for what the rows of a block hold a few columns further on.
#[inline]
fn prefetch<const HINT: i32>(rows: *const u8, stride: usize) {
    for row in 0..LANES {
        // SAFETY: a prefetch reads nothing, so any address will do.
        unsafe { _mm_prefetch::<HINT>(rows.wrapping_add(row * stride + 4 * LANES).cast()) };
    }
}

/// The weighted sum of rows, for weights of `PARTS` parts.
///
/// # Safety
/// [`check_rows`](super::checks::check_rows) must have passed, and the machine must have AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
unsafe fn weigh_rows<const PARTS: usize>(rows: &[&[u8]], taps: &Taps, output: usize, out: &mut [u8]) {
    for at in (0..out.len()).step_by(LANES) {
        // SAFETY: every row is at least as long as `out`, which is whole strips.
        let load = |tap: usize| unsafe { _mm256_loadu_si256(rows.get_unchecked(tap).as_ptr().add(at).cast()) };
        let strip = weigh::<PARTS>(load, taps, output);
        // SAFETY: `at` + 32 is within `out`.
        unsafe { _mm256_storeu_si256(out.as_mut_ptr().add(at).cast(), strip) };
    }
}

/// As `weigh_rows` for weights of one part and a known number of pairs: they stay in registers.
///
/// # Safety
/// [`check_rows`](super::checks::check_rows) must have passed, the output must have `PAIRS` pairs of taps, and the machine must have AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
unsafe fn weigh_rows_of_pairs<const PAIRS: usize>(rows: &[&[u8]], taps: &Taps, output: usize, out: &mut [u8]) {
    let weights: [__m256i; PAIRS] = std::array::from_fn(|pair| _mm256_set1_epi32(taps.pairs(output)[pair]));
    let last = taps.count(output) - 1;
    let pointers: [[*const u8; 2]; PAIRS] =
        std::array::from_fn(|pair| [2 * pair, (2 * pair + 1).min(last)].map(|tap| rows[tap].as_ptr()));
    let rounding = Rounding::of(taps);
    for at in (0..out.len()).step_by(LANES) {
        let mut sums = [rounding.half; 4];
        for pair in 0..PAIRS {
            let [a, b] = pointers[pair];
            // SAFETY: every row is at least as long as `out`, which is whole strips.
            let inputs = unsafe { (_mm256_loadu_si256(a.add(at).cast()), _mm256_loadu_si256(b.add(at).cast())) };
            add_pair(&mut sums, inputs.0, inputs.1, weights[pair]);
        }
        // SAFETY: `at` + 32 is within `out`.
        unsafe { _mm256_storeu_si256(out.as_mut_ptr().add(at).cast(), rounding.pack(sums)) };
    }
}

/// As `weigh_rows` for weights of one part, `STRIPS` at a time from `at` on: they share what is read of the weights.
///
/// # Safety
/// [`check_rows`](super::checks::check_rows) must have passed, `out` must have `STRIPS` strips from `at` on, and the machine must have AVX2 and FMA.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn weigh_strips<const STRIPS: usize>(rows: &[&[u8]], taps: &Taps, output: usize, at: usize, out: &mut [u8]) {
    let rounding = Rounding::of(taps);
    let mut sums = [[rounding.half; 4]; STRIPS];
    // SAFETY: every row is at least as long as `out`, which has `STRIPS` strips from `at` on.
    let load = |row: &[u8], strip: usize| unsafe { _mm256_loadu_si256(row.as_ptr().add(at + strip * LANES).cast()) };
    for (pair, &weights) in rows[..taps.count(output)].chunks(2).zip(taps.pairs(output)) {
        let weights = _mm256_set1_epi32(weights);
        // An odd window's last pair has a weight of zero for its second input.
        let (a, b) = (pair[0], pair[pair.len() - 1]);
        for (strip, sums) in sums.iter_mut().enumerate() {
            add_pair(sums, load(a, strip), load(b, strip), weights);
        }
    }
    for (strip, sums) in sums.into_iter().enumerate() {
        // SAFETY: `out` has `STRIPS` strips from `at` on.
        unsafe {
            let to = out.as_mut_ptr().add(at + strip * LANES);
            _mm256_storeu_si256(to.cast(), rounding.pack(sums));
        }
    }
}

/// As `weigh_rows` for weights of one part and any number of pairs.
///
/// # Safety
/// [`check_rows`](super::checks::check_rows) must have passed, and the machine must have AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
unsafe fn weigh_rows_of_many(rows: &[&[u8]], taps: &Taps, output: usize, out: &mut [u8]) {
    let whole = out.len() / (2 * LANES) * (2 * LANES);
    for at in (0..whole).step_by(2 * LANES) {
        // SAFETY: the caller asserted the lengths.
        unsafe { weigh_strips::<2>(rows, taps, output, at, out) };
    }
    if whole < out.len() {
        // SAFETY: the caller asserted the lengths; one strip is left.
        unsafe { weigh_strips::<1>(rows, taps, output, whole, out) };
    }
}

/// The weighted sums of pixels, for weights of `PARTS` parts.
///
/// # Safety
/// [`check_pixels`](super::checks::check_pixels) must have passed, and the machine must have AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
unsafe fn weigh_pixels<const PARTS: usize>(block: &[u8], stride: usize, taps: &Taps, first: usize, out: &mut [u8]) {
    for (index, pixel) in out.chunks_exact_mut(3 * LANES).enumerate() {
        let output = first + index;
        for channel in 0..3 {
            let base = taps.first(output) * stride + channel * LANES;
            // SAFETY: the caller asserted that the block reaches to the end of the window.
            let load = |tap: usize| unsafe { _mm256_loadu_si256(block.as_ptr().add(base + tap * stride).cast()) };
            let strip = weigh::<PARTS>(load, taps, output);
            // SAFETY: a pixel is three strips.
            unsafe { _mm256_storeu_si256(pixel.as_mut_ptr().add(channel * LANES).cast(), strip) };
        }
    }
}

/// As `weigh_pixels` for weights of one part, the stride a constant.
///
/// # Safety
/// [`check_pixels`](super::checks::check_pixels) must have passed for a stride of `BYTES` strips, and the machine must have AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
unsafe fn weigh_pixels_of_bytes<const BYTES: usize>(block: &[u8], taps: &Taps, first: usize, out: &mut [u8]) {
    let rounding = Rounding::of(taps);
    for (index, pixel) in out.chunks_exact_mut(3 * LANES).enumerate() {
        let output = first + index;
        let (pairs, whole) = (taps.pairs(output), taps.count(output) / 2);
        for channel in 0..3 {
            let base = taps.first(output) * BYTES * LANES + channel * LANES;
            // SAFETY: the caller asserted that the block reaches to the end of the window.
            let mut from = unsafe { block.as_ptr().add(base) };
            let mut sums = [rounding.half; 4];
            for &weights in &pairs[..whole] {
                // SAFETY: both inputs belong to the window, which the block holds.
                let (a, b) =
                    unsafe { (_mm256_loadu_si256(from.cast()), _mm256_loadu_si256(from.add(BYTES * LANES).cast())) };
                add_pair(&mut sums, a, b, _mm256_set1_epi32(weights));
                from = from.wrapping_add(2 * BYTES * LANES);
            }
            if let Some(&weights) = pairs.get(whole) {
                // SAFETY: the last input of an odd window, which the block holds; the second weight of its pair is zero.
                let a = unsafe { _mm256_loadu_si256(from.cast()) };
                add_pair(&mut sums, a, a, _mm256_set1_epi32(weights));
            }
            // SAFETY: a pixel is three strips.
            unsafe {
                let to = pixel.as_mut_ptr().add(channel * LANES);
                _mm256_storeu_si256(to.cast(), rounding.pack(sums));
            }
        }
    }
}

/// Add the products of 32 bytes of two inputs with their weights, in the order of `Rounding::pack`.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn add_pair(sums: &mut [__m256i; 4], a: __m256i, b: __m256i, weights: __m256i) {
    let zero = _mm256_setzero_si256();
    let (low, high) = (_mm256_unpacklo_epi8(a, b), _mm256_unpackhi_epi8(a, b));
    let inputs = [
        _mm256_unpacklo_epi8(low, zero),
        _mm256_unpackhi_epi8(low, zero),
        _mm256_unpacklo_epi8(high, zero),
        _mm256_unpackhi_epi8(high, zero),
    ];
    for (sum, input) in sums.iter_mut().zip(inputs) {
        *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(input, weights));
    }
}

/// From sums in the fixed point of the weights to bytes.
struct Rounding {
    half: __m256i,
    shift: __m128i,
}

impl Rounding {
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn of(taps: &Taps) -> Self {
        Self { half: _mm256_set1_epi32(taps.half()), shift: _mm_cvtsi32_si128(taps.precision() as i32) }
    }

    /// Shift, and clamp.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn pack(&self, sums: [__m256i; 4]) -> __m256i {
        let [a, b, c, d] = sums.map(|sum| _mm256_sra_epi32(sum, self.shift));
        _mm256_packus_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d))
    }
}

/// The weighted sum of 32 bytes of each input, rounded and clamped. With two parts a weight is `high << LOW_BITS | low`.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn weigh<const PARTS: usize>(load: impl Fn(usize) -> __m256i, taps: &Taps, output: usize) -> __m256i {
    let rounding = Rounding::of(taps);
    let mut sums = [[_mm256_setzero_si256(); 4]; PARTS];
    sums[PARTS - 1] = [rounding.half; 4];
    let (pairs, last) = (taps.pairs(output), taps.count(output) - 1);
    for (pair, weights) in pairs.chunks_exact(PARTS).enumerate() {
        // An odd window's last pair has a weight of zero for its second input.
        let (a, b) = (load(2 * pair), load((2 * pair + 1).min(last)));
        for (sums, &weights) in sums.iter_mut().zip(weights) {
            add_pair(sums, a, b, _mm256_set1_epi32(weights));
        }
    }
    let mut whole = sums[PARTS - 1];
    if PARTS == 2 {
        for (sum, high) in whole.iter_mut().zip(sums[0]) {
            *sum = _mm256_add_epi32(*sum, _mm256_slli_epi32::<{ LOW_BITS as i32 }>(high));
        }
    }
    rounding.pack(whole)
}
