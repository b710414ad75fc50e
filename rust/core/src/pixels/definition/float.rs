//! Resizing of floating-point pictures as torch does it: float weights, and no clamping between or after the passes.

use super::nearest_neighbour;
use crate::Error;
use crate::machine::vectors::Zero;
use crate::pixels::filters::Filter;
use crate::pixels::picture::{Image, ImageView};
use crate::pixels::windows::{Arithmetic, Windows};

/// A floating-point pixel.
pub trait Real: Zero + Default + std::ops::Mul<Output = Self> + std::ops::Add<Output = Self> {
    /// Round to this type, as torch does at every step of the weights.
    fn round(value: f64) -> f64;
    /// Convert a weight.
    fn from_f64(value: f64) -> Self;
}

impl Real for f32 {
    fn round(value: f64) -> f64 {
        f64::from(value as f32)
    }
    fn from_f64(value: f64) -> Self {
        value as f32
    }
}

impl Real for f64 {
    fn round(value: f64) -> f64 {
        value
    }
    fn from_f64(value: f64) -> Self {
        value
    }
}

/// Resize to `height` × `width`; a pass whose size does not change is skipped.
pub fn resize_float<T: Real>(
    image: ImageView<'_, T>,
    height: usize,
    width: usize,
    filter: Filter,
) -> Result<Image<T>, Error> {
    if height == 0 || width == 0 {
        return Err(Error::empty_target(height, width));
    }
    if filter == Filter::NEAREST {
        return nearest_neighbour(image, height, width, Arithmetic::Torch);
    }
    filter.check_torch()?;
    let channels = image.channels();
    let mut wide = image.to_image()?;
    if width != image.width() {
        wide = Image::zeros(image.height(), width, channels)?;
        let windows = windows::<T>(image.width(), width, filter)?;
        for y in 0..image.height() {
            let row = image.row(y);
            for ((first, weights), pixel) in windows.iter().zip(wide.row_mut(y).chunks_exact_mut(channels)) {
                for (channel, value) in pixel.iter_mut().enumerate() {
                    *value = weighted(weights, row[first * channels + channel..].iter().step_by(channels).copied());
                }
            }
        }
    }
    if height == image.height() {
        return Ok(wide);
    }
    let mut out = Image::zeros(height, width, channels)?;
    for (y, (first, weights)) in windows::<T>(image.height(), height, filter)?.iter().enumerate() {
        for (x, value) in out.row_mut(y).iter_mut().enumerate() {
            *value = weighted(weights, (first..).map(|input| wide.view().row(input)[x]));
        }
    }
    Ok(out)
}

fn weighted<T: Real>(weights: &[T], inputs: impl Iterator<Item = T>) -> T {
    weights.iter().zip(inputs).fold(T::default(), |sum, (&weight, input)| sum + weight * input)
}

/// First input and weights for each output. Centre, argument and weights are rounded to `T` where torch holds them in it.
fn windows<T: Real>(inputs: usize, outputs: usize, filter: Filter) -> Result<Windows<T>, Error> {
    let scale = T::round(T::round(inputs as f64) / T::round(outputs as f64));
    let (support, shrink) = if scale >= 1.0 {
        (T::round(filter.support() * scale), T::round(1.0 / scale))
    } else {
        (filter.support(), 1.0)
    };
    let mut windows = Windows::<f64>::new(outputs)?;
    for output in 0..outputs {
        let center = T::round(scale * (output as f64 + 0.5));
        let first = (T::round(center - support) + 0.5).max(0.0) as usize;
        let end = ((T::round(center + support) + 0.5) as usize).min(inputs);
        let argument = |input: usize| T::round((T::round(input as f64 - center) + 0.5) * shrink);
        let weights = windows.push(first..end, |input| T::round(filter.at(argument(input))))?;
        let sum = weights.iter().fold(0.0, |sum, &weight| T::round(sum + weight));
        if sum != 0.0 {
            weights.iter_mut().for_each(|weight| *weight = T::round(*weight / sum));
        }
    }
    windows.map(T::from_f64)
}
