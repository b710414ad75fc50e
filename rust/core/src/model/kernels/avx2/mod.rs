//! AVX2 with FMA: the matrix products by hand, the row kernels by compiling the definition for this instruction set.
use std::arch::x86_64::*;

use super::float_product::{self, FloatTile, Registers, Shapes, Weights, block, one_panel, tile};
use super::row_kernels::row_kernels;
use super::{Kernels, Product};
use crate::machine::cpu::{Avx2, Isa};

mod integer;

/// The kernels for machines with AVX2 and FMA; nothing else gives this table, or what is in it, to the outside.
pub(super) fn kernels(_: Avx2) -> &'static Kernels {
    const { &table(Isa::Avx2.name(), integer::product) }
}

row_kernels!("avx2,fma");

/// By hand: the compiler does not keep the definition's chains in registers.
fn peak(rounds: usize) -> u64 {
    #[target_feature(enable = "avx2,fma")]
    fn chains(rounds: usize) -> [__m256; 12] {
        let factor = _mm256_set1_ps(std::hint::black_box(0.999));
        let mut sums = [_mm256_set1_ps(1.0); 12];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(*sum, factor, factor);
            }
        }
        sums
    }
    // SAFETY: the table that this is in is given for a proof of AVX2 and FMA only.
    std::hint::black_box(unsafe { chains(rounds) });
    (rounds * 12 * 8 * 2) as u64
}

fn product(p: Product<'_>) {
    // SAFETY: the table that this is in is given for a proof of AVX2 and FMA only.
    unsafe { float_product::product::<Ymm, Sixteen>(p) }
}

/// A panel is two registers.
struct Ymm;

impl Registers for Ymm {
    type Panel = [__m256; 2];
    type Factor = __m256;

    #[inline(always)]
    unsafe fn zero() -> [__m256; 2] {
        // SAFETY: the caller is compiled for AVX2.
        unsafe { [_mm256_setzero_ps(); 2] }
    }

    #[inline(always)]
    unsafe fn load(at: *const f32) -> [__m256; 2] {
        // SAFETY: the caller promises the memory; loads need no alignment.
        unsafe { [_mm256_loadu_ps(at), _mm256_loadu_ps(at.add(8))] }
    }

    #[inline(always)]
    unsafe fn store(at: *mut f32, [low, high]: [__m256; 2]) {
        // SAFETY: the caller promises the memory; stores need no alignment.
        unsafe {
            _mm256_storeu_ps(at, low);
            _mm256_storeu_ps(at.add(8), high);
        }
    }

    #[inline(always)]
    unsafe fn add(a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        // SAFETY: the caller is compiled for AVX2.
        unsafe { [_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])] }
    }

    #[inline(always)]
    unsafe fn factor(at: *const f32) -> __m256 {
        // SAFETY: the caller promises the number.
        unsafe { _mm256_broadcast_ss(&*at) }
    }

    #[inline(always)]
    unsafe fn fused(x: __m256, w: [__m256; 2], sum: [__m256; 2]) -> [__m256; 2] {
        // SAFETY: the caller is compiled for FMA.
        unsafe { [_mm256_fmadd_ps(x, w[0], sum[0]), _mm256_fmadd_ps(x, w[1], sum[1])] }
    }

    #[inline(always)]
    unsafe fn bfloat16_pair(at: *const u8) -> [[__m256; 2]; 2] {
        // SAFETY: the caller promises the memory; loads need no alignment.
        unsafe {
            let at = at.cast::<__m256i>();
            let (low, high) = (_mm256_loadu_si256(at), _mm256_loadu_si256(at.add(1)));
            let odd = _mm256_set1_epi32(0xffff_0000_u32 as i32);
            [
                [low, high].map(|both| _mm256_castsi256_ps(_mm256_slli_epi32::<16>(both))),
                [low, high].map(|both| _mm256_castsi256_ps(_mm256_and_si256(both, odd))),
            ]
        }
    }

    #[inline(always)]
    unsafe fn prefetch(at: *const u8) {
        // SAFETY: it reads nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }

    unsafe fn compiled<S: Shapes, W: Weights>(p: &mut Product<'_>) {
        #[target_feature(enable = "avx2,fma")]
        unsafe fn compiled<S: Shapes, W: Weights>(p: &mut Product<'_>) {
            // SAFETY: the caller of the outer function promises a checked product.
            unsafe { float_product::all_panels::<Ymm, S, W>(p) }
        }
        // SAFETY: the caller promises a checked product and the instructions.
        unsafe { compiled::<S, W>(p) }
    }
}

/// Blocks for sixteen registers of half a panel: six rows of one panel are twelve sums.
pub(super) struct Sixteen;

const ROWS: usize = 6;

impl Shapes for Sixteen {
    const DIRECT_ROWS: usize = 2 * ROWS;

    #[inline(always)]
    unsafe fn direct<G: Registers, W: Weights>(p: &mut Product<'_>, panel: usize) -> usize {
        // SAFETY: the caller promises a checked product with the rows and panels that are matched here.
        unsafe {
            match (p.rows, p.panels - panel) {
                (1, 6..) => block::<G, W, 1, 6, true>(p, panel),
                (1, 3..) => block::<G, W, 1, 3, true>(p, panel),
                (1, 2) => block::<G, W, 1, 2, true>(p, panel),
                (1, _) => block::<G, W, 1, 1, true>(p, panel),
                (2, 3..) => block::<G, W, 2, 3, true>(p, panel),
                (2, 2) => block::<G, W, 2, 2, true>(p, panel),
                (2, _) => block::<G, W, 2, 1, true>(p, panel),
                (3, 2..) => block::<G, W, 3, 2, true>(p, panel),
                (3, _) => block::<G, W, 3, 1, true>(p, panel),
                _ => one_panel::<G, Self, W>(p, panel),
            }
        }
    }

    #[inline(always)]
    unsafe fn rows<G: Registers, W: Weights, const FETCH: bool>(t: &FloatTile, rows: usize) -> usize {
        // Tiles of even height: a low one does not hide the latency of its sums.
        let height = rows.div_ceil(rows.div_ceil(ROWS));
        // SAFETY: the caller promises the rows.
        unsafe {
            match height {
                1 => tile::<G, W, 1, 1, FETCH>(t),
                2 => tile::<G, W, 2, 1, FETCH>(t),
                3 => tile::<G, W, 3, 1, FETCH>(t),
                4 => tile::<G, W, 4, 1, FETCH>(t),
                5 => tile::<G, W, 5, 1, FETCH>(t),
                _ => tile::<G, W, ROWS, 1, FETCH>(t),
            }
        }
        height
    }
}
