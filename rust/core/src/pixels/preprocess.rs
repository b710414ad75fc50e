//! The whole way of a picture: stage A, stage B, tiles, global view, normalised planes.

use rayon::prelude::*;

use crate::Error;
use crate::machine::picture_threads;
use crate::pixels::convert::{Conversion, Value};
use crate::pixels::definition::resize;
use crate::pixels::definition::tile::convert_tile;
use crate::pixels::kernels::{Loops, StreamValue};
use crate::pixels::layout::{Layout, Settings};
use crate::pixels::picture::{Image, ImageView, Picture};
use crate::pixels::stream;
use crate::pixels::stream::plan::{Key, Plan};
use crate::pixels::windows::{Arithmetic, Filter};

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
    let needed = layout.frames() * image.channels() * tile * tile;
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
        && pixels.filter != Filter::Nearest
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
