//! The ways in which a layer keeps its weights. All that depends on the way is here: how large a panel is, what the
//! activations are, how a panel is packed, and which kernel multiplies it.
use std::ops::Range;

use super::pack::{interleave, pack_bfloat16, pack_integers};
use super::schedule::TASK_PANELS;
use super::{Prepared, ProductBlock, ProductScratch, Weights};
use crate::machine::memory::Mapped;
use crate::model::kernels::{
    Bfloat16Product, FloatFormat, IntegerLayout, IntegerProduct, Kernels, Product, Start, int8_panel_bytes,
};

/// What the user of an engine asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightFormat {
    /// 32-bit floating point.
    Float32,
    /// The upper half of a float32.
    Bfloat16,
    /// Signed 8-bit integers with one scale per output column and group.
    Int8,
}

/// How the weights of a layer lie in memory and what multiplies them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// float32, times float32 activations.
    Float32,
    /// bfloat16 that becomes float32, times float32 activations.
    Bfloat16,
    /// bfloat16, times bfloat16 activations.
    Bfloat16Dot,
    /// Integers of 8 bits in pairs of steps, times integers of 15 bits.
    Int8Pairs,
    /// The same in tiles.
    Int8Tiles,
    /// Integers of 8 bits that become bfloat16, times bfloat16 activations.
    Int8Widened,
}

/// What a layer takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputFormat {
    /// float32.
    Float32,
    /// bfloat16.
    Bfloat16,
    /// float32, which the layer makes integers of.
    Quantized,
}

impl Kernels {
    /// How these kernels keep the weights of a layer, which always has many rows if `many_rows`: a set that multiplies
    /// bfloat16 much faster than integers of 15 bits then makes bfloat16 of integers.
    pub fn storage(&self, format: WeightFormat, many_rows: bool) -> Storage {
        match (format, self.integer_layout) {
            (WeightFormat::Float32, _) => Storage::Float32,
            (WeightFormat::Bfloat16, _) if self.bfloat16_product.is_some() => Storage::Bfloat16Dot,
            (WeightFormat::Bfloat16, _) => Storage::Bfloat16,
            (WeightFormat::Int8, IntegerLayout::Tiles) if many_rows => Storage::Int8Widened,
            (WeightFormat::Int8, IntegerLayout::Tiles) => Storage::Int8Tiles,
            (WeightFormat::Int8, IntegerLayout::Pairs) => Storage::Int8Pairs,
        }
    }
}

