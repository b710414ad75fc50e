//! Rows between two layers: float32, or the numbers that the next layer multiplies.
use std::ops::Range;

use super::storage::InputFormat;
use crate::error::Result;
use crate::machine::memory::Mapped;
use crate::machine::shared::{Part, Share, Shared};
use crate::machine::team::Task;
use crate::model::kernels::{Kernels, PANEL};

type Round = fn(&[f32], &mut [u16]);

/// Dense rows of float32 as a thread of a job sees them.
pub struct Rows<'a> {
    values: Shared<'a, f32>,
    columns: usize,
}

impl Share for Rows<'_> {
    unsafe fn handle(&self) -> Self {
        // SAFETY: the caller promises the same.
        Self { values: unsafe { self.values.handle() }, columns: self.columns }
    }
}

impl<'a> Rows<'a> {
    /// As many rows of `columns` numbers as `values` holds.
    pub fn new(values: &'a mut [f32], columns: usize) -> Self {
        Self { values: Shared::new(values), columns }
    }

    /// Numbers of a row.
    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// One row.
    #[inline]
    pub(crate) fn row<'t>(&'t self, task: &'t Task, row: usize) -> &'t [f32] {
        self.values.part(task, row * self.columns..(row + 1) * self.columns)
    }

    /// Columns of a row, for writing.
    #[inline]
    pub(crate) fn part_mut<'t>(&'t mut self, part: &'t Part<'_>, row: usize, columns: Range<usize>) -> &'t mut [f32] {
        part.check(row, &columns);
        assert!(columns.end <= self.columns, "columns {columns:?} of {}", self.columns);
        let start = row * self.columns;
        // SAFETY: rows do not overlap, and the part has this one's columns.
        unsafe { self.values.part_mut(part, start + columns.start..start + columns.end) }
    }
}

/// Rows of activations as a thread of a job sees them: float32, or bfloat16 if the next layer multiplies that.
pub struct Activations<'a> {
    values: Shared<'a, f32>,
    columns: usize,
    stride: usize,
    round: Option<Round>,
}

impl Share for Activations<'_> {
    unsafe fn handle(&self) -> Self {
        // SAFETY: the caller promises the same.
        Self { values: unsafe { self.values.handle() }, ..*self }
    }
}

/// Elements from one row of activations of this width to the next: more than the width, or rows of a power of two would
/// compete for a few sets of the caches.
fn row_stride(columns: usize) -> usize {
    columns.next_multiple_of(2 * PANEL) + 2 * PANEL
}

impl<'a> Activations<'a> {
    /// Memory for `rows` rows of up to `columns` elements.
    pub fn buffer(rows: usize, columns: usize) -> Result<Mapped<f32>> {
        Mapped::zeroed(rows.saturating_mul(row_stride(columns)))
    }

    /// Rows of `columns` elements in a buffer for rows of no fewer, as the next layer takes them.
    pub fn new(buffer: &'a mut [f32], columns: usize, format: InputFormat, kernels: &Kernels) -> Self {
        let round = (format == InputFormat::Bfloat16).then_some(kernels.round);
        Self { values: Shared::new(buffer), columns, stride: row_stride(columns), round }
    }

    /// Uses the memory for rows of another width, whose elements are to be written first.
    pub(crate) fn reshape(&mut self, columns: usize) {
        (self.columns, self.stride) = (columns, row_stride(columns));
    }

    /// Whether the rows are bfloat16.
    pub(crate) fn is_bfloat16(&self) -> bool {
        self.round.is_some()
    }

    /// Elements from one row to the next.
    pub(crate) fn stride(&self) -> usize {
        self.stride
    }

    /// Lets `make` write some columns of a row, as float32; they are rounded here if the rows are bfloat16. `scratch` is
    /// for numbers on the way.
    #[inline]
    pub fn write_with(
        &mut self,
        part: &Part<'_>,
        row: usize,
        columns: Range<usize>,
        scratch: &mut Vec<f32>,
        make: impl FnOnce(&mut [f32]),
    ) {
        let count = columns.len();
        if self.is_bfloat16() {
            if scratch.len() < count {
                scratch.resize(count, 0.0);
            }
            make(&mut scratch[..count]);
            self.write(part, row, columns.start, &scratch[..count]);
        } else {
            make(self.float32_mut(part, row, columns));
        }
    }

    /// Writes some columns of a row, from `start` on.
    #[inline]
    pub(crate) fn write(&mut self, part: &Part<'_>, row: usize, start: usize, values: &[f32]) {
        let columns = start..start + values.len();
        let Some(round) = self.round else {
            self.float32_mut(part, row, columns).copy_from_slice(values);
            return;
        };
        part.check(row, &columns);
        // The last column of an odd width takes its padding along.
        let padding = usize::from(columns.end == self.columns && self.columns % 2 == 1);
        let elements = self.elements(row, &columns);
        // SAFETY: the part has these columns of the row, and with the last one the padding behind it.
        let out = unsafe { self.values.halves().into_part_mut(part, elements.start..elements.end + padding) };
        let (out, padding) = out.split_at_mut(values.len());
        round(values, out);
        padding.fill(0);
    }

    #[inline]
    fn float32_mut<'t>(&'t mut self, part: &'t Part<'_>, row: usize, columns: Range<usize>) -> &'t mut [f32] {
        part.check(row, &columns);
        let elements = self.elements(row, &columns);
        // SAFETY: the part has these columns of the row.
        unsafe { self.values.part_mut(part, elements) }
    }

    /// Where columns of a row lie, which may go on into what is between two rows.
    #[inline]
    fn elements(&self, row: usize, columns: &Range<usize>) -> Range<usize> {
        assert!(columns.end <= self.stride, "columns {columns:?} of {}", self.columns);
        row * self.stride + columns.start..row * self.stride + columns.end
    }

    /// Rows of float32, the last without what lies behind it.
    pub(crate) fn rows<'t>(&'t self, task: &'t Task, rows: Range<usize>) -> &'t [f32] {
        let end = (rows.end - 1) * self.stride + self.columns;
        self.values.part(task, rows.start * self.stride..end)
    }

    /// Rows of bfloat16, the last without what lies behind it; an odd width is padded with a zero.
    pub(crate) fn bfloat16_rows<'t>(&'t self, task: &'t Task, rows: Range<usize>) -> &'t [u16] {
        let end = (rows.end - 1) * self.stride + self.columns.next_multiple_of(2);
        self.values.half_part(task, rows.start * self.stride..end)
    }
}
