//! AVX-512: one register holds all columns of a panel. The matrix products by hand, the row kernels by compiling the
//! scalar ones for this instruction set.
use std::arch::x86_64::*;

use super::{Bfloat16Product, Dtype, Kernels, PANEL, Product, RUN};
use crate::machine::cpu::{Avx512, Avx512Bf16, Avx512Vnni, Isa};

mod bfloat16;
mod integer;

/// The kernels for machines with AVX-512 F, BW, DQ and VL; nothing else gives this table, or what is in it, to the outside.
pub fn kernels(_: Avx512) -> &'static Kernels {
    static KERNELS: Kernels = table(Isa::Avx512.name(), integer::product);
    &KERNELS
}

/// The same with VNNI.
pub fn vnni_kernels(_: Avx512Vnni) -> &'static Kernels {
    static KERNELS: Kernels = table(Isa::Avx512Vnni.name(), integer::product_vnni);
    &KERNELS
}

/// The same with VNNI and BF16.
pub fn bfloat16_kernels(_: Avx512Bf16) -> &'static Kernels {
    static KERNELS: Kernels = with_bfloat16(Isa::Avx512Bf16.name(), bfloat16::product);
    &KERNELS
}

/// A table that must be given for a proof of VNNI and BF16 only.
pub(super) const fn with_bfloat16(name: &'static str, product: fn(Bfloat16Product<'_>)) -> Kernels {
    Kernels {
        bfloat16_product: Some(product),
        burn_bfloat16: Some(bfloat16::burn),
        round: bfloat16::round,
        ..table(name, integer::product_vnni)
    }
}

/// Most rows for which weights are converted in registers; above that they are expanded once for all rows.
const DIRECT_ROWS: usize = 4;

row_kernels!("avx512f,avx512bw,avx512dq,avx512vl");

/// By hand, so that the chains are whole registers.
fn burn(rounds: usize) -> u64 {
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
    p.check();
    // SAFETY: `check` has compared every slice with the sizes, and the table that this is in is given for a proof of
    // AVX-512 only.
    unsafe {
        match p.dtype {
            Dtype::Float32 => typed_product::<Float32>(p),
            Dtype::Bfloat16 => typed_product::<Bfloat16>(p),
            Dtype::Int8 => unreachable!("refused by `check`"),
        }
    }
}

/// Storage of weights as registers see it.
trait Storage {
    const DTYPE: Dtype;

    /// Steps `k` and `k + 1` (`k` even) of a panel.
    ///
    /// # Safety
    /// The panel must hold both steps, and the caller must be compiled for AVX-512.
    unsafe fn pair(panel: *const u8, k: usize) -> [__m512; 2];
}

struct Float32;
struct Bfloat16;

impl Storage for Float32 {
    const DTYPE: Dtype = Dtype::Float32;

    #[inline(always)]
    unsafe fn pair(panel: *const u8, k: usize) -> [__m512; 2] {
        // SAFETY: by the caller's promise; loads need no alignment.
        unsafe {
            let p = panel.cast::<f32>().add(k * PANEL);
            [_mm512_loadu_ps(p), _mm512_loadu_ps(p.add(PANEL))]
        }
    }
}

impl Storage for Bfloat16 {
    const DTYPE: Dtype = Dtype::Bfloat16;

    #[inline(always)]
    unsafe fn pair(panel: *const u8, k: usize) -> [__m512; 2] {
        // SAFETY: by the caller's promise; loads need no alignment.
        unsafe {
            let both = _mm512_loadu_si512(panel.add(k * PANEL * 2).cast());
            let odd = _mm512_set1_epi32(0xffff_0000_u32 as i32);
            [_mm512_castsi512_ps(_mm512_slli_epi32::<16>(both)), _mm512_castsi512_ps(_mm512_and_si512(both, odd))]
        }
    }
}

/// Picks the block shapes: a few rows go over several panels at once, which hides the latency of the sums, and convert
/// the weights in registers; many rows share a panel that is expanded to float32.
#[target_feature(enable = "avx512f")]
unsafe fn typed_product<S: Storage>(mut p: Product<'_>) {
    // SAFETY: the offsets stay inside the slices, whose lengths `check` has compared with the sizes.
    unsafe {
        match p.rows {
            0 => {}
            1 => few_rows::<S, 1>(&mut p),
            2 => few_rows::<S, 2>(&mut p),
            3 => few_rows::<S, 3>(&mut p),
            DIRECT_ROWS => few_rows::<S, DIRECT_ROWS>(&mut p),
            _ => many_rows::<S>(&mut p),
        }
    }
}

/// `R` rows times all panels.
#[target_feature(enable = "avx512f")]
unsafe fn few_rows<S: Storage, const R: usize>(p: &mut Product<'_>) {
    let mut panel = 0;
    while panel < p.panels {
        // SAFETY: as for the caller.
        panel += unsafe {
            match p.panels - panel {
                1 => block::<S, R, 1>(p, panel),
                2 | 3 => block::<S, R, 2>(p, panel),
                _ => block::<S, R, 4>(p, panel),
            }
        };
    }
}

