//! The horizontal pass: rows are taken 32 at a time and transposed, so that it becomes a weighted sum of strips.

use super::columns::Columns;
use super::rows::{Rows, plane_stride};
use crate::error::Result;
use crate::machine::scratch::Scratch;
use crate::pixels::kernels::PictureKernels;
use crate::pixels::taps::LANES;

/// A horizontal pass, and the transposed pixels of the piece that is being worked on: pixel `x` is a strip for each of its
/// bytes, one after the other.
pub(super) struct TransposedBlock<'a> {
    /// None where channels are only taken apart.
    columns: Option<&'a Columns>,
    outputs: usize,
    data: Scratch,
}

impl<'a> TransposedBlock<'a> {
    /// A pass over columns.
    pub(super) fn new(columns: &'a Columns) -> Result<Self> {
        let widest = columns.pieces.iter().map(|piece| piece.inputs).max();
        Ok(Self { columns: Some(columns), outputs: columns.outputs, data: strips(widest.unwrap_or(0))? })
    }

    /// Only take channels apart.
    pub(super) fn splitting(width: usize) -> Result<Self> {
        Ok(Self { columns: None, outputs: width, data: strips(LANES)? })
    }

    /// Pixels in a row after the pass.
    pub(super) fn outputs(&self) -> usize {
        self.outputs
    }

    /// Resize the rows, and write them as planes into `out`, a row every `stride` bytes.
    pub(super) fn resize(&mut self, kernels: &PictureKernels, rows: Rows<'_>, out: &mut [u8], stride: usize) {
        let plane = plane_stride(self.outputs);
        let (step, mut start) = (rows.bytes_of_a_pixel() * LANES, 0);
        let mut strips = [0; 3 * LANES * LANES];
        let Some(columns) = self.columns else {
            for first in (0..self.outputs).step_by(LANES) {
                self.transpose(kernels, rows, first, LANES.min(self.outputs - first));
                for (to, from) in strips.chunks_exact_mut(3 * LANES).zip(self.data.chunks_exact(step)) {
                    to.copy_from_slice(&from[..3 * LANES]);
                }
                write(kernels, &strips, rows.count, first, plane, out, stride);
            }
            return;
        };
        for piece in &columns.pieces {
            self.transpose(kernels, rows, piece.first, piece.inputs);
            for first in (0..piece.taps.outputs()).step_by(LANES) {
                let pixels = &mut strips[..LANES.min(piece.taps.outputs() - first) * 3 * LANES];
                (kernels.weigh_pixels)(&self.data, step, &piece.taps, first, pixels);
                write(kernels, &strips, rows.count, start + first, plane, out, stride);
            }
            start += piece.taps.outputs();
        }
    }

    /// Transpose `count` pixels from `first` on.
    fn transpose(&mut self, kernels: &PictureKernels, rows: Rows<'_>, first: usize, count: usize) {
        if rows.pixel > 1 {
            let bytes = count * rows.pixel;
            for at in (0..bytes).step_by(LANES) {
                let to = &mut self.data[at * LANES..];
                rows.transpose(kernels, first * rows.pixel + at, to, LANES);
            }
        } else {
            for at in (0..count).step_by(LANES) {
                for channel in 0..3 {
                    let to = &mut self.data[(at * 3 + channel) * LANES..];
                    rows.transpose(kernels, channel * rows.plane + first + at, to, 3 * LANES);
                }
            }
        }
    }
}

/// A buffer for pixels of up to four bytes, and for what transposing whole squares writes behind them.
fn strips(pixels: usize) -> Result<Scratch> {
    Scratch::new(pixels.saturating_mul(4).saturating_add(3 * LANES).saturating_mul(LANES))
}

/// Turn the strips of up to 32 pixels back into pieces of `count` rows, from column `first` of each plane on.
fn write(
    kernels: &PictureKernels,
    strips: &[u8],
    count: usize,
    first: usize,
    plane: usize,
    out: &mut [u8],
    stride: usize,
) {
    for channel in 0..3 {
        let from = &strips[channel * LANES..];
        let to = &mut out[channel * plane + first..];
        if count == LANES {
            (kernels.transpose)(from, 3 * LANES, to, stride);
            continue;
        }
        let mut square = [0; LANES * LANES];
        (kernels.transpose)(from, 3 * LANES, &mut square, LANES);
        for (row, to) in square.chunks_exact(LANES).take(count).zip(to.chunks_mut(stride)) {
            to[..LANES].copy_from_slice(row);
        }
    }
}
