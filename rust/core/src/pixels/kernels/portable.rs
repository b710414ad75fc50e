//! Plain loops over strips, written so that the compiler can vectorise them for any target.

use super::PictureKernels;
use super::checks::{check_pixels, check_rows, check_transpose, convert_rest};
use crate::pixels::convert::Conversion;
use crate::pixels::taps::{LANES, LOW_BITS, Taps};

pub(super) const KERNELS: &PictureKernels =
    &PictureKernels { name: "portable", transpose, weigh_rows, weigh_pixels, to_f32, to_bf16, fill, fence };

fn transpose(from: &[u8], from_stride: usize, to: &mut [u8], to_stride: usize) {
    check_transpose(from, from_stride, to, to_stride);
    for (top, left) in [(0, 0), (0, 16), (16, 0), (16, 16)] {
        let mut rows = [[0; 16]; 16];
        for (i, row) in rows.iter_mut().enumerate() {
            row.copy_from_slice(&from[(top + i) * from_stride + left..][..16]);
        }
        // Interleaving row i with row i + 8 four times moves the index of the row into the index of the byte.
        for _ in 0..4 {
            let mut next = [[0; 16]; 16];
            for i in 0..8 {
                [next[2 * i], next[2 * i + 1]] = interleave(&rows[i], &rows[i + 8]);
            }
            rows = next;
        }
        for (j, column) in rows.iter().enumerate() {
            to[(left + j) * to_stride + top..][..16].copy_from_slice(column);
        }
    }
}

fn interleave(a: &[u8; 16], b: &[u8; 16]) -> [[u8; 16]; 2] {
    let mut out = [[0; 16]; 2];
    for i in 0..8 {
        (out[0][2 * i], out[0][2 * i + 1]) = (a[i], b[i]);
        (out[1][2 * i], out[1][2 * i + 1]) = (a[i + 8], b[i + 8]);
    }
    out
}

fn weigh_rows(rows: &[&[u8]], taps: &Taps, output: usize, out: &mut [u8]) {
    check_rows(rows, taps, output, out);
    for (index, strip) in out.chunks_exact_mut(LANES).enumerate() {
        let at = index * LANES;
        weigh(|tap| &rows[tap][at..at + LANES], taps, output, strip);
    }
}

fn weigh_pixels(block: &[u8], stride: usize, taps: &Taps, first: usize, out: &mut [u8]) {
    check_pixels(block, stride, taps, first, out);
    for (index, pixel) in out.chunks_exact_mut(3 * LANES).enumerate() {
        let output = first + index;
        for (channel, strip) in pixel.chunks_exact_mut(LANES).enumerate() {
            let base = taps.first(output) * stride + channel * LANES;
            weigh(|tap| &block[base + tap * stride..base + tap * stride + LANES], taps, output, strip);
        }
    }
}

fn weigh<'a>(input: impl Fn(usize) -> &'a [u8], taps: &Taps, output: usize, out: &mut [u8]) {
    match taps.parts() {
        1 => weigh_parts::<1>(input, taps, output, out),
        _ => weigh_parts::<2>(input, taps, output, out),
    }
}

/// Products of 16-bit halves, which every vector unit has; most have none of 32 bits.
fn weigh_parts<'a, const PARTS: usize>(input: impl Fn(usize) -> &'a [u8], taps: &Taps, output: usize, out: &mut [u8]) {
    let mut sums = [[0i32; LANES]; PARTS];
    sums[PARTS - 1] = [taps.half(); LANES];
    let last = taps.count(output) - 1;
    for (pair, weights) in taps.pairs(output).chunks_exact(PARTS).enumerate() {
        // An odd window's last pair has a weight of zero for its second input.
        let (a, b) = (input(2 * pair), input((2 * pair + 1).min(last)));
        for (sums, &weights) in sums.iter_mut().zip(weights) {
            let (first, second) = (weights as i16, (weights >> 16) as i16);
            for ((sum, &a), &b) in sums.iter_mut().zip(a).zip(b) {
                *sum += i32::from(i16::from(a)) * i32::from(first);
                *sum += i32::from(i16::from(b)) * i32::from(second);
            }
        }
    }
    for (lane, byte) in out.iter_mut().enumerate() {
        let mut sum = sums[PARTS - 1][lane];
        if PARTS == 2 {
            sum += sums[0][lane] << LOW_BITS;
        }
        *byte = (sum >> taps.precision()).clamp(0, 255) as u8;
    }
}

fn to_f32(bytes: &[u8], conversion: &Conversion, out: &mut [f32]) {
    // The formula needs multiply-add in one rounding, which not every target has; the table is the same.
    convert_rest(bytes, 0, conversion, out);
}

fn to_bf16(bytes: &[u8], conversion: &Conversion, out: &mut [u16]) {
    convert_rest(bytes, 0, conversion, out);
}

fn fill(out: &mut [i64], value: i64) {
    out.fill(value);
}

fn fence() {}
