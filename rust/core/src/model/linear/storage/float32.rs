//! Weights of float32.
use super::{InputFormat, Storage, StorageKind, products};
use crate::model::kernels::{FloatFormat, Kernels};
use crate::model::linear::pack::interleave;
use crate::model::linear::schedule::Division;
use crate::model::linear::{Prepared, ProductBlock, ProductScratch, Weights};

pub(super) fn choose(_: &Kernels, _many_rows: bool) -> Storage {
    Storage::Float32
}

pub(super) struct Float32;

impl StorageKind for Float32 {
    fn layout(&self) -> &'static str {
        "float32"
    }

    fn input(&self) -> InputFormat {
        InputFormat::Float32
    }

    fn division(&self) -> Division {
        Division::Chunks
    }

    fn panel_bytes(&self, k: usize) -> Option<usize> {
        FloatFormat::Float32.panel_bytes(k)
    }

    fn pack_panel(&self, panel: &mut [u8], rows: &[f32]) {
        interleave(panel, rows, f32::to_le_bytes);
    }

    fn multiply(&self, w: &Weights<'_>, x: &Prepared<'_>, block: &ProductBlock, s: &mut ProductScratch) {
        products::float(w, FloatFormat::Float32, x, block, s);
    }

    #[cfg(test)]
    fn tolerance(&self) -> f64 {
        1e-6
    }

    #[cfg(test)]
    fn golden_hash(&self) -> u64 {
        4845340811918023181
    }
}
