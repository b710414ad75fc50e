//! The passes of one picture size, and a cache of them.

use std::sync::Arc;

use super::columns::Columns;
use crate::Error;
use crate::machine::recent::recent_of_process;
use crate::pixels::filters::Filter;
use crate::pixels::layout::{Layout, Settings};
use crate::pixels::taps::Taps;
use crate::pixels::windows::{Arithmetic, PassOrder};

/// Picture sizes whose plans are kept; a folder of photos has few.
const KEPT_SIZES: usize = 32;

/// What decides how a picture is computed, apart from its pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Key {
    /// Height and width of the picture.
    pub(crate) size: (usize, usize),
    /// Sizes and grid.
    pub settings: Settings,
    /// Resampling filter of every resize.
    pub filter: Filter,
    /// Whose rounding.
    pub arithmetic: Arithmetic,
}

/// One pass over rows.
pub(crate) enum Pass {
    /// Resize the width.
    Horizontal(Columns),
    /// Resize the height.
    Vertical(Taps),
    /// Only take the channels apart.
    Split,
}

/// All passes of a picture: to the tiles, on from there to what is kept for the global view, and from that to the view.
pub(crate) struct Plan {
    /// Sizes and grid.
    pub(crate) layout: Layout,
    /// From the picture to the rows of tiles.
    pub(crate) tiles: Vec<Pass>,
    /// From a row of tiles to a row that is kept; one horizontal pass or none.
    pub(crate) kept: Option<Columns>,
    /// From the kept rows to the global view.
    pub(crate) global: Vec<Pass>,
}

impl Plan {
    /// Compute the plan.
    pub(crate) fn new(key: &Key) -> Result<Self, Error> {
        let layout = Layout::new(key.size.0, key.size.1, &key.settings)?;
        let tile = key.settings.tile;
        let mut tiles = passes(key.size, layout.stage_a, key)?;
        tiles.extend(passes(layout.stage_a, layout.stage_b, key)?);
        if !matches!(tiles.first(), Some(Pass::Horizontal(_))) {
            tiles.insert(0, Pass::Split);
        }
        let mut global = if layout.rows > 0 { passes(layout.stage_b, (tile, tile), key)? } else { Vec::new() };
        let kept = match global.first() {
            Some(Pass::Horizontal(_)) => match global.remove(0) {
                Pass::Horizontal(columns) => Some(columns),
                _ => None,
            },
            _ => None,
        };
        Ok(Self { layout, tiles, kept, global })
    }

    /// The plan from the cache, computed where it is not there.
    pub(crate) fn cached(key: &Key) -> Result<Arc<Self>, Error> {
        plans().get_or_make(key, || Self::new(key))
    }
}

recent_of_process! {
    /// The plans made last.
    fn plans() -> Recent<Key, Plan>, limit: KEPT_SIZES
}

/// The passes of one resize, in their order.
fn passes(from: (usize, usize), to: (usize, usize), key: &Key) -> Result<Vec<Pass>, Error> {
    let taps = |inputs, outputs| Taps::new(inputs, outputs, key.filter, key.arithmetic);
    let mut passes = Vec::new();
    if from.1 != to.1 {
        passes.push(Pass::Horizontal(Columns::new(&taps(from.1, to.1)?)?));
    }
    if from.0 != to.0 {
        passes.push(Pass::Vertical(taps(from.0, to.0)?));
    }
    if PassOrder::of(from, to, key.arithmetic) == PassOrder::HeightFirst {
        passes.reverse();
    }
    Ok(passes)
}
