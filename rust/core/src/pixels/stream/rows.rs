//! Rows of three channels: where they come from, and the ring in which a pass leaves its own.

use std::ops::Range;

use crate::Error;
use crate::machine::scratch::Scratch;
use crate::pixels::kernels::PictureKernels;
use crate::pixels::picture::{Picture, RowBlock, StridedView};
use crate::pixels::taps::LANES;

/// Bytes that a plane of `width` takes in a row: whole strips.
pub(super) fn plane_stride(width: usize) -> usize {
    width.next_multiple_of(LANES)
}

/// Neighbouring rows: channel `c` of pixel `x` of row `y` is at `y * stride + x * pixel + c * plane`.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    /// From the first value of the first row on; what lies between the rows may be read.
    pub(crate) data: &'a [u8],
    /// From a row to the next.
    pub(crate) stride: usize,
    /// From a pixel to the next: 1 where the channels are planes, otherwise they lie side by side.
    pub pixel: usize,
    /// From a channel to the next.
    pub(crate) plane: usize,
    /// Rows that are there.
    pub(crate) count: usize,
}

impl<'a> Rows<'a> {
    /// Bytes that a pixel takes when transposed.
    pub(super) fn bytes_of_a_pixel(&self) -> usize {
        if self.pixel == 1 { 3 } else { self.pixel }
    }

    /// Transpose 32 bytes of each row from `at` on. What is not there, behind the last row, is zero.
    pub(super) fn transpose(&self, kernels: &PictureKernels, at: usize, to: &mut [u8], to_stride: usize) {
        let from = &self.data[at..];
        if self.count == LANES && from.len() >= (LANES - 1) * self.stride + LANES {
            return (kernels.transpose)(from, self.stride, to, to_stride);
        }
        let mut square = [0; LANES * LANES];
        for (y, row) in square.chunks_exact_mut(LANES).take(self.count).enumerate() {
            let from = &from[y * self.stride..];
            let length = LANES.min(from.len());
            row[..length].copy_from_slice(&from[..length]);
        }
        (kernels.transpose)(&square, LANES, to, to_stride);
    }
}

/// What a band of rows takes in memory, about; it should stay in the caches until it is used.
const BAND_BYTES: usize = 1 << 19;

/// Reads a picture from top to bottom, in blocks of rows.
pub(super) struct Reader<'a> {
    picture: Picture<'a>,
    /// The band that was read last, and which rows it holds.
    band: Option<(Box<dyn RowBlock + 'a>, Range<usize>)>,
}

impl<'a> Reader<'a> {
    /// Nothing is read yet.
    pub(super) fn new(picture: Picture<'a>) -> Self {
        Self { picture, band: None }
    }

    /// The rows from `y` on, `count` of them.
    pub(super) fn rows(&mut self, y: usize, count: usize) -> Result<Rows<'_>, Error> {
        let bands = match self.picture {
            Picture::View(view) => return Ok(rows_of(&view, y, count)),
            Picture::Bands(bands) => bands,
        };
        let has = |rows: &Range<usize>| y >= rows.start && y + count <= rows.end;
        // The last band gives its memory back before the next one is read.
        self.band.take_if(|(_, rows)| !has(rows));
        let (band, rows) = match &mut self.band {
            Some(kept) => kept,
            empty => {
                let length = (BAND_BYTES / (4 * bands.width())).next_multiple_of(LANES);
                let end = (y + length.max(LANES).max(count)).min(bands.height());
                empty.insert((bands.block(y..end)?, y..end))
            }
        };
        Ok(rows_of(&band.view()?, y - rows.start, count))
    }
}

fn rows_of<'a>(view: &StridedView<'a>, y: usize, count: usize) -> Rows<'a> {
    let strides = view.strides();
    Rows {
        data: &view.data()[y * strides.row..],
        stride: strides.row,
        pixel: strides.pixel,
        plane: strides.channel,
        count,
    }
}

/// The last rows that a pass produced, each three planes.
pub(super) struct Ring {
    data: Scratch,
    width: usize,
    /// The row that stands in the first place.
    start: usize,
    rows: usize,
    /// From a row to the next.
    stride: usize,
}

impl Ring {
    /// A ring for `rows` rows, of which the first is `start`.
    pub(super) fn new(width: usize, rows: usize, start: usize) -> Result<Self, Error> {
        // An odd number of cache lines: rows at a power of two would all fall into the same few sets of the cache.
        let stride = (3 * plane_stride(width)).next_multiple_of(128) + 64;
        Ok(Self { data: Scratch::new(rows.saturating_mul(stride))?, width, start, rows, stride })
    }

    /// From a row to the next.
    pub(super) fn stride(&self) -> usize {
        self.stride
    }

    /// Row `y`.
    pub(super) fn row(&self, y: usize) -> &[u8] {
        let at = (y - self.start) % self.rows * self.stride;
        &self.data[at..at + 3 * plane_stride(self.width)]
    }

    /// Row `y`, to be written.
    pub(super) fn row_mut(&mut self, y: usize) -> &mut [u8] {
        let at = (y - self.start) % self.rows * self.stride;
        &mut self.data[at..at + 3 * plane_stride(self.width)]
    }

    /// The `count` rows from `y` on; `y` is a multiple of [`LANES`] rows after the start, as are the rows of the ring.
    pub(super) fn block(&self, y: usize, count: usize) -> Rows<'_> {
        let at = (y - self.start) % self.rows * self.stride;
        Rows {
            data: &self.data[at..at + LANES * self.stride],
            stride: self.stride,
            pixel: 1,
            plane: plane_stride(self.width),
            count,
        }
    }

    /// The same rows, to be written.
    pub(super) fn block_mut(&mut self, y: usize) -> &mut [u8] {
        let at = (y - self.start) % self.rows * self.stride;
        &mut self.data[at..at + LANES * self.stride]
    }
}
