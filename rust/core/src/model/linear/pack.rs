//! Packing: the rows of checkpoint tensors into panels, rounded or quantized as the layer stores them.
use std::sync::Mutex;

use super::{Linear, Order};
use crate::error::{Error, Result};
use crate::machine::memory::{HUGE_PAGE, Mapped, Shared};
use crate::machine::team::Team;
use crate::model::checkpoint::Tensor;
use crate::model::kernels::definition::to_bfloat16;
use crate::model::kernels::{Dtype, GROUP, GROUP_BYTES, Integers, PANEL, Packing, SCALE_BYTES};

impl Linear {
    /// Packs the matrices, which must have equal numbers of columns, and checks every value.
    pub fn pack(
        weights: &[Tensor<'_>],
        order: Order,
        bias: Vec<f32>,
        packing: impl Into<Packing>,
        team: &mut Team,
    ) -> Result<Self> {
        let mut linear = Self::zeroed(weights, order, bias, packing.into())?;
        linear.fill(weights, order, team)?;
        Ok(linear)
    }

    /// A layer for the matrices whose weights are still to come: packed from them, or as bytes that were packed before.
    pub fn zeroed(weights: &[Tensor<'_>], order: Order, bias: Vec<f32>, packing: Packing) -> Result<Self> {
        let Packing { dtype, integers, .. } = packing;
        let inputs = weights[0].columns;
        let place = Placement::new(weights, order);
        let (scales, slack) = if dtype == Dtype::Int8 { (inputs, integers.slack()) } else { (0, 0) };
        let size = dtype
            .panel_bytes(inputs)
            .checked_mul(place.panels)
            .and_then(|bytes| bytes.checked_add(4 * scales + slack))
            .ok_or_else(|| Error::no_memory(usize::MAX))?;
        let mut padded = bias;
        if !padded.is_empty() {
            padded.resize(place.panels * PANEL, 0.0);
        }
        Ok(Self {
            outputs: place.outputs,
            inputs,
            packing,
            panels: place.panels,
            data: Mapped::zeroed(size)?,
            bias: padded,
        })
    }

    /// The weights as packed.
    pub fn packed(&self) -> &[u8] {
        &self.data
    }

    /// The weights as packed, to be read from where they were kept.
    pub fn packed_mut(&mut self) -> &mut [u8] {
        &mut self.data
    }

    /// Packs the matrices that the layer was made for.
    pub fn fill(&mut self, weights: &[Tensor<'_>], order: Order, team: &mut Team) -> Result<()> {
        let (inputs, packing, dtype) = (self.inputs, self.packing, self.packing.dtype);
        let place = Placement::new(weights, order);
        let panel_bytes = dtype.panel_bytes(inputs);
        let failure = Mutex::new(None);
        let scales = match dtype {
            Dtype::Int8 => input_scales(weights, inputs, team)?,
            _ => Vec::new(),
        };
        let inverses: Vec<_> = scales.iter().map(|scale| 1.0 / scale).collect(); // exact: powers of two
        let width = match dtype {
            Dtype::Int8 => inputs.next_multiple_of(4),
            _ => inputs.next_multiple_of(2),
        };
        {
            let (panels, rest) = self.data.split_at_mut(place.panels * panel_bytes);
            for (to, scale) in rest.chunks_exact_mut(4).zip(&scales) {
                to.copy_from_slice(&scale.to_le_bytes());
            }
            let data = Shared::new(panels);
            team.run(|worker| {
                // The system clears a page when it is first written. Two threads at one page would both clear it.
                worker.for_each(data.len().div_ceil(HUGE_PAGE), |page| {
                    // SAFETY: each page is one task's.
                    unsafe { data.part_mut(page * HUGE_PAGE..page * HUGE_PAGE + 1) }.fill(0);
                });
                let mut rows = vec![0.0; PANEL * width];
                worker.for_each(place.panels, |panel| {
                    // SAFETY: each panel is one task's.
                    let bytes = unsafe { data.part_mut(panel * panel_bytes..(panel + 1) * panel_bytes) };
                    rows.fill(0.0);
                    for (column, row) in rows.chunks_exact_mut(width).enumerate() {
                        if let Some((weight, index)) = place.source(panel * PANEL + column)
                            && let Err(e) = weights[weight].read_finite(index, &mut row[..inputs])
                        {
                            failure.lock().unwrap_or_else(|e| e.into_inner()).get_or_insert(e);
                            return;
                        }
                        for (x, inverse) in row.iter_mut().zip(&inverses) {
                            *x *= inverse;
                        }
                    }
                    fill(bytes, packing, &rows);
                });
            })?;
        }
        match failure.into_inner().unwrap_or_else(|e| e.into_inner()) {
            Some(e) => Err(e),
            None => Ok(()),
        }
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
const LEAST_SCALE: f32 = 1.0 / 4096.0;

/// For each input the power of two that its activations are multiplied by, and its weights divided by, before both
/// become integers: the smallest at which no weight of the input outgrows the largest of its group.
///
/// Where a few channels carry large activations, the weights that read them may all be small, and would be rounded to
/// nothing beside the others of their group. Activations have the bits to spare. Powers of two round nothing.
fn input_scales(weights: &[Tensor<'_>], inputs: usize, team: &mut Team) -> Result<Vec<f32>> {
    let largest = Mutex::new(vec![0.0_f32; inputs]);
    team.run(|worker| {
        let (mut row, mut mine) = (vec![0.0; inputs], vec![0.0_f32; inputs]);
        for weight in weights {
            worker.for_each(weight.rows.div_ceil(SCALE_ROWS), |task| {
                for index in task * SCALE_ROWS..weight.rows.min((task + 1) * SCALE_ROWS) {
                    weight.read(index, &mut row);
                    for (m, x) in mine.chunks_mut(GROUP).zip(row.chunks(GROUP)) {
                        let most = largest_of(x).max(f32::MIN_POSITIVE);
                        for (m, x) in m.iter_mut().zip(x) {
                            *m = larger(*m, x / most);
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
        let most = group.iter().fold(0.0_f32, |m, x| m.max(*x));
        for scale in group {
            let ratio = (*scale / most).clamp(LEAST_SCALE, 1.0);
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
    // Adding it rounds and leaves the integer in the low bits; `f32::round` would be a call for each number.
    const ROUND: f32 = 12_582_912.0;
    let largest = largest_of(group);
    // Zeros, or numbers so small that the inverse would be infinite, become zeros.
    let inverse = if largest < 1e-30 { 0.0 } else { 127.0 / largest };
    for (pair, x) in out.iter_mut().zip(group.as_chunks::<2>().0) {
        let [a, b] = x.map(|x: f32| (x * inverse + ROUND).to_bits() & 0xff);
        *pair = (a | b << 8) as u16;
    }
    if inverse == 0.0 { 0.0 } else { largest / 127.0 }
}

/// Writes `PANEL` rows (columns of the product) into a panel; their length is even, and a multiple of four for integers.
fn fill(panel: &mut [u8], packing: Packing, rows: &[f32]) {
    const PAIRS: usize = GROUP / 2;
    let k = rows.len() / PANEL;
    match packing.dtype {
        Dtype::Float32 => interleave(panel, rows, f32::to_le_bytes),
        Dtype::Bfloat16 => {
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
        Dtype::Int8 => {
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
                match packing.integers {
                    Integers::Pairs => interleave(out, pairs, u16::to_le_bytes),
                    Integers::Tiles => interleave(out, pairs.as_chunks::<2>().0, |[a, b]| {
                        (u32::from(a) | u32::from(b) << 16).to_le_bytes()
                    }),
                }
            }
        }
    }
}

/// Writes the first elements of `PANEL` rows side by side, then the second ones, and so on.
fn interleave<T: Copy, const N: usize>(out: &mut [u8], rows: &[T], bytes: fn(T) -> [u8; N]) {
    let length = rows.len() / PANEL;
    let rows: [&[T]; PANEL] = std::array::from_fn(|row| &rows[row * length..][..length]);
    let cells = out.as_chunks_mut::<N>().0.as_chunks_mut::<PANEL>().0;
    for (step, cells) in cells[..length].iter_mut().enumerate() {
        for (cell, row) in cells.iter_mut().zip(rows) {
            *cell = bytes(row[step]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Activations, Input, LinearScratch, Quantized, task_panels};
    use super::*;
    use crate::model::checkpoint::{Checkpoint, MemoryTensor, TensorType};
    use crate::model::kernels::available;

    const OUTPUTS: usize = 40;
    const INPUTS: usize = 200;

    /// Products of int8 weights and one row, after input 7 was made larger and its weights smaller by a factor.
    fn products(factor: f32) -> Vec<f32> {
        let small = |i: usize| (i * 37 % 101) as f32 / 64.0 - 0.8;
        let values = (0..OUTPUTS * INPUTS).map(|i| match i % INPUTS {
            7 => small(i) / factor,
            _ => small(i),
        });
        let checkpoint = Checkpoint::from_memory(vec![MemoryTensor {
            name: "w".into(),
            dtype: TensorType::Float32,
            shape: vec![OUTPUTS, INPUTS],
            bytes: Box::new(values.flat_map(f32::to_le_bytes).collect::<Vec<u8>>()),
        }])
        .expect("consistent");
        let weight = checkpoint.tensor("w", &[OUTPUTS, INPUTS]).expect("there");
        let mut team = Team::new(2).expect("two threads");
        let (order, dtype) = (Order::Concatenated, Dtype::Int8);
        let packing = Packing::new(dtype, available()[0], false);
        let linear = Linear::pack(&[weight], order, Vec::new(), packing, &mut team).expect("finite");
        let mut x: Vec<f32> = (0..INPUTS).map(|i| small(3 * i + 1)).collect();
        x[7] *= factor;
        let mut room = Activations::room(1, INPUTS).expect("memory");
        let values = Activations::new(Shared::new(&mut room), INPUTS, false, available()[0]);
        // SAFETY: nobody else uses the room yet.
        unsafe { values.put(0, 0, &x) };
        let mut quantized = Quantized::new(&[(1, INPUTS)]).expect("memory");
        let input = Input { values, rows: 1, quantized: quantized.shared() };
        let mut out = vec![0.0; OUTPUTS];
        let shared = Shared::new(&mut out);
        team.run(|worker| {
            let mut scratch = LinearScratch::new().expect("memory");
            // SAFETY: nobody writes the input, and each call of the closure has columns of its own.
            unsafe {
                linear.phase(worker, available()[0], &mut scratch, input, task_panels(1), |_, _, columns, v| {
                    shared.part_mut(columns).copy_from_slice(v)
                });
            }
        })
        .expect("no panic");
        out
    }

    #[test]
    fn an_input_that_is_large_because_its_weights_are_small_costs_no_bit() {
        let plain = products(1.0);
        assert!(plain.iter().all(|x| *x != 0.0));
        assert_eq!(products(64.0), plain);
        assert_eq!(products(1024.0), plain);
    }

    #[test]
    fn integers_lie_where_the_kernels_look_for_them() {
        for (integers, k) in
            [Integers::Pairs, Integers::Tiles].into_iter().flat_map(|i| [4, 76, 128, 300].map(|k| (i, k)))
        {
            let value = |column: usize, step: usize| ((column * 89 + step * 37) % 251) as f32 - 125.0;
            let rows: Vec<_> = (0..PANEL * k).map(|i| value(i / k, i % k)).collect();
            let dtype = Dtype::Int8;
            let mut panel = vec![0; dtype.panel_bytes(k)];
            let packing = Packing { integers, ..dtype.into() };
            fill(&mut panel, packing, &rows);
            for (column, step) in (0..PANEL).flat_map(|c| (0..k).map(move |s| (c, s))) {
                let group = &panel[step / GROUP * GROUP_BYTES..];
                let scale: [u8; 4] = group.as_chunks().0[column];
                let place = SCALE_BYTES + integers.weight_index(step % GROUP, column);
                let stored = f32::from(group[place] as i8) * f32::from_le_bytes(scale);
                assert!((stored - value(column, step)).abs() < 0.51, "{column} {step} of {k}");
            }
        }
    }
}
