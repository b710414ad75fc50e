//! Weights of 8-bit integers.
use std::ops::Range;

use super::{InputFormat, Storage, StorageKind, products};
use crate::model::kernels::{IntegerLayout, Kernels, int8_panel_bytes};
use crate::model::linear::pack::{interleave, pack_integers};
use crate::model::linear::schedule::Division;
use crate::model::linear::{Prepared, ProductBlock, ProductScratch, Weights};

/// A set that multiplies bfloat16 much faster than integers of 15 bits makes bfloat16 of integers for many rows.
pub(super) fn choose(kernels: &Kernels, many_rows: bool) -> Storage {
    match kernels.integer_layout {
        IntegerLayout::Tiles if many_rows => Storage::Int8Widened,
        IntegerLayout::Tiles => Storage::Int8Tiles,
        IntegerLayout::Pairs => Storage::Int8Pairs,
    }
}

const PAIRS: &str = "int8 in pairs";
#[cfg(test)]
const GOLDEN_PAIRS: u64 = 4385960970160658010;

/// Steps in which the kernels walk through panels of either layout.
const STEPS: usize = 4;

/// What rounding to 8 bits costs, that of the activations and of the sums included.
#[cfg(test)]
const TOLERANCE: f64 = 2.5 / 254.0;

fn pack_pairs(panel: &mut [u8], rows: &[f32]) {
    pack_integers(panel, rows, |out, pairs| interleave(out, pairs, u16::to_le_bytes));
}

fn pack_tiles(panel: &mut [u8], rows: &[f32]) {
    pack_integers(panel, rows, |out, pairs| {
        interleave(out, pairs.as_chunks::<2>().0, |[a, b]| (u32::from(a) | u32::from(b) << 16).to_le_bytes());
    });
}

/// Integers times integers; the layouts differ in how panels are packed and in how rows are divided.
pub(super) struct Integers<const TILES: bool>;

pub(super) type Int8Pairs = Integers<false>;
pub(super) type Int8Tiles = Integers<true>;

impl<const TILES: bool> StorageKind for Integers<TILES> {
    fn layout(&self) -> &'static str {
        if TILES { "int8 in tiles" } else { PAIRS }
    }

    fn input(&self) -> InputFormat {
        InputFormat::Quantized
    }

    fn quantized_input(&self) -> Option<IntegerLayout> {
        Some(if TILES { IntegerLayout::Tiles } else { IntegerLayout::Pairs })
    }

    fn division(&self) -> Division {
        if TILES { Division::Tiles } else { Division::Chunks }
    }

    fn scales_inputs(&self) -> bool {
        true
    }

    fn step_multiple(&self) -> usize {
        STEPS
    }

    fn panel_bytes(&self, k: usize) -> Option<usize> {
        int8_panel_bytes(k)
    }

    fn pack_panel(&self, panel: &mut [u8], rows: &[f32]) {
        if TILES { pack_tiles(panel, rows) } else { pack_pairs(panel, rows) }
    }

    fn multiply(&self, w: &Weights<'_>, x: &Prepared<'_>, block: &ProductBlock, s: &mut ProductScratch) {
        products::integers(w, x, block, s);
    }

    #[cfg(test)]
    fn tolerance(&self) -> f64 {
        TOLERANCE
    }

    #[cfg(test)]
    fn golden_hash(&self) -> u64 {
        if TILES { 2942859182555314707 } else { GOLDEN_PAIRS }
    }
}

pub(super) struct Int8Widened;

impl StorageKind for Int8Widened {
    fn layout(&self) -> &'static str {
        PAIRS
    }

    fn input(&self) -> InputFormat {
        InputFormat::Bfloat16
    }

    fn division(&self) -> Division {
        Division::PreparedTiles
    }

    fn scales_inputs(&self) -> bool {
        true
    }

    fn step_multiple(&self) -> usize {
        STEPS
    }

    fn panel_bytes(&self, k: usize) -> Option<usize> {
        int8_panel_bytes(k)
    }

    fn pack_panel(&self, panel: &mut [u8], rows: &[f32]) {
        pack_pairs(panel, rows);
    }

    fn prepare(&self, w: &Weights<'_>, panels: &Range<usize>, s: &mut ProductScratch) {
        let to = products::bfloat16_panel(w.inputs);
        assert!(s.wide.len() >= panels.len() * to, "scratch for layers of fewer inputs");
        s.input_scales.clear();
        s.input_scales.extend(w.input_scales());
        let narrow = w.panels(panels).chunks_exact(w.panel_bytes);
        for (narrow, wide) in narrow.zip(s.wide.chunks_exact_mut(to)) {
            (w.kernels.widen)(narrow, &s.input_scales, wide);
        }
    }

    fn multiply(&self, w: &Weights<'_>, x: &Prepared<'_>, block: &ProductBlock, s: &mut ProductScratch) {
        products::bfloat16(w, &s.wide, x, block, &mut s.tile);
    }

    #[cfg(test)]
    fn tolerance(&self) -> f64 {
        TOLERANCE + 2.0 / 256.0
    }

    #[cfg(test)]
    fn golden_hash(&self) -> u64 {
        GOLDEN_PAIRS
    }
}
