//! The fast way of a picture of three uint8 channels: one pass over memory, from its rows to the frames.
//!
//! It computes what `preprocess::scalar` computes, to the bit. Rows stream through the passes; what leaves the last one
//! is converted and written to its final place at once, and kept, shrunk in width where that comes first, for the global
//! view, which follows at the end.

mod chain;
mod columns;
pub(crate) mod plan;
mod rows;
pub mod stages;
#[cfg(test)]
mod tests;
mod transposed;

use std::ops::Range;
use std::slice::ChunksExactMut;

use chain::Chain;
use columns::Columns;
use plan::{Pass, Plan};
use rows::plane_stride;
use transposed::TransposedBlock;

use crate::Error;
use crate::machine::picture_threads;
use crate::machine::scratch::Scratch;
use crate::machine::vectors::with_capacity;
use crate::pixels::convert::Conversion;
use crate::pixels::kernels::{PictureKernels, StreamValue};
use crate::pixels::picture::{Picture, StridedView, Strides};
use crate::pixels::taps::LANES;

/// Write the frames of `picture` into `out`, (frames, 3, tile, tile), whose length the caller has checked, in up to
/// `threads` bands of rows at a time. The plan is that of the picture's size.
pub(crate) fn preprocess<V: StreamValue>(
    picture: Picture<'_>,
    plan: &Plan,
    tile: usize,
    conversions: &[Conversion; 3],
    out: &mut [V],
    kernels: &'static PictureKernels,
    threads: usize,
) -> Result<(), Error> {
    let (height, width) = plan.layout.stage_b;
    let cols = plan.layout.cols.max(1);
    let (tiles, view) = out.split_at_mut(height * width * 3);
    let kept_width = plan.kept.as_ref().map_or(width, |columns| columns.outputs);
    let mut kept = GlobalRows::new(if view.is_empty() { 0 } else { height }, kept_width)?;
    let work = Work { picture, passes: &plan.tiles, conversions, kernels, tile };
    let targets = rows_of_tiles(tiles, tile, cols)?;
    in_bands(Division { height, threads }, targets, &mut kept, |mut band| work.run(&mut band, plan.kept.as_ref()))?;
    if view.is_empty() {
        return Ok(());
    }
    let strides = Strides { row: kept.stride, pixel: 1, channel: plane_stride(kept_width) };
    let work = Work {
        picture: Picture::View(StridedView::new(&kept.rows, (height, kept_width, 3), strides)?),
        passes: &plan.global,
        ..work
    };
    let division = Division { height: tile, threads };
    let targets = rows_of_tiles(view, tile, 1)?;
    in_bands(division, targets, &mut GlobalRows::new(0, 0)?, |mut band| work.run(&mut band, None))
}

/// The rows of all tiles in the order in which they are written: by row of the picture, column of tiles, channel.
fn rows_of_tiles<V>(tiles: &mut [V], tile: usize, cols: usize) -> Result<Vec<&mut [V]>, Error> {
    let mut rows = with_capacity(tiles.len() / tile)?;
    for row_of_tiles in tiles.chunks_exact_mut(cols * 3 * tile * tile) {
        let mut planes: Vec<ChunksExactMut<'_, V>> =
            row_of_tiles.chunks_exact_mut(tile * tile).map(|plane| plane.chunks_exact_mut(tile)).collect();
        for _ in 0..tile {
            rows.extend(planes.iter_mut().filter_map(Iterator::next));
        }
    }
    Ok(rows)
}

/// Rows of three planes that wait for the global view.
struct GlobalRows {
    rows: Scratch,
    stride: usize,
}

impl GlobalRows {
    fn new(rows: usize, width: usize) -> Result<Self, Error> {
        let stride = if rows == 0 { 0 } else { 3 * plane_stride(width) };
        Ok(Self { rows: Scratch::new(rows.saturating_mul(stride))?, stride })
    }
}

/// What is done to every band.
struct Work<'a> {
    picture: Picture<'a>,
    passes: &'a [Pass],
    conversions: &'a [Conversion; 3],
    kernels: &'static PictureKernels,
    tile: usize,
}

