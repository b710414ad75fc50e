//! AVX-512 with byte products (VNNI). A multiplication takes four taps at once: bytes of four inputs are interleaved and
//! multiplied with the digits of their weights, unsigned times signed; the sums are exact in 32 bits, so the bits are
//! those of the plain loops in any order.

use std::arch::x86_64::*;

use super::table::{Set, table};
use super::{PictureKernels, avx2};
use crate::machine::cpu::{Avx512Vnni, Isa};
use crate::pixels::convert::Formula;
use crate::pixels::taps::{LANES, Taps};

/// The loops for machines with AVX-512 VNNI; nothing else gives this table, or what is in it, to the outside. Machines
/// that have AVX-512 but no byte products (before 2019) use AVX2.
pub(super) fn kernels(_: Avx512Vnni) -> &'static PictureKernels {
    const { &table::<Avx512>() }
}

struct Avx512;

impl Set for Avx512 {
    const NAME: &str = Isa::Avx512Vnni.name();
    const REGISTER: usize = 64;

    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn transpose(from: *const u8, from_stride: usize, to: *mut u8, to_stride: usize) {
        // SAFETY: the caller's promise is the same.
        unsafe { transpose(from, from_stride, to, to_stride) }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    unsafe fn weigh_rows(rows: &[&[u8]], taps: &Taps, output: usize, out: &mut [u8]) {
        // SAFETY: the caller's promise is the same.
        unsafe {
            match taps.digits() {
                2 => weigh_rows::<2>(rows, taps, output, out),
                _ => weigh_rows::<3>(rows, taps, output, out),
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    unsafe fn weigh_pixels(block: &[u8], stride: usize, taps: &Taps, first: usize, out: &mut [u8]) {
        // SAFETY: the caller's promise is the same.
        unsafe {
            match taps.digits() {
                2 => weigh_pixels::<2>(block, stride, taps, first, out),
                _ => weigh_pixels::<3>(block, stride, taps, first, out),
            }
        }
    }

    #[target_feature(enable = "avx512f")]
    unsafe fn to_f32<const STREAM: bool>(bytes: &[u8], formula: &Formula, out: &mut [f32]) {
        // SAFETY: the caller's promise is the same.
        unsafe { to_f32::<STREAM>(bytes, formula, out) }
    }

    #[target_feature(enable = "avx512f,avx512vl")]
    unsafe fn to_bf16(bytes: &[u8], formula: &Formula, out: &mut [u16]) {
        // SAFETY: the caller's promise is the same.
        unsafe { to_bf16(bytes, formula, out) }
    }

    #[target_feature(enable = "avx512f")]
    unsafe fn fill(out: &mut [i64], value: i64) {
        let lanes = _mm512_set1_epi64(value);
        for to in out.chunks_exact_mut(8) {
            // SAFETY: eight values are a register, and the caller has seen to the alignment.
            unsafe { _mm512_stream_si512(to.as_mut_ptr().cast(), lanes) };
        }
    }

    fn fence() {
        avx2::fence();
    }
}

/// The square, two rows in a register.
///
/// # Safety
/// There must be 32 rows of 32 bytes at both strides, and the machine must have AVX-512 F, BW, VL and VNNI.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn transpose(from: *const u8, from_stride: usize, to: *mut u8, to_stride: usize) {
    // Register i holds the 32 bytes of row i, then those of row i + 16.
    let mut rows = [_mm512_setzero_si512(); 16];
    for (i, row) in rows.iter_mut().enumerate() {
        // SAFETY: rows 0..32 of at least 32 bytes, as the caller asserted.
        unsafe {
            let upper = _mm256_loadu_si256(from.add(i * from_stride).cast());
            let lower = _mm256_loadu_si256(from.add((i + 16) * from_stride).cast());
            *row = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(upper), lower);
        }
    }
    // Interleaving row i with row i + 8 four times moves the index of the row into the index of the byte.
    for _ in 0..4 {
        let mut next = rows;
        for i in 0..8 {
            next[2 * i] = _mm512_unpacklo_epi8(rows[i], rows[i + 8]);
            next[2 * i + 1] = _mm512_unpackhi_epi8(rows[i], rows[i + 8]);
        }
        rows = next;
    }
    for (j, &columns) in rows.iter().enumerate() {
        // Quarters: column j of rows 0..16, column j + 16 of them, and the same of rows 16..32.
        let columns = _mm512_shuffle_i64x2::<0b11_01_10_00>(columns, columns);
        // SAFETY: columns 0..32 of 32 bytes, as the caller asserted.
        unsafe {
            let (near, far) = (to.add(j * to_stride), to.add((j + 16) * to_stride));
            _mm256_storeu_si256(near.cast(), _mm512_castsi512_si256(columns));
            _mm256_storeu_si256(far.cast(), _mm512_extracti64x4_epi64::<1>(columns));
        }
    }
}

/// The weighted sum of rows, for weights of `DIGITS` digits.
///
/// # Safety
/// [`check_rows`](super::checks::check_rows) must have passed, and the machine must have AVX-512 F, BW, VL and VNNI.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn weigh_rows<const DIGITS: usize>(rows: &[&[u8]], taps: &Taps, output: usize, out: &mut [u8]) {
    // SAFETY: every row is at least as long as `out`, which is whole strips.
    unsafe {
        let to = out.as_mut_ptr();
        let whole = out.len() / 64 * 64;
        for at in (0..whole).step_by(64) {
            let load = |tap: usize| _mm512_loadu_si512(rows.get_unchecked(tap).as_ptr().add(at).cast());
            _mm512_storeu_si512(to.add(at).cast(), weigh_64::<DIGITS>(load, taps, output));
        }
        if whole < out.len() {
            let load = |tap: usize| _mm256_loadu_si256(rows.get_unchecked(tap).as_ptr().add(whole).cast());
            _mm256_storeu_si256(to.add(whole).cast(), weigh_32::<DIGITS>(load, taps, output));
        }
    }
}

/// The weighted sums of pixels, for weights of `DIGITS` digits.
///
/// # Safety
/// [`check_pixels`](super::checks::check_pixels) must have passed, and the machine must have AVX-512 F, BW, VL and VNNI.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn weigh_pixels<const DIGITS: usize>(block: &[u8], stride: usize, taps: &Taps, first: usize, out: &mut [u8]) {
    for (index, pixel) in out.chunks_exact_mut(3 * LANES).enumerate() {
        let output = first + index;
        // SAFETY: the caller asserted that the block reaches to the end of the window; a pixel is three strips.
        unsafe {
            let from = block.as_ptr().add(taps.first(output) * stride);
            let load = |tap: usize| _mm512_loadu_si512(from.add(tap * stride).cast());
            let strips = weigh_64::<DIGITS>(load, taps, output);
            _mm512_storeu_si512(pixel.as_mut_ptr().cast(), strips);
            let load = |tap: usize| _mm256_loadu_si256(from.add(tap * stride + 64).cast());
            let strip = weigh_32::<DIGITS>(load, taps, output);
            _mm256_storeu_si256(pixel.as_mut_ptr().add(64).cast(), strip);
        }
    }
}

