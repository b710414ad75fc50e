//! The whole way of a picture: stage A, stage B, tiles, global view, normalised planes.

use crate::Error;
use crate::geometry::{Layout, Settings};
use crate::image::{Image, ImageView};
use crate::resize::{Arithmetic, Filter, resize};
use crate::tile::{Table, convert_tile};

/// How pixels are computed.
#[derive(Clone, Copy, Debug)]
pub struct Pixels<'a> {
    /// Sizes and grid.
    pub settings: Settings,
    /// Resampling filter of every resize.
    pub filter: Filter,
    /// Whose rounding.
    pub arithmetic: Arithmetic,
    /// Rescaling and normalisation.
    pub table: Table<'a>,
}

/// Write the frames of `image` (tiles row by row, then the global view) as (frames, channels, tile, tile) into `out`.
pub fn preprocess(image: ImageView<'_>, pixels: &Pixels<'_>, out: &mut [f32]) -> Result<(), Error> {
    let layout = Layout::new(image.height(), image.width(), &pixels.settings)?;
    let tile = pixels.settings.tile;
    let frame = image.channels() * tile * tile;
    if pixels.table.len() != 256 * image.channels() {
        return Err(Error::TableLength {
            given: pixels.table.len(),
            channels: image.channels(),
        });
    }
    if out.len() != layout.frames() * frame {
        return Err(Error::OutputLength {
            given: out.len(),
            needed: layout.frames() * frame,
        });
    }
    let to = |image: ImageView<'_>, (height, width): (usize, usize)| -> Result<Image, Error> {
        resize(image, height, width, pixels.filter, pixels.arithmetic)
    };
    let stage_a = to(image, layout.stage_a)?;
    let stage_b = to(stage_a.view(), layout.stage_b)?;
    let (tiles, last) = out.split_at_mut(layout.rows * layout.cols * frame);
    for (index, tile_out) in tiles.chunks_exact_mut(frame).enumerate() {
        let (row, col) = (index / layout.cols, index % layout.cols);
        convert_tile(
            stage_b.view(),
            row * tile,
            col * tile,
            tile,
            pixels.table,
            tile_out,
        );
    }
    let global = if tiles.is_empty() {
        stage_b
    } else {
        to(stage_b.view(), (tile, tile))?
    };
    convert_tile(global.view(), 0, 0, tile, pixels.table, last);
    Ok(())
}
