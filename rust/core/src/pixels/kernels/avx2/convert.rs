//! From bytes to the values of the model, sixteen at a time.

use std::arch::x86_64::*;

use crate::pixels::convert::Formula;

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
fn apply<const SCALES: bool>(bytes: __m128i, f: &Lanes) -> __m256 {
    let x = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes));
    let scaled = if SCALES { _mm256_fmadd_ps(x, f.high, _mm256_mul_ps(x, f.low)) } else { x };
    let centred = _mm256_sub_ps(scaled, f.mean);
    let quotient = _mm256_mul_ps(centred, f.inverse);
    let rest = _mm256_fnmadd_ps(quotient, f.std, centred);
    _mm256_fmadd_ps(rest, f.inverse, quotient)
}

/// # Safety
/// The lengths must be equal and, if `STREAM`, the output aligned for a register.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn to_f32<const STREAM: bool, const SCALES: bool>(bytes: &[u8], formula: &Formula, out: &mut [f32]) {
    let lanes = spread(formula);
    for (bytes, out) in bytes.chunks_exact(16).zip(out.chunks_exact_mut(16)) {
        // SAFETY: 16 bytes in, 16 floats out; the caller streams only where the output is aligned.
        unsafe {
            let x = _mm_loadu_si128(bytes.as_ptr().cast());
            let values = [apply::<SCALES>(x, &lanes), apply::<SCALES>(_mm_srli_si128::<8>(x), &lanes)];
            for (i, value) in values.into_iter().enumerate() {
                let to = out.as_mut_ptr().add(8 * i);
                if STREAM { _mm256_stream_ps(to, value) } else { _mm256_storeu_ps(to, value) }
            }
        }
    }
}

/// # Safety
/// The lengths must be equal and the output aligned for a register.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn to_bf16(bytes: &[u8], formula: &Formula, out: &mut [u16]) {
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
            let (a, b) = (round(apply::<true>(x, &lanes)), round(apply::<true>(_mm_srli_si128::<8>(x), &lanes)));
            let packed = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi32(a, b));
            _mm256_stream_si256(out.as_mut_ptr().cast(), packed);
        }
    }
}
