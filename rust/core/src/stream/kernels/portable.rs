//! Plain loops over strips, written so that the compiler can vectorise them for any target.

use super::{Kernels, LANES};
use crate::stream::convert::{Conversion, to_bfloat16};
use crate::stream::taps::Taps;

pub(super) static KERNELS: Kernels = Kernels {
    name: "portable",
    transpose,
    weigh_rows,
    weigh_pixels,
    to_f32,
    to_bf16,
    fill,
    fence,
};

fn transpose(from: &[u8], from_stride: usize, to: &mut [u8], to_stride: usize) {
    for i in 0..LANES {
        let row = &from[i * from_stride..i * from_stride + LANES];
        for (j, &byte) in row.iter().enumerate() {
            to[j * to_stride + i] = byte;
        }
    }
}

fn weigh_rows(rows: &[&[u8]], taps: &Taps, output: usize, out: &mut [u8]) {
    for (index, strip) in out.chunks_exact_mut(LANES).enumerate() {
        let at = index * LANES;
        weigh(|tap| &rows[tap][at..at + LANES], taps, output, strip);
    }
}

fn weigh_pixels(block: &[u8], stride: usize, taps: &Taps, first: usize, out: &mut [u8]) {
    for (index, pixel) in out.chunks_exact_mut(3 * LANES).enumerate() {
        let output = first + index;
        for (channel, strip) in pixel.chunks_exact_mut(LANES).enumerate() {
            let base = taps.first(output) * stride + channel * LANES;
            weigh(
                |tap| &block[base + tap * stride..base + tap * stride + LANES],
                taps,
                output,
                strip,
            );
        }
    }
}

fn weigh<'a>(input: impl Fn(usize) -> &'a [u8], taps: &Taps, output: usize, out: &mut [u8]) {
    let mut sums = [taps.half(); LANES];
    for (tap, weight) in taps.weights(output).enumerate() {
        for (sum, &byte) in sums.iter_mut().zip(input(tap)) {
            *sum = sum.wrapping_add(weight * i32::from(byte));
        }
    }
    for (byte, sum) in out.iter_mut().zip(sums) {
        *byte = (sum >> taps.precision()).clamp(0, 255) as u8;
    }
}

fn to_f32(bytes: &[u8], conversion: &Conversion, out: &mut [f32]) {
    for (value, &byte) in out.iter_mut().zip(bytes) {
        *value = conversion.table[usize::from(byte)];
    }
}

fn to_bf16(bytes: &[u8], conversion: &Conversion, out: &mut [u16]) {
    for (value, &byte) in out.iter_mut().zip(bytes) {
        *value = to_bfloat16(conversion.table[usize::from(byte)]);
    }
}

fn fill(out: &mut [i64], value: i64) {
    out.fill(value);
}

fn fence() {}
