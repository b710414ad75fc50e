//! The product of bfloat16 activations and weights: `vdpbf16ps` adds the products of a pair of steps to 16 sums.
use std::arch::x86_64::*;

use crate::model::kernels::{Bfloat16Product, PANEL, Start};

/// Rounds to nearest even, a register at a time; see [`crate::model::kernels::definition::round`].
pub(super) fn round(x: &[f32], out: &mut [u16]) {
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    fn compiled(x: &[f32], out: &mut [u16]) {
        const LANES: usize = 32;
        assert_eq!(x.len(), out.len());
        let (x, x_rest) = x.as_chunks::<LANES>();
        let (out, out_rest) = out.as_chunks_mut::<LANES>();
        for (x, out) in x.iter().zip(out) {
            // SAFETY: loads and stores of whole chunks.
            unsafe {
                let (low, high) = (_mm512_loadu_ps(x.as_ptr()), _mm512_loadu_ps(x.as_ptr().add(LANES / 2)));
                let bits = std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low));
                _mm512_storeu_si512(out.as_mut_ptr().cast(), bits);
            }
        }
        for (x, out) in x_rest.chunks(LANES / 2).zip(out_rest.chunks_mut(LANES / 2)) {
            let lanes = (u32::MAX >> (32 - x.len())) as u16;
            // SAFETY: the mask names the numbers that are there, and no other is read or written.
            unsafe {
                let rounded = _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(lanes, x.as_ptr()));
                let bits = std::mem::transmute::<__m256bh, __m256i>(rounded);
                _mm256_mask_storeu_epi16(out.as_mut_ptr().cast(), lanes, bits);
            }
        }
    }
    // SAFETY: the table that this is in is given for a proof of these features only.
    unsafe { compiled(x, out) }
}

/// Chains of sums, enough of them to hide their latency.
pub(super) fn peak(rounds: usize) -> u64 {
    #[target_feature(enable = "avx512f,avx512bf16")]
    fn chains(rounds: usize) -> [__m512; 12] {
        let one = std::hint::black_box(0x3f80_3f80);
        // SAFETY: both are registers of 512 bits, of which every pattern is a value.
        let one = unsafe { std::mem::transmute::<__m512i, __m512bh>(_mm512_set1_epi32(one)) };
        let mut sums = [_mm512_setzero_ps(); 12];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_dpbf16_ps(*sum, one, one);
            }
        }
        sums
    }
    // SAFETY: the table that this is in is given for a proof of these features only.
    std::hint::black_box(unsafe { chains(rounds) });
    (rounds * 12 * PANEL * 2 * 2) as u64
}

pub(super) fn product(mut p: Bfloat16Product<'_>) {
    p.check();
    // SAFETY: `check` has compared every slice with the sizes, and the table that this is in is given for a proof of
    // these features only.
    unsafe { all_rows(&mut p) }
}

/// Rows in blocks over all panels: the weights of two panels and one row more fill the registers beside the sums.
///
/// # Safety
/// The lengths must have been checked, and the machine must have AVX-512 F and BF16.
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn all_rows(p: &mut Bfloat16Product<'_>) {
    let mut row = 0;
    while row < p.rows {
        // SAFETY: `check` has compared the slices with the sizes, and as many rows are left.
        row += unsafe {
            match p.rows - row {
                1 => all_panels::<1, 6>(p, row),
                2 => all_panels::<2, 6>(p, row),
                3..=5 => all_panels::<3, 4>(p, row),
                6..=11 => all_panels::<6, 4>(p, row),
                _ => all_panels::<12, 2>(p, row),
            }
        };
    }
}

/// `R` rows times all panels, `N` at a time; gives `R`.
///
/// # Safety
/// The lengths must have been checked, there must be `R` rows from `row` on, and the machine must have AVX-512 F and BF16.
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn all_panels<const R: usize, const N: usize>(p: &mut Bfloat16Product<'_>, row: usize) -> usize {
    let whole = p.panels / N * N;
    // SAFETY: the rows are there by the match of the caller, the panels by the bounds of the loops.
    unsafe {
        for panel in (0..whole).step_by(N) {
            tile::<R, N>(p, row, panel);
        }
        for panel in whole..p.panels {
            tile::<R, 1>(p, row, panel);
        }
    }
    R
}

/// The inner loop: `R x N * PANEL` sums in registers, each one chain over ascending pairs of steps.
///
/// # Safety
/// The lengths must have been checked, there must be `R` rows from `row` and `N` panels from `panel` on, and the machine
/// must have AVX-512 F and BF16.
#[allow(clippy::needless_range_loop)]
#[target_feature(enable = "avx512f,avx512bf16")]
#[inline]
unsafe fn tile<const R: usize, const N: usize>(p: &mut Bfloat16Product<'_>, row: usize, panel: usize) {
    // SAFETY: the offsets stay inside the slices, whose lengths `check` has compared with the sizes: activations and
    // weights are there for an even number of steps.
    unsafe {
        let a = p.a.as_ptr().add(row * p.a_stride);
        let w = p.w.as_ptr().add(panel * p.w_stride);
        let mut sums = [[_mm512_setzero_ps(); N]; R];
        for pair in 0..p.k.div_ceil(2) {
            let mut weights = [_mm512_setzero_si512(); N];
            for n in 0..N {
                weights[n] = _mm512_loadu_si512(w.add(n * p.w_stride + pair * 4 * PANEL).cast());
            }
            for r in 0..R {
                let both = a.add(r * p.a_stride + 2 * pair).cast::<i32>();
                let x = _mm512_set1_epi32(both.read_unaligned());
                for n in 0..N {
                    sums[r][n] = _mm512_dpbf16_ps(
                        sums[r][n],
                        std::mem::transmute::<__m512i, __m512bh>(x),
                        std::mem::transmute::<__m512i, __m512bh>(weights[n]),
                    );
                }
            }
        }
        for r in 0..R {
            for n in 0..N {
                let at = p.out.as_mut_ptr().add((row + r) * p.out_stride + (panel + n) * PANEL);
                let previous = match p.start {
                    Start::Zero => _mm512_setzero_ps(),
                    Start::Row(row) => _mm512_loadu_ps(row.as_ptr().add((panel + n) * PANEL)),
                    Start::Out => _mm512_loadu_ps(at),
                };
                _mm512_storeu_ps(at, _mm512_add_ps(previous, sums[r][n]));
            }
        }
    }
}
