//! The kernels' products as storages call them.
use crate::model::kernels::{Bfloat16Product, FloatFormat, IntegerProduct, Product, Start};
use crate::model::linear::{Prepared, ProductBlock, ProductScratch, Weights};

/// Float32 activations times panels of float32 or bfloat16.
pub(super) fn float(
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

/// Bytes of a panel of bfloat16 for as many inputs as there are weights in memory.
pub(super) fn bfloat16_panel(inputs: usize) -> usize {
    FloatFormat::Bfloat16.panel_bytes(inputs).expect("panels for tensors that exist")
}

/// Bfloat16 activations times `panels` of bfloat16, from the bias on.
pub(super) fn bfloat16(w: &Weights<'_>, panels: &[u8], x: &Prepared<'_>, block: &ProductBlock, out: &mut [f32]) {
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

/// Quantized activations times panels of 8-bit integers.
pub(super) fn integers(w: &Weights<'_>, x: &Prepared<'_>, block: &ProductBlock, s: &mut ProductScratch) {
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
