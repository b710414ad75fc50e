//! The definition of every kernel, in plain Rust that runs on any machine.
//!
//! `FUSED` says whether a multiply-add rounds once or twice. With one rounding these functions give the bits that every
//! instruction set with fused multiply-add must give; [`KERNELS`] rounds once where every machine of the architecture
//! has the instruction, and twice elsewhere: see [`cpu::FUSED`].
use super::{
    BLOCK, Dtype, GROUP, GROUP_BYTES, IntegerProduct, Integers, Kernels, PANEL, Product, QUANTIZED_MAX, ROW_BLOCK, RUN,
    SCALE_BYTES, TILE_BYTES, TILE_STEPS, quantized_index,
};
use crate::machine::cpu::{self, Isa};

/// Kernels for every machine.
pub static KERNELS: Kernels = kernels::<{ cpu::FUSED }>(Isa::Portable.name());

/// The table, with one or two roundings per multiply-add.
pub const fn kernels<const FUSED: bool>(name: &'static str) -> Kernels {
    Kernels {
        name,
        product: product::<FUSED>,
        integer_product: integer_product::<FUSED>,
        integers: Integers::Pairs,
        place: place_pairs,
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
        burn: burn::<FUSED>,
        burn_bfloat16: None,
    }
}

/// Lanes of a reduction: element `i` is added to lane `i % LANES`, the lanes are then added pairwise, upper half to
/// lower. So many, that the sums of one register need not wait for each other.
const LANES: usize = 32;

#[inline(always)]
pub fn madd<const FUSED: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FUSED { a.mul_add(b, c) } else { a * b + c }
}

/// Element (`k`, `column`) of a panel as a float32.
#[inline(always)]
pub fn weight(panel: &[u8], dtype: Dtype, k: usize, column: usize) -> f32 {
    match dtype {
        Dtype::Float32 => {
            let at = (k * PANEL + column) * 4;
            f32::from_le_bytes([panel[at], panel[at + 1], panel[at + 2], panel[at + 3]])
        }
        Dtype::Bfloat16 => {
            let at = ((k / 2 * PANEL + column) * 2 + k % 2) * 2;
            f32::from_bits(u32::from(u16::from_le_bytes([panel[at], panel[at + 1]])) << 16)
        }
        Dtype::Int8 => {
            let (group, k) = (k / GROUP * GROUP_BYTES, k % GROUP);
            let at = group + SCALE_BYTES + Integers::Pairs.weight_index(k, column);
            f32::from(panel[at] as i8)
        }
    }
}

#[inline(always)]
pub fn product<const FUSED: bool>(p: Product<'_>) {
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
                        *s = madd::<FUSED>(a, weight(w, p.dtype, run * RUN + k, column), *s);
                    }
                }
                add(out, &sum);
            }
        }
    }
}

/// The upper half of the float32 nearest to `x`, to nearest even; what is too small for a normal number becomes zero,
/// and NaN stays one.
#[inline(always)]
pub fn to_bfloat16(x: f32) -> u16 {
    let bits = x.to_bits();
    if x.is_nan() {
        (bits >> 16) as u16 | 0x40
    } else if bits & 0x7f80_0000 == 0 {
        (bits >> 16) as u16 & 0x8000
    } else {
        ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
    }
}

#[inline(always)]
pub fn round(x: &[f32], out: &mut [u16]) {
    for (out, x) in out.iter_mut().zip(x) {
        *out = to_bfloat16(*x);
    }
}

/// The definition of arithmetic in bfloat16: exact products, added up in ascending order. A machine that has no
/// instructions for it multiplies in float32 instead, which is as quick there and more exact.
#[cfg(test)]
pub fn bfloat16_product(p: super::Bfloat16Product<'_>) {
    p.check();
    for panel in 0..p.panels {
        let w = &p.w[panel * p.w_stride..];
        for row in 0..p.rows {
            let out = &mut p.out[row * p.out_stride + panel * PANEL..][..PANEL];
            for (column, o) in out.iter_mut().enumerate() {
                let a = p.a[row * p.a_stride..][..p.k].iter().enumerate();
                let sum = a.fold(0.0, |sum, (k, &a)| {
                    let a = f32::from_bits(u32::from(a) << 16);
                    madd::<true>(a, weight(w, Dtype::Bfloat16, k, column), sum)
                });
                *o = match p.start {
                    super::Start::Zero => sum,
                    super::Start::Row(row) => row[panel * PANEL + column] + sum,
                    super::Start::Out => *o + sum,
                };
            }
        }
    }
}

/// Scale of a column in a group of an `Int8` panel.
#[inline(always)]
pub fn group_scale(panel: &[u8], group: usize, column: usize) -> f32 {
    let at = group * GROUP_BYTES + column * 4;
    f32::from_le_bytes([panel[at], panel[at + 1], panel[at + 2], panel[at + 3]])
}

