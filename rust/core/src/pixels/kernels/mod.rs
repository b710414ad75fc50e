//! The inner loops, once in plain Rust and once for each instruction set; the choice between them is made here.
//!
//! Bytes are processed in strips of [`LANES`]: a strip is one column of a transposed block, or a piece of a row. Every
//! set gives the same bits, so a choice is about speed only. Another set is one more file, one more name in [`NAMES`] and
//! one more entry in [`Kernels::named`].

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod checks;
mod portable;
#[cfg(test)]
mod tests;

use std::sync::OnceLock;

use crate::pixels::stream::convert::Conversion;
use crate::pixels::stream::taps::Taps;

/// Bytes in a strip, and rows in a transposed block.
pub const LANES: usize = 32;

/// The sets, the preferred first. AVX-512 comes after AVX2, which was a tenth to a fifth quicker where both were timed.
const NAMES: [&str; 3] = ["avx2", "avx512", "portable"];

/// The environment variable that names the instruction set to use.
const VARIABLE: &str = "FASTER_SMOLVLM_IMAGE_KERNELS";

/// One instruction set.
pub struct Kernels {
    /// Its name.
    pub name: &'static str,
    /// Transpose 32 × 32 bytes: row `i` begins at `i * from_stride`, its byte `j` goes to `j * to_stride + i`.
    pub transpose: fn(from: &[u8], from_stride: usize, to: &mut [u8], to_stride: usize),
    /// One output row: the weighted sum of rows, all of the length of `out`, a multiple of [`LANES`].
    pub weigh_rows: fn(rows: &[&[u8]], taps: &Taps, output: usize, out: &mut [u8]),
    /// Output pixels from `first` on: the weighted sums of the pixels of a transposed block, whose pixel `x` is three
    /// strips from `x * stride` on. The number of outputs is that of the pixels, three strips each, in `out`.
    pub weigh_pixels: fn(block: &[u8], stride: usize, taps: &Taps, first: usize, out: &mut [u8]),
    /// Bytes to float32.
    pub to_f32: fn(bytes: &[u8], conversion: &Conversion, out: &mut [f32]),
    /// Bytes to bfloat16, given as its bits.
    pub to_bf16: fn(bytes: &[u8], conversion: &Conversion, out: &mut [u16]),
    /// Write one value everywhere.
    pub fill: fn(out: &mut [i64], value: i64),
    /// Make what the conversions wrote past the caches visible to other threads.
    pub fence: fn(),
}

impl Kernels {
    /// The set to use: the one that the environment names, or the best that this CPU has.
    pub fn current() -> &'static Kernels {
        static CURRENT: OnceLock<&Kernels> = OnceLock::new();
        CURRENT
            .get_or_init(|| std::env::var(VARIABLE).ok().and_then(|name| Self::named(&name)).unwrap_or_else(Self::best))
    }

    /// The set of this name, if this CPU has it.
    pub fn named(name: &str) -> Option<&'static Kernels> {
        match name {
            "portable" => Some(&portable::KERNELS),
            #[cfg(target_arch = "x86_64")]
            "avx512" if avx512::available() => Some(&avx512::KERNELS),
            #[cfg(target_arch = "x86_64")]
            "avx2" if avx2::available() => Some(&avx2::KERNELS),
            _ => None,
        }
    }

    /// The preferred set of those that this CPU has.
    pub fn best() -> &'static Kernels {
        let mut sets = NAMES.into_iter().filter_map(Self::named);
        sets.next().unwrap_or(&portable::KERNELS)
    }

    /// Names of the sets that this CPU has, the preferred first.
    pub fn available() -> Vec<&'static str> {
        let has = |name: &&str| Self::named(name).is_some();
        NAMES.into_iter().filter(has).collect()
    }
}
