//! The product of float32 activations and weights of float32 or bfloat16, once for all instruction sets: a set says what
//! its registers do ([`Registers`]) and which blocks fit into them ([`Shapes`]).
//!
//! Few rows convert the weights in registers and go over several panels at once, so that the sums hide their latency.
//! Many rows share a panel that is expanded to float32: run after run of `k`, the activations of a run stay in the
//! second-level cache while the panels go by, the expanded weights in the first-level cache while the rows do.
use super::layout::{FloatFormat, PANEL, RUN};
use super::product::Product;

/// The registers of an instruction set.
///
/// # Safety
/// The methods may be called where the set's instructions are, on memory that holds what they read and write. All but
/// `compiled` must be inlined into it, as all functions below: a call for each tile costs 5 % of the time.
pub(super) trait Registers: Sized {
    /// [`PANEL`] numbers.
    type Panel: Copy;
    /// One number to multiply them by.
    type Factor: Copy;

    unsafe fn zero() -> Self::Panel;
    unsafe fn load(at: *const f32) -> Self::Panel;
    unsafe fn store(at: *mut f32, x: Self::Panel);
    unsafe fn add(a: Self::Panel, b: Self::Panel) -> Self::Panel;
    unsafe fn factor(at: *const f32) -> Self::Factor;
    /// `x * w + sum`, rounded once.
    unsafe fn fused(x: Self::Factor, w: Self::Panel, sum: Self::Panel) -> Self::Panel;
    /// The even and the odd one of two steps of bfloat16.
    unsafe fn bfloat16_pair(at: *const u8) -> [Self::Panel; 2];
    /// Asks for weights that are needed later, wherever they lie.
    #[inline(always)]
    unsafe fn prefetch(_: *const u8) {}

    /// [`all_panels`], compiled for the set.
    unsafe fn compiled<S: Shapes, W: Weights>(p: &mut Product<'_>);
}

/// The blocks that a set keeps in registers.
pub(super) trait Shapes {
    /// Most rows for which weights are converted in registers; above that they are expanded once for all rows.
    const DIRECT_ROWS: usize;

    /// All rows, at most [`Shapes::DIRECT_ROWS`], times one panel from `panel` on or more; gives their number.
    ///
    /// # Safety
    /// The product must have been checked, and the caller must be compiled for the instructions of `G`.
    unsafe fn direct<G: Registers, W: Weights>(p: &mut Product<'_>, panel: usize) -> usize;

    /// The first of `rows` rows times one panel: as many as suit; gives their number.
    ///
    /// # Safety
    /// There must be the rows and the panel, and the caller must be compiled for the instructions of `G`.
    unsafe fn rows<G: Registers, W: Weights, const FETCH: bool>(t: &FloatTile, rows: usize) -> usize;
}

/// Storage of weights.
pub(super) trait Weights {
    const FORMAT: FloatFormat;

    /// Steps `k` and `k + 1` (`k` even) of a panel.
    ///
    /// # Safety
    /// The panel must hold both steps.
    unsafe fn pair<G: Registers>(panel: *const u8, k: usize) -> [G::Panel; 2];
}

pub(super) struct Float32;
pub(super) struct Bfloat16;

impl Weights for Float32 {
    const FORMAT: FloatFormat = FloatFormat::Float32;

    #[inline(always)]
    unsafe fn pair<G: Registers>(panel: *const u8, k: usize) -> [G::Panel; 2] {
        // SAFETY: the caller promises that the steps are there; loads need no alignment.
        unsafe {
            let at = panel.cast::<f32>().add(k * PANEL);
            [G::load(at), G::load(at.add(PANEL))]
        }
    }
}

impl Weights for Bfloat16 {
    const FORMAT: FloatFormat = FloatFormat::Bfloat16;

