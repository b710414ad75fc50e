//! A linear layer: its weights in panels, and the phase of a job that applies it to many rows.
use std::ops::Range;

use crate::error::Result;
use crate::machine::memory::{Mapped, Shared};
use crate::machine::team::Worker;
use crate::model::kernels::{
    Bfloat16Product, Dtype, GROUP, IntegerProduct, Integers, Kernels, PANEL, Packing, Product, ROW_BLOCK, RUN, Start,
    TILE_ROWS, TILE_STEPS,
};

mod activations;
mod pack;
pub mod packed_file;

pub use activations::Activations;

/// Rows of one product of float32 or of integers in pairs: their activations stay in the second-level cache while the
/// panels go by.
const ROW_CHUNK: usize = 192;
/// Rows of one product of bfloat16 activations: as many as stay in the first-level cache, while the weights of the task
/// stay in the second.
const BFLOAT16_ROWS: usize = 32;
/// Most rows of one task of bfloat16 activations, which takes them product by product: weights are read once for all.
const BFLOAT16_CHUNK: usize = 1024;
/// Up to so many rows each thread prepares its own input of a layer: quicker than to wait for another.
pub const ALONE_ROWS: usize = 4;
/// Fewest rows of a task that makes bfloat16 of integer weights first, if there are so many.
const WIDENED_ROWS: usize = 256;
/// Fewest tasks for each thread, so that all end together.
const TASKS_PER_THREAD: usize = 4;
/// Most panels of one task.
const TASK_PANELS: usize = 12;
/// Up to so many rows the weights are what costs: tasks are then small, so that the threads end together.
const FEW_ROWS: usize = 16;

/// Panels of one task for a phase of `rows` rows; even, so that interleaved matrices stay together.
pub fn task_panels(rows: usize) -> usize {
    if rows <= FEW_ROWS { 6 } else { TASK_PANELS }
}

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
    packing: Packing,
    panels: usize,
    /// The panels; `Int8` weights are followed by a float32 per input, the scale of its activations.
    data: Mapped<u8>,
    bias: Vec<f32>,
}

/// Memory that a thread needs to run linear layers.
pub struct LinearScratch {
    expanded: Vec<f32>,
    integers: Vec<i16>,
    row: Vec<i16>,
    scaled: Vec<f32>,
    /// Scales of the inputs of a layer whose panels are made `wide`, as bfloat16.
    input_scales: Vec<f32>,
    wide: Mapped<u8>,
    /// The thread's own room for few quantized rows.
    own: Option<Quantized>,
    /// Aligned, or each row of a tile would lie on two lines of the cache.
    tile: Mapped<f32>,
}

/// Room for the quantized rows of one phase.
pub struct Quantized {
    values: Mapped<i16>,
    scales: Mapped<f32>,
    columns: usize,
}

impl Quantized {
    /// Room for `rows` rows of `columns` elements, for the largest of several such inputs.
    pub fn new(inputs: &[(usize, usize)]) -> Result<Self> {
        let most = |size: fn(usize, usize) -> usize| {
            let sizes = inputs.iter().map(|&(rows, columns)| size(rows, columns));
            sizes.max().unwrap_or(0)
        };
        Ok(Self {
            // For whole blocks of either kind.
            values: Mapped::zeroed(most(|rows, columns| {
                let padded = rows.saturating_add(ROW_BLOCK.max(TILE_ROWS));
                padded.saturating_mul(columns.next_multiple_of(TILE_STEPS))
            }))?,
            scales: Mapped::zeroed(most(|rows, columns| rows.saturating_mul(columns.div_ceil(GROUP))))?,
            columns: most(|_, columns| columns),
        })
    }

    /// The room as the threads of a job see it.
    pub fn shared(&mut self) -> SharedQuantized<'_> {
        SharedQuantized { values: Shared::new(&mut self.values), scales: Shared::new(&mut self.scales) }
    }
}