impl Storage {
    /// Name of the layout: storages of the same name pack the same bytes.
    pub fn layout(self) -> &'static str {
        match self {
            Self::Float32 => "float32",
            Self::Bfloat16 | Self::Bfloat16Dot => "bfloat16",
            Self::Int8Pairs | Self::Int8Widened => "int8 in pairs",
            Self::Int8Tiles => "int8 in tiles",
        }
    }

    /// What a layer takes.
    pub fn input(self) -> InputFormat {
        match self {
            Self::Float32 | Self::Bfloat16 => InputFormat::Float32,
            Self::Bfloat16Dot | Self::Int8Widened => InputFormat::Bfloat16,
            Self::Int8Pairs | Self::Int8Tiles => InputFormat::Quantized,
        }
    }

    /// How the integers of the activations lie, if they are integers.
    pub(super) fn quantized_input(self) -> Option<IntegerLayout> {
        match self {
            Self::Int8Pairs => Some(IntegerLayout::Pairs),
            Self::Int8Tiles => Some(IntegerLayout::Tiles),
            _ => None,
        }
    }

    /// Whether the activations are multiplied by a scale per input, as which its weights were divided by.
    pub(super) fn scales_inputs(self) -> bool {
        matches!(self, Self::Int8Pairs | Self::Int8Tiles | Self::Int8Widened)
    }

    /// Bytes of a panel with inner dimension `k`; `None` if that is no number.
    pub(super) fn panel_bytes(self, k: usize) -> Option<usize> {
        match self {
            Self::Float32 => FloatFormat::Float32.panel_bytes(k),
            Self::Bfloat16 | Self::Bfloat16Dot => FloatFormat::Bfloat16.panel_bytes(k),
            Self::Int8Pairs | Self::Int8Tiles | Self::Int8Widened => int8_panel_bytes(k),
        }
    }

    /// Bytes behind the last panel: a float32 scale for each input, and what a product may read and ignores.
    pub(super) fn tail_bytes(self, inputs: usize) -> usize {
        let scales = if self.scales_inputs() { 4 * inputs } else { 0 };
        scales + self.quantized_input().map_or(0, IntegerLayout::tail_bytes)
    }

    /// Steps that the rows given to [`Storage::pack_panel`] must be padded to.
    pub(super) fn padded(self, inputs: usize) -> usize {
        inputs.next_multiple_of(if self.scales_inputs() { 4 } else { 2 })
    }

    /// Writes `PANEL` rows (columns of the product) into a panel.
    pub(super) fn pack_panel(self, panel: &mut [u8], rows: &[f32]) {
        match self {
            Self::Float32 => interleave(panel, rows, f32::to_le_bytes),
            Self::Bfloat16 | Self::Bfloat16Dot => pack_bfloat16(panel, rows),
            Self::Int8Pairs | Self::Int8Widened => {
                pack_integers(panel, rows, |out, pairs| interleave(out, pairs, u16::to_le_bytes));
            }
            Self::Int8Tiles => pack_integers(panel, rows, |out, pairs| {
                interleave(out, pairs.as_chunks::<2>().0, |[a, b]| (u32::from(a) | u32::from(b) << 16).to_le_bytes());
            }),
        }
    }

    /// Whether [`Storage::multiply`] begins its sums with the bias.
    pub(super) fn starts_with_bias(self) -> bool {
        self.input() == InputFormat::Bfloat16
    }

    /// Makes what [`Storage::multiply`] needs of some panels, once for all rows of a task.
    pub(super) fn prepare(self, w: &Weights<'_>, panels: &Range<usize>, s: &mut ProductScratch) {
        if self != Self::Int8Widened {
            return;
        }
        let to = bfloat16_panel(w.inputs);
        if s.wide.len() < panels.len() * to {
            s.wide = Mapped::zeroed(TASK_PANELS * to).expect("memory for a few panels");
        }
        s.input_scales.clear();
        s.input_scales.extend(w.input_scales());
        let narrow = w.panels(panels).chunks_exact(w.panel_bytes);
        for (narrow, wide) in narrow.zip(s.wide.chunks_exact_mut(to)) {
            (w.kernels.widen)(narrow, &s.input_scales, wide);
        }
    }

    /// Some rows times some panels, which were prepared: dense rows in `s.tile`.
    pub(super) fn multiply(self, w: &Weights<'_>, x: &Prepared<'_>, block: &ProductBlock, s: &mut ProductScratch) {
        match self {
            Self::Float32 => multiply_float(w, FloatFormat::Float32, x, block, s),
            Self::Bfloat16 => multiply_float(w, FloatFormat::Bfloat16, x, block, s),
            Self::Bfloat16Dot => multiply_bfloat16(w, w.panels(&block.panels), x, block, &mut s.tile),
            Self::Int8Widened => multiply_bfloat16(w, &s.wide, x, block, &mut s.tile),
            Self::Int8Pairs | Self::Int8Tiles => multiply_integers(w, x, block, s),
        }
    }
}

/// Bytes of a panel of bfloat16 for as many inputs as there are integers in memory.
fn bfloat16_panel(inputs: usize) -> usize {
    FloatFormat::Bfloat16.panel_bytes(inputs).expect("panels for tensors that exist")
}

fn multiply_float(
    w: &Weights<'_>,
    format: FloatFormat,
    x: &Prepared<'_>,
    block: &ProductBlock,
    s: &mut ProductScratch,
) {
    (w.kernels.product)(Product {
        a: x.values.rows(x.task, block.rows.clone()),
        a_stride: x.values.stride(),
        rows: block.rows.len(),
        k: w.inputs,
        w: w.panels(&block.panels),
        w_stride: w.panel_bytes,
        format,
        panels: block.panels.len(),
        out: &mut s.tile,
        out_stride: block.width(),
        accumulate: false,
        scratch: &mut s.expanded,
    });
}

fn multiply_bfloat16(w: &Weights<'_>, panels: &[u8], x: &Prepared<'_>, block: &ProductBlock, out: &mut [f32]) {
    let product = w.kernels.bfloat16_product.expect("storages of bfloat16 are for sets that multiply it");
    product(Bfloat16Product {
        a: x.values.bfloat16_rows(x.task, block.rows.clone()),
        a_stride: x.values.stride(),
        rows: block.rows.len(),
        k: w.inputs,
        w: panels,
        w_stride: bfloat16_panel(w.inputs),
        panels: block.panels.len(),
        out,
        out_stride: block.width(),
        start: w.bias(block).map_or(Start::Zero, Start::Row),
    });
}

fn multiply_integers(w: &Weights<'_>, x: &Prepared<'_>, block: &ProductBlock, s: &mut ProductScratch) {
    let (a, a_scale) = x.integers(&block.rows);
    (w.kernels.integer_product)(IntegerProduct {
        a,
        a_scale,
        rows: block.rows.len(),
        k: w.inputs,
        w: &w.data[block.panels.start * w.panel_bytes..],
        panels: block.panels.len(),
        out: &mut s.tile,
        scratch: &mut s.integers,
    });
}
