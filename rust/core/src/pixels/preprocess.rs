//! The whole way of a picture: stage A, stage B, tiles, global view, normalised planes.

use rayon::prelude::*;

use crate::Error;
use crate::machine::picture_threads;
use crate::pixels::convert::{Conversion, Value};
use crate::pixels::definition::resize;
use crate::pixels::definition::tile::convert_tile;
use crate::pixels::filters::Filter;
use crate::pixels::kernels::{Loops, StreamValue};
use crate::pixels::layout::{Layout, Settings};
use crate::pixels::picture::{Image, ImageView, Picture};
use crate::pixels::stream;
use crate::pixels::stream::plan::{Key, Plan};
use crate::pixels::windows::Arithmetic;

/// How pixels are computed.
#[derive(Clone, Copy)]
pub struct Pixels<'a> {
    /// Sizes and grid.
    pub settings: Settings,
    /// Resampling filter of every resize.
    pub filter: Filter,
    /// Whose rounding.
    pub arithmetic: Arithmetic,
    /// Rescaling and normalisation, for each channel.
    pub conversions: &'a [Conversion],
    /// The definition, or the inner loops of a stream; all give the same bits.
    pub loops: Loops,
}

/// Write the frames of each picture into its part of the output, spread over the threads of the pool.
pub fn preprocess_batch<V: StreamValue>(jobs: Vec<(Picture<'_>, &mut [V])>, pixels: &Pixels<'_>) -> Result<(), Error> {
    let threads = picture_threads::count();
    if threads == 1 || jobs.len() < threads {
        return jobs.into_iter().try_for_each(|(image, out)| preprocess(image, pixels, out, threads));
    }
    picture_threads::install(|| jobs.into_par_iter().try_for_each(|(image, out)| preprocess(image, pixels, out, 1)))
}

/// Write the frames of `image` (tiles row by row, then the global view) as (frames, channels, tile, tile) into `out`.
pub fn preprocess<V: StreamValue>(
    image: Picture<'_>,
    pixels: &Pixels<'_>,
    out: &mut [V],
    threads: usize,
) -> Result<(), Error> {
    let layout = Layout::new(image.height(), image.width(), &pixels.settings)?;
    let tile = pixels.settings.tile;
    let needed = layout.frames().saturating_mul(image.channels()).saturating_mul(tile * tile);
    if out.len() != needed {
        return Err(Error::output_length(out.len(), needed));
    }
    if pixels.conversions.len() != image.channels() {
        let (given, channels) = (256 * pixels.conversions.len(), image.channels());
        return Err(Error::value(format!(
            "the conversion table has {given} entries, {channels} channels need 256 each"
        )));
    }
    if let (Loops::Stream(kernels), Some(conversions)) = (pixels.loops, pixels.conversions.first_chunk::<3>())
        && pixels.filter != Filter::NEAREST
        && image.channels() == 3
    {
        let size = (image.height(), image.width());
        let key = Key { size, settings: pixels.settings, filter: pixels.filter, arithmetic: pixels.arithmetic };
        let plan = Plan::cached(&key)?;
        return stream::preprocess(image, &plan, tile, conversions, out, kernels, threads);
    }
    scalar(image.to_image()?.view(), &layout, pixels, out)
}

/// The definition: one whole picture after the other, in plain loops.
fn scalar<V: Value>(image: ImageView<'_>, layout: &Layout, pixels: &Pixels<'_>, out: &mut [V]) -> Result<(), Error> {
    let tile = pixels.settings.tile;
    let to = |image: ImageView<'_>, (height, width): (usize, usize)| -> Result<Image, Error> {
        resize(image, height, width, pixels.filter, pixels.arithmetic)
    };
    let stage_a = to(image, layout.stage_a)?;
    let stage_b = to(stage_a.view(), layout.stage_b)?;
    let frame = image.channels() * tile * tile;
    let (tiles, last) = out.split_at_mut(layout.rows * layout.cols * frame);
    for (index, tile_out) in tiles.chunks_exact_mut(frame).enumerate() {
        let corner = (index / layout.cols * tile, index % layout.cols * tile);
        convert_tile(stage_b.view(), corner, tile, pixels.conversions, tile_out);
    }
    let global = if tiles.is_empty() { stage_b } else { to(stage_b.view(), (tile, tile))? };
    convert_tile(global.view(), (0, 0), tile, pixels.conversions, last);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use crate::pixels::layout::Target;
    use crate::pixels::picture::{StridedView, Strides};

    fn pixels(conversions: &[Conversion], loops: Loops) -> Pixels<'_> {
        let settings = Settings { target: Target::Keep, tile: 2, split: true, upscale: true, max_tiles: None };
        let filter = Filter::from_code(4).expect("box");
        Pixels { settings, filter, arithmetic: Arithmetic::Pillow, conversions, loops }
    }

    /// Row y, column x, channel c is 40 y + 6 x + 2 c.
    fn picture() -> Vec<u8> {
        (0..4 * 6 * 3).map(|i| (i / 18 * 40 + i / 3 % 6 * 6 + i % 3 * 2) as u8).collect()
    }

    #[test]
    fn frames_are_the_tiles_row_by_row_then_the_global_view() {
        let data = picture();
        let image = ImageView::new(&data, 4, 6, 3).expect("four rows");
        let conversions = vec![Conversion::new([0.0; 256], None); 3];
        for loops in Loops::available() {
            let mut out = vec![0_u8; 7 * 12];
            preprocess(Picture::View(image.into()), &pixels(&conversions, loops), &mut out, 1).expect("fits");
            for (index, tile) in out.chunks_exact(12).take(6).enumerate() {
                let (top, left) = (index / 3 * 2, index % 3 * 2);
                for (i, &value) in tile.iter().enumerate() {
                    let (channel, y, x) = (i / 4, top + i / 2 % 2, left + i % 2);
                    assert_eq!(usize::from(value), 40 * y + 6 * x + 2 * channel, "{}", loops.name());
                }
            }
            // Means of 2 × 3 pixels.
            assert_eq!(out[72..], [26, 44, 106, 124, 28, 46, 108, 126, 30, 48, 110, 128], "{}", loops.name());
        }
    }

    #[test]
    fn batches_equal_single_pictures_on_any_number_of_threads() {
        let data = picture();
        let image = || Picture::View(ImageView::new(&data, 4, 6, 3).expect("four rows").into());
        let conversions = vec![Conversion::new(std::array::from_fn(|byte| byte as f32 / 3.0), None); 3];
        let pixels = pixels(&conversions, Loops::best());
        let mut single = vec![0_f32; 7 * 12];
        preprocess(image(), &pixels, &mut single, 1).expect("fits");
        for threads in [2, 5] {
            let mut out = vec![0_f32; 7 * 12];
            preprocess(image(), &pixels, &mut out, threads).expect("fits");
            assert_eq!(out, single);
        }
        let mut many = vec![0_f32; 9 * 7 * 12];
        let jobs = many.chunks_exact_mut(7 * 12).map(|out| (image(), out)).collect();
        preprocess_batch(jobs, &pixels).expect("fits");
        assert!(many.chunks_exact(7 * 12).all(|frames| frames == single));
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let data = picture();
        let image = Picture::View(ImageView::new(&data, 4, 6, 3).expect("four rows").into());
        let conversions = vec![Conversion::new([0.0; 256], None); 3];
        let refused = |pixels: &Pixels<'_>, length: usize| {
            preprocess(image, pixels, &mut vec![0_u8; length], 1).expect_err("does not fit").to_string()
        };
        let all = pixels(&conversions, Loops::best());
        assert_eq!(refused(&all, 7 * 12 - 1), "the output holds 83 values, the frames need 84");
        assert!(
            refused(&pixels(&conversions[..2], Loops::best()), 84).contains("512 entries, 3 channels need 256 each")
        );
        let settings = Settings { target: Target::Exact { height: 1 << 40, width: 1 << 40 }, ..all.settings };
        assert!(refused(&Pixels { settings, ..all }, 84).contains("the longest is"));
        let settings = Settings { tile: 1 << 40, ..all.settings };
        assert!(refused(&Pixels { settings, ..all }, 84).contains("the longest is"));
    }

    /// A view may repeat one row without end: its windows need memory that no machine has.
    #[test]
    fn rows_without_end_are_an_error() {
        let data = [7; 6];
        let conversions = vec![Conversion::new([0.0; 256], None); 3];
        for loops in Loops::available() {
            let all = pixels(&conversions, loops);
            let settings = Settings { target: Target::LongestEdge(2), split: false, ..all.settings };
            for height in [1 << 54, usize::MAX] {
                let strides = Strides { row: 0, pixel: 3, channel: 1 };
                let view = StridedView::new(&data, (height, 2, 3), strides).expect("one row, over and over");
                let refused = preprocess(Picture::View(view), &Pixels { settings, ..all }, &mut [0_u8; 12], 1);
                assert_eq!(refused.map_err(|error| error.kind()), Err(ErrorKind::Memory), "{}", loops.name());
            }
        }
    }
}
