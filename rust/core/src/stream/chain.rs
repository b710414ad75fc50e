//! A chain of passes: asked for a row, each pass asks the one before it for the rows of its window. Only the rows that
//! windows still need are kept, so the data of a picture stays in the caches on its way.

use std::ops::Range;

use super::horizontal::{Block, Rows};
use super::kernels::{Kernels, LANES};
use super::plan::Pass;
use super::rows::{Ring, Source};
use super::taps::Taps;

/// The passes over a band of rows.
pub struct Chain<'a> {
    source: Source<'a>,
    levels: Vec<Level<'a>>,
    width: usize,
    kernels: &'static Kernels,
}

struct Level<'a> {
    step: Step<'a>,
    ring: Ring,
    /// The next row that the pass will produce.
    next: usize,
    /// Rows of the whole output of the pass.
    height: usize,
}

impl Level<'_> {
    /// The `count` rows of the block that begins with `y`.
    fn rows(&self, y: usize, count: usize) -> Rows<'_> {
        Rows {
            data: self.ring.block(y),
            stride: self.ring.stride(),
            count,
            interleaved: false,
        }
    }
}

enum Step<'a> {
    Horizontal {
        taps: Option<&'a Taps>,
        block: Block,
    },
    Vertical(&'a Taps),
}

impl<'a> Chain<'a> {
    /// A chain that will be asked for the rows `band` of its last pass, in order.
    pub fn new(
        source: Source<'a>,
        passes: &'a [Pass],
        band: Range<usize>,
        kernels: &'static Kernels,
    ) -> Self {
        // From the last pass to the first: which rows each has to give, and how many the next one looks at.
        let mut needs = vec![(band.start, LANES)];
        for pass in passes[1.min(passes.len())..].iter().rev() {
            let (start, _) = needs[needs.len() - 1];
            needs.push(match pass {
                Pass::Vertical(taps) => (taps.first(start), taps.widest()),
                Pass::Horizontal(_) | Pass::Split => (start, LANES),
            });
        }
        needs.reverse();
        let (mut width, mut height) = (source.width(), source.height());
        let mut levels = Vec::new();
        for (pass, (start, look)) in passes.iter().zip(needs) {
            let step = match pass {
                Pass::Horizontal(taps) => Step::Horizontal {
                    taps: Some(taps),
                    block: Block::new(width),
                },
                Pass::Split => Step::Horizontal {
                    taps: None,
                    block: Block::new(width),
                },
                Pass::Vertical(taps) => Step::Vertical(taps),
            };
            match &step {
                Step::Horizontal { taps, .. } => width = taps.map_or(width, Taps::outputs),
                Step::Vertical(taps) => height = taps.outputs(),
            }
            // A pass may be a block ahead of what it was asked for.
            levels.push(Level {
                step,
                ring: Ring::new(width, look + LANES, start),
                next: start,
                height,
            });
        }
        Self {
            source,
            levels,
            width,
            kernels,
        }
    }

    /// Pixels in a row of the last pass.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows of the last pass, in blocks of [`LANES`] from the start of the band on: let it produce those before `end`.
    pub fn advance(&mut self, end: usize) {
        advance(&mut self.levels, self.source, end, self.kernels);
    }

    /// Row `y` of the last pass, three planes; it was produced, and is in the last block.
    pub fn row(&self, y: usize) -> &[u8] {
        self.levels
            .last()
            .map_or_else(|| self.source.row(y), |level| level.ring.row(y))
    }

    /// The `count` rows of the block that begins with `y`.
    pub fn rows(&self, y: usize, count: usize) -> Rows<'_> {
        match self.levels.last() {
            Some(level) => level.rows(y, count),
            None => source_rows(self.source, y, count),
        }
    }
}

/// Let the last of `levels` produce the rows before `end`.
fn advance(levels: &mut [Level<'_>], source: Source<'_>, end: usize, kernels: &Kernels) {
    let Some((level, before)) = levels.split_last_mut() else {
        return;
    };
    while level.next < end {
        let y = level.next;
        match &mut level.step {
            Step::Vertical(taps) => {
                advance(before, source, taps.end(y), kernels);
                let window = taps.first(y)..taps.end(y);
                let rows: Vec<&[u8]> = match before.last() {
                    Some(input) => window.map(|row| input.ring.row(row)).collect(),
                    None => window.map(|row| source.row(row)).collect(),
                };
                (kernels.weigh_rows)(&rows, taps, y, level.ring.row_mut(y));
                level.next += 1;
            }
            Step::Horizontal { taps, block } => {
                let count = LANES.min(level.height - y);
                advance(before, source, y + count, kernels);
                let rows = match before.last() {
                    Some(input) => input.rows(y, count),
                    None => source_rows(source, y, count),
                };
                let stride = level.ring.stride();
                block.resize(kernels, rows, *taps, level.ring.block_mut(y), stride);
                level.next += count;
            }
        }
    }
}

fn source_rows(source: Source<'_>, y: usize, count: usize) -> Rows<'_> {
    let stride = source.row(y).len();
    let data = match source {
        Source::Interleaved(image) => &image.data()[y * stride..(y + count) * stride],
        Source::Planar { rows, .. } => &rows[y * stride..(y + count) * stride],
    };
    Rows {
        data,
        stride,
        count,
        interleaved: matches!(source, Source::Interleaved(_)),
    }
}
