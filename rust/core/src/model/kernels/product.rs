//! The calls of the matrix kernels, and the checks of their slices on which the unsafe code of all sets rests.
use super::layout::{FloatFormat, GROUP, IntegerLayout, PANEL, RUN, int8_panel_bytes};

/// Elements of `count` parts, at least one, `stride` apart, of which the last takes `last`; `None` if that overflows.
fn extent(count: usize, stride: usize, last: usize) -> Option<usize> {
    (count - 1).checked_mul(stride)?.checked_add(last)
}

/// Panics if a slice is shorter than it has to be.
fn demand(what: &str, len: usize, needed: Option<usize>) {
    assert!(needed.is_some_and(|needed| needed <= len), "{what}: {len} elements, {needed:?} needed");
}

/// One call of the matrix kernel: `out[r][c] = sum over k of a[r][k] * w[k][c]`, for `rows` rows and whole panels. Each
/// [`RUN`] of `k` is one chain of multiply-adds that starts from zero.
pub(crate) struct Product<'a> {
    /// Activations, row-major.
    pub(crate) a: &'a [f32],
    /// Elements from one row of `a` to the next.
    pub(crate) a_stride: usize,
    /// Rows of `a` and of `out`.
    pub rows: usize,
    /// Inner dimension.
    pub(crate) k: usize,
    /// First panel.
    pub(crate) w: &'a [u8],
    /// Bytes from one panel to the next.
    pub(crate) w_stride: usize,
    /// Numbers of `w`.
    pub(crate) format: FloatFormat,
    /// Number of panels.
    pub(crate) panels: usize,
    /// Result, row-major, `panels * PANEL` columns wide.
    pub(crate) out: &'a mut [f32],
    /// Elements from one row of `out` to the next.
    pub(crate) out_stride: usize,
    /// Adds to what `out` holds.
    pub(crate) accumulate: bool,
    /// At least `RUN * PANEL` elements that the kernel may overwrite.
    pub(crate) scratch: &'a mut [f32],
}

impl Product<'_> {
    /// Panics if a slice is too short.
    pub(super) fn check(&self) {
        if self.rows == 0 || self.panels == 0 {
            return;
        }
        let panel = self.format.panel_bytes(self.k);
        demand("activations", self.a.len(), extent(self.rows, self.a_stride, self.k));
        demand("weights", self.w.len(), panel.and_then(|panel| extent(self.panels, self.w_stride, panel)));
        demand("result", self.out.len(), result(self.rows, self.out_stride, self.panels));
        demand("scratch", self.scratch.len(), Some(RUN * PANEL));
    }
}

fn result(rows: usize, stride: usize, panels: usize) -> Option<usize> {
    extent(rows, stride, panels.checked_mul(PANEL)?)
}

/// One call of the matrix kernel for weights of 8-bit integers: `out[r][c]` is the sum over the groups, in ascending
/// order and with one rounding per step, of (sum over k of `a[r][k] * w[k][c]`, exact, then rounded to float32) times
/// (`a_scale[r][group] * w_scale[group][c]`).
pub(crate) struct IntegerProduct<'a> {
    /// Quantized activations as [`IntegerLayout`] says, padded with zeros along `k`, the last block whole.
    pub(crate) a: &'a [i16],
    /// Scales of the activations, row-major, one per group.
    pub(crate) a_scale: &'a [f32],
    /// Rows of `a` and of `out`.
    pub rows: usize,
    /// Inner dimension.
    pub(crate) k: usize,
    /// First panel, and behind the last one what [`IntegerLayout::tail_bytes`] says.
    pub(crate) w: &'a [u8],
    /// Number of panels, one after the other.
    pub(crate) panels: usize,
    /// Result, row-major and dense, `panels * PANEL` columns wide; what it held is lost.
    pub(crate) out: &'a mut [f32],
    /// At least `GROUP * PANEL` elements that the kernel may overwrite.
    pub(crate) scratch: &'a mut [i16],
}