/// [`Quantized`] among threads.
#[derive(Clone, Copy)]
pub struct SharedQuantized<'a> {
    values: Shared<'a, i16>,
    scales: Shared<'a, f32>,
}

/// Rows that a layer is applied to.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    /// Activations.
    pub values: Activations<'a>,
    /// Number of rows.
    pub rows: usize,
    /// Where a layer with integer weights puts its quantized input.
    pub quantized: SharedQuantized<'a>,
}

impl LinearScratch {
    /// Scratch for one thread.
    pub fn new() -> Result<Self> {
        Ok(Self {
            expanded: vec![0.0; RUN * PANEL],
            integers: vec![0; GROUP * PANEL],
            row: Vec::new(),
            scaled: Vec::new(),
            input_scales: Vec::new(),
            wide: Mapped::zeroed(0)?,
            own: None,
            tile: Mapped::zeroed(ROW_CHUNK * TASK_PANELS * PANEL)?,
        })
    }
}

impl Linear {
    /// Number of output columns, without padding.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// How the weights are packed.
    pub fn packing(&self) -> Packing {
        self.packing
    }

    /// The scale of each input of `Int8` weights.
    fn input_scales(&self) -> impl Iterator<Item = f32> {
        let start = self.panels * self.packing.dtype.panel_bytes(self.inputs);
        let scales = &self.data[start..start + 4 * self.inputs];
        scales.as_chunks().0.iter().map(|scale| f32::from_le_bytes(*scale))
    }

    /// Bytes that one pass over the weights reads.
    pub fn bytes(&self) -> usize {
        self.data.len()
    }

    /// Number of tasks per chunk of rows when each has `panels` panels.
    pub fn tasks(&self, panels: usize) -> usize {
        self.panels.div_ceil(panels)
    }

    /// Applies the layer as one phase of a job (two, if it multiplies integers and many rows). Each finished piece
    /// goes to `done(row, task, columns, values)`; a task has `panels` panels.
    ///
    /// # Safety
    /// No thread may write the input meanwhile, nor use its room for quantized rows.
    pub unsafe fn phase(
        &self,
        worker: &mut Worker<'_>,
        kernels: &Kernels,
        scratch: &mut LinearScratch,
        input: Input<'_>,
        panels: usize,
        done: impl FnMut(usize, usize, Range<usize>, &mut [f32]),
    ) {
        // SAFETY: by the caller's promise.
        unsafe { self.phase_after(worker, kernels, scratch, input, panels, || (), done) }
    }

