//! Resizing: one pass along each dimension, rounded to uint8 after each.

mod float;
mod nearest;
mod passes;
#[cfg(test)]
mod tests;
pub(crate) mod tile;

pub use float::{Real, resize_float};

use crate::Error;
use crate::machine::vectors::Zero;
use crate::pixels::filters::Filter;
use crate::pixels::picture::{Image, ImageView};
use crate::pixels::windows::{Arithmetic, PassOrder, WindowPass};

/// Resize to `height` × `width`; a pass whose size does not change is skipped.
pub fn resize(
    image: ImageView<'_>,
    height: usize,
    width: usize,
    filter: Filter,
    arithmetic: Arithmetic,
) -> Result<Image, Error> {
    if height == 0 || width == 0 {
        return Err(Error::empty_target(height, width));
    }
    if filter == Filter::NEAREST {
        return nearest_neighbour(image, height, width, arithmetic);
    }
    let order = PassOrder::of((image.height(), image.width()), (height, width), arithmetic);
    let across = |image: ImageView<'_>| match width == image.width() {
        true => image.to_image(),
        false => passes::horizontal(image, &WindowPass::new(image.width(), width, filter, arithmetic)?),
    };
    let down = |image: ImageView<'_>| match height == image.height() {
        true => image.to_image(),
        false => passes::vertical(image, &WindowPass::new(image.height(), height, filter, arithmetic)?),
    };
    match order {
        PassOrder::WidthFirst => down(across(image)?.view()),
        PassOrder::HeightFirst => across(down(image)?.view()),
    }
}

/// Resize by copying pixels.
fn nearest_neighbour<T: Zero>(
    image: ImageView<'_, T>,
    height: usize,
    width: usize,
    arithmetic: Arithmetic,
) -> Result<Image<T>, Error> {
    let channels = image.channels();
    let columns = nearest::sources(image.width(), width, arithmetic)?;
    let mut out = Image::zeros(height, width, channels)?;
    for (y, source) in nearest::sources(image.height(), height, arithmetic)?.into_iter().enumerate() {
        let row = image.row(source);
        for (pixel, &x) in out.row_mut(y).chunks_exact_mut(channels).zip(&columns) {
            pixel.copy_from_slice(&row[x * channels..(x + 1) * channels]);
        }
    }
    Ok(out)
}
