//! AVX2 with FMA: the matrix product by hand, the row kernels by compiling the scalar ones for this instruction set.
use std::arch::x86_64::*;

use super::{Dtype, Kernels, PANEL, Product, RUN};
use crate::machine::cpu::{Avx2, Isa};

mod integer;

/// The kernels for machines with AVX2 and FMA; nothing else gives this table, or what is in it, to the outside.
pub fn kernels(_: Avx2) -> &'static Kernels {
    static KERNELS: Kernels = table(Isa::Avx2.name(), integer::product);
    &KERNELS
}

/// Rows of the register block: 6 rows of 16 columns fill 12 of the 16 registers with sums.
const ROWS: usize = 6;
/// Most rows for which weights are converted in registers; above that they are expanded once for all rows.
const DIRECT_ROWS: usize = 2 * ROWS;
/// Bytes from the weights at work to those that are fetched from memory meanwhile: the prefetcher of the processor begins
/// anew in every page of 4 KiB.
const AHEAD: usize = 512;

row_kernels!("avx2,fma");

/// By hand: the compiler does not keep the definition's chains in registers.
fn burn(rounds: usize) -> u64 {
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
    p.check();
    // SAFETY: `check` has compared every slice with the sizes, and the table that this is in is given for a proof of AVX2
    // and FMA only.
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

    /// Steps `k` and `k + 1` (`k` even) of a panel: columns 0..8 and 8..16 of the first, then of the second.
    ///
    /// # Safety
    /// The panel must hold both steps, and the caller must be compiled for AVX2.
    unsafe fn pair(panel: *const u8, k: usize) -> [__m256; 4];
}

struct Float32;
struct Bfloat16;

impl Storage for Float32 {
    const DTYPE: Dtype = Dtype::Float32;

    #[inline(always)]
    unsafe fn pair(panel: *const u8, k: usize) -> [__m256; 4] {
        // SAFETY: by the caller's promise; loads need no alignment.
        unsafe {
            let p = panel.cast::<f32>().add(k * PANEL);
            [_mm256_loadu_ps(p), _mm256_loadu_ps(p.add(8)), _mm256_loadu_ps(p.add(16)), _mm256_loadu_ps(p.add(24))]
        }
    }
}

impl Storage for Bfloat16 {
    const DTYPE: Dtype = Dtype::Bfloat16;

    #[inline(always)]
    unsafe fn pair(panel: *const u8, k: usize) -> [__m256; 4] {
        // SAFETY: by the caller's promise; loads need no alignment.
        unsafe {
            let p = panel.add(k * PANEL * 2).cast::<__m256i>();
            let (low, high) = (_mm256_loadu_si256(p), _mm256_loadu_si256(p.add(1)));
            let odd = _mm256_set1_epi32(0xffff_0000_u32 as i32);
            [
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(low)),
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(high)),
                _mm256_castsi256_ps(_mm256_and_si256(low, odd)),
                _mm256_castsi256_ps(_mm256_and_si256(high, odd)),
            ]
        }
    }
}

/// Picks the block shapes: few rows convert the weights in registers and go over so many panels at once that the
/// sums hide their latency, many rows share a panel that is expanded to float32.
#[target_feature(enable = "avx2,fma")]
unsafe fn typed_product<S: Storage>(mut p: Product<'_>) {
    let p = &mut p;
    // SAFETY: the offsets stay inside the slices, whose lengths `check` has compared with the sizes.
    unsafe {
        if p.rows > DIRECT_ROWS {
            return many_rows::<S>(p);
        }
        let mut first = 0;
        while first < p.panels {
            first += match (p.rows, p.panels - first) {
                (0, left) => left,
                (1, 6..) => block::<S, 1, 6>(p, first),
                (1, 3..) => block::<S, 1, 3>(p, first),
                (1, 2) => block::<S, 1, 2>(p, first),
                (1, _) => block::<S, 1, 1>(p, first),
                (2, 3..) => block::<S, 2, 3>(p, first),
                (2, 2) => block::<S, 2, 2>(p, first),
                (2, _) => block::<S, 2, 1>(p, first),
                (3, 2..) => block::<S, 3, 2>(p, first),
                (3, _) => block::<S, 3, 1>(p, first),
                _ => {
                    for from in (0..p.k.max(1)).step_by(RUN) {
                        let w = panel_run::<S>(p, first, from);
                        all_rows::<S, true>(p, first, from, w);
                    }
                    1
                }
            };
        }
    }
}

/// Weights of a panel from a step on.
unsafe fn panel_run<S: Storage>(p: &Product<'_>, panel: usize, from: usize) -> *const u8 {
    // SAFETY: as for the caller; a run begins at an even step, so its weights begin where they are expected.
    unsafe { p.w.as_ptr().add(panel * p.w_stride + from * PANEL * S::DTYPE.size()) }
}

/// `R` rows times `N` panels from `panel` on, all of `k`; gives `N`.
#[target_feature(enable = "avx2,fma")]
unsafe fn block<S: Storage, const R: usize, const N: usize>(p: &mut Product<'_>, panel: usize) -> usize {
    for from in (0..p.k.max(1)).step_by(RUN) {
        let k = (p.k - from).min(RUN);
        // SAFETY: as for the caller.
        unsafe {
            let w = panel_run::<S>(p, panel, from);
            let out = p.out.as_mut_ptr().add(panel * PANEL);
            let a = p.a.as_ptr().add(from);
            let go_on = p.accumulate || from > 0;
            tile::<S, R, N, true>(a, p.a_stride, k, w, p.w_stride, out, p.out_stride, go_on);
        }
    }
    N
}

