//! A linear layer: its weights in panels, and the phase of a job that applies it to rows.
use std::ops::Range;

use crate::error::{Error, Result};
use crate::machine::memory::Mapped;
use crate::machine::shared::Part;
use crate::machine::team::{Task, Worker};
use crate::machine::vectors::with_capacity;
use crate::model::kernels::{FloatFormat, GROUP, Kernels, PANEL, RUN};

mod activations;
mod epilogue;
mod pack;
pub(crate) mod packed_file;
mod quantize;
mod schedule;
mod storage;
#[cfg(test)]
mod tests;

pub use activations::{Activations, Rows};
pub use epilogue::Epilogue;
pub(crate) use epilogue::{Largest, LargestMemory};
pub use quantize::{Quantized, QuantizedRows};
pub use storage::{InputFormat, Storage, WeightFormat};

use quantize::{Blocks, RowScratch};
use schedule::{Cell, ROW_CHUNK, Schedule, TASK_PANELS};

/// Up to this many rows each thread prepares its own input of a layer: quicker than to wait for another.
pub(crate) const OWN_ROWS: usize = 4;

/// In which order the rows of several weight matrices become output columns.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// One matrix after the other.
    Concatenated,
    /// A panel of each in turn, so that one task has matching columns of all.
    Interleaved,
}

/// Weights of `outputs x inputs`, packed for the kernels that multiply them.
pub struct Linear {
    kernels: &'static Kernels,
    storage: Storage,
    outputs: usize,
    inputs: usize,
    panels: usize,
    panel_bytes: usize,
    /// Panels of one task, if that does not depend on the number of rows.
    task_panels: Option<usize>,
    /// The panels, and the storage's tail behind them.
    data: Mapped<u8>,
    bias: Vec<f32>,
}

/// Memory that a thread needs to run linear layers.
pub struct LinearScratch {
    work: WorkScratch,
    /// The thread's own memory for few quantized rows.
    few_rows: Quantized,
}

/// Memory for the work on one task after the other.
struct WorkScratch {
    product: ProductScratch,
    row: RowScratch,
    /// One row on its way into [`Activations`].
    float_row: Vec<f32>,
}

/// Memory for the products of a thread.
struct ProductScratch {
    /// Aligned like the others, or every second load of expanded weights would lie on two lines of the cache.
    expanded: Mapped<f32>,
    integers: Mapped<i16>,
    /// Scales of the inputs of a layer whose panels are made `wide`, as bfloat16.
    input_scales: Vec<f32>,
    wide: Mapped<u8>,
    /// Aligned, or each row of a tile would lie on two lines of the cache.
    tile: Mapped<f32>,
}

impl LinearScratch {
    /// Scratch for one thread and layers of up to `inputs` inputs. All that a job needs is asked for here, where it can be
    /// refused; what no layer touches costs no memory.
    pub fn new(inputs: usize) -> Result<Self> {
        let wide = FloatFormat::Bfloat16.panel_bytes(inputs).and_then(|panel| panel.checked_mul(TASK_PANELS));
        let work = WorkScratch {
            product: ProductScratch {
                expanded: Mapped::zeroed(RUN * PANEL)?,
                integers: Mapped::zeroed(GROUP * PANEL)?,
                input_scales: with_capacity(inputs)?,
                wide: Mapped::zeroed(wide.ok_or_else(|| Error::no_memory(usize::MAX))?)?,
                tile: Mapped::zeroed(ROW_CHUNK * TASK_PANELS * PANEL)?,
            },
            row: RowScratch::default(),
            float_row: Vec::new(),
        };
        Ok(Self { work, few_rows: Quantized::new(&[(OWN_ROWS, inputs)])? })
    }
}

/// Rows that a layer is applied to.
pub struct Input<'i, 'a> {
    /// The rows.
    pub(crate) values: InputRows<'i, 'a>,
    /// Number of rows.
    pub rows: usize,
    /// Where a layer that multiplies integers puts its quantized input.
    pub(crate) quantized: QuantizedRows<'i>,
}

