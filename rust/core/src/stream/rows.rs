//! Rows of three planes: where they come from, and the ring in which a pass leaves its own.

use super::kernels::LANES;
use super::scratch::Scratch;
use crate::image::ImageView;

/// Bytes that a plane of `width` takes in a row: whole strips.
pub fn plane_stride(width: usize) -> usize {
    width.next_multiple_of(LANES)
}

/// The input of the first pass.
#[derive(Clone, Copy)]
pub enum Source<'a> {
    /// A picture of three interleaved channels.
    Interleaved(ImageView<'a>),
    /// Rows of three planes of this width, one after the other.
    Planar { rows: &'a [u8], width: usize },
}

impl<'a> Source<'a> {
    /// Pixels in a row.
    pub fn width(&self) -> usize {
        match self {
            Self::Interleaved(image) => image.width(),
            Self::Planar { width, .. } => *width,
        }
    }

    /// Rows.
    pub fn height(&self) -> usize {
        match self {
            Self::Interleaved(image) => image.height(),
            Self::Planar { rows, width } => rows.len() / (3 * plane_stride(*width)),
        }
    }

    /// Row `y`.
    pub fn row(&self, y: usize) -> &'a [u8] {
        match self {
            Self::Interleaved(image) => image.row(y),
            Self::Planar { rows, width } => {
                let stride = 3 * plane_stride(*width);
                &rows[y * stride..(y + 1) * stride]
            }
        }
    }
}

/// The last rows that a pass produced, each three planes.
pub struct Ring {
    data: Scratch,
    width: usize,
    /// The row that stands in the first place.
    start: usize,
    rows: usize,
    /// From a row to the next.
    stride: usize,
}

impl Ring {
    /// Room for at least `rows` rows, a multiple of [`LANES`], of which the first is `start`.
    pub fn new(width: usize, rows: usize, start: usize) -> Self {
        let rows = rows.next_multiple_of(LANES);
        // An odd number of cache lines: rows at a power of two would all fall into the same few sets of the cache.
        let stride = (3 * plane_stride(width)).next_multiple_of(128) + 64;
        Self {
            data: Scratch::new(rows * stride),
            width,
            start,
            rows,
            stride,
        }
    }

    /// From a row to the next.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// Row `y`.
    pub fn row(&self, y: usize) -> &[u8] {
        let at = (y - self.start) % self.rows * self.stride;
        &self.data[at..at + 3 * plane_stride(self.width)]
    }

    /// Row `y`, to be written.
    pub fn row_mut(&mut self, y: usize) -> &mut [u8] {
        let at = (y - self.start) % self.rows * self.stride;
        &mut self.data[at..at + 3 * plane_stride(self.width)]
    }

    /// The [`LANES`] rows from `y` on, which is that many after the start, or a multiple.
    pub fn block(&self, y: usize) -> &[u8] {
        let at = (y - self.start) % self.rows * self.stride;
        &self.data[at..at + LANES * self.stride]
    }

    /// As `block`, to be written.
    pub fn block_mut(&mut self, y: usize) -> &mut [u8] {
        let at = (y - self.start) % self.rows * self.stride;
        &mut self.data[at..at + LANES * self.stride]
    }
}
