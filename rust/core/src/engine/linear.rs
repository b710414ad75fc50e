//! A linear layer: its weights in panels, and the phase of a job that applies it to many rows.
use std::ops::Range;
use std::sync::Mutex;

use super::checkpoint::Tensor;
use super::error::{EngineError, Result};
use super::kernels::{Dtype, Kernels, PANEL, Product, RUN};
use super::memory::{Buffer, Shared};
use super::pool::{Pool, Worker};

/// Rows of one task: their activations stay in the second-level cache while the panels go by.
const ROW_CHUNK: usize = 96;
/// Rows that the kernels like to work on at once.
const BLOCK_ROWS: usize = 6;
/// Most panels of one task.
const TASK_PANELS: usize = 4;

/// In which order the rows of several weight matrices become output columns.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// One matrix after the other.
    Concatenated,
    /// A panel of each in turn, so that one task has matching columns of all.
    Interleaved,
}

/// Weights of `outputs x inputs`, packed.
pub struct Linear {
    outputs: usize,
    inputs: usize,
    dtype: Dtype,
    panels: usize,
    data: Buffer<u8>,
    scale: Vec<f32>,
    bias: Vec<f32>,
}

/// Memory that a thread needs to run linear layers.
pub struct LinearScratch {
    expanded: Vec<f32>,
    tile: Vec<f32>,
}

impl LinearScratch {
    /// Scratch for one thread.
    pub fn new() -> Self {
        Self {
            expanded: vec![0.0; RUN * PANEL],
            tile: vec![0.0; ROW_CHUNK * TASK_PANELS * PANEL],
        }
    }
}

impl Default for LinearScratch {
    fn default() -> Self {
        Self::new()
    }
}

