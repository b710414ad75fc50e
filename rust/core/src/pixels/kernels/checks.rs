//! What the sets for x86-64 share: the checks that their loops rely on, and what is left over at the end of a row.

use std::arch::x86_64::_mm_sfence;

use super::LANES;
use crate::pixels::stream::convert::{Conversion, Value};
use crate::pixels::stream::taps::Taps;

/// Panics where `transpose` would leave its slices.
pub(super) fn check_transpose(from: &[u8], from_stride: usize, to: &[u8], to_stride: usize) {
    for (length, stride) in [(from.len(), from_stride), (to.len(), to_stride)] {
        assert!(length >= (LANES - 1) * stride + LANES, "block too short");
    }
}

/// Panics where `weigh_rows` would leave its slices.
pub(super) fn check_rows(rows: &[&[u8]], taps: &Taps, output: usize, out: &[u8]) {
    let count = taps.count(output);
    assert!(rows.len() >= count && rows[..count].iter().all(|row| row.len() >= out.len()), "rows too short");
    assert!(out.len().is_multiple_of(LANES), "not whole strips");
}

/// Panics where `weigh_pixels` would leave its slices.
pub(super) fn check_pixels(block: &[u8], stride: usize, taps: &Taps, first: usize, out: &[u8]) {
    assert!(out.len().is_multiple_of(3 * LANES), "not whole pixels");
    for output in first..first + out.len() / (3 * LANES) {
        let last = taps.end(output) - 1;
        assert!(last * stride + 3 * LANES <= block.len(), "block too short");
    }
}

/// Converts from `whole` on by the definition.
pub(super) fn convert_rest<V: Value>(bytes: &[u8], whole: usize, conversion: &Conversion, out: &mut [V]) {
    for (value, &byte) in out[whole..].iter_mut().zip(&bytes[whole..]) {
        *value = V::of(byte, conversion);
    }
}

pub(super) fn fence() {
    // SAFETY: every x86-64 CPU has SSE.
    unsafe { _mm_sfence() };
}
