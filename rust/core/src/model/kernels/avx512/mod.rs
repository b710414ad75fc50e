//! AVX-512: one register holds all columns of a panel. The matrix products by hand, the row kernels by compiling the
//! definition for this instruction set.
use std::arch::x86_64::*;

use super::float_product::{self, FloatTile, Registers, Shapes, Weights, block, tile};
use super::row_kernels::row_kernels;
use super::{Bfloat16Product, Kernels, Product};
use crate::machine::cpu::{Avx512, Avx512Bf16, Avx512Vnni, Isa};

mod bfloat16;
mod integer;

/// The kernels for machines with AVX-512 F, BW, DQ and VL; nothing else gives this table, or what is in it, to the outside.
pub(super) fn kernels(_: Avx512) -> &'static Kernels {
    const { &table(Isa::Avx512.name(), integer::product) }
}

/// The same with VNNI.
pub(super) fn vnni_kernels(_: Avx512Vnni) -> &'static Kernels {
    const { &table(Isa::Avx512Vnni.name(), integer::product_vnni) }
}

/// The same with VNNI and BF16.
pub(super) fn bfloat16_kernels(_: Avx512Bf16) -> &'static Kernels {
    const { &with_bfloat16(Isa::Avx512Bf16.name(), bfloat16::product) }
}

/// A table that must be given for a proof of VNNI and BF16 only.
pub(super) const fn with_bfloat16(name: &'static str, product: fn(Bfloat16Product<'_>)) -> Kernels {
    Kernels {
        bfloat16_product: Some(product),
        bfloat16_peak: Some(bfloat16::peak),
        round: bfloat16::round,
        ..table(name, integer::product_vnni)
    }
}

row_kernels!("avx512f,avx512bw,avx512dq,avx512vl");

/// By hand, so that the chains are whole registers.
fn peak(rounds: usize) -> u64 {
    #[target_feature(enable = "avx512f")]
    fn chains(rounds: usize) -> [__m512; 12] {
        let factor = _mm512_set1_ps(std::hint::black_box(0.999));
        let mut sums = [_mm512_set1_ps(1.0); 12];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(*sum, factor, factor);
            }
        }
        sums
    }
    // SAFETY: the table that this is in is given for a proof of AVX-512 only.
    std::hint::black_box(unsafe { chains(rounds) });
    (rounds * 12 * 16 * 2) as u64
}

fn product(p: Product<'_>) {
    // SAFETY: the table that this is in is given for a proof of AVX-512 only.
    unsafe { float_product::product::<Zmm, ThirtyTwo>(p) }
}

/// A panel is one register.
struct Zmm;

impl Registers for Zmm {
    type Panel = __m512;
    type Factor = __m512;

    #[inline(always)]
    unsafe fn zero() -> __m512 {
        // SAFETY: the caller is compiled for AVX-512.
        unsafe { _mm512_setzero_ps() }
    }

    #[inline(always)]
    unsafe fn load(at: *const f32) -> __m512 {
        // SAFETY: the caller promises the memory; loads need no alignment.
        unsafe { _mm512_loadu_ps(at) }
    }

    #[inline(always)]
    unsafe fn store(at: *mut f32, x: __m512) {
        // SAFETY: the caller promises the memory; stores need no alignment.
        unsafe { _mm512_storeu_ps(at, x) }
    }

    #[inline(always)]
    unsafe fn add(a: __m512, b: __m512) -> __m512 {
        // SAFETY: the caller is compiled for AVX-512.
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn factor(at: *const f32) -> __m512 {
        // SAFETY: the caller promises the number.
        unsafe { _mm512_set1_ps(*at) }
    }

    #[inline(always)]
    unsafe fn fused(x: __m512, w: __m512, sum: __m512) -> __m512 {
        // SAFETY: the caller is compiled for AVX-512.
        unsafe { _mm512_fmadd_ps(x, w, sum) }
    }

    #[inline(always)]
    unsafe fn bfloat16_pair(at: *const u8) -> [__m512; 2] {
        // SAFETY: the caller promises the memory; loads need no alignment.
        unsafe {
            let both = _mm512_loadu_si512(at.cast());
            let odd = _mm512_set1_epi32(0xffff_0000_u32 as i32);
            [_mm512_castsi512_ps(_mm512_slli_epi32::<16>(both)), _mm512_castsi512_ps(_mm512_and_si512(both, odd))]
        }
    }

    unsafe fn compiled<S: Shapes, W: Weights>(p: &mut Product<'_>) {
        #[target_feature(enable = "avx512f")]
        unsafe fn compiled<S: Shapes, W: Weights>(p: &mut Product<'_>) {
            // SAFETY: the caller of the outer function promises a checked product.
            unsafe { float_product::all_panels::<Zmm, S, W>(p) }
        }
        // SAFETY: the caller promises a checked product and the instructions.
        unsafe { compiled::<S, W>(p) }
    }
}

/// Blocks for thirty-two registers of a panel: a few rows go over several panels at once, which hides the latency of
/// the sums.
pub(super) struct ThirtyTwo;

/// `R` rows times four panels, or what is left; gives their number.
///
/// # Safety
/// As for [`Shapes::direct`], and the product must have `R` rows.
#[inline(always)]
unsafe fn few_rows<G: Registers, W: Weights, const R: usize>(p: &mut Product<'_>, panel: usize) -> usize {
    // SAFETY: the caller promises a checked product of `R` rows.
    unsafe {
        match p.panels - panel {
            1 => block::<G, W, R, 1, false>(p, panel),
            2 | 3 => block::<G, W, R, 2, false>(p, panel),
            _ => block::<G, W, R, 4, false>(p, panel),
        }
    }
}

impl Shapes for ThirtyTwo {
    const DIRECT_ROWS: usize = 4;

    #[inline(always)]
    unsafe fn direct<G: Registers, W: Weights>(p: &mut Product<'_>, panel: usize) -> usize {
        // SAFETY: the caller promises a checked product with the rows that are matched here.
        unsafe {
            match p.rows {
                1 => few_rows::<G, W, 1>(p, panel),
                2 => few_rows::<G, W, 2>(p, panel),
                3 => few_rows::<G, W, 3>(p, panel),
                _ => few_rows::<G, W, 4>(p, panel),
            }
        }
    }

    #[inline(always)]
    unsafe fn rows<G: Registers, W: Weights, const FETCH: bool>(t: &FloatTile, rows: usize) -> usize {
        // SAFETY: the caller promises the rows.
        unsafe {
            match rows {
                1 => one_tile::<G, W, 1, FETCH>(t),
                2 | 3 => one_tile::<G, W, 2, FETCH>(t),
                4 | 5 => one_tile::<G, W, 4, FETCH>(t),
                6..=11 => one_tile::<G, W, 6, FETCH>(t),
                _ => one_tile::<G, W, 12, FETCH>(t),
            }
        }
    }
}

/// `R` rows times a panel; gives `R`.
///
/// # Safety
/// As for [`Shapes::rows`], and there must be `R` rows.
#[inline(always)]
unsafe fn one_tile<G: Registers, W: Weights, const R: usize, const FETCH: bool>(t: &FloatTile) -> usize {
    // SAFETY: the caller promises the rows.
    unsafe { tile::<G, W, R, 1, FETCH>(t) };
    R
}