impl IntegerProduct<'_> {
    /// Bytes from one panel to the next.
    pub(super) fn panel_bytes(&self) -> usize {
        int8_panel_bytes(self.k).expect("the panels are in memory")
    }

    /// Panics if a slice is too short.
    pub(super) fn check(&self, layout: IntegerLayout) {
        if self.rows == 0 || self.panels == 0 {
            return;
        }
        assert!(self.k > 0);
        let panels = int8_panel_bytes(self.k).and_then(|panel| panel.checked_mul(self.panels));
        demand("weights", self.w.len(), panels.and_then(|bytes| bytes.checked_add(layout.tail_bytes())));
        // The weights are in memory, so `k` padded is far from any limit.
        let blocks = self.rows.div_ceil(layout.row_block());
        demand("activations", self.a.len(), blocks.checked_mul(layout.block_len(self.k)));
        demand("scales", self.a_scale.len(), self.rows.checked_mul(self.k.div_ceil(GROUP)));
        let width = self.panels.checked_mul(PANEL);
        demand("result", self.out.len(), width.and_then(|width| width.checked_mul(self.rows)));
        demand("scratch", self.scratch.len(), Some(GROUP * PANEL));
    }
}

/// What sums begin with.
#[derive(Clone, Copy)]
pub(crate) enum Start<'a> {
    /// Nothing.
    Zero,
    /// For each row this one, as wide as the result.
    Row(&'a [f32]),
    /// What the result holds.
    Out,
}

/// One call of the matrix kernel for bfloat16 activations and weights: as [`Product`], but the products, which are
/// exact, are added up in float32 in whatever order suits the instruction set, the same for every row. Numbers too
/// small for a normal float32 may count as zero.
pub(crate) struct Bfloat16Product<'a> {
    /// Activations, row-major. An odd `k` is padded, here or in the weights with a zero, in the other with what is
    /// finite.
    pub(crate) a: &'a [u16],
    /// Elements from one row of `a` to the next.
    pub(crate) a_stride: usize,
    /// Rows of `a` and of `out`.
    pub rows: usize,
    /// Inner dimension.
    pub(crate) k: usize,
    /// First panel.
    pub(crate) w: &'a [u8],
    /// Bytes from one panel to the next.
    pub(crate) w_stride: usize,
    /// Number of panels.
    pub(crate) panels: usize,
    /// Result, row-major, `panels * PANEL` columns wide.
    pub(crate) out: &'a mut [f32],
    /// Elements from one row of `out` to the next.
    pub(crate) out_stride: usize,
    /// What the products are added to.
    pub(crate) start: Start<'a>,
}

impl Bfloat16Product<'_> {
    /// Panics if a slice is too short.
    #[allow(dead_code, reason = "for sets that multiply bfloat16")]
    pub(super) fn check(&self) {
        if self.rows == 0 || self.panels == 0 {
            return;
        }
        let panel = FloatFormat::Bfloat16.panel_bytes(self.k);
        let steps = self.k.checked_next_multiple_of(2);
        demand("activations", self.a.len(), steps.and_then(|steps| extent(self.rows, self.a_stride, steps)));
        demand("weights", self.w.len(), panel.and_then(|panel| extent(self.panels, self.w_stride, panel)));
        demand("result", self.out.len(), result(self.rows, self.out_stride, self.panels));
        if let Start::Row(row) = self.start {
            demand("first sums", row.len(), self.panels.checked_mul(PANEL));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(rows: usize, a_stride: usize, w_stride: usize, out_stride: usize) -> bool {
        let (a, w) = ([0.0; 64], [0; 2048]);
        let (mut out, mut scratch) = ([0.0; 64], [0.0; RUN * PANEL]);
        let (out, scratch) = (&mut out, &mut scratch);
        let format = FloatFormat::Float32;
        let (k, panels, accumulate) = (4, 2, false);
        let product =
            Product { a: &a, a_stride, rows, k, w: &w, w_stride, format, panels, out, out_stride, accumulate, scratch };
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| product.check())).is_err()
    }

    #[test]
    fn sizes_that_overflow_are_refused() {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let half = 1 << (usize::BITS - 1);
        let outcomes = [
            refused(2, 4, 256, 32),
            // Each of these is small or zero if the multiplication wraps.
            refused(3, half, 256, 32),
            refused(2, 4, usize::MAX - 255, 32),
            refused(3, 4, 256, half),
            refused(usize::MAX, 1, 256, 0),
            refused(3, 4, 256, 32),
        ];
        std::panic::set_hook(hook);
        assert_eq!(outcomes, [false, true, true, true, true, true]);
    }
}
