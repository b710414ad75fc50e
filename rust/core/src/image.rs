//! Borrowed and owned (height, width, channels) pictures; their sizes are checked here and nowhere else.

use crate::Error;

/// A view on interleaved pixels, rows one after the other.
#[derive(Clone, Copy, Debug)]
pub struct ImageView<'a, T = u8> {
    data: &'a [T],
    height: usize,
    width: usize,
    channels: usize,
}

impl<'a, T> ImageView<'a, T> {
    /// View `data` as `height` × `width` pixels of `channels` values.
    pub fn new(data: &'a [T], height: usize, width: usize, channels: usize) -> Result<Self, Error> {
        if height == 0 || width == 0 || channels == 0 {
            return Err(Error::EmptyImage { height, width });
        }
        if data.len() != volume(height, width, channels)? {
            return Err(Error::ImageLength {
                given: data.len(),
                height,
                width,
                channels,
            });
        }
        Ok(Self {
            data,
            height,
            width,
            channels,
        })
    }

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

    /// All values.
    pub fn data(&self) -> &'a [T] {
        self.data
    }

    /// The values of row `y`.
    pub fn row(&self, y: usize) -> &'a [T] {
        let stride = self.width * self.channels;
        &self.data[y * stride..(y + 1) * stride]
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

impl<T: Copy + Default> Image<T> {
    /// A picture of zeros.
    pub fn zeros(height: usize, width: usize, channels: usize) -> Result<Self, Error> {
        if height == 0 || width == 0 {
            return Err(Error::EmptyTarget { height, width });
        }
        Ok(Self {
            data: vec![T::default(); volume(height, width, channels)?],
            height,
            width,
            channels,
        })
    }

    /// Borrow the whole picture.
    pub fn view(&self) -> ImageView<'_, T> {
        ImageView {
            data: &self.data,
            height: self.height,
            width: self.width,
            channels: self.channels,
        }
    }

    /// The values of row `y`, to be written.
    pub fn row_mut(&mut self, y: usize) -> &mut [T] {
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
    pub fn to_image(&self) -> Image<T> {
        Image {
            data: self.data.to_vec(),
            height: self.height,
            width: self.width,
            channels: self.channels,
        }
    }
}

fn volume(height: usize, width: usize, channels: usize) -> Result<usize, Error> {
    height
        .checked_mul(width)
        .and_then(|pixels| pixels.checked_mul(channels))
        .filter(|&values| values <= isize::MAX as usize / 8)
        .ok_or(Error::TooLarge {
            height,
            width,
            channels,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_checked() {
        assert!(ImageView::new(&[0u8; 12], 2, 2, 3).is_ok());
        assert!(matches!(
            ImageView::new(&[0u8; 11], 2, 2, 3),
            Err(Error::ImageLength { given: 11, .. })
        ));
        assert!(matches!(
            ImageView::<u8>::new(&[], 0, 2, 3),
            Err(Error::EmptyImage { .. })
        ));
        assert!(matches!(
            ImageView::new(&[0u8], usize::MAX, 2, 3),
            Err(Error::TooLarge { .. })
        ));
        assert!(matches!(
            Image::<u8>::zeros(1 << 40, 1 << 40, 3),
            Err(Error::TooLarge { .. })
        ));
    }
}