#[inline(always)]
pub fn integer_product<const FUSED: bool>(p: IntegerProduct<'_>) {
    p.check(Integers::Pairs);
    let (groups, width) = (p.k.div_ceil(GROUP), p.panels * PANEL);
    for panel in 0..p.panels {
        let w = &p.w[panel * Dtype::Int8.panel_bytes(p.k)..];
        for row in 0..p.rows {
            let out = &mut p.out[row * width + panel * PANEL..][..PANEL];
            out.fill(0.0);
            for group in 0..groups {
                for (column, o) in out.iter_mut().enumerate() {
                    let terms = (group * GROUP..p.k.min((group + 1) * GROUP)).map(|k| {
                        let a = i32::from(p.a[quantized_index(row, k, p.k)]);
                        a * weight(w, Dtype::Int8, k, column) as i32
                    });
                    let scale = p.a_scale[row * groups + group] * group_scale(w, group, column);
                    *o = madd::<FUSED>(terms.sum::<i32>() as f32, scale, *o);
                }
            }
        }
    }
}

#[inline(always)]
pub fn widen(panel: &[u8], input_scales: &[f32], out: &mut [u8]) {
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

/// Puts a row into a block of pairs.
pub fn place_pairs(row: &[i16], index: usize, block: &mut [i16]) {
    let pairs = block[2 * index..].chunks_mut(2 * ROW_BLOCK);
    for (to, from) in pairs.zip(row.chunks_exact(2)) {
        to[..2].copy_from_slice(from);
    }
}

/// Puts a row into a block of tiles: 64 steps at a time, in units of two bytes.
#[inline(always)]
pub fn place_tiles(row: &[i16], index: usize, block: &mut [i16]) {
    for (tile, row) in block.chunks_exact_mut(TILE_BYTES / 2).zip(row.chunks(TILE_STEPS)) {
        let mut steps = [0; TILE_STEPS];
        steps[..row.len()].copy_from_slice(row);
        let (upper, lower) = tile.split_at_mut(TILE_BYTES / 4);
        let place = index * TILE_STEPS / 2..(index + 1) * TILE_STEPS / 2;
        let halves = upper[place.clone()].iter_mut().zip(&mut lower[place]);
        for ((upper, lower), pair) in halves.zip(steps.as_chunks().0) {
            let [even, odd]: [i16; 2] = *pair;
            *upper = i16::from_le_bytes([(even >> 7) as u8, (odd >> 7) as u8]);
            *lower = i16::from_le_bytes([(even & 0x7f) as u8, (odd & 0x7f) as u8]);
        }
    }
}

#[inline(always)]
pub fn quantize(x: &[f32], out: &mut [i16], scale: &mut [f32]) {
    // Adding it rounds to an integer, to nearest even, and leaves that in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let (out, padding) = out.split_at_mut(x.len());
    padding[..x.len() % 2].fill(0);
    for ((x, out), scale) in x.chunks(GROUP).zip(out.chunks_mut(GROUP)).zip(scale) {
        // As integers, NaN is the largest of all.
        let largest = x.iter().fold(0, |m, x| m.max(x.to_bits() & 0x7fff_ffff));
        let largest = f32::from_bits(largest);
        let most = f32::from(QUANTIZED_MAX);
        // Below that the inverse would be infinite.
        if !(1e-30..f32::INFINITY).contains(&largest) {
            *scale = if largest < 1e-30 { 0.0 } else { f32::NAN };
            out.fill(0);
            continue;
        }
        *scale = largest / most;
        let inverse = most / largest;
        for (o, x) in out.iter_mut().zip(x) {
            *o = (x * inverse + ROUND).to_bits() as i16;
        }
    }
}

/// Chains of multiply-adds, enough of them to hide their latency.
#[inline(always)]
pub fn burn<const FUSED: bool>(rounds: usize) -> u64 {
    let mut sums = [[1.0_f32; LANES]; 12];
    let factor = std::hint::black_box(0.999_f32);
    for _ in 0..rounds {
        for sum in &mut sums {
            for s in sum {
                *s = madd::<FUSED>(*s, factor, factor);
            }
        }
    }
    std::hint::black_box(sums);
    (rounds * 12 * LANES * 2) as u64
}

/// `2^x` to within 2e-8 of the value: a polynomial on [-0.5, 0.5] (Chebyshev nodes) and an exponent.
#[inline(always)]
pub fn exp2<const FUSED: bool>(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it leaves the integer part in the low bits
    let x = if x > -126.0 { x } else { -126.0 };
    let x = if x < 127.0 { x } else { 127.0 };
    let shifted = x + ROUND;
    let f = x - (shifted - ROUND);
    let mut y = 0.000_154_614_45;
    for c in [0.001_340_042_8, 0.009_618_057, 0.055_503_27, 0.240_226_5, std::f32::consts::LN_2, 1.0] {
        y = madd::<FUSED>(y, f, c);
    }
    f32::from_bits(y.to_bits().wrapping_add(shifted.to_bits() << 23))
}

#[inline(always)]
fn gate<const FUSED: bool>(x: f32, minus_log2: f32) -> f32 {
    x / (1.0 + exp2::<FUSED>(minus_log2))
}

#[inline(always)]
pub fn gelu<const FUSED: bool>(x: &mut [f32]) {
    // tanh(u) = 2 / (1 + e^-2u) - 1, so gelu(x) = x / (1 + e^-2u) with u = sqrt(2/pi) (x + 0.044715 x^3).
    const SCALE: f32 = -2.0 * 0.797_884_6 * std::f32::consts::LOG2_E;
    for x in x {
        let v = *x;
        *x = gate::<FUSED>(v, SCALE * v * madd::<FUSED>(0.044_715 * v, v, 1.0));
    }
}

#[inline(always)]
pub fn silu_mul<const FUSED: bool>(gates: &[f32], up: &[f32], out: &mut [f32]) {
    for ((o, &g), &u) in out.iter_mut().zip(gates).zip(up) {
        *o = gate::<FUSED>(g, -std::f32::consts::LOG2_E * g) * u;
    }
}

#[inline(always)]
pub fn add(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}

#[inline(always)]
fn fold_lanes(lanes: [f32; LANES], join: impl Fn(f32, f32) -> f32) -> f32 {
    // Through memory, or the compiler would split the registers of the loop before this to suit what is below.
    let lanes = std::hint::black_box(lanes);
    let a: [f32; 16] = std::array::from_fn(|i| join(lanes[i], lanes[i + 16]));
    let a: [f32; 8] = std::array::from_fn(|i| join(a[i], a[i + 8]));
    let a: [f32; 4] = std::array::from_fn(|i| join(a[i], a[i + 4]));
    join(join(a[0], a[2]), join(a[1], a[3]))
}

/// Sum of `term(x)` in the fixed order of the lanes.
#[inline(always)]
fn sum(x: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let chunks = x.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane = term(x, *lane);
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(rest) {
        *lane = term(x, *lane);
    }
    fold_lanes(lanes, |a, b| a + b)
}

#[inline(always)]
pub fn rms_norm<const FUSED: bool>(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let squares = sum(x, |x, lane| madd::<FUSED>(x, x, lane));
    let scale = 1.0 / (squares / x.len() as f32 + eps).sqrt();
    for ((o, &x), &w) in out.iter_mut().zip(x).zip(weight) {
        *o = x * scale * w;
    }
}

#[inline(always)]
pub fn layer_norm<const FUSED: bool>(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
    let n = x.len() as f32;
    let mean = sum(x, |x, lane| lane + x) / n;
    let squares = sum(x, |x, lane| madd::<FUSED>(x - mean, x - mean, lane));
    let scale = 1.0 / (squares / n + eps).sqrt();
    for (((o, &x), &w), &b) in out.iter_mut().zip(x).zip(weight).zip(bias) {
        *o = madd::<FUSED>((x - mean) * scale, w, b);
    }
}

#[inline(always)]
pub fn rotary<const FUSED: bool>(x: &[f32], cos: &[f32], sin: &[f32], scale: f32, out: &mut [f32]) {
    let half = cos.len();
    let (low, high) = (&x[..half], &x[half..2 * half]);
    let (out_low, out_high) = out[..2 * half].split_at_mut(half);
    for i in 0..half {
        let (c, s) = (cos[i] * scale, sin[i] * scale);
        out_low[i] = madd::<FUSED>(low[i], c, -(high[i] * s));
        out_high[i] = madd::<FUSED>(high[i], c, low[i] * s);
    }
}

#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

#[inline(always)]
pub fn softmax<const FUSED: bool>(scores: &mut [f32]) -> (f32, f32) {
    debug_assert!(scores.len() <= BLOCK);
    let mut lanes = [f32::NEG_INFINITY; LANES];
    // Whole chunks apart from the rest: lanes of a length unknown to the compiler would live in memory.
    let chunks = scores.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, &s) in lanes.iter_mut().zip(chunk) {
            *lane = larger(*lane, s);
        }
    }
    for (lane, &s) in lanes.iter_mut().zip(rest) {
        *lane = larger(*lane, s);
    }
    let max = fold_lanes(lanes, larger);
    for s in &mut *scores {
        *s = exp2::<FUSED>(*s - max);
    }
    (max, sum(scores, |s, lane| lane + s))
}

#[inline(always)]
pub fn merge<const FUSED: bool>(state: &mut (f32, f32), out: &mut [f32], block: (f32, f32), block_out: &[f32]) {
    if state.1 == 0.0 {
        *state = block;
        out.copy_from_slice(block_out);
        return;
    }
    let max = larger(state.0, block.0);
    let (old, new) = (exp2::<FUSED>(state.0 - max), exp2::<FUSED>(block.0 - max));
    *state = (max, madd::<FUSED>(state.1, old, block.1 * new));
    for (o, &b) in out.iter_mut().zip(block_out) {
        *o = madd::<FUSED>(*o, old, b * new);
    }
}

pub fn argmax(x: &[f32]) -> (usize, f32) {
    let mut best = (0, f32::NEG_INFINITY);
    for (i, &v) in x.iter().enumerate() {
        if v > best.1 {
            best = (i, v);
        }
    }
    best
}
