//! The inner loops, once in plain Rust and once for each instruction set; the choice between them is made here.
//!
//! Bytes are processed in strips of [`LANES`](crate::pixels::taps::LANES): a strip is one column of a transposed block, or a piece of a row. Every
//! set gives the same bits, so a choice is about speed only. Another set is one more file and one more line in
//! [`PREFERRED`] and in [`for_isa`].

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod checks;
mod portable;
#[cfg(target_arch = "x86_64")]
mod table;
#[cfg(test)]
mod tests;

use crate::error::Result;
use crate::machine::cpu::{self, Isa};
#[cfg(target_arch = "x86_64")]
use crate::machine::cpu::{Avx2, Avx512Vnni};
use crate::pixels::convert::{Conversion, Value};
use crate::pixels::taps::Taps;

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
    pub fill: fn(out: &mut [i64], value: i64),
    /// Make what the conversions wrote past the caches visible to other threads.
    pub(crate) fence: fn(),
}

/// Instruction sets that have loops of their own, the preferred first. AVX-512 comes after AVX2, which was a tenth to a
/// fifth quicker where both were timed.
const PREFERRED: [Isa; 3] = [Isa::Avx2, Isa::Avx512Vnni, Isa::Portable];

/// The loops for an instruction set, if there are such and this machine has it.
pub(crate) fn for_isa(isa: Isa) -> Option<&'static PictureKernels> {
    #[cfg(target_arch = "x86_64")]
    match isa {
        Isa::Avx2 => return Avx2::detect().map(avx2::kernels),
        Isa::Avx512Vnni => return Avx512Vnni::detect().map(avx512::kernels),
        _ => {}
    }
    (isa == Isa::Portable).then_some(&portable::KERNELS)
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
    pub fn best() -> Self {
        Self::Stream(PREFERRED.into_iter().find_map(for_isa).unwrap_or(&portable::KERNELS))
    }

    /// All that this machine can do, the preferred first, the definition last.
    pub fn available() -> Vec<Self> {
        let streams = PREFERRED.into_iter().filter_map(for_isa).map(Self::Stream);
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
            Self::Definition => &portable::KERNELS,
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