    /// The same for rows that each thread which takes part makes for itself: `before` is called once before its first
    /// task, and never once the phase is over.
    ///
    /// # Safety
    /// As for [`Linear::phase`], but for what `before` writes.
    #[allow(clippy::too_many_arguments)]
    pub unsafe fn phase_after(
        &self,
        worker: &mut Worker<'_>,
        kernels: &Kernels,
        scratch: &mut LinearScratch,
        input: Input<'_>,
        panels: usize,
        mut before: impl FnMut(),
        mut done: impl FnMut(usize, usize, Range<usize>, &mut [f32]),
    ) {
        debug_assert!(panels <= TASK_PANELS);
        let Packing { dtype, integers, widened } = self.packing;
        assert!(dtype != Dtype::Int8 || widened || integers == kernels.integers);
        assert_eq!(input.values.rounded(), self.packing.rounds(kernels));
        let rows = input.rows;
        let blocks = match dtype {
            Dtype::Int8 if !widened => rows.div_ceil(integers.row_block()),
            _ => 0,
        };
        scratch.input_scales.clear();
        if widened {
            scratch.input_scales.extend(self.input_scales());
        }
        let alone = blocks > 0 && rows <= ALONE_ROWS;
        let mut own = scratch.own.take();
        // For as long as the room lives.
        let mut input: Input<'_> = input;
        let mut own_blocks = 0..0;
        if alone {
            own = own.filter(|own| own.columns >= self.inputs);
            // All threads must take the same way: a few pages that cannot be had end the job as a panic does.
            let own =
                own.get_or_insert_with(|| Quantized::new(&[(ALONE_ROWS, self.inputs)]).expect("memory for four rows"));
            input.quantized = own.shared();
            own_blocks = 0..blocks;
        } else {
            worker.for_each(blocks, |block| {
                // SAFETY: by the caller's promise, and the block is this task's.
                unsafe { self.quantize(kernels, scratch, &input, block) };
            });
        }
        let mut fresh = true;
        let units = self.tasks(panels);
        let (most, step) = self.task_rows(rows, units, worker.threads(), input.values.rounded());
        worker.for_each(rows.div_ceil(most) * units, |task| {
            if std::mem::take(&mut fresh) {
                before();
                for block in own_blocks.clone() {
                    // SAFETY: by the caller's promise, and the room is this thread's.
                    unsafe { self.quantize(kernels, scratch, &input, block) };
                }
            }
            let (first_row, unit) = (task / units * most, task % units);
            let first = unit * panels;
            let count = panels.min(self.panels - first);
            let width = count * PANEL;
            let start = first * PANEL;
            let columns = start..(start + width).min(self.outputs);
            let end = rows.min(first_row + most);
            if widened {
                self.widen(kernels, scratch, first..first + count);
            }
            for first_row in (first_row..end).step_by(step) {
                let chunk = (end - first_row).min(step);
                // SAFETY: by the caller's promise; what was quantized was so in the phase before.
                unsafe { self.product(kernels, scratch, &input, first_row..first_row + chunk, first..first + count) };
                for (row, values) in scratch.tile.chunks_exact_mut(width).take(chunk).enumerate() {
                    if !self.bias.is_empty() && !input.values.rounded() {
                        (kernels.add)(values, &self.bias[start..start + width]);
                    }
                    done(first_row + row, unit, columns.clone(), &mut values[..columns.len()]);
                }
            }
        });
        scratch.own = own;
    }

    /// Rows of one task and of one product in it: tasks of equal size, of whole register blocks.
    fn task_rows(&self, rows: usize, units: usize, threads: usize, rounded: bool) -> (usize, usize) {
        let whole = |tasks: usize, block: usize| {
            let rows = rows.div_ceil(tasks.max(1));
            rows.next_multiple_of(block).max(1)
        };
        let Packing { dtype, integers, .. } = self.packing;
        let tiles = dtype == Dtype::Int8 && integers == Integers::Tiles;
        if !rounded && !tiles {
            return (whole(rows.div_ceil(ROW_CHUNK), ROW_BLOCK), ROW_CHUNK);
        }
        // What is made of integers is made anew for each task.
        let (tasks, fewest) =
            if self.packing.widened { (threads, WIDENED_ROWS) } else { (TASKS_PER_THREAD * threads, BFLOAT16_ROWS) };
        let few = tasks.div_ceil(units).min(rows.div_ceil(fewest));
        let tasks = rows.div_ceil(BFLOAT16_CHUNK).max(few);
        (whole(tasks, BFLOAT16_ROWS), BFLOAT16_ROWS)
    }

    /// Makes bfloat16 of some panels.
    fn widen(&self, kernels: &Kernels, scratch: &mut LinearScratch, panels: Range<usize>) {
        let from = Dtype::Int8.panel_bytes(self.inputs);
        let to = Dtype::Bfloat16.panel_bytes(self.inputs);
        if scratch.wide.len() < TASK_PANELS * to {
            scratch.wide = Mapped::zeroed(TASK_PANELS * to).expect("memory for a few panels");
        }
        let wide = scratch.wide.chunks_exact_mut(to);
        let narrow = self.data[panels.start * from..panels.end * from].chunks_exact(from);
        for (narrow, wide) in narrow.zip(wide) {
            (kernels.widen)(narrow, &scratch.input_scales, wide);
        }
    }

