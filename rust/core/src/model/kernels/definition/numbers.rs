//! Rounded and quantized numbers.
use super::group_scale;
use crate::machine::numbers::{ROUND, to_bfloat16};
use crate::model::kernels::{GROUP, GROUP_BYTES, PANEL, QUANTIZED_MAX, ROW_BLOCK, SCALE_BYTES, TILE_BYTES, TILE_STEPS};

#[inline(always)]
pub(crate) fn round(x: &[f32], out: &mut [u16]) {
    for (out, x) in out.iter_mut().zip(x) {
        *out = to_bfloat16(*x);
    }
}

#[inline(always)]
pub(crate) fn widen(panel: &[u8], input_scales: &[f32], out: &mut [u8]) {
    const LINE: usize = 2 * PANEL;
    let lines = out.chunks_mut(GROUP / 2 * 2 * LINE);
    for ((group, out), input_scales) in panel.chunks(GROUP_BYTES).zip(lines).zip(input_scales.chunks(GROUP)) {
        let scales: [f32; LINE] = std::array::from_fn(|i| group_scale(group, 0, i / 2));
        let weights = group[SCALE_BYTES..].as_chunks::<LINE>().0;
        let out = out.as_chunks_mut::<{ 2 * LINE }>().0;
        for ((weights, out), pair) in weights.iter().zip(out).zip(input_scales.chunks(2)) {
            let both = [pair[0], pair.get(1).copied().unwrap_or(1.0)];
            let inputs: [f32; LINE] = std::array::from_fn(|i| both[i % 2]);
            for (i, out) in out.as_chunks_mut::<2>().0.iter_mut().enumerate() {
                let weight = f32::from(weights[i] as i8) * scales[i] * inputs[i];
                *out = to_bfloat16(weight).to_le_bytes();
            }
        }
    }
}

/// Writes a row into a block of pairs.
pub(crate) fn scatter_pairs(row: &[i16], index: usize, block: &mut [i16]) {
    let pairs = block[2 * index..].chunks_mut(2 * ROW_BLOCK);
    for (to, from) in pairs.zip(row.chunks_exact(2)) {
        to[..2].copy_from_slice(from);
    }
}

/// Writes a row into a block of tiles: 64 steps at a time, in units of two bytes.
#[inline(always)]
#[allow(dead_code, reason = "for sets that multiply tiles")]
pub(crate) fn scatter_tiles(row: &[i16], index: usize, block: &mut [i16]) {
    for (tile, row) in block.chunks_exact_mut(TILE_BYTES / 2).zip(row.chunks(TILE_STEPS)) {
        let mut steps = [0; TILE_STEPS];
        steps[..row.len()].copy_from_slice(row);
        let (upper, lower) = tile.split_at_mut(TILE_BYTES / 4);
        let line = index * TILE_STEPS / 2..(index + 1) * TILE_STEPS / 2;
        let halves = upper[line.clone()].iter_mut().zip(&mut lower[line]);
        for ((upper, lower), pair) in halves.zip(steps.as_chunks().0) {
            let [even, odd]: [i16; 2] = *pair;
            *upper = i16::from_le_bytes([(even >> 7) as u8, (odd >> 7) as u8]);
            *lower = i16::from_le_bytes([(even & 0x7f) as u8, (odd & 0x7f) as u8]);
        }
    }
}

#[inline(always)]
pub(crate) fn quantize(x: &[f32], out: &mut [i16], scale: &mut [f32]) {
    let (out, padding) = out.split_at_mut(x.len());
    padding[..x.len() % 2].fill(0);
    for ((x, out), scale) in x.chunks(GROUP).zip(out.chunks_mut(GROUP)).zip(scale) {
        // As integers, NaN is the largest of all.
        let largest = x.iter().fold(0, |m, x| m.max(x.to_bits() & 0x7fff_ffff));
        let largest = f32::from_bits(largest);
        let max = f32::from(QUANTIZED_MAX);
        // Below that the inverse would be infinite.
        if !(1e-30..f32::INFINITY).contains(&largest) {
            *scale = if largest < 1e-30 { 0.0 } else { f32::NAN };
            out.fill(0);
            continue;
        }
        *scale = largest / max;
        let inverse = max / largest;
        for (o, x) in out.iter_mut().zip(x) {
            *o = (x * inverse + ROUND).to_bits() as i16;
        }
    }
}
