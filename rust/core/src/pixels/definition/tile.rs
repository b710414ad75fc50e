//! Put pixels into frames: from interleaved uint8 to planes of the output type.

use crate::pixels::convert::{Conversion, Value};
use crate::pixels::picture::ImageView;

/// Write the `tile` × `tile` pixels of `image` from (`top`, `left`) on as planes.
pub(crate) fn convert_tile<V: Value>(
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_become_planes() {
        // Row y, column x, channel c is 100 y + 10 x + c.
        let data: Vec<u8> = (0..2 * 4 * 3).map(|i| (i / 12 * 100 + i / 3 % 4 * 10 + i % 3) as u8).collect();
        let image = ImageView::new(&data, 2, 4, 3).expect("two rows");
        let negated = Conversion::new(std::array::from_fn(|byte| -(byte as f32)), None);
        let conversions = [negated.clone(), negated.clone(), negated];
        let mut bytes = [0_u8; 12];
        convert_tile(image, (0, 1), 2, &conversions, &mut bytes);
        assert_eq!(bytes, [10, 20, 110, 120, 11, 21, 111, 121, 12, 22, 112, 122]);
        let mut floats = [0_f32; 12];
        convert_tile(image, (0, 2), 2, &conversions, &mut floats);
        assert_eq!(floats[..4], [-20.0, -30.0, -120.0, -130.0]);
        let mut halves = [0_u16; 12];
        convert_tile(image, (0, 2), 2, &conversions, &mut halves);
        assert_eq!(halves[0], 0xc1a0, "-20 as bfloat16");
    }
}