/// Defines the weighted sum of a register of bytes of each input, rounded and clamped, for a width of registers.
macro_rules! weigh {
    (
        $name:ident, $register:ty, $zero:ident, $spread:ident, $add:ident, $dot:ident, $shift_left:ident, $shift_right:ident,
        [$low_bytes:ident, $high_bytes:ident, $low_words:ident, $high_words:ident], [$pack:ident, $pack_unsigned:ident]
    ) => {
        #[inline]
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
        fn $name<const DIGITS: usize>(load: impl Fn(usize) -> $register, taps: &Taps, output: usize) -> $register {
            let mut sums = [[$zero(); 4]; DIGITS];
            let last = taps.count(output) - 1;
            for (quad, weights) in taps.quads(output).chunks_exact(DIGITS).enumerate() {
                // Weights after the last tap are zeros.
                let input = |tap: usize| load((4 * quad + tap).min(last));
                let (a, b, c, d) = (input(0), input(1), input(2), input(3));
                let (ab, cd) = ($low_bytes(a, b), $low_bytes(c, d));
                let (ab_high, cd_high) = ($high_bytes(a, b), $high_bytes(c, d));
                let inputs = [
                    $low_words(ab, cd),
                    $high_words(ab, cd),
                    $low_words(ab_high, cd_high),
                    $high_words(ab_high, cd_high),
                ];
                for (sums, &weight) in sums.iter_mut().zip(weights) {
                    let weight = $spread(weight);
                    for (sum, input) in sums.iter_mut().zip(inputs) {
                        *sum = $dot(*sum, input, weight);
                    }
                }
            }
            let half = $spread(taps.half());
            let precision = _mm_cvtsi32_si128(taps.precision() as i32);
            let mut rounded = sums[0];
            for (i, value) in rounded.iter_mut().enumerate() {
                for digit in &sums[1..] {
                    *value = $add($shift_left::<8>(*value), digit[i]);
                }
                *value = $shift_right($add(*value, half), precision);
            }
            $pack_unsigned($pack(rounded[0], rounded[1]), $pack(rounded[2], rounded[3]))
        }
    };
}

