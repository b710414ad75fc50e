//! A chain of passes: asked for a row, each pass asks the one before it for the rows of its window. Only the rows that
//! windows still need are kept, so the data of a picture stays in the caches on its way.

use std::ops::Range;

use super::plan::Pass;
use super::rows::{Reader, Ring, Rows, plane_stride};
use super::transposed::TransposedBlock;
use crate::Error;
use crate::machine::vectors::{collected, with_capacity};
use crate::pixels::kernels::PictureKernels;
use crate::pixels::picture::Picture;
use crate::pixels::taps::LANES;
use crate::pixels::taps::Taps;

/// The passes over a band of rows.
pub(super) struct Chain<'a> {
    reader: Reader<'a>,
    levels: Vec<Level<'a>>,
    width: usize,
    kernels: &'static PictureKernels,
}

struct Level<'a> {
    step: Step<'a>,
    ring: Ring,
    /// The next row that the pass will produce.
    next: usize,
    /// Rows of the whole output of the pass.
    height: usize,
}

enum Step<'a> {
    Horizontal(TransposedBlock<'a>),
    Vertical(&'a Taps),
}

/// What takes a part of a row: its channel, its first column, its bytes.
pub(super) type Sink<'s> = dyn FnMut(usize, usize, &[u8]) + 's;

impl<'a> Chain<'a> {
    /// A chain that will be asked for the rows `band` of its last pass, in order.
    pub(super) fn new(
        picture: Picture<'a>,
        passes: &'a [Pass],
        band: Range<usize>,
        kernels: &'static PictureKernels,
    ) -> Result<Self, Error> {
        // From the last pass to the first: the row that it begins with, and how many rows the next one looks at.
        let mut needs = vec![(band.start, LANES)];
        for pass in passes[1.min(passes.len())..].iter().rev() {
            let (start, _) = needs[needs.len() - 1];
            needs.push(match pass {
                Pass::Vertical(taps) => (taps.first(start), taps.widest()),
                Pass::Horizontal(_) | Pass::Split => (start, LANES),
            });
        }
        needs.reverse();
        let (mut width, mut height) = (picture.width(), picture.height());
        let mut levels = Vec::new();
        for (index, (pass, (start, look))) in passes.iter().zip(needs).enumerate() {
            let step = match pass {
                Pass::Horizontal(columns) => Step::Horizontal(TransposedBlock::new(columns)?),
                Pass::Split => Step::Horizontal(TransposedBlock::splitting(width)?),
                Pass::Vertical(taps) => Step::Vertical(taps),
            };
            let feeds_rows = matches!(passes.get(index + 1), Some(Pass::Vertical(_)));
            let rows = match &step {
                // A block is written while the next pass still looks at the last rows of the one before.
                Step::Horizontal(_) if feeds_rows => (look + LANES).next_multiple_of(LANES),
                Step::Vertical(_) if feeds_rows => look,
                _ => LANES,
            };
            match &step {
                Step::Horizontal(block) => width = block.outputs(),
                Step::Vertical(taps) => height = taps.outputs(),
            }
            levels.push(Level { step, ring: Ring::new(width, rows, start)?, next: start, height });
        }
        Ok(Self { reader: Reader::new(picture), levels, width, kernels })
    }

    /// Produce row `y` of the last pass, after the one before, and give it to `sink` in parts of `part` columns, which is
    /// whole strips or the whole plane.
    pub(super) fn produce(&mut self, y: usize, part: usize, sink: &mut Sink<'_>) -> Result<(), Error> {
        let (plane, kernels) = (plane_stride(self.width), self.kernels);
        let parts = || (0..3).flat_map(|channel| (0..plane).step_by(part).map(move |x| (channel, x)));
        let Some((last, before)) = self.levels.split_last_mut() else {
            let row = self.reader.rows(y, 1)?;
            for (channel, x) in parts() {
                sink(channel, x, &row.data[channel * row.plane + x..][..part]);
            }
            return Ok(());
        };
        if let Step::Vertical(taps) = last.step {
            advance(before, &mut self.reader, taps.end(y), kernels)?;
            let window = window(before, &mut self.reader, taps, y)?;
            let out = last.ring.row_mut(y);
            let mut rows = with_capacity(window.len())?;
            for (channel, x) in parts() {
                // A part is converted, and written past the caches, while the next one is computed.
                let at = channel * plane + x;
                rows.clear();
                rows.extend(window.iter().map(|row| &row[at..at + part]));
                (kernels.weigh_rows)(&rows, taps, y, &mut out[at..at + part]);
                sink(channel, x, &out[at..at + part]);
            }
            last.next = y + 1;
            return Ok(());
        }
        advance(&mut self.levels, &mut self.reader, y + 1, kernels)?;
        let row = self.levels[self.levels.len() - 1].ring.row(y);
        for (channel, x) in parts() {
            sink(channel, x, &row[channel * plane + x..][..part]);
        }
        Ok(())
    }

    /// The `count` rows of the last pass from `y` on, the first of a block; they were produced.
    pub(super) fn block(&mut self, y: usize, count: usize) -> Result<Rows<'_>, Error> {
        match self.levels.last() {
            Some(level) => Ok(level.ring.block(y, count)),
            None => self.reader.rows(y, count),
        }
    }
}

/// Let the last of `levels` produce the rows before `end`.
fn advance(
    levels: &mut [Level<'_>],
    reader: &mut Reader<'_>,
    end: usize,
    kernels: &PictureKernels,
) -> Result<(), Error> {
    let Some((level, before)) = levels.split_last_mut() else {
        return Ok(());
    };
    while level.next < end {
        let y = level.next;
        match &mut level.step {
            Step::Vertical(taps) => {
                advance(before, reader, taps.end(y), kernels)?;
                let rows = window(before, reader, taps, y)?;
                (kernels.weigh_rows)(&rows, taps, y, level.ring.row_mut(y));
                level.next += 1;
            }
            Step::Horizontal(block) => {
                let count = LANES.min(level.height - y);
                advance(before, reader, y + count, kernels)?;
                let rows = match before.last() {
                    Some(input) => input.ring.block(y, count),
                    None => reader.rows(y, count)?,
                };
                let stride = level.ring.stride();
                block.resize(kernels, rows, level.ring.block_mut(y), stride);
                level.next += count;
            }
        }
    }
    Ok(())
}

/// The rows that output `y` of a vertical pass is made of.
fn window<'w>(
    before: &'w [Level<'_>],
    reader: &'w mut Reader<'_>,
    taps: &Taps,
    y: usize,
) -> Result<Vec<&'w [u8]>, Error> {
    let window = taps.first(y)..taps.end(y);
    if let Some(input) = before.last() {
        return collected(window.len(), window.map(|row| input.ring.row(row)));
    }
    // Only planes come here: the first pass over anything else takes channels apart.
    let rows = reader.rows(window.start, window.len())?;
    collected(window.len(), (0..window.len()).map(|row| &rows.data[row * rows.stride..][..3 * rows.plane]))
}