    /// Quantizes one block of rows.
    ///
    /// # Safety
    /// No thread may write the input meanwhile; the block must be the caller's.
    unsafe fn quantize(&self, kernels: &Kernels, scratch: &mut LinearScratch, input: &Input<'_>, block: usize) {
        let (k, groups) = (self.inputs, self.inputs.div_ceil(GROUP));
        let integers = self.packing.integers;
        let (rows, len) = (integers.row_block(), integers.block_len(k));
        let first = block * rows;
        // SAFETY: by the caller's promise.
        let to = unsafe { input.quantized.values.part_mut(block * len..(block + 1) * len) };
        scratch.row.resize(k.next_multiple_of(2), 0);
        scratch.scaled.resize(k, 0.0);
        for row in first..input.rows.min(first + rows) {
            // SAFETY: as above.
            let (x, scales) = unsafe {
                (input.values.rows(row..row + 1), input.quantized.scales.part_mut(row * groups..(row + 1) * groups))
            };
            let scaled = x.iter().zip(self.input_scales());
            for (to, (x, scale)) in scratch.scaled.iter_mut().zip(scaled) {
                *to = x * scale;
            }
            (kernels.quantize)(&scratch.scaled, &mut scratch.row, scales);
            (kernels.place)(&scratch.row, row - first, to);
        }
    }

    /// Some rows times some panels, into the scratch.
    ///
    /// # Safety
    /// No thread may write the input meanwhile.
    unsafe fn product(
        &self,
        kernels: &Kernels,
        scratch: &mut LinearScratch,
        input: &Input<'_>,
        rows: Range<usize>,
        panels: Range<usize>,
    ) {
        let Packing { dtype, integers, widened } = self.packing;
        let w_stride = dtype.panel_bytes(self.inputs);
        let w = &self.data[panels.start * w_stride..];
        if dtype == Dtype::Int8 && !widened {
            let (k, groups) = (self.inputs, self.inputs.div_ceil(GROUP));
            // Products begin with a block.
            let (block, len) = (integers.row_block(), integers.block_len(k));
            let start = rows.start / block * len;
            let end = rows.end.div_ceil(block) * len;
            // SAFETY: by the caller's promise.
            let (a, a_scale) = unsafe {
                (
                    input.quantized.values.part(start..end),
                    input.quantized.scales.part(rows.start * groups..rows.end * groups),
                )
            };
            (kernels.integer_product)(IntegerProduct {
                a,
                a_scale,
                rows: rows.len(),
                k: self.inputs,
                w,
                panels: panels.len(),
                out: &mut scratch.tile,
                scratch: &mut scratch.integers,
            });
            return;
        }
        if let Some(product) = kernels.bfloat16_product.filter(|_| input.values.rounded()) {
            let (w, w_stride) = if widened {
                let stride = Dtype::Bfloat16.panel_bytes(self.inputs);
                (&scratch.wide[..], stride)
            } else {
                (w, w_stride)
            };
            product(Bfloat16Product {
                // SAFETY: by the caller's promise.
                a: unsafe { input.values.rounded_rows(rows.clone()) },
                a_stride: input.values.stride(),
                rows: rows.len(),
                k: self.inputs,
                w,
                w_stride,
                panels: panels.len(),
                out: &mut scratch.tile,
                out_stride: panels.len() * PANEL,
                start: self.bias.get(panels.start * PANEL..panels.end * PANEL).map_or(Start::Zero, Start::Row),
            });
            return;
        }
        (kernels.product)(Product {
            // SAFETY: by the caller's promise.
            a: unsafe { input.values.rows(rows.clone()) },
            a_stride: input.values.stride(),
            rows: rows.len(),
            k: self.inputs,
            w,
            w_stride,
            dtype,
            panels: panels.len(),
            out: &mut scratch.tile,
            out_stride: panels.len() * PANEL,
            accumulate: false,
            scratch: &mut scratch.expanded,
        });
    }
}