/// Some rows of the output, and what belongs to them.
struct Band<'a, 'o, V> {
    rows: Range<usize>,
    /// For each row, its piece of every tile and channel.
    targets: &'a mut [&'o mut [V]],
    kept: &'a mut [u8],
    kept_stride: usize,
}

impl Work<'_> {
    fn run<V: StreamValue>(&self, band: &mut Band<'_, '_, V>, kept: Option<&Columns>) -> Result<(), Error> {
        let start = band.rows.start;
        let mut chain = Chain::new(self.picture, self.passes, band.rows.clone(), self.kernels)?;
        let mut shrink = kept.map(TransposedBlock::new).transpose()?;
        let per_row = band.targets.len() / band.rows.len();
        // A row is converted in parts of one tile where a tile is whole strips.
        let plane = plane_stride(per_row / 3 * self.tile);
        let part = if self.tile.is_multiple_of(LANES) { self.tile } else { plane };
        for first in band.rows.clone().step_by(LANES) {
            let rows = first..band.rows.end.min(first + LANES);
            for y in rows.clone() {
                let targets = &mut band.targets[(y - start) * per_row..][..per_row];
                chain.produce(y, part, &mut |channel, x, bytes| {
                    self.write(channel, x, bytes, targets);
                })?;
            }
            if band.kept.is_empty() {
                continue;
            }
            let stride = band.kept_stride;
            let kept = &mut band.kept[(first - start) * stride..(rows.end - start) * stride];
            let rows = chain.block(first, rows.len())?;
            match &mut shrink {
                Some(block) => block.resize(self.kernels, rows, kept, stride),
                None => {
                    for (y, kept) in kept.chunks_exact_mut(stride).enumerate() {
                        kept.copy_from_slice(&rows.data[y * rows.stride..][..stride]);
                    }
                }
            }
        }
        (self.kernels.fence)();
        Ok(())
    }

    /// Convert a part of a row to its places.
    fn write<V: StreamValue>(&self, channel: usize, x: usize, bytes: &[u8], targets: &mut [&mut [V]]) {
        let targets = targets[channel..].iter_mut().step_by(3);
        for (bytes, target) in bytes.chunks_exact(self.tile).zip(targets.skip(x / self.tile)) {
            V::convert(self.kernels, bytes, &self.conversions[channel], target);
        }
    }
}

/// How rows are spread over threads.
struct Division {
    height: usize,
    threads: usize,
}

/// Split rows into bands, with the targets and the kept rows that belong to them; the first error is returned.
fn in_bands<V: StreamValue>(
    division: Division,
    mut targets: Vec<&mut [V]>,
    kept: &mut GlobalRows,
    work: impl Fn(Band<'_, '_, V>) -> Result<(), Error> + Sync,
) -> Result<(), Error> {
    let Division { height, threads } = division;
    let (kept_stride, mut kept) = (kept.stride, &mut kept.rows[..]);
    if threads <= 1 || height < 2 * LANES {
        return work(Band { rows: 0..height, targets: &mut targets, kept, kept_stride });
    }
    let step = height.div_ceil(threads).next_multiple_of(LANES);
    let per_row = targets.len() / height;
    let mut results = vec![Ok(()); height.div_ceil(step)];
    picture_threads::scope(|scope| {
        let mut targets = targets.as_mut_slice();
        for (start, result) in (0..height).step_by(step).zip(&mut results) {
            let rows = start..(start + step).min(height);
            let (mine, rest) = std::mem::take(&mut targets).split_at_mut(rows.len() * per_row);
            targets = rest;
            let (my_kept, rest) = std::mem::take(&mut kept).split_at_mut(rows.len() * kept_stride);
            kept = rest;
            let work = &work;
            scope.spawn(move |_| {
                *result = work(Band { rows, targets: mine, kept: my_kept, kept_stride });
            });
        }
    });
    results.into_iter().collect()
}
