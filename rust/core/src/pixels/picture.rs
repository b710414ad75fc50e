//! Borrowed and owned (height, width, channels) pictures; their sizes are checked here and nowhere else.

use std::ops::{Deref, Range};

use crate::Error;
use crate::machine::vectors::{Zero, collected, zeros};

/// From a row, a pixel, a channel to the next, in values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strides {
    #[allow(missing_docs)]
    pub row: usize,
    #[allow(missing_docs)]
    pub pixel: usize,
    #[allow(missing_docs)]
    pub channel: usize,
}

/// A view on values that lie as other libraries left them: channels side by side, a fourth one to be skipped, or planes.
#[derive(Clone, Copy, Debug)]
pub struct StridedView<'a, T = u8> {
    data: &'a [T],
    height: usize,
    width: usize,
    channels: usize,
    strides: Strides,
}

impl<'a, T> StridedView<'a, T> {
    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Pixels in a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Values in a pixel.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// From the first value to the end; what lies between the rows too.
    pub(crate) fn data(&self) -> &'a [T] {
        self.data
    }
}

impl<'a> StridedView<'a> {
    /// The widest pixel whose channels may lie side by side.
    pub(crate) const MAX_PIXEL: usize = 4;

    /// View `data`, which begins with the first value of the first pixel. Either pixels or channels have to be neighbours.
    pub fn new(
        data: &'a [u8],
        (height, width, channels): (usize, usize, usize),
        strides: Strides,
    ) -> Result<Self, Error> {
        if height == 0 || width == 0 || channels == 0 {
            return Err(Error::empty_picture(height, width));
        }
        let last = |count: usize, stride: usize| (count - 1).checked_mul(stride);
        let needed = last(height, strides.row)
            .zip(last(width, strides.pixel))
            .zip(last(channels, strides.channel))
            .and_then(|((row, pixel), channel)| row.checked_add(pixel)?.checked_add(channel)?.checked_add(1));
        let interleaved = strides.channel == 1 && (channels..=Self::MAX_PIXEL).contains(&strides.pixel);
        if needed.is_none_or(|needed| needed > data.len()) || !(interleaved || strides.pixel == 1) {
            return Err(Error::picture_length(data.len(), (height, width, channels)));
        }
        Ok(Self { data, height, width, channels, strides })
    }

    /// Where the values lie.
    pub(crate) fn strides(&self) -> Strides {
        self.strides
    }

    /// Copy the pixels, channels side by side.
    pub(crate) fn to_image(self) -> Result<Image, Error> {
        let mut image = Image::zeros(self.height, self.width, self.channels)?;
        for y in 0..self.height {
            let pixels = image.row_mut(y).chunks_exact_mut(self.channels);
            for (x, pixel) in pixels.enumerate() {
                for (channel, value) in pixel.iter_mut().enumerate() {
                    let Strides { row, pixel, channel: next } = self.strides;
                    *value = self.data[y * row + x * pixel + channel * next];
                }
            }
        }
        Ok(image)
    }
}

/// A view on interleaved pixels, rows one after the other.
#[derive(Clone, Copy, Debug)]
pub struct ImageView<'a, T = u8>(StridedView<'a, T>);

impl<'a, T> ImageView<'a, T> {
    /// View `data` as `height` × `width` pixels of `channels` values.
    pub fn new(data: &'a [T], height: usize, width: usize, channels: usize) -> Result<Self, Error> {
        if height == 0 || width == 0 || channels == 0 {
            return Err(Error::empty_picture(height, width));
        }
        if data.len() != volume(height, width, channels)? {
            return Err(Error::picture_length(data.len(), (height, width, channels)));
        }
        let strides = Strides { row: width * channels, pixel: channels, channel: 1 };
        Ok(Self(StridedView { data, height, width, channels, strides }))
    }

    /// The values of row `y`.
    pub fn row(&self, y: usize) -> &'a [T] {
        let stride = self.strides.row;
        &self.data[y * stride..(y + 1) * stride]
    }
}

impl<'a, T> Deref for ImageView<'a, T> {
    type Target = StridedView<'a, T>;

    fn deref(&self) -> &StridedView<'a, T> {
        &self.0
    }
}

impl<'a> From<ImageView<'a>> for StridedView<'a> {
    fn from(image: ImageView<'a>) -> Self {
        image.0
    }
}

