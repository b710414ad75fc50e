//! The inner loops, once in plain Rust and once for each instruction set; the choice between them is made here.
//!
//! Bytes are processed in strips of [`LANES`](crate::pixels::taps::LANES): a strip is one column of a transposed block,
//! or a piece of a row. Every set gives the same bits, so a choice is about speed only. Another set is one more module and
//! one more row of `tables!`.

mod checks;
mod portable;
#[cfg(test)]
mod tests;

use crate::error::Result;
use crate::machine::cpu::{self, tables, x86_64};
use crate::pixels::convert::{Conversion, Value};
use crate::pixels::taps::Taps;

x86_64! { mod table; }
// AVX-512 comes after AVX2, which was a tenth to a fifth quicker where both were timed.
tables! {
    PictureKernels, portable: portable::KERNELS, x86_64: {
        mod avx2 { Avx2: kernels }
        mod avx512 { Avx512Vnni: kernels }
    }
}

/// One instruction set.
pub struct PictureKernels {
    /// Its name.
    pub name: &'static str,
    /// Transpose 32 × 32 bytes: row `i` begins at `i * from_stride`, its byte `j` goes to `j * to_stride + i`.
    pub(crate) transpose: fn(from: &[u8], from_stride: usize, to: &mut [u8], to_stride: usize),
    /// One output row: the weighted sum of rows, all of the length of `out`, a multiple of `LANES`.
    pub(crate) weigh_rows: fn(rows: &[&[u8]], taps: &Taps, output: usize, out: &mut [u8]),
    /// Output pixels from `first` on: the weighted sums of the pixels of a transposed block, whose pixel `x` is three
    /// strips from `x * stride` on. The number of outputs is that of the pixels, three strips each, in `out`.
    pub(crate) weigh_pixels: fn(block: &[u8], stride: usize, taps: &Taps, first: usize, out: &mut [u8]),
    /// Bytes to float32.
    pub(crate) to_f32: fn(bytes: &[u8], conversion: &Conversion, out: &mut [f32]),
    /// Bytes to bfloat16, given as its bits.
    pub(crate) to_bf16: fn(bytes: &[u8], conversion: &Conversion, out: &mut [u16]),
    /// Write one value everywhere.
    pub(crate) fill: fn(out: &mut [i64], value: i64),
    /// Make what the conversions wrote past the caches visible to other threads.
    pub(crate) fence: fn(),
}

/// How pictures are computed.
#[derive(Clone, Copy)]
pub enum Loops {
    /// By the definition: plain loops over whole pictures.
    Definition,
    /// In a stream of rows, with these inner loops.
    Stream(&'static PictureKernels),
}

impl Loops {
    const DEFINITION: &str = "scalar";

    /// What the environment names, or the best that this machine has. A name that is unknown, or of a set that this
    /// machine lacks, is an error.
    pub fn of_environment() -> Result<Self> {
        let Some(name) = cpu::picture_kernels() else { return Ok(Self::best()) };
        Self::named(name).ok_or_else(|| cpu::unknown(cpu::PICTURE_VARIABLE, name, &Self::names()))
    }

    /// The preferred loops of this machine.
    pub(crate) fn best() -> Self {
        Self::Stream(SETS.iter().copied().find_map(for_isa).unwrap_or(portable::KERNELS))
    }

    /// All that this machine can do, the preferred first, the definition last.
    pub fn available() -> Vec<Self> {
        let streams = SETS.iter().copied().filter_map(for_isa).map(Self::Stream);
        streams.chain([Self::Definition]).collect()
    }

    /// The loops of this name, if this machine has them.
    pub fn named(name: &str) -> Option<Self> {
        Self::available().into_iter().find(|loops| loops.name() == name)
    }

    /// The names of [`Loops::available`].
    pub fn names() -> Vec<&'static str> {
        Self::available().into_iter().map(Self::name).collect()
    }

    /// The name: that of the instruction set, "portable" for a stream in plain Rust, "scalar" for the definition.
    pub fn name(self) -> &'static str {
        match self {
            Self::Definition => Self::DEFINITION,
            Self::Stream(kernels) => kernels.name,
        }
    }

    /// The inner loops, plain ones beside the definition.
    pub fn kernels(self) -> &'static PictureKernels {
        match self {
            Self::Definition => portable::KERNELS,
            Self::Stream(kernels) => kernels,
        }
    }
}

/// A value that the inner loops can make.
pub trait StreamValue: Value {
    /// The values of a row of bytes.
    fn convert(kernels: &PictureKernels, bytes: &[u8], conversion: &Conversion, out: &mut [Self]);
}

impl StreamValue for f32 {
    fn convert(kernels: &PictureKernels, bytes: &[u8], conversion: &Conversion, out: &mut [Self]) {
        (kernels.to_f32)(bytes, conversion, out);
    }
}

impl StreamValue for u16 {
    fn convert(kernels: &PictureKernels, bytes: &[u8], conversion: &Conversion, out: &mut [Self]) {
        (kernels.to_bf16)(bytes, conversion, out);
    }
}

impl StreamValue for u8 {
    fn convert(_: &PictureKernels, bytes: &[u8], _: &Conversion, out: &mut [Self]) {
        out.copy_from_slice(bytes);
    }
}
