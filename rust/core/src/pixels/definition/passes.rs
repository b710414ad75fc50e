//! The definition of both passes in plain loops; every faster version must equal it to the bit.

use crate::Error;
use crate::pixels::picture::{Image, ImageView};
use crate::pixels::windows::WindowPass;

/// Resize the width.
pub(super) fn horizontal(image: ImageView<'_>, pass: &WindowPass) -> Result<Image, Error> {
    let channels = image.channels();
    let mut out = Image::zeros(image.height(), pass.windows.len(), channels)?;
    for y in 0..image.height() {
        let row = image.row(y);
        for ((first, weights), pixel) in pass.windows.iter().zip(out.row_mut(y).chunks_exact_mut(channels)) {
            for (channel, value) in pixel.iter_mut().enumerate() {
                let inputs = row[first * channels + channel..].iter().step_by(channels);
                *value = weighted(weights, inputs.copied(), pass.precision);
            }
        }
    }
    Ok(out)
}

/// Resize the height.
pub(super) fn vertical(image: ImageView<'_>, pass: &WindowPass) -> Result<Image, Error> {
    let mut out = Image::zeros(pass.windows.len(), image.width(), image.channels())?;
    for (y, (first, weights)) in pass.windows.iter().enumerate() {
        for (x, value) in out.row_mut(y).iter_mut().enumerate() {
            let inputs = (first..).map(|input| image.row(input)[x]);
            *value = weighted(weights, inputs, pass.precision);
        }
    }
    Ok(out)
}

/// The weighted sum of a window, rounded to nearest and clamped to a byte. It fits in an i32: the weights add up to
/// about 2^22 at most, their absolute values to less than twice that.
fn weighted(weights: &[i32], inputs: impl Iterator<Item = u8>, precision: u32) -> u8 {
    let half = 1 << (precision - 1);
    let sum: i32 = weights.iter().zip(inputs).map(|(&weight, input)| weight * i32::from(input)).sum();
    ((sum + half) >> precision).clamp(0, 255) as u8
}
