//! The definition of every kernel, in plain Rust that runs on any machine.
//!
//! `FUSED` says whether a multiply-add rounds once or twice. With one rounding these functions give the bits that every
//! instruction set with fused multiply-add must give; [`KERNELS`] rounds once where every machine of the architecture
//! has the instruction, and twice elsewhere: see [`cpu::FUSED`].
use super::{IntegerLayout, Kernels};
use crate::machine::cpu::{self, Isa};

mod numbers;
mod products;
mod rows;

pub(crate) use numbers::*;
pub(crate) use products::*;
pub(crate) use rows::*;

/// Kernels for every machine.
pub(crate) const KERNELS: &Kernels = &kernels::<{ cpu::FUSED }>(Isa::Portable.name());

/// As [`KERNELS`], for the tests of layouts that only some machines have instructions for: integers in tiles, and
/// products of bfloat16.
#[cfg(test)]
pub(crate) const TILES: &Kernels = &Kernels {
    integer_product: integer_product::<true, true>,
    integer_layout: IntegerLayout::Tiles,
    scatter: scatter_tiles,
    bfloat16_product: Some(bfloat16_product),
    ..kernels::<true>("tiles, by the definition")
};

/// The table, with one or two roundings per multiply-add.
pub(crate) const fn kernels<const FUSED: bool>(name: &'static str) -> Kernels {
    Kernels {
        name,
        product: product::<FUSED>,
        integer_product: integer_product::<FUSED, false>,
        integer_layout: IntegerLayout::Pairs,
        scatter: scatter_pairs,
        bfloat16_product: None,
        round,
        widen,
        quantize,
        gelu: gelu::<FUSED>,
        silu_mul: silu_mul::<FUSED>,
        add,
        rms_norm: rms_norm::<FUSED>,
        layer_norm: layer_norm::<FUSED>,
        rotary: rotary::<FUSED>,
        softmax: softmax::<FUSED>,
        merge: merge::<FUSED>,
        argmax,
        peak: peak::<FUSED>,
        bfloat16_peak: None,
    }
}

#[inline(always)]
pub(crate) fn madd<const FUSED: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FUSED { a.mul_add(b, c) } else { a * b + c }
}
