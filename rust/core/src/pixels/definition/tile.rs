//! Put pixels into frames: from interleaved uint8 to planes of the output type.

use crate::pixels::convert::{Conversion, Value};
use crate::pixels::picture::ImageView;

/// Write the `tile` × `tile` pixels of `image` from (`top`, `left`) on as planes.
pub fn convert_tile<V: Value>(
    image: ImageView<'_>,
    (top, left): (usize, usize),
    tile: usize,
    conversions: &[Conversion],
    out: &mut [V],
) {
    let channels = image.channels();
    for (channel, (plane, conversion)) in out.chunks_exact_mut(tile * tile).zip(conversions).enumerate() {
        for (y, row) in plane.chunks_exact_mut(tile).enumerate() {
            let pixels = image.row(top + y)[left * channels + channel..].iter().step_by(channels);
            for (value, &byte) in row.iter_mut().zip(pixels) {
                *value = V::of(byte, conversion);
            }
        }
    }
}
