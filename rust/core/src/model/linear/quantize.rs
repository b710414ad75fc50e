//! Activations as integers: the input of layers that multiply integers.
use std::ops::Range;

use super::storage::Storage;
use crate::error::Result;
use crate::machine::memory::Mapped;
use crate::machine::shared::{Part, Share, Shared};
use crate::machine::team::Task;
use crate::model::kernels::{GROUP, IntegerLayout, Kernels};

/// Memory for the quantized rows of one phase.
pub struct Quantized {
    values: Mapped<i16>,
    scales: Mapped<f32>,
    columns: usize,
}

impl Quantized {
    /// For `(rows, columns)` rows, the largest of several such inputs.
    pub fn new(inputs: &[(usize, usize)]) -> Result<Self> {
        let largest = |size: fn(usize, usize) -> usize| {
            let sizes = inputs.iter().map(|&(rows, columns)| size(rows, columns));
            sizes.max().unwrap_or(0)
        };
        Ok(Self {
            values: Mapped::zeroed(largest(IntegerLayout::largest_len))?,
            scales: Mapped::zeroed(largest(|rows, columns| rows.saturating_mul(columns.div_ceil(GROUP))))?,
            columns: largest(|_, columns| columns),
        })
    }

    /// Longest row that fits.
    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// The memory as the threads of a job see it.
    pub fn rows(&mut self) -> QuantizedRows<'_> {
        QuantizedRows { values: Shared::new(&mut self.values), scales: Shared::new(&mut self.scales) }
    }
}

/// [`Quantized`] as a thread of a job sees it.
pub struct QuantizedRows<'a> {
    values: Shared<'a, i16>,
    scales: Shared<'a, f32>,
}

impl Share for QuantizedRows<'_> {
    unsafe fn handle(&self) -> Self {
        // SAFETY: the caller promises the same.
        unsafe { Self { values: self.values.handle(), scales: self.scales.handle() } }
    }
}

/// How the rows of one layer's input lie: in blocks of some rows.
#[derive(Clone, Copy)]
pub(super) struct Blocks {
    layout: IntegerLayout,
    inputs: usize,
}

/// Scratch for a row that is scaled and quantized.
#[derive(Default)]
pub(super) struct RowScratch {
    scaled: Vec<f32>,
    integers: Vec<i16>,
}

impl Blocks {
    /// `None` for a layer that does not multiply integers.
    pub(super) fn new(storage: Storage, inputs: usize) -> Option<Self> {
        storage.kind().quantized_input().map(|layout| Self { layout, inputs })
    }

    /// Number of blocks that hold `rows` rows.
    pub(super) fn count(self, rows: usize) -> usize {
        rows.div_ceil(self.layout.row_block())
    }

    /// The rows of a block, of `rows` in all.
    pub(super) fn rows(self, block: usize, rows: usize) -> Range<usize> {
        let height = self.layout.row_block();
        block * height..rows.min((block + 1) * height)
    }
}

impl QuantizedRows<'_> {
    /// The same handle for a shorter time.
    pub(crate) fn reborrow(&mut self) -> QuantizedRows<'_> {
        QuantizedRows { values: self.values.reborrow(), scales: self.scales.reborrow() }
    }

    /// Quantizes the block that is row `block` of the part: `rows` gives the rows, `input_scales` a factor for each of
    /// their columns.
    pub(super) fn quantize<'x>(
        &mut self,
        kernels: &Kernels,
        scratch: &mut RowScratch,
        (part, block, blocks): (&Part<'_>, usize, Blocks),
        rows: impl Iterator<Item = &'x [f32]>,
        input_scales: impl Iterator<Item = f32> + Clone,
    ) {
        let (k, groups) = (blocks.inputs, blocks.inputs.div_ceil(GROUP));
        let (height, len) = (blocks.layout.row_block(), blocks.layout.block_len(k));
        part.check(block, &(0..1));
        // SAFETY: blocks do not overlap, and the part has this one.
        let to = unsafe { self.values.part_mut(part, block * len..(block + 1) * len) };
        scratch.integers.resize(k.next_multiple_of(2), 0);
        scratch.scaled.resize(k, 0.0);
        for (index, x) in rows.enumerate() {
            let row = block * height + index;
            // SAFETY: the scales of a row are those of its block.
            let scales = unsafe { self.scales.part_mut(part, row * groups..(row + 1) * groups) };
            for (to, (x, scale)) in scratch.scaled.iter_mut().zip(x.iter().zip(input_scales.clone())) {
                *to = x * scale;
            }
            (kernels.quantize)(&scratch.scaled, &mut scratch.integers, scales);
            (kernels.scatter)(&scratch.integers, index, to);
        }
    }

    /// Integers and scales of some rows, of which the first begins a block.
    pub(super) fn part<'t>(&'t self, task: &'t Task, rows: Range<usize>, blocks: Blocks) -> (&'t [i16], &'t [f32]) {
        let (height, len) = (blocks.layout.row_block(), blocks.layout.block_len(blocks.inputs));
        let groups = blocks.inputs.div_ceil(GROUP);
        (
            self.values.part(task, rows.start / height * len..rows.end.div_ceil(height) * len),
            self.scales.part(task, rows.start * groups..rows.end * groups),
        )
    }
}