    #[inline(always)]
    unsafe fn pair<G: Registers>(panel: *const u8, k: usize) -> [G::Panel; 2] {
        // SAFETY: the caller promises that the steps are there; loads need no alignment.
        unsafe { G::bfloat16_pair(panel.add(k * PANEL * 2)) }
    }
}

/// Where a block of rows and panels lies, and the steps of `k` that it takes, at most [`RUN`].
#[derive(Clone, Copy)]
pub(super) struct FloatTile {
    a: *const f32,
    a_stride: usize,
    k: usize,
    w: *const u8,
    w_stride: usize,
    out: *mut f32,
    out_stride: usize,
    /// Adds to what `out` holds.
    add: bool,
}

/// The product of a set.
///
/// # Safety
/// The machine must have the instructions of `G`.
pub(super) unsafe fn product<G: Registers, S: Shapes>(mut p: Product<'_>) {
    p.check();
    // SAFETY: `check` has compared every slice with the sizes; the caller promises the instructions.
    unsafe {
        match p.format {
            FloatFormat::Float32 => G::compiled::<S, Float32>(&mut p),
            FloatFormat::Bfloat16 => G::compiled::<S, Bfloat16>(&mut p),
        }
    }
}

/// All rows and panels.
///
/// # Safety
/// The product must have been checked, and the caller must be compiled for the instructions of `G`.
#[inline(always)]
pub(super) unsafe fn all_panels<G: Registers, S: Shapes, W: Weights>(p: &mut Product<'_>) {
    if p.rows == 0 {
        return;
    }
    // SAFETY: the caller promises the instructions, and that the sizes were checked.
    unsafe {
        if p.rows > S::DIRECT_ROWS {
            return many_rows::<G, S, W>(p);
        }
        let mut panel = 0;
        while panel < p.panels {
            panel += S::direct::<G, W>(p, panel);
        }
    }
}

/// The first row and the first of some panels, a run of `k` from `from` on.
///
/// # Safety
/// The product must have been checked.
#[inline(always)]
unsafe fn run_of<W: Weights>(p: &mut Product<'_>, panel: usize, from: usize) -> FloatTile {
    // SAFETY: the offsets stay inside the slices; a run begins at an even step, so its weights begin where its steps
    // would if all were in a row.
    unsafe {
        FloatTile {
            a: p.a.as_ptr().add(from),
            a_stride: p.a_stride,
            k: (p.k - from).min(RUN),
            w: p.w.as_ptr().add(panel * p.w_stride + from * PANEL * W::FORMAT.size()),
            w_stride: p.w_stride,
            out: p.out.as_mut_ptr().add(panel * PANEL),
            out_stride: p.out_stride,
            add: p.accumulate || from > 0,
        }
    }
}

/// `R` rows times `N` panels from `panel` on, all of `k`; gives `N`.
///
/// # Safety
/// The product must have been checked and have as many rows and panels; the caller must be compiled for `G`.
#[inline(always)]
pub(super) unsafe fn block<G: Registers, W: Weights, const R: usize, const N: usize, const FETCH: bool>(
    p: &mut Product<'_>,
    panel: usize,
) -> usize {
    for from in (0..p.k.max(1)).step_by(RUN) {
        // SAFETY: the caller promises what is needed.
        unsafe { tile::<G, W, R, N, FETCH>(&run_of::<W>(p, panel, from)) };
    }
    N
}

/// All rows times one panel, all of `k`; gives 1.
///
/// # Safety
/// The product must have been checked and have the panel; the caller must be compiled for the instructions of `G`.
#[inline(always)]
pub(super) unsafe fn one_panel<G: Registers, S: Shapes, W: Weights>(p: &mut Product<'_>, panel: usize) -> usize {
    for from in (0..p.k.max(1)).step_by(RUN) {
        // SAFETY: the caller promises what is needed.
        unsafe { all_rows::<G, S, W, true>(run_of::<W>(p, panel, from), p.rows) };
    }
    1
}

/// All rows, run after run of `k`, panel after panel.
///
/// # Safety
/// As for [`all_panels`].
#[inline(always)]
unsafe fn many_rows<G: Registers, S: Shapes, W: Weights>(p: &mut Product<'_>) {
    for from in (0..p.k.max(1)).step_by(RUN) {
        for panel in 0..p.panels {
            // SAFETY: the sizes were checked, and the scratch holds `RUN` steps.
            unsafe {
                let mut run = run_of::<W>(p, panel, from);
                if W::FORMAT == FloatFormat::Bfloat16 {
                    let to = p.scratch.as_mut_ptr();
                    expand::<G>(run.w, run.k, to);
                    run.w = to.cast_const().cast();
                }
                all_rows::<G, S, Float32, false>(run, p.rows);
            }
        }
    }
}

/// All rows times a run of one panel.
///
/// # Safety
/// There must be `rows` rows and the panel, and the caller must be compiled for the instructions of `G`.
#[inline(always)]
unsafe fn all_rows<G: Registers, S: Shapes, W: Weights, const FETCH: bool>(run: FloatTile, rows: usize) {
    let mut row = 0;
    while row < rows {
        // SAFETY: the rows are there.
        row += unsafe {
            let a = run.a.add(row * run.a_stride);
            let out = run.out.add(row * run.out_stride);
            S::rows::<G, W, FETCH>(&FloatTile { a, out, ..run }, rows - row)
        };
    }
}

/// Expands steps of bfloat16, padded to an even number, to float32.
///
/// # Safety
/// The memory must be there, and the caller must be compiled for the instructions of `G`.
#[inline(always)]
pub(super) unsafe fn expand<G: Registers>(w: *const u8, steps: usize, to: *mut f32) {
    for step in (0..steps).step_by(2) {
        // SAFETY: the caller promises that the steps are there.
        unsafe {
            let [even, odd] = Bfloat16::pair::<G>(w, step);
            G::store(to.add(step * PANEL), even);
            G::store(to.add((step + 1) * PANEL), odd);
        }
    }
}

/// Bytes from the weights at work to those that are fetched from memory meanwhile: the prefetcher of the processor
/// begins anew in every page of 4 KiB.
const FETCH_DISTANCE: usize = 512;

/// The inner loop: `R x N` panels of sums in registers, each one chain over ascending `k`, which are then written or
/// added. `FETCH` is for weights that come from memory.
///
/// # Safety
/// There must be `R` rows of activations and results and `N` panels of weights, each of `k` steps, padded to an even
/// number; the caller must be compiled for the instructions of `G`.
#[allow(clippy::needless_range_loop)]
#[inline(always)]
pub(super) unsafe fn tile<G: Registers, W: Weights, const R: usize, const N: usize, const FETCH: bool>(t: &FloatTile) {
    // SAFETY: the caller promises the memory. What is fetched ahead may lie outside: that reads nothing.
    unsafe {
        let FloatTile { a, a_stride, k, w, w_stride, out, out_stride, add } = *t;
        let bytes = 2 * PANEL * W::FORMAT.size();
        let mut sums = [[G::zero(); N]; R];
        let even = k & !1;
        for step in (0..even).step_by(2) {
            for n in 0..N {
                let panel = w.add(n * w_stride);
                if FETCH {
                    for line in (0..bytes).step_by(64) {
                        G::prefetch(panel.wrapping_add(step / 2 * bytes + FETCH_DISTANCE + line));
                    }
                }
                let [w0, w1] = W::pair::<G>(panel, step);
                for r in 0..R {
                    sums[r][n] = G::fused(G::factor(a.add(r * a_stride + step)), w0, sums[r][n]);
                }
                for r in 0..R {
                    sums[r][n] = G::fused(G::factor(a.add(r * a_stride + step + 1)), w1, sums[r][n]);
                }
            }
        }
        if even < k {
            for n in 0..N {
                let [w0, _] = W::pair::<G>(w.add(n * w_stride), even);
                for r in 0..R {
                    sums[r][n] = G::fused(G::factor(a.add(r * a_stride + even)), w0, sums[r][n]);
                }
            }
        }
        for r in 0..R {
            for n in 0..N {
                let at = out.add(r * out_stride + n * PANEL);
                let previous = if add { G::load(at) } else { G::zero() };
                G::store(at, G::add(previous, sums[r][n]));
            }
        }
    }
}
