//! AVX2 with FMA. A multiplication takes two taps at once: bytes of two inputs are interleaved, widened to 16 bits and
//! summed in pairs by `madd`, which is exact in 32 bits; so the bits are those of the plain loops in any order.

use std::arch::x86_64::*;

use super::{Kernels, LANES};
use crate::stream::convert::{Conversion, Formula, to_bfloat16};
use crate::stream::taps::{LOW_BITS, Taps};

pub(super) static KERNELS: Kernels = Kernels {
    name: "avx2",
    transpose,
    weigh_rows,
    weigh_pixels,
    to_f32,
    to_bf16,
    fill,
    fence,
};

pub(super) fn available() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
}

// The functions of the table. Each checks the lengths that its loop relies on.

fn transpose(from: &[u8], from_stride: usize, to: &mut [u8], to_stride: usize) {
    assert!(
        from.len() >= (LANES - 1) * from_stride + LANES,
        "block too short"
    );
    assert!(
        to.len() >= (LANES - 1) * to_stride + LANES,
        "block too short"
    );
    // SAFETY: the table is handed out only where `available`; every access is within the lengths asserted.
    unsafe { transpose_avx2(from.as_ptr(), from_stride, to.as_mut_ptr(), to_stride) }
}

fn weigh_rows(rows: &[&[u8]], taps: &Taps, output: usize, out: &mut [u8]) {
    let count = taps.count(output);
    assert!(
        rows.len() >= count && rows[..count].iter().all(|row| row.len() >= out.len()),
        "rows too short"
    );
    assert!(out.len().is_multiple_of(LANES), "not whole strips");
    // SAFETY: as above.
    unsafe {
        match taps.parts() {
            1 => weigh_rows_avx2::<1>(rows, taps, output, out),
            _ => weigh_rows_avx2::<2>(rows, taps, output, out),
        }
    }
}

fn weigh_pixels(block: &[u8], stride: usize, taps: &Taps, first: usize, out: &mut [u8]) {
    assert!(out.len().is_multiple_of(3 * LANES), "not whole pixels");
    for output in first..first + out.len() / (3 * LANES) {
        let last = taps.first(output) + taps.count(output) - 1;
        assert!(last * stride + 3 * LANES <= block.len(), "block too short");
    }
    // SAFETY: as above.
    unsafe {
        match taps.parts() {
            1 => weigh_pixels_avx2::<1>(block, stride, taps, first, out),
            _ => weigh_pixels_avx2::<2>(block, stride, taps, first, out),
        }
    }
}

fn to_f32(bytes: &[u8], conversion: &Conversion, out: &mut [f32]) {
    assert!(bytes.len() == out.len(), "lengths differ");
    let Some(formula) = &conversion.formula else {
        for (value, &byte) in out.iter_mut().zip(bytes) {
            *value = conversion.table[usize::from(byte)];
        }
        return;
    };
    let whole = out.len() / 16 * 16;
    // SAFETY: as above; streaming stores only where the output is aligned.
    unsafe {
        if out.as_ptr().cast::<__m256i>().is_aligned() {
            to_f32_avx2::<true>(&bytes[..whole], formula, &mut out[..whole]);
        } else {
            to_f32_avx2::<false>(&bytes[..whole], formula, &mut out[..whole]);
        }
    }
    for (value, &byte) in out[whole..].iter_mut().zip(&bytes[whole..]) {
        *value = conversion.table[usize::from(byte)];
    }
}

fn to_bf16(bytes: &[u8], conversion: &Conversion, out: &mut [u16]) {
    assert!(bytes.len() == out.len(), "lengths differ");
    let whole = match &conversion.formula {
        Some(formula) if out.as_ptr().cast::<__m256i>().is_aligned() => {
            let whole = out.len() / 16 * 16;
            // SAFETY: as above; the output is aligned.
            unsafe { to_bf16_avx2(&bytes[..whole], formula, &mut out[..whole]) };
            whole
        }
        _ => 0,
    };
    for (value, &byte) in out[whole..].iter_mut().zip(&bytes[whole..]) {
        *value = to_bfloat16(conversion.table[usize::from(byte)]);
    }
}

