//! The horizontal pass: rows are taken 32 at a time and transposed, so that it becomes a weighted sum of strips.

use super::kernels::{Kernels, LANES};
use super::rows::plane_stride;
use super::scratch::Scratch;
use super::taps::Taps;

/// A block of transposed rows: pixel `x` is three strips, one for each channel, from `x * 3 * LANES` on.
pub struct Block {
    data: Scratch,
    width: usize,
    /// Bytes already transposed in each row (of each plane, where the rows are planes).
    ready: usize,
}

/// Where the rows of a block lie.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    /// The first row, and the others behind it.
    pub data: &'a [u8],
    /// From a row to the next.
    pub stride: usize,
    /// Rows that are there; at most [`LANES`].
    pub count: usize,
    /// Whether channels lie side by side in a pixel, or as planes one after the other.
    pub interleaved: bool,
}

impl Block {
    /// A block for rows of `width` pixels.
    pub fn new(width: usize) -> Self {
        // Transposing writes whole strips of columns.
        Self {
            data: Scratch::new((width * 3 + 3 * LANES) * LANES),
            width,
            ready: 0,
        }
    }

    /// Resize the rows to `outputs` pixels each, and write them as planes into `out`, a row every `stride` bytes.
    pub fn resize(
        &mut self,
        kernels: &Kernels,
        rows: Rows<'_>,
        taps: Option<&Taps>,
        out: &mut [u8],
        stride: usize,
    ) {
        self.ready = 0;
        let outputs = taps.map_or(self.width, Taps::outputs);
        let plane = plane_stride(outputs);
        let mut strips = [0; 3 * LANES * LANES];
        for first in (0..outputs).step_by(LANES) {
            let count = LANES.min(outputs - first);
            let needed = taps.map_or(first + count, |taps| taps.end(first + count - 1));
            self.transpose_to(kernels, rows, needed);
            let pixels = &mut strips[..count * 3 * LANES];
            match taps {
                Some(taps) => (kernels.weigh_pixels)(&self.data, 3 * LANES, taps, first, pixels),
                None => pixels.copy_from_slice(&self.data[first * 3 * LANES..][..pixels.len()]),
            }
            for channel in 0..3 {
                let from = &strips[channel * LANES..];
                if rows.count == LANES {
                    (kernels.transpose)(
                        from,
                        3 * LANES,
                        &mut out[channel * plane + first..],
                        stride,
                    );
                    continue;
                }
                let mut square = [0; LANES * LANES];
                (kernels.transpose)(from, 3 * LANES, &mut square, LANES);
                for (y, row) in square.chunks_exact(LANES).take(rows.count).enumerate() {
                    out[y * stride + channel * plane + first..][..LANES].copy_from_slice(row);
                }
            }
        }
    }

    /// Transpose until pixels `0..pixels` are there.
    fn transpose_to(&mut self, kernels: &Kernels, rows: Rows<'_>, pixels: usize) {
        if rows.interleaved {
            while self.ready < pixels * 3 {
                let to = &mut self.data[self.ready * LANES..];
                transpose(kernels, rows, self.ready, self.width * 3, to, LANES);
                self.ready += LANES;
            }
        } else {
            while self.ready < pixels {
                for channel in 0..3 {
                    let from = channel * plane_stride(self.width) + self.ready;
                    let to = &mut self.data[(self.ready * 3 + channel) * LANES..];
                    transpose(
                        kernels,
                        rows,
                        from,
                        (channel + 1) * plane_stride(self.width),
                        to,
                        3 * LANES,
                    );
                }
                self.ready += LANES;
            }
        }
    }
}

/// Transpose 32 bytes of each row from `at` on; the bytes from `end` on are not there.
fn transpose(
    kernels: &Kernels,
    rows: Rows<'_>,
    at: usize,
    end: usize,
    to: &mut [u8],
    to_stride: usize,
) {
    if rows.count == LANES && at + LANES <= end {
        return (kernels.transpose)(&rows.data[at..], rows.stride, to, to_stride);
    }
    let mut square = [0; LANES * LANES];
    let bytes = LANES.min(end - at);
    for (y, row) in square.chunks_exact_mut(LANES).take(rows.count).enumerate() {
        row[..bytes].copy_from_slice(&rows.data[y * rows.stride + at..][..bytes]);
    }
    (kernels.transpose)(&square, LANES, to, to_stride);
}
