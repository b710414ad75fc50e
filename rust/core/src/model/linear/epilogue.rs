//! What becomes of the rows of a product while they are in the first-level cache.
use std::ops::Range;

use super::activations::{Activations, Rows};
use super::schedule::Cell;
use crate::error::Result;
use crate::machine::memory::Mapped;
use crate::machine::shared::{Part, Share};
use crate::model::kernels::{Kernels, PANEL};

/// What a phase does with the columns of its result, row by row.
pub enum Epilogue<'e, 'a> {
    /// Writes them.
    Write(&'e mut Rows<'a>),
    /// Adds them to what is there: the residual stream.
    Add(&'e mut Rows<'a>),
    /// Adds row `index[row]` of a table as wide as the result, then writes.
    AddTable {
        /// Receives the sums.
        to: &'e mut Rows<'a>,
        /// Rows to choose from.
        table: &'e [f32],
        /// Row of the table for each row of the result.
        index: &'e [usize],
    },
    /// Multiplies the first columns by a number, then writes.
    Scale {
        /// Receives all columns.
        to: &'e mut Activations<'a>,
        /// Number of columns that are scaled.
        columns: usize,
        /// The factor.
        scale: f32,
    },
    /// Writes `gelu_tanh` of them.
    Gelu(&'e mut Activations<'a>),
    /// Writes `silu(gate) * up`, of matrices interleaved panel by panel.
    SiluMul(&'e mut Activations<'a>),
    /// Keeps the largest of each task.
    Argmax(&'e mut Largest<'a>),
}

impl Epilogue<'_, '_> {
    /// Takes `values`, the first of the task's columns that are no padding, of a row.
    pub(super) fn apply(
        &mut self,
        kernels: &Kernels,
        cell: &Cell<'_>,
        row: usize,
        values: &mut [f32],
        scratch: &mut Vec<f32>,
    ) {
        let part = cell.part();
        let start = cell.panels.start * PANEL;
        let columns = start..start + values.len();
        match self {
            Self::Write(to) => to.part_mut(&part, row, columns).copy_from_slice(values),
            Self::Add(to) => (kernels.add)(to.part_mut(&part, row, columns), values),
            Self::AddTable { to, table, index } => {
                let first = index[row] * to.columns();
                (kernels.add)(values, &table[first + columns.start..first + columns.end]);
                to.part_mut(&part, row, columns).copy_from_slice(values);
            }
            Self::Scale { to, columns: scaled, scale } => {
                let scaled = scaled.saturating_sub(start).min(values.len());
                values[..scaled].iter_mut().for_each(|x| *x *= *scale);
                to.write(&part, row, start, values);
            }
            Self::Gelu(to) => {
                (kernels.gelu)(values);
                to.write(&part, row, start, values);
            }
            Self::SiluMul(to) => {
                let Range { start, end } = columns;
                to.write_with(&part.half_columns(), row, start / 2..end / 2, scratch, |out| {
                    for (pair, out) in values.chunks_exact(2 * PANEL).zip(out.chunks_exact_mut(PANEL)) {
                        let (gate, up) = pair.split_at(PANEL);
                        (kernels.silu_mul)(gate, up, out);
                    }
                });
            }
            Self::Argmax(largest) => {
                let (index, value) = (kernels.argmax)(values);
                largest.store(&cell.unit_part(2), row, cell.unit, (value, start + index));
            }
        }
    }
}

/// Memory for the largest element of each task's columns, for some rows.
pub(crate) struct LargestMemory {
    pairs: Mapped<f32>,
    tasks: usize,
}

impl LargestMemory {
    /// For `rows` rows whose columns are divided among `tasks` tasks.
    pub(crate) fn new(rows: usize, tasks: usize) -> Result<Self> {
        Ok(Self { pairs: Mapped::zeroed(rows.saturating_mul(2 * tasks))?, tasks })
    }

    /// The memory as the threads of a job see it.
    pub(crate) fn rows(&mut self) -> Largest<'_> {
        Largest { pairs: Rows::new(&mut self.pairs, 2 * self.tasks) }
    }

    /// The column of the largest element of a row; the first wins a tie.
    pub(crate) fn column(&self, row: usize) -> usize {
        let pairs = &self.pairs[2 * row * self.tasks..2 * (row + 1) * self.tasks];
        let mut best = (f32::NEG_INFINITY, 0.0);
        for pair in pairs.as_chunks::<2>().0 {
            if pair[0] > best.0 {
                best = (pair[0], pair[1]);
            }
        }
        best.1 as usize
    }
}

/// [`LargestMemory`] as a thread of a job sees it.
pub struct Largest<'a> {
    /// Value and column of each task's largest element.
    pairs: Rows<'a>,
}

impl Share for Largest<'_> {
    unsafe fn handle(&self) -> Self {
        // SAFETY: the caller promises the same.
        Self { pairs: unsafe { self.pairs.handle() } }
    }
}

impl Largest<'_> {
    fn store(&mut self, part: &Part<'_>, row: usize, unit: usize, (value, column): (f32, usize)) {
        let pair = self.pairs.part_mut(part, row, 2 * unit..2 * unit + 2);
        // Columns stay far below 2^24: exact in float32.
        pair.copy_from_slice(&[value, column as f32]);
    }
}