fn fill(out: &mut [i64], value: i64) {
    // SAFETY: the table is handed out only where `available`; four values are 32 bytes, whatever they are.
    let (head, body, tail) = unsafe { out.align_to_mut::<__m256i>() };
    head.fill(value);
    tail.fill(value);
    // SAFETY: as above.
    unsafe { fill_avx2(body, value) }
}

fn fence() {
    // SAFETY: every x86-64 CPU has SSE.
    unsafe { _mm_sfence() };
}

#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn transpose_avx2(from: *const u8, from_stride: usize, to: *mut u8, to_stride: usize) {
    for half in 0..2 {
        // Register i holds 16 bytes of row i in its lower half and of row i + 16 in its upper half.
        let mut rows = [_mm256_setzero_si256(); 16];
        for (i, row) in rows.iter_mut().enumerate() {
            // SAFETY: rows 0..32 of at least 32 bytes, as the caller asserted.
            unsafe {
                let lower = _mm_loadu_si128(from.add(i * from_stride + half * 16).cast());
                let upper = _mm_loadu_si128(from.add((i + 16) * from_stride + half * 16).cast());
                *row = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(lower), upper);
            }
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
        for (j, column) in rows.iter().enumerate() {
            // SAFETY: columns 0..32 of 32 bytes, as the caller asserted.
            unsafe { _mm256_storeu_si256(to.add((half * 16 + j) * to_stride).cast(), *column) };
        }
    }
}

#[target_feature(enable = "avx2,fma")]
unsafe fn weigh_rows_avx2<const PARTS: usize>(
    rows: &[&[u8]],
    taps: &Taps,
    output: usize,
    out: &mut [u8],
) {
    for at in (0..out.len()).step_by(LANES) {
        // SAFETY: every row is at least as long as `out`, which is whole strips.
        let load = |tap: usize| unsafe {
            _mm256_loadu_si256(rows.get_unchecked(tap).as_ptr().add(at).cast())
        };
        let strip = weigh::<PARTS>(load, taps, output);
        // SAFETY: `at` + 32 is within `out`.
        unsafe { _mm256_storeu_si256(out.as_mut_ptr().add(at).cast(), strip) };
    }
}

#[target_feature(enable = "avx2,fma")]
unsafe fn weigh_pixels_avx2<const PARTS: usize>(
    block: &[u8],
    stride: usize,
    taps: &Taps,
    first: usize,
    out: &mut [u8],
) {
    for (index, pixel) in out.chunks_exact_mut(3 * LANES).enumerate() {
        let output = first + index;
        for channel in 0..3 {
            let base = taps.first(output) * stride + channel * LANES;
            // SAFETY: the caller asserted that the block reaches to the end of the window.
            let load = |tap: usize| unsafe {
                _mm256_loadu_si256(block.as_ptr().add(base + tap * stride).cast())
            };
            let strip = weigh::<PARTS>(load, taps, output);
            // SAFETY: a pixel is three strips.
            unsafe { _mm256_storeu_si256(pixel.as_mut_ptr().add(channel * LANES).cast(), strip) };
        }
    }
}

/// The weighted sum of 32 bytes of each input, rounded and clamped. With two parts a weight is `high << LOW_BITS | low`.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn weigh<const PARTS: usize>(
    load: impl Fn(usize) -> __m256i,
    taps: &Taps,
    output: usize,
) -> __m256i {
    let zero = _mm256_setzero_si256();
    let mut sums = [[zero; 4]; PARTS];
    let (pairs, last) = (taps.pairs(output), taps.count(output) - 1);
    for (pair, weights) in pairs.chunks_exact(PARTS).enumerate() {
        // An odd window's last pair has a weight of zero for its second input.
        let (a, b) = (load(2 * pair), load((2 * pair + 1).min(last)));
        let (low, high) = (_mm256_unpacklo_epi8(a, b), _mm256_unpackhi_epi8(a, b));
        let inputs = [
            _mm256_unpacklo_epi8(low, zero),
            _mm256_unpackhi_epi8(low, zero),
            _mm256_unpacklo_epi8(high, zero),
            _mm256_unpackhi_epi8(high, zero),
        ];
        for part in 0..PARTS {
            let weight = _mm256_set1_epi32(weights[part]);
            for (sum, input) in sums[part].iter_mut().zip(inputs) {
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(input, weight));
            }
        }
    }
    let half = _mm256_set1_epi32(taps.half());
    let shift = _mm_cvtsi32_si128(taps.precision() as i32);
    let mut rounded = [zero; 4];
    for (i, value) in rounded.iter_mut().enumerate() {
        let mut sum = _mm256_add_epi32(sums[PARTS - 1][i], half);
        if PARTS == 2 {
            sum = _mm256_add_epi32(sum, _mm256_slli_epi32::<{ LOW_BITS as i32 }>(sums[0][i]));
        }
        *value = _mm256_sra_epi32(sum, shift);
    }
    _mm256_packus_epi16(
        _mm256_packs_epi32(rounded[0], rounded[1]),
        _mm256_packs_epi32(rounded[2], rounded[3]),
    )
}

