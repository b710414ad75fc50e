//! Matrix products.
use super::{add, madd};
use crate::model::kernels::{
    FloatFormat, GROUP, GROUP_BYTES, IntegerLayout, IntegerProduct, PANEL, Product, RUN, SCALE_BYTES, TILE_BYTES,
    TILE_ROWS, TILE_STEPS, quantized_index,
};

/// Element (`k`, `column`) of a panel as a float32.
#[inline(always)]
pub(crate) fn weight(panel: &[u8], format: FloatFormat, k: usize, column: usize) -> f32 {
    match format {
        FloatFormat::Float32 => {
            let at = (k * PANEL + column) * 4;
            f32::from_le_bytes([panel[at], panel[at + 1], panel[at + 2], panel[at + 3]])
        }
        FloatFormat::Bfloat16 => {
            let at = ((k / 2 * PANEL + column) * 2 + k % 2) * 2;
            f32::from_bits(u32::from(u16::from_le_bytes([panel[at], panel[at + 1]])) << 16)
        }
    }
}

/// Element (`k`, `column`) of a panel of integers.
#[inline(always)]
pub(crate) fn integer_weight(panel: &[u8], layout: IntegerLayout, k: usize, column: usize) -> i32 {
    let at = k / GROUP * GROUP_BYTES + SCALE_BYTES + layout.weight_index(k % GROUP, column);
    i32::from(panel[at] as i8)
}

#[inline(always)]
pub(crate) fn product<const FUSED: bool>(p: Product<'_>) {
    p.check();
    for panel in 0..p.panels {
        let w = &p.w[panel * p.w_stride..];
        for row in 0..p.rows {
            let out = &mut p.out[row * p.out_stride + panel * PANEL..][..PANEL];
            if !p.accumulate {
                out.fill(0.0);
            }
            for (run, a) in p.a[row * p.a_stride..][..p.k].chunks(RUN).enumerate() {
                let mut sum = [0.0; PANEL];
                for (k, &a) in a.iter().enumerate() {
                    for (column, s) in sum.iter_mut().enumerate() {
                        *s = madd::<FUSED>(a, weight(w, p.format, run * RUN + k, column), *s);
                    }
                }
                add(out, &sum);
            }
        }
    }
}

/// The definition of arithmetic in bfloat16: exact products, added up in ascending order. A machine that has no
/// instructions for it multiplies in float32 instead, which is as quick there and more exact.
#[cfg(test)]
pub(crate) fn bfloat16_product(p: crate::model::kernels::Bfloat16Product<'_>) {
    p.check();
    for panel in 0..p.panels {
        let w = &p.w[panel * p.w_stride..];
        for row in 0..p.rows {
            let out = &mut p.out[row * p.out_stride + panel * PANEL..][..PANEL];
            for (column, o) in out.iter_mut().enumerate() {
                let a = p.a[row * p.a_stride..][..p.k].iter().enumerate();
                let sum = a.fold(0.0, |sum, (k, &a)| {
                    let a = f32::from_bits(u32::from(a) << 16);
                    madd::<true>(a, weight(w, FloatFormat::Bfloat16, k, column), sum)
                });
                *o = match p.start {
                    crate::model::kernels::Start::Zero => sum,
                    crate::model::kernels::Start::Row(row) => row[panel * PANEL + column] + sum,
                    crate::model::kernels::Start::Out => *o + sum,
                };
            }
        }
    }
}

/// Scale of a column in a group of an `Int8` panel.
#[inline(always)]
pub(crate) fn group_scale(panel: &[u8], group: usize, column: usize) -> f32 {
    let at = group * GROUP_BYTES + column * 4;
    f32::from_le_bytes([panel[at], panel[at + 1], panel[at + 2], panel[at + 3]])
}

/// Element `step` of row `row` among quantized activations with inner dimension `k`.
#[inline(always)]
fn activation(a: &[i16], layout: IntegerLayout, row: usize, step: usize, k: usize) -> i32 {
    match layout {
        IntegerLayout::Pairs => i32::from(a[quantized_index(row, step, k)]),
        IntegerLayout::Tiles => {
            let block = row / TILE_ROWS * layout.block_len(k);
            let tile = &a[block + step / TILE_STEPS * TILE_BYTES / 2..][..TILE_BYTES / 2];
            let (upper, lower) = tile.split_at(TILE_BYTES / 4);
            let byte = row % TILE_ROWS * TILE_STEPS + step % TILE_STEPS;
            let [upper, lower] = [upper, lower].map(|half| half[byte / 2].to_le_bytes()[byte % 2] as i8);
            i32::from(upper) * 128 + i32::from(lower)
        }
    }
}

#[inline(always)]
pub(crate) fn integer_product<const FUSED: bool, const TILES: bool>(p: IntegerProduct<'_>) {
    let layout = if TILES { IntegerLayout::Tiles } else { IntegerLayout::Pairs };
    p.check(layout);
    let (groups, width) = (p.k.div_ceil(GROUP), p.panels * PANEL);
    for panel in 0..p.panels {
        let w = &p.w[panel * p.panel_bytes()..];
        for row in 0..p.rows {
            let out = &mut p.out[row * width + panel * PANEL..][..PANEL];
            out.fill(0.0);
            for group in 0..groups {
                for (column, o) in out.iter_mut().enumerate() {
                    let terms = (group * GROUP..p.k.min((group + 1) * GROUP))
                        .map(|k| activation(p.a, layout, row, k, p.k) * integer_weight(w, layout, k, column));
                    let scale = p.a_scale[row * groups + group] * group_scale(w, group, column);
                    *o = madd::<FUSED>(terms.sum::<i32>() as f32, scale, *o);
                }
            }
        }
    }
}