weigh!(
    weigh_64,
    __m512i,
    _mm512_setzero_si512,
    _mm512_set1_epi32,
    _mm512_add_epi32,
    _mm512_dpbusd_epi32,
    _mm512_slli_epi32,
    _mm512_sra_epi32,
    [_mm512_unpacklo_epi8, _mm512_unpackhi_epi8, _mm512_unpacklo_epi16, _mm512_unpackhi_epi16],
    [_mm512_packs_epi32, _mm512_packus_epi16]
);
weigh!(
    weigh_32,
    __m256i,
    _mm256_setzero_si256,
    _mm256_set1_epi32,
    _mm256_add_epi32,
    _mm256_dpbusd_epi32,
    _mm256_slli_epi32,
    _mm256_sra_epi32,
    [_mm256_unpacklo_epi8, _mm256_unpackhi_epi8, _mm256_unpacklo_epi16, _mm256_unpackhi_epi16],
    [_mm256_packs_epi32, _mm256_packus_epi16]
);

struct Lanes {
    high: __m512,
    low: __m512,
    mean: __m512,
    std: __m512,
    inverse: __m512,
}

#[inline]
#[target_feature(enable = "avx512f")]
fn spread(formula: &Formula) -> Lanes {
    Lanes {
        high: _mm512_set1_ps(formula.high),
        low: _mm512_set1_ps(formula.low),
        mean: _mm512_set1_ps(formula.mean),
        std: _mm512_set1_ps(formula.std),
        inverse: _mm512_set1_ps(formula.inverse),
    }
}

/// `Formula::at` for sixteen bytes.
#[inline]
#[target_feature(enable = "avx512f")]
fn apply(bytes: __m128i, f: &Lanes) -> __m512 {
    let x = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes));
    let scaled = _mm512_fmadd_ps(x, f.high, _mm512_mul_ps(x, f.low));
    let centred = _mm512_sub_ps(scaled, f.mean);
    let quotient = _mm512_mul_ps(centred, f.inverse);
    let rest = _mm512_fnmadd_ps(quotient, f.std, centred);
    _mm512_fmadd_ps(rest, f.inverse, quotient)
}

/// [`Set::to_f32`].
///
/// # Safety
/// The lengths must be equal and, if `STREAM`, the output aligned for a register; the machine must have AVX-512 F.
#[target_feature(enable = "avx512f")]
unsafe fn to_f32<const STREAM: bool>(bytes: &[u8], formula: &Formula, out: &mut [f32]) {
    let lanes = spread(formula);
    for (bytes, out) in bytes.chunks_exact(16).zip(out.chunks_exact_mut(16)) {
        // SAFETY: 16 bytes in, 16 floats out; the caller streams only where the output is aligned.
        unsafe {
            let values = apply(_mm_loadu_si128(bytes.as_ptr().cast()), &lanes);
            if STREAM { _mm512_stream_ps(out.as_mut_ptr(), values) } else { _mm512_storeu_ps(out.as_mut_ptr(), values) }
        }
    }
}

/// [`Set::to_bf16`].
///
/// # Safety
/// The lengths must be equal and the output aligned for 16 values; the machine must have AVX-512 F and VL.
#[target_feature(enable = "avx512f,avx512vl")]
unsafe fn to_bf16(bytes: &[u8], formula: &Formula, out: &mut [u16]) {
    let lanes = spread(formula);
    let (one, bias) = (_mm512_set1_epi32(1), _mm512_set1_epi32(0x7FFF));
    for (bytes, out) in bytes.chunks_exact(16).zip(out.chunks_exact_mut(16)) {
        // SAFETY: 16 bytes in, 16 aligned values out.
        unsafe {
            let bits = _mm512_castps_si512(apply(_mm_loadu_si128(bytes.as_ptr().cast()), &lanes));
            let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), one);
            let rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, bias));
            let halves = _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(rounded));
            _mm256_stream_si256(out.as_mut_ptr().cast(), halves);
        }
    }
}
