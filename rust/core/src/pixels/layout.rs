//! How large a picture becomes and how it is cut: stage A, stage B, rows and columns. No pixels are touched here.

use crate::Error;

/// Pictures are never made larger than this in stage A.
const MAX_EDGE: usize = 4096;

/// The most pixels of a picture: 64 bytes for each of them still have addresses.
const MAX_PIXELS: usize = isize::MAX as usize / 64;

/// The longest side that settings may ask for: sizes are multiplied with each other, and no memory holds more.
const MAX_SIDE: usize = 1 << 24;

/// What stage A resizes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// The longest edge becomes this, the other follows the aspect ratio, rounded up to even.
    LongestEdge(usize),
    /// Exactly this, whatever the aspect ratio.
    #[allow(missing_docs)]
    Exact { height: usize, width: usize },
    /// Stage A is skipped.
    Keep,
}

/// How pictures become frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Settings {
    /// Stage A.
    pub target: Target,
    /// The side of a frame.
    pub tile: usize,
    /// Cut into tiles and a global view, rather than one frame a picture.
    pub split: bool,
    /// Whether stage A may enlarge a picture to the longest edge.
    pub upscale: bool,
    /// The most tiles (the global view not counted) that a longest edge may lead to; it is shortened to fit.
    pub max_tiles: Option<usize>,
}

/// The sizes of one picture on its way, as (height, width), and the grid that it is cut into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Layout {
    /// After stage A.
    pub stage_a: (usize, usize),
    /// After stage B: multiples of the tile.
    pub stage_b: (usize, usize),
    /// Rows of tiles; 0 where the picture is one frame.
    pub rows: usize,
    /// Columns of tiles; 0 where the picture is one frame.
    pub cols: usize,
}

impl Layout {
    /// The layout of a picture of `height` × `width`.
    pub fn new(height: usize, width: usize, settings: &Settings) -> Result<Self, Error> {
        if height == 0 || width == 0 {
            return Err(Error::empty_picture(height, width));
        }
        // A view may repeat one row as often as it likes, so that memory does not bound its sides.
        if height.checked_mul(width).is_none_or(|pixels| pixels > MAX_PIXELS) {
            return Err(Error::too_large(height, width, 1));
        }
        if settings.tile == 0 {
            return Err(Error::zero_setting("the tile size"));
        }
        let exact = match settings.target {
            Target::Exact { height, width } => height.max(width),
            Target::LongestEdge(_) | Target::Keep => 0,
        };
        let side = settings.tile.max(exact);
        if side > MAX_SIDE {
            return Err(Error::value(format!("a side of {side} pixels was asked for, the longest is {MAX_SIDE}")));
        }
        let Target::LongestEdge(edge) = settings.target else {
            return Self::towards(height, width, settings.target, settings);
        };
        let small = !settings.upscale && height.max(width) <= edge;
        let target = if small { Target::Keep } else { settings.target };
        let mut layout = Self::towards(height, width, target, settings)?;
        let mut longest = layout.rows.max(layout.cols);
        while longest > 1 && settings.max_tiles.is_some_and(|budget| layout.rows * layout.cols > budget) {
            longest -= 1;
            layout = Self::towards(height, width, Target::LongestEdge(longest * settings.tile), settings)?;
        }
        Ok(layout)
    }

    fn towards(height: usize, width: usize, target: Target, settings: &Settings) -> Result<Self, Error> {
        let stage_a = stage_a(height, width, target)?;
        let tile = settings.tile;
        let stage_b = if settings.split { stage_b(stage_a.0, stage_a.1, tile) } else { (tile, tile) };
        let (rows, cols) =
            if stage_b.0 > tile || stage_b.1 > tile { (stage_b.0 / tile, stage_b.1 / tile) } else { (0, 0) };
        Ok(Self { stage_a, stage_b, rows, cols })
    }

    /// Frames that the picture yields: its tiles and the global view, or one.
    pub fn frames(&self) -> usize {
        self.rows * self.cols + 1
    }
}

fn stage_a(height: usize, width: usize, target: Target) -> Result<(usize, usize), Error> {
    match target {
        Target::Keep => Ok((height, width)),
        Target::Exact { height, width } if height > 0 && width > 0 => Ok((height, width)),
        Target::Exact { height, width } => Err(Error::empty_target(height, width)),
        Target::LongestEdge(0) => Err(Error::zero_setting("the longest edge")),
        Target::LongestEdge(edge) => Ok(longest_edge(height, width, edge)),
    }
}