impl Linear {
    /// Packs the matrices, which must have equal numbers of columns, and checks every value.
    pub fn pack(
        weights: &[Tensor<'_>],
        order: Order,
        bias: Vec<f32>,
        dtype: Dtype,
        pool: &mut Pool,
    ) -> Result<Self> {
        let inputs = weights[0].columns;
        let place = Placement::new(weights, order);
        let panel_bytes = dtype.panel_bytes(inputs);
        let size = panel_bytes
            .checked_mul(place.panels)
            .ok_or(EngineError::Memory { bytes: usize::MAX })?;
        let mut data = Buffer::<u8>::zeroed(size)?;
        let mut scale = vec![
            1.0;
            if dtype == Dtype::Int8 {
                place.panels * PANEL
            } else {
                0
            }
        ];
        let failure = Mutex::new(None);
        {
            let (data, scale) = (Shared::new(&mut data), Shared::new(&mut scale));
            pool.run(|worker| {
                let mut rows = vec![0.0; PANEL * inputs];
                worker.for_each(place.panels, |panel| {
                    // SAFETY: each panel is one task's.
                    let bytes =
                        unsafe { data.part_mut(panel * panel_bytes..(panel + 1) * panel_bytes) };
                    rows.fill(0.0);
                    for (column, row) in rows.chunks_exact_mut(inputs).enumerate() {
                        if let Some((weight, index)) = place.source(panel * PANEL + column)
                            && let Err(e) = weights[weight].read_finite(index, row)
                        {
                            failure
                                .lock()
                                .unwrap_or_else(|e| e.into_inner())
                                .get_or_insert(e);
                            return;
                        }
                    }
                    if dtype == Dtype::Int8 {
                        // SAFETY: as above.
                        quantize(&mut rows, unsafe {
                            scale.part_mut(panel * PANEL..(panel + 1) * PANEL)
                        });
                    }
                    fill(bytes, dtype, &rows, inputs);
                });
            })?;
        }
        if let Some(e) = failure.into_inner().unwrap_or_else(|e| e.into_inner()) {
            return Err(e);
        }
        let mut padded = bias;
        if !padded.is_empty() {
            padded.resize(place.panels * PANEL, 0.0);
        }
        Ok(Self {
            outputs: place.outputs,
            inputs,
            dtype,
            panels: place.panels,
            data,
            scale,
            bias: padded,
        })
    }

    /// Number of output columns, without padding.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Bytes that one pass over the weights reads.
    pub fn bytes(&self) -> usize {
        self.data.len()
    }

    /// Number of tasks per chunk of rows when each has `panels` panels.
    pub fn tasks(&self, panels: usize) -> usize {
        self.panels.div_ceil(panels)
    }

    /// Applies the layer to `rows` rows of `input`, `stride` elements apart, as one phase of a job. Each finished
    /// piece goes to `done(row, task, columns, values)`; a task has `panels` panels.
    ///
    /// # Safety
    /// No thread may write `input` meanwhile.
    #[allow(clippy::too_many_arguments)]
    pub unsafe fn phase(
        &self,
        worker: &mut Worker<'_>,
        kernels: &Kernels,
        scratch: &mut LinearScratch,
        input: Shared<'_, f32>,
        stride: usize,
        rows: usize,
        panels: usize,
        mut done: impl FnMut(usize, usize, Range<usize>, &mut [f32]),
    ) {
        debug_assert!(panels <= TASK_PANELS);
        let (units, panel_bytes) = (self.tasks(panels), self.dtype.panel_bytes(self.inputs));
        // Chunks of equal size, and of whole register blocks.
        let most = rows
            .div_ceil(rows.div_ceil(ROW_CHUNK).max(1))
            .next_multiple_of(BLOCK_ROWS)
            .max(1);
        worker.for_each(rows.div_ceil(most) * units, |task| {
            let (first_row, unit) = (task / units * most, task % units);
            let chunk = (rows - first_row).min(most);
            let first = unit * panels;
            let count = panels.min(self.panels - first);
            let width = count * PANEL;
            // SAFETY: by the caller's promise.
            let a = unsafe {
                input.part(first_row * stride..(first_row + chunk - 1) * stride + self.inputs)
            };
            (kernels.product)(Product {
                a,
                a_stride: stride,
                rows: chunk,
                k: self.inputs,
                w: &self.data[first * panel_bytes..],
                w_stride: panel_bytes,
                dtype: self.dtype,
                panels: count,
                out: &mut scratch.tile,
                out_stride: width,
                accumulate: false,
                scratch: &mut scratch.expanded,
            });
            let padded = first * PANEL..first * PANEL + width;
            let part = |v: &'_ Vec<f32>| if v.is_empty() { 0..0 } else { padded.clone() };
            let columns = padded.start..padded.end.min(self.outputs);
            for (row, values) in scratch.tile.chunks_exact_mut(width).take(chunk).enumerate() {
                (kernels.affine)(
                    values,
                    &self.scale[part(&self.scale)],
                    &self.bias[part(&self.bias)],
                );
                done(
                    first_row + row,
                    unit,
                    columns.clone(),
                    &mut values[..columns.len()],
                );
            }
        });
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
        Self {
            ends,
            order,
            outputs,
            panels: outputs.div_ceil(PANEL),
        }
    }

    /// The matrix and its row that column `column` holds, or `None` for padding.
    fn source(&self, column: usize) -> Option<(usize, usize)> {
        match self.order {
            Order::Concatenated => {
                let weight = self.ends.iter().position(|&end| column < end)?;
                Some((
                    weight,
                    column - if weight > 0 { self.ends[weight - 1] } else { 0 },
                ))
            }
            Order::Interleaved => {
                let (panel, count) = (column / PANEL, self.ends.len());
                let row = panel / count * PANEL + column % PANEL;
                (row < self.ends[0]).then_some((panel % count, row))
            }
        }
    }
}

/// Scales each row to integers in [-127, 127].
fn quantize(rows: &mut [f32], scale: &mut [f32]) {
    let inputs = rows.len() / PANEL;
    for (row, scale) in rows.chunks_exact_mut(inputs).zip(scale) {
        let largest = row.iter().fold(0.0_f32, |m, x| m.max(x.abs()));
        // A row of zeros, or of numbers so small that the scale would be no normal number, becomes zeros.
        if largest < 1e-30 {
            row.fill(0.0);
            continue;
        }
        *scale = largest / 127.0;
        for x in row {
            *x = (*x / *scale).round();
        }
    }
}

/// Rounds to bfloat16, to nearest even.
pub fn to_bfloat16(x: f32) -> u16 {
    let bits = x.to_bits();
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

/// Writes `PANEL` rows (columns of the product) of length `k` into a panel.
fn fill(panel: &mut [u8], dtype: Dtype, rows: &[f32], k: usize) {
    match dtype {
        Dtype::Float32 => {
            for (step, out) in panel.chunks_exact_mut(4 * PANEL).take(k).enumerate() {
                for (column, o) in out.chunks_exact_mut(4).enumerate() {
                    o.copy_from_slice(&rows[column * k + step].to_le_bytes());
                }
            }
        }
        Dtype::Bfloat16 => {
            for (pair, out) in panel.chunks_exact_mut(4 * PANEL).enumerate() {
                for (i, o) in out.chunks_exact_mut(2).enumerate() {
                    let (column, step) = (i / 2, 2 * pair + i % 2);
                    let value = if step < k {
                        rows[column * k + step]
                    } else {
                        0.0
                    };
                    o.copy_from_slice(&to_bfloat16(value).to_le_bytes());
                }
            }
        }
        Dtype::Int8 => {
            for (step, out) in panel.chunks_exact_mut(PANEL).take(k).enumerate() {
                for (column, o) in out.iter_mut().enumerate() {
                    *o = rows[column * k + step] as i8 as u8;
                }
            }
        }
    }
}
