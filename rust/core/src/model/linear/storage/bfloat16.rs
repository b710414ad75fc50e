//! Weights of bfloat16.
use super::{InputFormat, Storage, StorageKind, products};
use crate::model::kernels::{FloatFormat, Kernels};
use crate::model::linear::pack::pack_bfloat16;
use crate::model::linear::schedule::Division;
use crate::model::linear::{Prepared, ProductBlock, ProductScratch, Weights};

pub(super) fn choose(kernels: &Kernels, _many_rows: bool) -> Storage {
    if kernels.bfloat16_product.is_some() { Storage::Bfloat16Dot } else { Storage::Bfloat16 }
}

const LAYOUT: &str = "bfloat16";
#[cfg(test)]
const GOLDEN_HASH: u64 = 7196806203915604103;

pub(super) struct Bfloat16;

impl StorageKind for Bfloat16 {
    fn layout(&self) -> &'static str {
        LAYOUT
    }

    fn input(&self) -> InputFormat {
        InputFormat::Float32
    }

    fn division(&self) -> Division {
        Division::Chunks
    }

    fn panel_bytes(&self, k: usize) -> Option<usize> {
        FloatFormat::Bfloat16.panel_bytes(k)
    }

    fn pack_panel(&self, panel: &mut [u8], rows: &[f32]) {
        pack_bfloat16(panel, rows);
    }

    fn multiply(&self, w: &Weights<'_>, x: &Prepared<'_>, block: &ProductBlock, s: &mut ProductScratch) {
        products::float(w, FloatFormat::Bfloat16, x, block, s);
    }

    #[cfg(test)]
    fn tolerance(&self) -> f64 {
        1.0 / 256.0
    }

    #[cfg(test)]
    fn golden_hash(&self) -> u64 {
        GOLDEN_HASH
    }
}

pub(super) struct Bfloat16Dot;

impl StorageKind for Bfloat16Dot {
    fn layout(&self) -> &'static str {
        LAYOUT
    }

    fn input(&self) -> InputFormat {
        InputFormat::Bfloat16
    }

    fn division(&self) -> Division {
        Division::Tiles
    }

    fn panel_bytes(&self, k: usize) -> Option<usize> {
        FloatFormat::Bfloat16.panel_bytes(k)
    }

    fn pack_panel(&self, panel: &mut [u8], rows: &[f32]) {
        pack_bfloat16(panel, rows);
    }

    fn multiply(&self, w: &Weights<'_>, x: &Prepared<'_>, block: &ProductBlock, s: &mut ProductScratch) {
        products::bfloat16(w, w.panels(&block.panels), x, block, &mut s.tile);
    }

    #[cfg(test)]
    fn tolerance(&self) -> f64 {
        2.0 / 256.0
    }

    #[cfg(test)]
    fn golden_hash(&self) -> u64 {
        GOLDEN_HASH
    }
}
