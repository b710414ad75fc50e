//! Rows between two layers, in the numbers that the next one multiplies.
use std::ops::Range;

use crate::error::Result;
use crate::machine::memory::{Mapped, Shared};
use crate::model::kernels::{Kernels, PANEL};

type Round = fn(&[f32], &mut [u16]);

/// Rows of activations as the threads of a job see them: float32, or bfloat16 where the next layer multiplies in that.
#[derive(Clone, Copy)]
pub struct Activations<'a> {
    values: Shared<'a, f32>,
    columns: usize,
    stride: usize,
    round: Option<Round>,
}

/// Elements from one row of activations of this width to the next: more than the width, or rows of a power of two would
/// compete for a few sets of the caches.
fn row_stride(columns: usize) -> usize {
    columns.next_multiple_of(2 * PANEL) + 2 * PANEL
}

impl<'a> Activations<'a> {
    /// Room for `rows` rows of up to `columns` elements.
    pub fn room(rows: usize, columns: usize) -> Result<Mapped<f32>> {
        Mapped::zeroed(rows.saturating_mul(row_stride(columns)))
    }

    /// Rows of `columns` elements in a room for rows of no fewer, rounded to bfloat16 if the next layer wants them so.
    pub fn new(room: Shared<'a, f32>, columns: usize, rounds: bool, kernels: &Kernels) -> Self {
        Self { values: room, columns, stride: row_stride(columns), round: rounds.then_some(kernels.round) }
    }

    /// Whether the rows are bfloat16.
    pub fn rounded(&self) -> bool {
        self.round.is_some()
    }

    /// Elements from one row to the next.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// Lets `make` write some columns of a row, as float32; they are rounded here if they must be. `spare` is for
    /// numbers on the way.
    ///
    /// # Safety
    /// No other thread may use these columns of this row meanwhile.
    #[inline]
    pub unsafe fn fill(&self, row: usize, columns: Range<usize>, spare: &mut Vec<f32>, make: impl FnOnce(&mut [f32])) {
        let count = columns.len();
        if self.rounded() {
            if spare.len() < count {
                spare.resize(count, 0.0);
            }
            make(&mut spare[..count]);
            // SAFETY: by the caller's promise.
            unsafe { self.put(row, columns.start, &spare[..count]) };
        } else {
            let start = row * self.stride;
            // SAFETY: by the caller's promise.
            make(unsafe { self.values.part_mut(start + columns.start..start + columns.end) });
        }
    }

    /// Writes some columns of a row, from `start` on.
    ///
    /// # Safety
    /// As for [`Activations::fill`].
    #[inline]
    pub unsafe fn put(&self, row: usize, start: usize, values: &[f32]) {
        let ends = start + values.len() == self.columns;
        let start = row * self.stride + start;
        let end = start + values.len();
        let Some(round) = self.round else {
            // SAFETY: by the caller's promise.
            unsafe { self.values.part_mut(start..end) }.copy_from_slice(values);
            return;
        };
        // The last column of an odd width takes its padding along.
        let padding = usize::from(ends && self.columns % 2 == 1);
        // SAFETY: by the caller's promise.
        let out = unsafe { self.values.halves().part_mut(start..end + padding) };
        let (out, padding) = out.split_at_mut(values.len());
        round(values, out);
        padding.fill(0);
    }

    /// Rows of float32, the last without what lies behind it.
    ///
    /// # Safety
    /// No thread may write them meanwhile.
    pub unsafe fn rows(&self, rows: Range<usize>) -> &'a [f32] {
        let end = (rows.end - 1) * self.stride + self.columns;
        // SAFETY: by the caller's promise.
        unsafe { self.values.part(rows.start * self.stride..end) }
    }

    /// Rows of bfloat16, the last without what lies behind it; an odd width is padded with a zero.
    ///
    /// # Safety
    /// No thread may write them meanwhile.
    pub unsafe fn rounded_rows(&self, rows: Range<usize>) -> &'a [u16] {
        let end = (rows.end - 1) * self.stride + self.columns.next_multiple_of(2);
        // SAFETY: by the caller's promise.
        unsafe { self.values.halves().part(rows.start * self.stride..end) }
    }
}
