//! The arithmetic of the engine behind one table of functions, chosen once for the machine.
//!
//! Weights (and the keys and values of attention) lie in *panels* of [`PANEL`] output columns. Inside a panel the inner
//! dimension `k` ascends, padded to an even number (integers: to a multiple of four):
//!
//! | weights | layout of a panel |
//! |---|---|
//! | float32 | `[k][16]` |
//! | bfloat16 | `[k / 2][16][2]`, as `vpdpbf16ps` and `tdpbf16ps` take them |
//! | 8-bit integers | groups of [`GROUP`] steps, each 16 float32 scales, one per column, then the integers of an [`IntegerLayout`] |
//!
//! Sums are float32. So are the activations beside weights of float32, and beside bfloat16 unless the set has
//! [`Kernels::bfloat16_product`]: then they are rounded to bfloat16 first, and queries and softmax weights too.
//!
//! Beside integers the activations are integers of 15 bits with a scale per row and group ([`Kernels::quantize`]), the
//! sum of a group is an exact integer, and only the sums of the groups are added as float32, in ascending order. With
//! 15 bits the sum of a group fits into 32 bits, `vpmaddwd` and `vpdpwssd` take them as they are, and `tdpbssd` as an
//! upper and a lower half of 8 and 7. [`Kernels::widen`] makes bfloat16 of the integers instead.
pub(crate) mod definition;
mod layout;
mod product;
#[cfg(test)]
mod tests;

use crate::error::{Error, Result};
use crate::machine::cpu::{Isa, tables, x86_64};

pub(crate) use layout::*;
pub(crate) use product::{Bfloat16Product, IntegerProduct, Product, Start};

x86_64! {
    mod float_product;
    mod row_kernels;
}
tables! {
    Kernels, portable: definition::KERNELS, x86_64: {
        mod amx { Amx: kernels }
        mod avx512 { Avx512Bf16: bfloat16_kernels, Avx512Vnni: vnni_kernels, Avx512: kernels }
        mod avx2 { Avx2: kernels }
    }
}

/// The kernels of one instruction set. All but the products work on one row; lengths must agree.
#[allow(clippy::type_complexity)]
#[derive(Clone, Copy)]
pub struct Kernels {
    /// Name as the environment variable takes it.
    pub name: &'static str,
    /// Matrix product with packed weights.
    pub(crate) product: fn(Product<'_>),
    /// Matrix product with packed integers and quantized activations.
    pub(crate) integer_product: fn(IntegerProduct<'_>),
    /// How it expects them.
    pub(crate) integer_layout: IntegerLayout,
    /// Writes a quantized row, padded with a zero to an even length, as row `index` of a block.
    pub(crate) scatter: fn(row: &[i16], index: usize, block: &mut [i16]),
    /// Matrix product of bfloat16 weights and activations, if the instruction set has one. These weights are then
    /// multiplied by nothing else.
    pub(crate) bfloat16_product: Option<fn(Bfloat16Product<'_>)>,
    /// Makes a panel of bfloat16 of one of integers in pairs: each weight times the scale of its column and group, and
    /// that of its input, then rounded.
    pub(crate) widen: fn(panel: &[u8], input_scales: &[f32], out: &mut [u8]),
    /// Rounds to bfloat16, to nearest even; numbers too small for a normal float32 become zero, NaN stays NaN.
    pub(crate) round: fn(x: &[f32], out: &mut [u16]),
    /// Scales each [`GROUP`] of a row to integers in ±[`QUANTIZED_MAX`], to nearest even; `out` is padded to an even
    /// length with a zero. A group of zeros has scale 0, one with NaN or infinity has scale NaN.
    pub(crate) quantize: fn(x: &[f32], out: &mut [i16], scale: &mut [f32]),
    /// `x = gelu_tanh(x)`.
    pub(crate) gelu: fn(x: &mut [f32]),
    /// `out = silu(gate) * up`.
    pub(crate) silu_mul: fn(gate: &[f32], up: &[f32], out: &mut [f32]),
    /// `x = x + y`.
    pub(crate) add: fn(x: &mut [f32], y: &[f32]),
    /// `out = x / sqrt(mean(x^2) + eps) * weight`.
    pub(crate) rms_norm: fn(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]),
    /// `out = (x - mean) / sqrt(var + eps) * weight + bias`.
    pub(crate) layer_norm: fn(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]),
    /// Half-split rotary embedding of one head: `cos` and `sin` are half as long as `x`; the result times `scale`.
    pub(crate) rotary: fn(x: &[f32], cos: &[f32], sin: &[f32], scale: f32, out: &mut [f32]),
    /// Turns base-2 scores into weights `2^(s - max)`; gives the maximum and the sum of the weights.
    pub(crate) softmax: fn(scores: &mut [f32]) -> (f32, f32),
    /// Merges a block's maximum, sum and output into the running ones.
    pub(crate) merge: fn(state: &mut (f32, f32), out: &mut [f32], block: (f32, f32), block_out: &[f32]),
    /// Index and value of the first largest element; NaN is never chosen.
    pub(crate) argmax: fn(x: &[f32]) -> (usize, f32),
    /// Runs multiply-adds at their peak rate for `rounds` rounds; returns the number of floating-point operations.
    pub(crate) peak: fn(rounds: usize) -> u64,
    /// The same for multiply-adds of bfloat16, if the set has [`Kernels::bfloat16_product`].
    pub(crate) bfloat16_peak: Option<fn(rounds: usize) -> u64>,
}

/// The kernels of every instruction set that this machine has, the preferred first.
#[cfg(test)]
pub(crate) fn available() -> Vec<&'static Kernels> {
    SETS.iter().copied().filter_map(for_isa).collect()
}

/// The kernels of the instruction set asked for, or the preferred ones.
pub fn select(isa: Option<Isa>) -> Result<&'static Kernels> {
    let preferred = || SETS.iter().copied().find_map(for_isa).unwrap_or(definition::KERNELS);
    let Some(isa) = isa else { return Ok(preferred()) };
    for_isa(isa).ok_or_else(|| Error::config(format!("this machine has no instruction set {}", isa.name())))
}