impl<'i, 'a> Input<'i, 'a> {
    /// The first rows of what an earlier phase made.
    pub fn made(values: &'i Activations<'a>, rows: usize, quantized: &'i mut QuantizedRows<'_>) -> Self {
        Self { values: InputRows::Made(values), rows, quantized: quantized.reborrow() }
    }
}

/// Where rows come from.
pub(crate) enum InputRows<'i, 'a> {
    /// From an earlier phase.
    Made(&'i Activations<'a>),
    /// Each thread that takes part makes them for itself before its first task: up to [`OWN_ROWS`].
    PerThread(&'i mut Activations<'a>, &'i mut dyn FnMut(&Part<'_>, &mut Activations<'a>)),
}

impl<'a> InputRows<'_, 'a> {
    fn activations(&self) -> &Activations<'a> {
        match self {
            Self::Made(values) => values,
            Self::PerThread(values, _) => values,
        }
    }
}

/// The input of one phase on its way to the products.
struct PhaseInput<'i, 'a, 'q> {
    values: InputRows<'i, 'a>,
    rows: usize,
    quantized: QuantizedRows<'q>,
    /// How the quantized rows lie, if the layer multiplies integers.
    blocks: Option<Blocks>,
}

/// What a layer's products read of its weights.
struct Weights<'w> {
    kernels: &'static Kernels,
    inputs: usize,
    panel_bytes: usize,
    data: &'w [u8],
    /// Empty, or as long as the panels are wide.
    bias: &'w [f32],
    tail: &'w [u8],
}

impl<'w> Weights<'w> {
    fn panels(&self, panels: &Range<usize>) -> &'w [u8] {
        &self.data[panels.start * self.panel_bytes..panels.end * self.panel_bytes]
    }

    /// The scale of each input, in storages that have one.
    fn input_scales(&self) -> impl Iterator<Item = f32> + Clone + use<'w> {
        let scales = self.tail.as_chunks().0;
        scales.iter().map(|scale| f32::from_le_bytes(*scale)).take(self.inputs)
    }

    fn bias(&self, block: &ProductBlock) -> Option<&'w [f32]> {
        self.bias.get(block.panels.start * PANEL..block.panels.end * PANEL)
    }
}

/// A layer's input as its products read it.
struct Prepared<'x> {
    task: &'x Task,
    values: &'x Activations<'x>,
    quantized: &'x QuantizedRows<'x>,
    blocks: Option<Blocks>,
}

impl<'x> Prepared<'x> {
    fn integers(&self, rows: &Range<usize>) -> (&'x [i16], &'x [f32]) {
        let blocks = self.blocks.expect("the storage multiplies integers");
        self.quantized.part(self.task, rows.clone(), blocks)
    }
}

/// Rows and panels of one product.
struct ProductBlock {
    rows: Range<usize>,
    panels: Range<usize>,
}

impl ProductBlock {
    /// Columns of the result.
    fn width(&self) -> usize {
        self.panels.len() * PANEL
    }
}

impl Linear {
    /// Number of output columns, without padding.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// What the layer takes.
    pub fn input(&self) -> InputFormat {
        self.storage.input()
    }

    /// Bytes that one pass over the weights reads.
    pub fn bytes(&self) -> usize {
        self.data.len()
    }

    /// Divides the columns in the same way for any number of rows; gives the number of pieces.
    pub(crate) fn fix_task_panels(&mut self, panels: usize) -> usize {
        self.task_panels = Some(panels);
        self.panels.div_ceil(panels)
    }