/// Some rows of a picture, kept in memory until dropped.
pub trait RowBlock {
    /// The rows.
    fn view(&self) -> Result<StridedView<'_>, Error>;
}

/// A picture of three channels that does not lie in one piece of memory: its rows are asked for in bands.
pub trait RowSource: Sync {
    /// Rows of the whole picture.
    fn height(&self) -> usize;
    /// Pixels in a row.
    fn width(&self) -> usize;
    /// The rows of a range.
    fn block<'a>(&'a self, rows: Range<usize>) -> Result<Box<dyn RowBlock + 'a>, Error>;
}

/// A picture of bytes.
#[derive(Clone, Copy)]
pub enum Picture<'a> {
    /// In one piece.
    View(StridedView<'a>),
    /// In bands.
    Bands(&'a dyn RowSource),
}

impl Picture<'_> {
    /// Rows.
    pub fn height(&self) -> usize {
        match self {
            Self::View(view) => view.height,
            Self::Bands(bands) => bands.height(),
        }
    }

    /// Pixels in a row.
    pub fn width(&self) -> usize {
        match self {
            Self::View(view) => view.width,
            Self::Bands(bands) => bands.width(),
        }
    }

    /// Values in a pixel.
    pub(crate) fn channels(&self) -> usize {
        match self {
            Self::View(view) => view.channels,
            Self::Bands(_) => 3,
        }
    }

    /// Copy the pixels, channels side by side.
    pub(crate) fn to_image(self) -> Result<Image, Error> {
        match self {
            Self::View(view) => view.to_image(),
            Self::Bands(bands) => bands.block(0..bands.height())?.view()?.to_image(),
        }
    }
}

/// A picture that owns its interleaved pixels.
#[derive(Clone, Debug, PartialEq)]
pub struct Image<T = u8> {
    data: Vec<T>,
    height: usize,
    width: usize,
    channels: usize,
}

impl<T: Zero> Image<T> {
    /// A picture of zeros.
    pub(crate) fn zeros(height: usize, width: usize, channels: usize) -> Result<Self, Error> {
        if height == 0 || width == 0 {
            return Err(Error::empty_target(height, width));
        }
        Ok(Self { data: zeros(volume(height, width, channels)?)?, height, width, channels })
    }
}

impl<T: Copy> Image<T> {
    /// Borrow the whole picture.
    pub(crate) fn view(&self) -> ImageView<'_, T> {
        let Self { ref data, height, width, channels } = *self;
        let strides = Strides { row: width * channels, pixel: channels, channel: 1 };
        ImageView(StridedView { data, height, width, channels, strides })
    }

    /// The values of row `y`, to be written.
    pub(crate) fn row_mut(&mut self, y: usize) -> &mut [T] {
        let stride = self.width * self.channels;
        &mut self.data[y * stride..(y + 1) * stride]
    }

    /// Give the values away.
    pub fn into_data(self) -> Vec<T> {
        self.data
    }
}

impl<T: Copy> ImageView<'_, T> {
    /// Copy the pixels.
    pub(crate) fn to_image(self) -> Result<Image<T>, Error> {
        let data = collected(self.data.len(), self.data.iter().copied())?;
        Ok(Image { data, height: self.height, width: self.width, channels: self.channels })
    }
}

fn volume(height: usize, width: usize, channels: usize) -> Result<usize, Error> {
    height
        .checked_mul(width)
        .and_then(|pixels| pixels.checked_mul(channels))
        .filter(|&values| values <= isize::MAX as usize / 8)
        .ok_or_else(|| Error::too_large(height, width, channels))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_checked() {
        assert!(ImageView::new(&[0u8; 12], 2, 2, 3).is_ok());
        assert_eq!(ImageView::new(&[0u8; 11], 2, 2, 3).err(), Some(Error::picture_length(11, (2, 2, 3))));
        assert_eq!(ImageView::<u8>::new(&[], 0, 2, 3).err(), Some(Error::empty_picture(0, 2)));
        assert_eq!(ImageView::new(&[0u8], usize::MAX, 2, 3).err(), Some(Error::too_large(usize::MAX, 2, 3)));
        assert_eq!(Image::<u8>::zeros(1 << 40, 1 << 40, 3).err(), Some(Error::too_large(1 << 40, 1 << 40, 3)));
    }
}