/// Many rows, run after run of `k`: the activations of a run stay in the second-level cache while the panels go by, the
/// expanded weights of a panel in the first-level cache while the rows do.
#[target_feature(enable = "avx2,fma")]
unsafe fn many_rows<S: Storage>(p: &mut Product<'_>) {
    for from in (0..p.k.max(1)).step_by(RUN) {
        let k = (p.k - from).min(RUN);
        for panel in 0..p.panels {
            // SAFETY: as for the caller; the scratch holds `RUN` steps.
            unsafe {
                let w = panel_run::<S>(p, panel, from);
                if S::DTYPE == Dtype::Float32 {
                    all_rows::<S, false>(p, panel, from, w);
                    continue;
                }
                let to = p.scratch.as_mut_ptr();
                for step in (0..k).step_by(2) {
                    for (i, v) in S::pair(w, step).into_iter().enumerate() {
                        _mm256_storeu_ps(to.add(step * PANEL + i * 8), v);
                    }
                }
                all_rows::<Float32, false>(p, panel, from, to.cast_const().cast());
            }
        }
    }
}

/// All rows times a run of one panel.
#[target_feature(enable = "avx2,fma")]
unsafe fn all_rows<S: Storage, const FETCH: bool>(p: &mut Product<'_>, panel: usize, from: usize, w: *const u8) {
    let (k, go_on) = ((p.k - from).min(RUN), p.accumulate || from > 0);
    let (lda, ldo) = (p.a_stride, p.out_stride);
    let mut row = 0;
    for tiles in (1..=p.rows.div_ceil(ROWS)).rev() {
        // Tiles of even height: a low one does not hide the latency of its sums.
        let height = (p.rows - row).div_ceil(tiles);
        // SAFETY: as for the caller.
        unsafe {
            let a = p.a.as_ptr().add(row * lda + from);
            let out = p.out.as_mut_ptr().add(row * ldo + panel * PANEL);
            match height {
                1 => tile::<S, 1, 1, FETCH>(a, lda, k, w, 0, out, ldo, go_on),
                2 => tile::<S, 2, 1, FETCH>(a, lda, k, w, 0, out, ldo, go_on),
                3 => tile::<S, 3, 1, FETCH>(a, lda, k, w, 0, out, ldo, go_on),
                4 => tile::<S, 4, 1, FETCH>(a, lda, k, w, 0, out, ldo, go_on),
                5 => tile::<S, 5, 1, FETCH>(a, lda, k, w, 0, out, ldo, go_on),
                _ => tile::<S, ROWS, 1, FETCH>(a, lda, k, w, 0, out, ldo, go_on),
            }
        }
        row += height;
    }
}

/// The inner loop: `R x N * PANEL` sums in registers, each one chain over ascending `k`; with `add` they are then added
/// to `out`. `FETCH` is for weights that come from memory.
#[allow(clippy::too_many_arguments, clippy::needless_range_loop)]
#[target_feature(enable = "avx2,fma")]
#[inline]
unsafe fn tile<S: Storage, const R: usize, const N: usize, const FETCH: bool>(
    a: *const f32,
    a_stride: usize,
    k: usize,
    w: *const u8,
    w_stride: usize,
    out: *mut f32,
    out_stride: usize,
    add: bool,
) {
    // SAFETY: the caller owns `R` rows of `a` and `out` and `N` panels of `w`, each of `k` steps (panels are padded to
    // an even number of steps). What is fetched ahead may lie outside: that reads nothing.
    unsafe {
        let mut sums = [[[_mm256_setzero_ps(); 2]; N]; R];
        let even = k & !1;
        for step in (0..even).step_by(2) {
            for n in 0..N {
                let panel = w.add(n * w_stride);
                if FETCH {
                    let at = panel.wrapping_add(step * PANEL * S::DTYPE.size() + AHEAD);
                    for line in (0..2 * PANEL * S::DTYPE.size()).step_by(64) {
                        _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(line).cast());
                    }
                }
                let [w0, w1, w2, w3] = S::pair(panel, step);
                for r in 0..R {
                    let x = _mm256_broadcast_ss(&*a.add(r * a_stride + step));
                    sums[r][n][0] = _mm256_fmadd_ps(x, w0, sums[r][n][0]);
                    sums[r][n][1] = _mm256_fmadd_ps(x, w1, sums[r][n][1]);
                }
                for r in 0..R {
                    let x = _mm256_broadcast_ss(&*a.add(r * a_stride + step + 1));
                    sums[r][n][0] = _mm256_fmadd_ps(x, w2, sums[r][n][0]);
                    sums[r][n][1] = _mm256_fmadd_ps(x, w3, sums[r][n][1]);
                }
            }
        }
        if even < k {
            for n in 0..N {
                let [w0, w1, _, _] = S::pair(w.add(n * w_stride), even);
                for r in 0..R {
                    let x = _mm256_broadcast_ss(&*a.add(r * a_stride + even));
                    sums[r][n][0] = _mm256_fmadd_ps(x, w0, sums[r][n][0]);
                    sums[r][n][1] = _mm256_fmadd_ps(x, w1, sums[r][n][1]);
                }
            }
        }
        for r in 0..R {
            for n in 0..N {
                let at = out.add(r * out_stride + n * PANEL);
                let [mut low, mut high] = sums[r][n];
                if add {
                    low = _mm256_add_ps(_mm256_loadu_ps(at), low);
                    high = _mm256_add_ps(_mm256_loadu_ps(at.add(8)), high);
                }
                _mm256_storeu_ps(at, low);
                _mm256_storeu_ps(at.add(8), high);
            }
        }
    }
}