/// Scale so that the longest edge becomes `edge` and the other is even, then cap at `MAX_EDGE` (no longer even).
fn longest_edge(height: usize, width: usize, edge: usize) -> (usize, usize) {
    let even = |side: usize| side.saturating_add(side % 2);
    let (height, width) = match follow(height, width, edge) {
        (h, w) if width >= height => (even(h), w),
        (h, w) => (h, even(w)),
    };
    let (height, width) = (height.max(1), width.max(1));
    if height.max(width) <= MAX_EDGE {
        return (height, width);
    }
    let (height, width) = follow(height, width, MAX_EDGE);
    (height.max(1), width.max(1))
}

/// Raise both sides to multiples of the tile; the aspect ratio bends.
fn stage_b(height: usize, width: usize, tile: usize) -> (usize, usize) {
    let longest = height.max(width).next_multiple_of(tile);
    let (height, width) = follow(height, width, longest);
    (height.next_multiple_of(tile), width.next_multiple_of(tile))
}

/// The longest edge becomes `edge`, the other follows in float64 and is truncated (it can reach 0).
fn follow(height: usize, width: usize, edge: usize) -> (usize, usize) {
    let aspect_ratio = width as f64 / height as f64;
    if width >= height {
        ((edge as f64 / aspect_ratio) as usize, edge)
    } else {
        (edge, (edge as f64 * aspect_ratio) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(height: usize, width: usize, edge: usize, tile: usize) -> Layout {
        let settings =
            Settings { target: Target::LongestEdge(edge), tile, split: true, upscale: true, max_tiles: None };
        Layout::new(height, width, &settings).expect("valid sizes")
    }

    #[test]
    fn known_sizes() {
        let full_hd = layout(1080, 1920, 2048, 512);
        assert_eq!((full_hd.stage_a, full_hd.stage_b), ((1152, 2048), (1536, 2048)));
        assert_eq!((full_hd.rows, full_hd.cols, full_hd.frames()), (3, 4, 13));
        assert_eq!(layout(1, 1, 2048, 512).frames(), 17);
        assert_eq!(layout(10_000, 1, 2048, 512).stage_b, (2048, 512));
        assert_eq!(layout(300, 400, 5000, 512).stage_a, (3072, 4096));
    }

    #[test]
    fn budgets_and_small_pictures() {
        let settings = |max_tiles, upscale| Settings {
            target: Target::LongestEdge(2048),
            tile: 512,
            split: true,
            upscale,
            max_tiles,
        };
        let grid = |height, width, settings: Settings| {
            Layout::new(height, width, &settings).map(|layout| (layout.rows, layout.cols))
        };
        assert_eq!(grid(1080, 1920, settings(Some(12), true)), Ok((3, 4)));
        assert_eq!(grid(1080, 1920, settings(Some(11), true)), Ok((2, 3)));
        assert_eq!(grid(1080, 1920, settings(Some(5), true)), Ok((2, 2)));
        assert_eq!(grid(1080, 1920, settings(Some(3), true)), Ok((0, 0)));
        assert_eq!(grid(100, 100, settings(None, false)), Ok((0, 0)));
        assert_eq!(grid(600, 700, settings(None, false)), Ok((2, 2)));
        assert_eq!(grid(600, 700, settings(Some(1), false)), Ok((0, 0)));
    }

    #[test]
    fn sides_that_no_memory_holds_are_errors_and_huge_edges_are_not() {
        let settings = Settings { target: Target::Keep, tile: 512, split: true, upscale: true, max_tiles: None };
        for (height, width) in [(usize::MAX, 1), (1, usize::MAX), (1 << 40, 1 << 40), (usize::MAX, usize::MAX)] {
            let refused = Layout::new(height, width, &settings).err();
            assert_eq!(refused, Some(Error::too_large(height, width, 1)), "{height}×{width}");
        }
        let edge = |edge, height, width| layout(height, width, edge, 512).stage_a;
        assert_eq!(edge(usize::MAX, 100, 100), (4096, 4096));
        assert_eq!(edge(usize::MAX, 100, 70), (4096, 2867));
        assert_eq!(edge(1 << 40, 100, 70), edge(usize::MAX, 100, 70));
    }

    #[test]
    fn zero_is_an_error() {
        let settings =
            Settings { target: Target::LongestEdge(2048), tile: 512, split: true, upscale: true, max_tiles: None };
        assert_eq!(Layout::new(0, 5, &settings).err(), Some(Error::empty_picture(0, 5)));
        assert!(Layout::new(5, 5, &Settings { tile: 0, ..settings }).is_err());
        assert!(Layout::new(5, 5, &Settings { target: Target::LongestEdge(0), ..settings }).is_err());
    }
}