/// `R` rows times `N` panels from `panel` on, all of `k`; gives `N`.
#[target_feature(enable = "avx512f")]
unsafe fn block<S: Storage, const R: usize, const N: usize>(p: &mut Product<'_>, panel: usize) -> usize {
    for from in (0..p.k.max(1)).step_by(RUN) {
        // SAFETY: as for the caller; a run begins at an even step, so its weights begin where they are expected.
        unsafe {
            let start = panel * p.w_stride + from * PANEL * S::DTYPE.size();
            tile::<S, R, N>(Tile {
                a: p.a.as_ptr().add(from),
                a_stride: p.a_stride,
                k: (p.k - from).min(RUN),
                w: p.w.as_ptr().add(start),
                w_stride: p.w_stride,
                out: p.out.as_mut_ptr().add(panel * PANEL),
                out_stride: p.out_stride,
                add: p.accumulate || from > 0,
            });
        }
    }
    N
}

/// Many rows, run after run of `k`: the activations of a run stay in the second-level cache while the panels go by, the
/// expanded weights of a panel in the first-level cache while the rows do.
#[target_feature(enable = "avx512f")]
unsafe fn many_rows<S: Storage>(p: &mut Product<'_>) {
    for from in (0..p.k.max(1)).step_by(RUN) {
        let k = (p.k - from).min(RUN);
        for panel in 0..p.panels {
            // SAFETY: as for the caller; the scratch holds `RUN` steps.
            unsafe {
                let w = p.w.as_ptr().add(panel * p.w_stride);
                let expanded = if S::DTYPE == Dtype::Float32 {
                    w.cast::<f32>().add(from * PANEL)
                } else {
                    let to = p.scratch.as_mut_ptr();
                    for step in (0..k).step_by(2) {
                        let [even, odd] = S::pair(w, from + step);
                        _mm512_storeu_ps(to.add(step * PANEL), even);
                        _mm512_storeu_ps(to.add((step + 1) * PANEL), odd);
                    }
                    to.cast_const()
                };
                let mut row = 0;
                while row < p.rows {
                    let tile_of = Tile {
                        a: p.a.as_ptr().add(row * p.a_stride + from),
                        a_stride: p.a_stride,
                        k,
                        w: expanded.cast(),
                        w_stride: 0,
                        out: p.out.as_mut_ptr().add(row * p.out_stride + panel * PANEL),
                        out_stride: p.out_stride,
                        add: p.accumulate || from > 0,
                    };
                    row += match p.rows - row {
                        1 => tile::<Float32, 1, 1>(tile_of),
                        2 | 3 => tile::<Float32, 2, 1>(tile_of),
                        4 | 5 => tile::<Float32, 4, 1>(tile_of),
                        6..=11 => tile::<Float32, 6, 1>(tile_of),
                        _ => tile::<Float32, 12, 1>(tile_of),
                    };
                }
            }
        }
    }
}

/// Where a tile lies.
struct Tile {
    a: *const f32,
    a_stride: usize,
    k: usize,
    w: *const u8,
    w_stride: usize,
    out: *mut f32,
    out_stride: usize,
    add: bool,
}

/// The inner loop: `R x N * PANEL` sums in registers, each one chain over ascending `k`, which are then written or added
/// to `out`; gives `R`.
///
/// # Safety
/// There must be `R` rows of activations and results and `N` panels of weights, each of `k` steps, padded to an even
/// number.
#[allow(clippy::needless_range_loop)]
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn tile<S: Storage, const R: usize, const N: usize>(t: Tile) -> usize {
    // SAFETY: by the caller's promise.
    unsafe {
        let mut sums = [[_mm512_setzero_ps(); N]; R];
        for step in (0..t.k).step_by(2) {
            for n in 0..N {
                let [even, odd] = S::pair(t.w.add(n * t.w_stride), step);
                for r in 0..R {
                    let x = _mm512_set1_ps(*t.a.add(r * t.a_stride + step));
                    sums[r][n] = _mm512_fmadd_ps(x, even, sums[r][n]);
                }
                if step + 1 == t.k {
                    continue;
                }
                for r in 0..R {
                    let x = _mm512_set1_ps(*t.a.add(r * t.a_stride + step + 1));
                    sums[r][n] = _mm512_fmadd_ps(x, odd, sums[r][n]);
                }
            }
        }
        for r in 0..R {
            for n in 0..N {
                let at = t.out.add(r * t.out_stride + n * PANEL);
                let before = if t.add { _mm512_loadu_ps(at) } else { _mm512_setzero_ps() };
                _mm512_storeu_ps(at, _mm512_add_ps(before, sums[r][n]));
            }
        }
        R
    }
}
