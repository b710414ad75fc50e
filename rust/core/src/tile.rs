//! Put pixels into frames: from interleaved uint8 to planes of the output type, through a table per channel.

use crate::image::ImageView;

/// A value for each byte, one block of 256 for each channel: rescaling and normalisation in one step.
pub type Table<'a> = &'a [f32];

/// Write the `tile` × `tile` pixels of `image` from (`top`, `left`) on as planes, each value through the table.
pub fn convert_tile(
    image: ImageView<'_>,
    top: usize,
    left: usize,
    tile: usize,
    table: Table<'_>,
    out: &mut [f32],
) {
    let channels = image.channels();
    for (channel, (plane, table)) in out
        .chunks_exact_mut(tile * tile)
        .zip(table.chunks_exact(256))
        .enumerate()
    {
        for (y, row) in plane.chunks_exact_mut(tile).enumerate() {
            let pixels = image.row(top + y)[left * channels + channel..]
                .iter()
                .step_by(channels);
            for (value, &byte) in row.iter_mut().zip(pixels) {
                *value = table[usize::from(byte)];
            }
        }
    }
}
