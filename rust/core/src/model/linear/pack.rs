//! Packing: the rows of checkpoint tensors into panels, rounded or quantized as the layer stores them.
use std::sync::Mutex;

use super::{Linear, Order, Storage};
use crate::error::{Error, Result};
use crate::machine::memory::{HUGE_PAGE, Mapped};
use crate::machine::numbers::{ROUND, to_bfloat16};
use crate::machine::shared::Shared;
use crate::machine::team::Team;
use crate::model::checkpoint::Tensor;
use crate::model::kernels::{GROUP, GROUP_BYTES, Kernels, PANEL, SCALE_BYTES};

impl Linear {
    /// Packs the matrices, which must have equal numbers of columns, and checks every value.
    pub fn pack(
        weights: &[Tensor<'_>],
        order: Order,
        bias: Vec<f32>,
        (kernels, storage): (&'static Kernels, Storage),
        team: &mut Team,
    ) -> Result<Self> {
        let mut linear = Self::zeroed(weights, order, bias, (kernels, storage))?;
        linear.pack_weights(weights, order, team)?;
        Ok(linear)
    }

    /// A layer for the matrices whose weights are still to come: packed from them, or as bytes that were packed before.
    pub(crate) fn zeroed(
        weights: &[Tensor<'_>],
        order: Order,
        bias: Vec<f32>,
        (kernels, storage): (&'static Kernels, Storage),
    ) -> Result<Self> {
        let inputs = weights[0].columns;
        let placement = Placement::new(weights, order);
        let panels = placement.panels;
        let too_large = || Error::no_memory(usize::MAX);
        let panel_bytes = storage.kind().panel_bytes(inputs).ok_or_else(too_large)?;
        let size = panel_bytes
            .checked_mul(panels)
            .and_then(|bytes| bytes.checked_add(storage.tail_bytes(inputs)))
            .ok_or_else(too_large)?;
        let mut padded = bias;
        if !padded.is_empty() {
            padded.resize(panels * PANEL, 0.0);
        }
        Ok(Self {
            kernels,
            storage,
            outputs: placement.outputs,
            inputs,
            panels,
            panel_bytes,
            task_panels: None,
            data: Mapped::zeroed(size)?,
            bias: padded,
        })
    }

    /// The weights as packed.
    pub(crate) fn packed(&self) -> &[u8] {
        &self.data
    }

    /// The weights as packed, to be read from a file.
    pub(crate) fn packed_mut(&mut self) -> &mut [u8] {
        &mut self.data
    }

    /// Packs the matrices that the layer was made for.
    pub(crate) fn pack_weights(&mut self, weights: &[Tensor<'_>], order: Order, team: &mut Team) -> Result<()> {
        let source = Matrices { weights, placement: Placement::new(weights, order) };
        let scales =
            if self.storage.kind().scales_inputs() { input_scales(weights, self.inputs, team)? } else { Vec::new() };
        let inverses: Vec<_> = scales.iter().map(|scale| 1.0 / scale).collect(); // exact: powers of two
        let (kind, inputs, bytes) = (self.storage.kind(), self.inputs, self.panel_bytes);
        let (panels, tail) = self.data.split_at_mut(self.panels * bytes);
        for (to, scale) in tail.chunks_exact_mut(4).zip(&scales) {
            to.copy_from_slice(&scale.to_le_bytes());
        }
        let failure = Mutex::new(None);
        team.run_shared(&mut Shared::new(panels), |worker, data| {
            // The system clears a page when it is first written. Two threads at one page would both clear it.
            worker.for_each_part(data.len().div_ceil(HUGE_PAGE), 1, |part| {
                let start = part.rows().start * HUGE_PAGE;
                // SAFETY: each page is one task's.
                unsafe { data.part_mut(part, start..start + 1) }.fill(0);
            });
            let mut rows = vec![0.0; PANEL * inputs.next_multiple_of(kind.step_multiple())];
            worker.for_each_part(self.panels, 1, |part| {
                let panel = part.rows().start;
                if let Err(e) = source.read(panel, inputs, &inverses, &mut rows) {
                    failure.lock().unwrap_or_else(|e| e.into_inner()).get_or_insert(e);
                    return;
                }
                // SAFETY: each panel is one task's.
                kind.pack_panel(unsafe { data.part_mut(part, panel * bytes..(panel + 1) * bytes) }, &rows);
            });
        })?;
        match failure.into_inner().unwrap_or_else(|e| e.into_inner()) {
            Some(e) => Err(e),
            None => Ok(()),
        }
    }
}

/// The matrices of a layer, and where their rows go.
struct Matrices<'w, 't> {
    weights: &'w [Tensor<'t>],
    placement: Placement,
}

impl Matrices<'_, '_> {
    /// The rows that are the columns of a panel, times the factor of each input; zeros where there is none.
    fn read(&self, panel: usize, inputs: usize, factors: &[f32], rows: &mut [f32]) -> Result<()> {
        rows.fill(0.0);
        for (column, row) in rows.chunks_exact_mut(rows.len() / PANEL).enumerate() {
            if let Some((weight, index)) = self.placement.source(panel * PANEL + column) {
                self.weights[weight].read_finite(index, &mut row[..inputs])?;
            }
            for (x, factor) in row.iter_mut().zip(factors) {
                *x *= factor;
            }
        }
        Ok(())
    }
}

/// Where each output column comes from.
struct Placement {
    ends: Vec<usize>,
    order: Order,
    outputs: usize,
    panels: usize,
}

impl Placement {
    fn new(weights: &[Tensor<'_>], order: Order) -> Self {
        let mut outputs = 0;
        let ends: Vec<_> = weights
            .iter()
            .map(|w| {
                outputs += w.rows;
                outputs
            })
            .collect();
        if order == Order::Interleaved {
            outputs = weights[0].rows.next_multiple_of(PANEL) * weights.len();
        }
        Self { ends, order, outputs, panels: outputs.div_ceil(PANEL) }
    }

    /// The matrix and its row that column `column` holds, or `None` for padding.
    fn source(&self, column: usize) -> Option<(usize, usize)> {
        match self.order {
            Order::Concatenated => {
                let weight = self.ends.iter().position(|&end| column < end)?;
                Some((weight, column - if weight > 0 { self.ends[weight - 1] } else { 0 }))
            }
            Order::Interleaved => {
                let (panel, count) = (column / PANEL, self.ends.len());
                let row = panel / count * PANEL + column % PANEL;
                (row < self.ends[0]).then_some((panel % count, row))
            }
        }
    }
}

/// Rows of a weight matrix that one task looks at.
const SCALE_ROWS: usize = 64;
/// Smallest scale of an input.
const MIN_SCALE: f32 = 1.0 / 4096.0;

/// For each input the power of two that its activations are multiplied by, and its weights divided by, before both
/// become integers: the smallest at which no weight of the input outgrows the largest of its group.
///
/// Where a few channels carry large activations, the weights that read them may all be small, and would be rounded to
/// nothing beside the others of their group. Activations have more bits than they need. Powers of two round nothing.
fn input_scales(weights: &[Tensor<'_>], inputs: usize, team: &mut Team) -> Result<Vec<f32>> {
    let largest = Mutex::new(vec![0.0_f32; inputs]);
    team.run(|worker| {
        let (mut row, mut mine) = (vec![0.0; inputs], vec![0.0_f32; inputs]);
        for weight in weights {
            worker.for_each_part(weight.rows, SCALE_ROWS, |part| {
                for index in part.rows() {
                    weight.read(index, &mut row);
                    for (m, x) in mine.chunks_mut(GROUP).zip(row.chunks(GROUP)) {
                        let largest = largest_of(x).max(f32::MIN_POSITIVE);
                        for (m, x) in m.iter_mut().zip(x) {
                            *m = larger(*m, x / largest);
                        }
                    }
                }
            });
        }
        let mut all = largest.lock().unwrap_or_else(|e| e.into_inner());
        for (a, m) in all.iter_mut().zip(mine) {
            *a = a.max(m);
        }
    })?;
    let mut scales = largest.into_inner().unwrap_or_else(|e| e.into_inner());
    for group in scales.chunks_mut(GROUP) {
        let largest = group.iter().fold(0.0_f32, |m, x| m.max(*x));
        for scale in group {
            let ratio = (*scale / largest).clamp(MIN_SCALE, 1.0);
            // All zeros, or not finite: the weights say so later.
            *scale = if ratio.is_finite() { ratio.log2().ceil().exp2() } else { 1.0 };
        }
    }
    Ok(scales)
}

/// The larger magnitude, `a` where `b` is NaN: one instruction, while `f32::max` also looks for NaN in `a`.
fn larger(a: f32, b: f32) -> f32 {
    let b = b.abs();
    if b > a { b } else { a }
}

/// The largest magnitude.
fn largest_of(x: &[f32]) -> f32 {
    // Lanes, so that it vectorises: the compiler keeps the order of comparisons between floats.
    let mut lanes = [0.0_f32; 8];
    let (whole, rest) = x.as_chunks::<8>();
    for x in whole {
        for (m, x) in lanes.iter_mut().zip(x) {
            *m = larger(*m, *x);
        }
    }
    rest.iter().chain(&lanes).fold(0.0, |m, x| larger(m, *x))
}

/// Scales pairs of numbers to integers in [-127, 127], to nearest even, and gives the scale.
fn quantize_weights(group: &[f32], out: &mut [u16]) -> f32 {
    let largest = largest_of(group);
    // Zeros, or numbers so small that the inverse would be infinite, become zeros.
    let inverse = if largest < 1e-30 { 0.0 } else { 127.0 / largest };
    for (pair, x) in out.iter_mut().zip(group.as_chunks::<2>().0) {
        let [a, b] = x.map(|x: f32| (x * inverse + ROUND).to_bits() & 0xff);
        *pair = (a | b << 8) as u16;
    }
    if inverse == 0.0 { 0.0 } else { largest / 127.0 }
}

/// Pairs of steps in a group.
const PAIRS: usize = GROUP / 2;

/// Writes `PANEL` rows of even length (columns of the product) into a panel of bfloat16.
pub(super) fn pack_bfloat16(panel: &mut [u8], rows: &[f32]) {
    let k = rows.len() / PANEL;
    let mut pairs = [0; PANEL * PAIRS];
    for (group, out) in panel.chunks_mut(4 * PANEL * PAIRS).enumerate() {
        let steps = group * GROUP..k.min((group + 1) * GROUP);
        let pairs = &mut pairs[..PANEL * steps.len() / 2];
        for (pairs, row) in pairs.chunks_exact_mut(steps.len() / 2).zip(rows.chunks_exact(k)) {
            for (pair, x) in pairs.iter_mut().zip(row[steps.clone()].as_chunks::<2>().0) {
                let [a, b] = x.map(to_bfloat16);
                *pair = u32::from(a) | u32::from(b) << 16;
            }
        }
        interleave(out, pairs, u32::to_le_bytes);
    }
}

/// Writes `PANEL` rows, as long as a multiple of four, into a panel of integers; `lay` gets those of a group, in pairs of
/// steps, one row after the other.
pub(super) fn pack_integers(panel: &mut [u8], rows: &[f32], lay: impl Fn(&mut [u8], &[u16])) {
    let k = rows.len() / PANEL;
    let mut pairs = [0; PANEL * PAIRS];
    for (group, out) in panel.chunks_mut(GROUP_BYTES).enumerate() {
        let (scales, out) = out.split_at_mut(SCALE_BYTES);
        let steps = group * GROUP..k.min((group + 1) * GROUP);
        let pairs = &mut pairs[..PANEL * steps.len() / 2];
        for ((pairs, row), scale) in
            pairs.chunks_exact_mut(steps.len() / 2).zip(rows.chunks_exact(k)).zip(scales.as_chunks_mut::<4>().0)
        {
            *scale = quantize_weights(&row[steps.clone()], pairs).to_le_bytes();
        }
        lay(out, pairs);
    }
}

/// Writes the first elements of `PANEL` rows side by side, then the second ones, and so on.
pub(super) fn interleave<T: Copy, const N: usize>(out: &mut [u8], rows: &[T], bytes: fn(T) -> [u8; N]) {
    let length = rows.len() / PANEL;
    let rows: [&[T]; PANEL] = std::array::from_fn(|row| &rows[row * length..][..length]);
    let cells = out.as_chunks_mut::<N>().0.as_chunks_mut::<PANEL>().0;
    for (step, cells) in cells[..length].iter_mut().enumerate() {
        for (cell, row) in cells.iter_mut().zip(rows) {
            *cell = bytes(row[step]);
        }
    }
}
