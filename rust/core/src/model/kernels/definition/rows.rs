//! Kernels of one row.
use super::madd;
use crate::machine::numbers::ROUND;
use crate::model::kernels::BLOCK;

/// Lanes of a reduction: element `i` is added to lane `i % LANES`, the lanes are then added pairwise, upper half to
/// lower. With this many the sums of one register need not wait for each other.
const LANES: usize = 32;

/// Chains of multiply-adds, enough of them to hide their latency.
#[inline(always)]
pub(crate) fn peak<const FUSED: bool>(rounds: usize) -> u64 {
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
pub(crate) fn exp2<const FUSED: bool>(x: f32) -> f32 {
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
pub(crate) fn gelu<const FUSED: bool>(x: &mut [f32]) {
    // tanh(u) = 2 / (1 + e^-2u) - 1, so gelu(x) = x / (1 + e^-2u) with u = sqrt(2/pi) (x + 0.044715 x^3).
    const SCALE: f32 = -2.0 * 0.797_884_6 * std::f32::consts::LOG2_E;
    for x in x {
        let v = *x;
        *x = gate::<FUSED>(v, SCALE * v * madd::<FUSED>(0.044_715 * v, v, 1.0));
    }
}

#[inline(always)]
pub(crate) fn silu_mul<const FUSED: bool>(gates: &[f32], up: &[f32], out: &mut [f32]) {
    for ((o, &g), &u) in out.iter_mut().zip(gates).zip(up) {
        *o = gate::<FUSED>(g, -std::f32::consts::LOG2_E * g) * u;
    }
}

#[inline(always)]
pub(crate) fn add(x: &mut [f32], y: &[f32]) {
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
pub(crate) fn rms_norm<const FUSED: bool>(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let squares = sum(x, |x, lane| madd::<FUSED>(x, x, lane));
    let scale = 1.0 / (squares / x.len() as f32 + eps).sqrt();
    for ((o, &x), &w) in out.iter_mut().zip(x).zip(weight) {
        *o = x * scale * w;
    }
}

#[inline(always)]
pub(crate) fn layer_norm<const FUSED: bool>(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
    let n = x.len() as f32;
    let mean = sum(x, |x, lane| lane + x) / n;
    let squares = sum(x, |x, lane| madd::<FUSED>(x - mean, x - mean, lane));
    let scale = 1.0 / (squares / n + eps).sqrt();
    for (((o, &x), &w), &b) in out.iter_mut().zip(x).zip(weight).zip(bias) {
        *o = madd::<FUSED>((x - mean) * scale, w, b);
    }
}

#[inline(always)]
pub(crate) fn rotary<const FUSED: bool>(x: &[f32], cos: &[f32], sin: &[f32], scale: f32, out: &mut [f32]) {
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
pub(crate) fn softmax<const FUSED: bool>(scores: &mut [f32]) -> (f32, f32) {
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
pub(crate) fn merge<const FUSED: bool>(state: &mut (f32, f32), out: &mut [f32], block: (f32, f32), block_out: &[f32]) {
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

pub(crate) fn argmax(x: &[f32]) -> (usize, f32) {
    let mut best = (0, f32::NEG_INFINITY);
    for (i, &v) in x.iter().enumerate() {
        if v > best.1 {
            best = (i, v);
        }
    }
    best
}
