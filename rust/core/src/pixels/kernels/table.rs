//! How a table of kernels is made of an instruction set's loops: each checks what the loop relies on, and the plain code
//! does what is left over at the end of a row.

use super::PictureKernels;
use super::checks::{check_pixels, check_rows, check_transpose, convert_rest};
use crate::pixels::convert::{Conversion, Formula, Value};
use crate::pixels::taps::Taps;

/// Values that a conversion takes at once.
const VALUES: usize = 16;

/// The loops of an instruction set. All may be called only on machines that have it.
pub(super) trait Set {
    /// The name of the table.
    const NAME: &str;
    /// Bytes of a register, and the alignment that stores past the caches need; for bfloat16 it is that of 16 values.
    const REGISTER: usize;

    /// [`PictureKernels::transpose`].
    ///
    /// # Safety
    /// [`check_transpose`] must have passed.
    unsafe fn transpose(from: *const u8, from_stride: usize, to: *mut u8, to_stride: usize);

    /// [`PictureKernels::weigh_rows`].
    ///
    /// # Safety
    /// [`check_rows`] must have passed.
    unsafe fn weigh_rows(rows: &[&[u8]], taps: &Taps, output: usize, out: &mut [u8]);

    /// [`PictureKernels::weigh_pixels`].
    ///
    /// # Safety
    /// [`check_pixels`] must have passed.
    unsafe fn weigh_pixels(block: &[u8], stride: usize, taps: &Taps, first: usize, out: &mut [u8]);

    /// The formula for as many values as bytes, in whole groups of 16; past the caches if `STREAM`.
    ///
    /// # Safety
    /// The lengths must be equal and, if `STREAM`, the output aligned for a register.
    unsafe fn to_f32<const STREAM: bool>(bytes: &[u8], formula: &Formula, out: &mut [f32]);

    /// The same, rounded to bfloat16 and past the caches.
    ///
    /// # Safety
    /// The lengths must be equal and the output aligned for 16 values.
    unsafe fn to_bf16(bytes: &[u8], formula: &Formula, out: &mut [u16]);

    /// One value everywhere in whole registers, past the caches.
    ///
    /// # Safety
    /// The output must be aligned for a register, and whole registers long.
    unsafe fn fill(out: &mut [i64], value: i64);

    /// [`PictureKernels::fence`].
    fn fence();
}

/// The table of a set. It must be given for a proof of the instruction set only.
pub(super) const fn table<S: Set>() -> PictureKernels {
    PictureKernels {
        name: S::NAME,
        transpose: transpose::<S>,
        weigh_rows: weigh_rows::<S>,
        weigh_pixels: weigh_pixels::<S>,
        to_f32: to_f32::<S>,
        to_bf16: to_bf16::<S>,
        fill: fill::<S>,
        fence: S::fence,
    }
}

fn transpose<S: Set>(from: &[u8], from_stride: usize, to: &mut [u8], to_stride: usize) {
    check_transpose(from, from_stride, to, to_stride);
    // SAFETY: checked; the table that this is in is given for a proof of the instruction set only.
    unsafe { S::transpose(from.as_ptr(), from_stride, to.as_mut_ptr(), to_stride) }
}

fn weigh_rows<S: Set>(rows: &[&[u8]], taps: &Taps, output: usize, out: &mut [u8]) {
    check_rows(rows, taps, output, out);
    // SAFETY: checked; the table that this is in is given for a proof of the instruction set only.
    unsafe { S::weigh_rows(rows, taps, output, out) }
}

fn weigh_pixels<S: Set>(block: &[u8], stride: usize, taps: &Taps, first: usize, out: &mut [u8]) {
    check_pixels(block, stride, taps, first, out);
    // SAFETY: checked; the table that this is in is given for a proof of the instruction set only.
    unsafe { S::weigh_pixels(block, stride, taps, first, out) }
}

fn to_f32<S: Set>(bytes: &[u8], conversion: &Conversion, out: &mut [f32]) {
    assert!(bytes.len() == out.len(), "lengths differ");
    let Some(formula) = &conversion.formula else {
        return convert_rest(bytes, 0, conversion, out);
    };
    let whole = out.len() / VALUES * VALUES;
    let (some, to) = (&bytes[..whole], &mut out[..whole]);
    // SAFETY: the slices are as long as each other and in whole groups, and the alignment was looked at; the table that
    // this is in is given for a proof of the instruction set only.
    unsafe {
        if is_aligned(to, S::REGISTER) {
            S::to_f32::<true>(some, formula, to);
        } else {
            S::to_f32::<false>(some, formula, to);
        }
    }
    convert_rest(bytes, whole, conversion, out);
}

fn to_bf16<S: Set>(bytes: &[u8], conversion: &Conversion, out: &mut [u16]) {
    assert!(bytes.len() == out.len(), "lengths differ");
    let whole = match &conversion.formula {
        Some(formula) if is_aligned(out, VALUES * size_of::<u16>()) => {
            let whole = out.len() / VALUES * VALUES;
            // SAFETY: the slices are as long as each other, in whole groups and aligned; the table that this is in is given
            // for a proof of the instruction set only.
            unsafe { S::to_bf16(&bytes[..whole], formula, &mut out[..whole]) };
            whole
        }
        _ => 0,
    };
    convert_rest(bytes, whole, conversion, out);
}

fn fill<S: Set>(out: &mut [i64], value: i64) {
    let lanes = S::REGISTER / size_of::<i64>();
    let head = out.as_ptr().align_offset(S::REGISTER).min(out.len());
    let (head, rest) = out.split_at_mut(head);
    let (body, tail) = rest.split_at_mut(rest.len() / lanes * lanes);
    head.fill(value);
    tail.fill(value);
    // SAFETY: `body` begins at an aligned address, or is empty, and is whole registers long; the table that this is in is
    // given for a proof of the instruction set only.
    unsafe { S::fill(body, value) }
}

fn is_aligned<V: Value>(values: &[V], bytes: usize) -> bool {
    values.as_ptr().addr().is_multiple_of(bytes)
}
