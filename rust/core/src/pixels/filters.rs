//! Resampling filters. A filter is one row of [`FILTERS`]; its place there is its code.

use std::f64::consts::PI;
use std::fmt;

use crate::Error;

struct Row {
    name: &'static str,
    /// Half the width of the filter in input pixels, when enlarging.
    support: f64,
    weight: fn(f64) -> f64,
    /// Whether torch has it.
    torch: bool,
}

/// By Pillow's codes.
const FILTERS: &[Row; 6] = &[
    Row { name: "nearest", support: 0.0, weight: |_| 0.0, torch: true },
    Row { name: "Lanczos", support: 3.0, weight: lanczos, torch: true },
    Row { name: "bilinear", support: 1.0, weight: |x| (1.0 - x.abs()).max(0.0), torch: true },
    Row { name: "bicubic", support: 2.0, weight: |x| bicubic(x.abs()), torch: true },
    Row { name: "box", support: 0.5, weight: |x| f64::from(-0.5 < x && x <= 0.5), torch: false },
    Row { name: "Hamming", support: 1.0, weight: |x| hamming(x.abs()), torch: false },
];

/// A resampling filter.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Filter {
    code: u8,
}

impl Filter {
    /// Copies the pixel whose area covers the centre; the other filters weigh several.
    pub(crate) const NEAREST: Self = Self { code: 0 };

    /// The filter of Pillow's number.
    pub fn from_code(code: u8) -> Result<Self, Error> {
        if usize::from(code) < FILTERS.len() {
            return Ok(Self { code });
        }
        let known: Vec<_> = FILTERS.iter().enumerate().map(|(code, row)| format!("{code} ({})", row.name)).collect();
        Err(Error::value(format!("resample must be one of {}, got {code}", known.join(", "))))
    }

    /// All that weigh pixels.
    #[cfg(test)]
    pub(crate) fn weighing() -> impl Iterator<Item = Self> {
        (1..FILTERS.len() as u8).map(|code| Self { code })
    }

    fn row(self) -> &'static Row {
        &FILTERS[usize::from(self.code)]
    }

    /// An error for a filter that torch does not have.
    pub(super) fn check_torch(self) -> Result<(), Error> {
        if self.row().torch { Ok(()) } else { Err(Error::unsupported_filter(self.row().name)) }
    }

    /// Half the width of the filter in input pixels, when enlarging.
    pub(super) fn support(self) -> f64 {
        self.row().support
    }

    /// The weight at a distance from the centre.
    pub(super) fn at(self, x: f64) -> f64 {
        (self.row().weight)(x)
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.row().name)
    }
}

/// Windowed sinc, three lobes.
fn lanczos(x: f64) -> f64 {
    if (-3.0..3.0).contains(&x) { sinc(x) * sinc(x / 3.0) } else { 0.0 }
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 {
        return 1.0;
    }
    let x = x * PI;
    x.sin() / x
}

/// Windowed sinc, one lobe, for what is not negative.
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

/// Keys' cubic with a = −0.5, the value that both references use when antialiasing, for what is not negative.
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
