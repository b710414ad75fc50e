//! What the sets share: the checks that their loops rely on, and what is left over at the end of a row.

use crate::pixels::convert::{Conversion, Value};
use crate::pixels::taps::{LANES, Taps};

/// Panics where `transpose` would leave its slices.
pub(super) fn check_transpose(from: &[u8], from_stride: usize, to: &[u8], to_stride: usize) {
    for (length, stride) in [(from.len(), from_stride), (to.len(), to_stride)] {
        let needed = (LANES - 1).checked_mul(stride).and_then(|last| last.checked_add(LANES));
        assert!(needed.is_some_and(|needed| needed <= length), "block too short");
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
    let end = first.checked_add(out.len() / (3 * LANES)).filter(|&end| end <= taps.outputs());
    for output in first..end.expect("outputs within the pass") {
        let needed = (taps.end(output) - 1).checked_mul(stride).and_then(|last| last.checked_add(3 * LANES));
        assert!(needed.is_some_and(|needed| needed <= block.len()), "block too short");
    }
}

/// Converts from `whole` on by the definition. Panics where the lengths differ.
pub(super) fn convert_rest<V: Value>(bytes: &[u8], whole: usize, conversion: &Conversion, out: &mut [V]) {
    assert!(bytes.len() == out.len(), "lengths differ");
    for (value, &byte) in out[whole..].iter_mut().zip(&bytes[whole..]) {
        *value = V::of(byte, conversion);
    }
}