#[target_feature(enable = "avx2,fma")]
fn fill_avx2(out: &mut [__m256i], value: i64) {
    let lanes = _mm256_set1_epi64x(value);
    for to in out {
        // SAFETY: a reference to a register is aligned.
        unsafe { _mm256_stream_si256(to, lanes) };
    }
}

struct Lanes {
    high: __m256,
    low: __m256,
    mean: __m256,
    std: __m256,
    inverse: __m256,
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn spread(formula: &Formula) -> Lanes {
    Lanes {
        high: _mm256_set1_ps(formula.high),
        low: _mm256_set1_ps(formula.low),
        mean: _mm256_set1_ps(formula.mean),
        std: _mm256_set1_ps(formula.std),
        inverse: _mm256_set1_ps(formula.inverse),
    }
}

/// `Formula::at` for eight bytes.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn apply(bytes: __m128i, f: &Lanes) -> __m256 {
    let x = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes));
    let scaled = _mm256_fmadd_ps(x, f.high, _mm256_mul_ps(x, f.low));
    let centred = _mm256_sub_ps(scaled, f.mean);
    let quotient = _mm256_mul_ps(centred, f.inverse);
    let rest = _mm256_fnmadd_ps(quotient, f.std, centred);
    _mm256_fmadd_ps(rest, f.inverse, quotient)
}

#[target_feature(enable = "avx2,fma")]
unsafe fn to_f32_avx2<const STREAM: bool>(bytes: &[u8], formula: &Formula, out: &mut [f32]) {
    let lanes = spread(formula);
    for (bytes, out) in bytes.chunks_exact(16).zip(out.chunks_exact_mut(16)) {
        // SAFETY: 16 bytes in, 16 floats out; the caller streams only where the output is aligned.
        unsafe {
            let x = _mm_loadu_si128(bytes.as_ptr().cast());
            let values = [apply(x, &lanes), apply(_mm_srli_si128::<8>(x), &lanes)];
            for (i, value) in values.into_iter().enumerate() {
                let to = out.as_mut_ptr().add(8 * i);
                if STREAM {
                    _mm256_stream_ps(to, value)
                } else {
                    _mm256_storeu_ps(to, value)
                }
            }
        }
    }
}

#[target_feature(enable = "avx2,fma")]
unsafe fn to_bf16_avx2(bytes: &[u8], formula: &Formula, out: &mut [u16]) {
    let lanes = spread(formula);
    let (one, bias) = (_mm256_set1_epi32(1), _mm256_set1_epi32(0x7FFF));
    for (bytes, out) in bytes.chunks_exact(16).zip(out.chunks_exact_mut(16)) {
        // SAFETY: 16 bytes in, 16 aligned values out.
        unsafe {
            let x = _mm_loadu_si128(bytes.as_ptr().cast());
            let round = |value: __m256| {
                let bits = _mm256_castps_si256(value);
                let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), one);
                _mm256_srli_epi32::<16>(_mm256_add_epi32(bits, _mm256_add_epi32(odd, bias)))
            };
            let (a, b) = (
                round(apply(x, &lanes)),
                round(apply(_mm_srli_si128::<8>(x), &lanes)),
            );
            let packed = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi32(a, b));
            _mm256_stream_si256(out.as_mut_ptr().cast(), packed);
        }
    }
}