    fn weights(&self) -> Weights<'_> {
        Weights {
            kernels: self.kernels,
            inputs: self.inputs,
            panel_bytes: self.panel_bytes,
            data: &self.data,
            bias: &self.bias,
            tail: &self.data[self.panels * self.panel_bytes..],
        }
    }

    /// Applies the layer as one phase of a job (two, if it multiplies integers and many rows).
    pub fn phase(
        &self,
        worker: &mut Worker<'_>,
        scratch: &mut LinearScratch,
        input: Input<'_, '_>,
        epilogue: Epilogue<'_, '_>,
    ) {
        let Input { values, rows, mut quantized } = input;
        let is_bfloat16 = self.input() == InputFormat::Bfloat16;
        assert_eq!(values.activations().is_bfloat16(), is_bfloat16, "activations in the wrong format");
        assert!(rows <= OWN_ROWS || matches!(values, InputRows::Made(_)), "too many rows for each thread to make");
        let blocks = Blocks::new(self.storage, self.inputs);
        let own_rows = blocks.is_some() && rows <= OWN_ROWS;
        let LinearScratch { work: scratch, few_rows } = scratch;
        assert!(few_rows.columns() >= self.inputs, "scratch for layers of fewer inputs");
        let quantized = if own_rows { few_rows.rows() } else { quantized.reborrow() };
        let mut input = PhaseInput { values, rows, quantized, blocks };
        if let Some(blocks) = blocks.filter(|_| !own_rows) {
            worker.for_each_part(blocks.count(rows), 1, |part| self.quantize(&mut scratch.row, part, &mut input));
        }
        self.multiply(worker, scratch, input, epilogue);
    }

    /// Quantizes the rows of the part's blocks.
    fn quantize(&self, scratch: &mut RowScratch, part: &Part<'_>, input: &mut PhaseInput<'_, '_, '_>) {
        let Some(blocks) = input.blocks else { return };
        let scales = self.weights().input_scales();
        for block in part.rows().start..part.rows().end.min(blocks.count(input.rows)) {
            let rows = blocks.rows(block, input.rows);
            let rows = rows.map(|row| input.values.activations().rows(part.task(), row..row + 1));
            input.quantized.quantize(self.kernels, scratch, (part, block, blocks), rows, scales.clone());
        }
    }

    /// The phase of the products: each task multiplies some rows by some panels.
    fn multiply(
        &self,
        worker: &mut Worker<'_>,
        scratch: &mut WorkScratch,
        mut input: PhaseInput<'_, '_, '_>,
        mut epilogue: Epilogue<'_, '_>,
    ) {
        let kind = self.storage.kind();
        let task_panels = self.task_panels.unwrap_or_else(|| schedule::task_panels(input.rows));
        let schedule = Schedule::new(kind.division(), input.rows, self.panels, task_panels, worker.threads());
        let weights = self.weights();
        let mut first = true;
        worker.for_each(schedule.tasks(), |task| {
            if std::mem::take(&mut first) {
                self.prepare(&mut scratch.row, &Part::exclusive(task), &mut input);
            }
            let cell = schedule.cell(task);
            kind.prepare(&weights, &cell.panels, &mut scratch.product);
            let values = input.values.activations();
            let x = Prepared { task, values, quantized: &input.quantized, blocks: input.blocks };
            for start in cell.rows.clone().step_by(schedule.product_rows) {
                let end = cell.rows.end.min(start + schedule.product_rows);
                let block = ProductBlock { rows: start..end, panels: cell.panels.clone() };
                kind.multiply(&weights, &x, &block, &mut scratch.product);
                self.finish(&cell, &block, scratch, &mut epilogue);
            }
        });
    }

    /// What a thread does once before its first task: makes and quantizes rows of its own.
    fn prepare(&self, scratch: &mut RowScratch, part: &Part<'_>, input: &mut PhaseInput<'_, '_, '_>) {
        if let InputRows::PerThread(values, make) = &mut input.values {
            make(part, values);
        }
        if input.rows <= OWN_ROWS {
            self.quantize(scratch, part, input);
        }
    }

    /// Hands the rows of a product to the epilogue.
    fn finish(
        &self,
        cell: &Cell<'_>,
        block: &ProductBlock,
        scratch: &mut WorkScratch,
        epilogue: &mut Epilogue<'_, '_>,
    ) {
        let (width, start) = (block.width(), block.panels.start * PANEL);
        let bias = self.weights().bias(block).filter(|_| !self.storage.starts_with_bias());
        let visible = width.min(self.outputs - start);
        for (row, values) in block.rows.clone().zip(scratch.product.tile.chunks_exact_mut(width)) {
            if let Some(bias) = bias {
                (self.kernels.add)(values, bias);
            }
            epilogue.apply(self.kernels, cell, row, &mut values[..visible], &mut scratch.float_row);
        }
    }
}
