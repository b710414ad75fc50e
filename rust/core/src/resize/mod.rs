//! Resizing: one pass along each dimension, rounded to uint8 after each.

mod float;
mod nearest;
mod scalar;
mod weights;

pub use float::{Real, resize_float};
pub use weights::{Arithmetic, Filter, Pass, Window};

use crate::Error;
use crate::image::{Image, ImageView};

/// Resize to `height` × `width`; a pass whose size does not change is skipped.
pub fn resize(
    image: ImageView<'_>,
    height: usize,
    width: usize,
    filter: Filter,
    arithmetic: Arithmetic,
) -> Result<Image, Error> {
    if height == 0 || width == 0 {
        return Err(Error::EmptyTarget { height, width });
    }
    if filter == Filter::Nearest {
        return nearest_neighbour(image, height, width, arithmetic);
    }
    let order = Order::of((image.height(), image.width()), (height, width), arithmetic);
    let across = |image: ImageView<'_>| match width == image.width() {
        true => Ok(image.to_image()),
        false => scalar::horizontal(image, &Pass::new(image.width(), width, filter, arithmetic)?),
    };
    let down = |image: ImageView<'_>| match height == image.height() {
        true => Ok(image.to_image()),
        false => scalar::vertical(
            image,
            &Pass::new(image.height(), height, filter, arithmetic)?,
        ),
    };
    match order {
        Order::WidthFirst => down(across(image)?.view()),
        Order::HeightFirst => across(down(image)?.view()),
    }
}

/// Which pass comes first; the rounding between them makes it visible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Horizontal, then vertical.
    WidthFirst,
    /// Vertical, then horizontal.
    HeightFirst,
}

impl Order {
    /// torch always takes the width first; Pillow (13 and later) takes the height first where it loses more than
    /// twice as many rows as the width loses columns.
    pub fn of(from: (usize, usize), to: (usize, usize), arithmetic: Arithmetic) -> Self {
        let lost_rows = from.0 as i64 - to.0 as i64;
        let lost_columns = from.1 as i64 - to.1 as i64;
        if arithmetic == Arithmetic::Pillow && lost_rows > 0 && lost_rows > 2 * lost_columns {
            Self::HeightFirst
        } else {
            Self::WidthFirst
        }
    }
}

/// Resize by copying pixels.
fn nearest_neighbour<T: Copy + Default>(
    image: ImageView<'_, T>,
    height: usize,
    width: usize,
    arithmetic: Arithmetic,
) -> Result<Image<T>, Error> {
    let channels = image.channels();
    let columns = nearest::sources(image.width(), width, arithmetic);
    let mut out = Image::zeros(height, width, channels)?;
    for (y, source) in nearest::sources(image.height(), height, arithmetic)
        .into_iter()
        .enumerate()
    {
        let row = image.row(source);
        for (pixel, &x) in out.row_mut(y).chunks_exact_mut(channels).zip(&columns) {
            pixel.copy_from_slice(&row[x * channels..(x + 1) * channels]);
        }
    }
    Ok(out)
}
