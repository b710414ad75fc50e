//! Resampling filters, and the weights of one pass as Pillow and as torch round them.

use std::f64::consts::PI;

use crate::Error;

/// A resampling filter, by Pillow's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Filter {
    /// Copy the pixel whose area covers the centre.
    Nearest,
    /// Windowed sinc, three lobes.
    Lanczos,
    /// Triangle.
    Bilinear,
    /// Keys' cubic.
    Bicubic,
    /// Mean of the covered pixels.
    Box,
    /// Windowed sinc, one lobe.
    Hamming,
}

impl Filter {
    /// The filter of Pillow's number.
    pub fn from_code(code: u8) -> Result<Self, Error> {
        Ok(match code {
            0 => Self::Nearest,
            1 => Self::Lanczos,
            2 => Self::Bilinear,
            3 => Self::Bicubic,
            4 => Self::Box,
            5 => Self::Hamming,
            code => {
                return Err(Error::value(format!(
                    "resample must be one of 0 (nearest), 1 (Lanczos), 2 (bilinear), 3 (bicubic), 4 (box), 5 (Hamming), got {code}"
                )));
            }
        })
    }

    /// Half the width of the filter in input pixels, when enlarging.
    pub(super) fn support(self) -> f64 {
        match self {
            Self::Nearest => 0.0,
            Self::Box => 0.5,
            Self::Bilinear | Self::Hamming => 1.0,
            Self::Bicubic => 2.0,
            Self::Lanczos => 3.0,
        }
    }

    pub(super) fn at(self, x: f64) -> f64 {
        match self {
            Self::Nearest => 0.0,
            Self::Box => {
                if -0.5 < x && x <= 0.5 {
                    1.0
                } else {
                    0.0
                }
            }
            Self::Bilinear => (1.0 - x.abs()).max(0.0),
            Self::Hamming => hamming(x.abs()),
            Self::Bicubic => bicubic(x.abs()),
            Self::Lanczos if (-3.0..3.0).contains(&x) => sinc(x) * sinc(x / 3.0),
            Self::Lanczos => 0.0,
        }
    }
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 {
        return 1.0;
    }
    let x = x * PI;
    x.sin() / x
}

fn hamming(x: f64) -> f64 {
    if x == 0.0 {
        return 1.0;
    }
    if x >= 1.0 {
        return 0.0;
    }
    let x = x * PI;
    // Pillow's constants are single precision.
    x.sin() / x * (f64::from(0.54_f32) + f64::from(0.46_f32) * x.cos())
}

/// Keys' cubic with a = −0.5, the value that both references use when antialiasing.
fn bicubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

/// Whose rounding of the weights is reproduced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arithmetic {
    /// Pillow: 22 fractional bits.
    Pillow,
    /// torch, behind torchvision: as many bits as keep the largest weight of the pass within 15.
    Torch,
}

/// The inputs that one output pixel is made of.
#[derive(Clone, Debug)]
pub struct Window {
    /// Index of the first input.
    pub first: usize,
    /// Fixed-point weights, one for each input from `first` on.
    pub weights: Vec<i32>,
}

/// One pass along one dimension: a window for each output, all with the same number of fractional bits.
#[derive(Clone, Debug)]
pub struct Pass {
    /// One for each output.
    pub windows: Vec<Window>,
    /// Fractional bits of the weights.
    pub precision: u32,
}

impl Pass {
    /// The pass that takes `inputs` pixels to `outputs`.
    pub fn new(inputs: usize, outputs: usize, filter: Filter, arithmetic: Arithmetic) -> Result<Self, Error> {
        if arithmetic == Arithmetic::Torch && matches!(filter, Filter::Box | Filter::Hamming) {
            return Err(Error::unsupported_filter(if filter == Filter::Box { "box" } else { "Hamming" }));
        }
        let exact: Vec<(usize, Vec<f64>)> =
            (0..outputs).map(|output| exact_window(output, inputs, outputs, filter)).collect();
        let precision = match arithmetic {
            Arithmetic::Pillow => 22,
            Arithmetic::Torch => torch_precision(exact.iter().flat_map(|(_, weights)| weights)),
        };
        let one = f64::from(1u32 << precision);
        let fixed = |weight: f64| (weight * one + if weight < 0.0 { -0.5 } else { 0.5 }) as i32;
        let windows = exact
            .into_iter()
            .map(|(first, weights)| Window { first, weights: weights.into_iter().map(fixed).collect() })
            .collect();
        Ok(Self { windows, precision })
    }
}

/// The most bits, below 22, with which the largest weight stays within an int16.
fn torch_precision<'a>(weights: impl Iterator<Item = &'a f64>) -> u32 {
    let largest = weights.fold(0.0, |largest: f64, &weight| largest.max(weight));
    let fits = |precision: u32| ((0.5 + largest * f64::from(1u32 << precision)) as i64) < 1 << 15;
    (0..22).find(|&precision| !fits(precision + 1)).unwrap_or(22)
}

/// The first input and the weights of one output, in float64; they add up to 1.
fn exact_window(output: usize, inputs: usize, outputs: usize, filter: Filter) -> (usize, Vec<f64>) {
    let scale = inputs as f64 / outputs as f64;
    let stretch = scale.max(1.0);
    let support = filter.support() * stretch;
    let center = (output as f64 + 0.5) * scale;
    let first = (center - support + 0.5).max(0.0) as usize;
    let end = ((center + support + 0.5) as usize).min(inputs);
    let shrink = 1.0 / stretch;
    let mut weights: Vec<f64> = (first..end).map(|input| filter.at((input as f64 - center + 0.5) * shrink)).collect();
    let sum: f64 = weights.iter().sum();
    if sum != 0.0 {
        weights.iter_mut().for_each(|weight| *weight /= sum);
    }
    (first, weights)
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
