//! How weights and activations lie in memory for the matrix kernels.

/// Columns of a weight panel.
pub(crate) const PANEL: usize = 16;
/// Keys of one softmax block; blocks are merged in ascending order.
pub(crate) const BLOCK: usize = 256;
/// Steps of `k` that are summed in one chain. The sums of the runs are added up one after the other: shorter chains
/// round less, and the expanded weights of a run stay in the first-level cache.
pub(crate) const RUN: usize = 128;

/// Steps of `k` that share one scale in quantized weights and activations.
pub(crate) const GROUP: usize = RUN;
/// Largest quantized activation.
pub(crate) const QUANTIZED_MAX: i16 = (1 << 14) - 1;
/// Bytes of the scales of one group in a panel of integers.
pub(crate) const SCALE_BYTES: usize = 4 * PANEL;
/// Bytes of a whole group in a panel of integers.
pub(crate) const GROUP_BYTES: usize = SCALE_BYTES + GROUP * PANEL;

/// Rows of a block of quantized activations in pairs.
pub(crate) const ROW_BLOCK: usize = 6;
/// Rows of a block of quantized activations in tiles.
pub(crate) const TILE_ROWS: usize = 8;
/// Steps of `k` in a tile of bytes.
pub(crate) const TILE_STEPS: usize = 64;
/// Bytes of a tile.
pub(crate) const TILE_BYTES: usize = 1024;

/// How floating-point numbers are stored, in weights and in cached keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FloatFormat {
    /// 32-bit floating point.
    Float32,
    /// The upper half of a float32.
    Bfloat16,
}

impl FloatFormat {
    /// All formats.
    pub const ALL: [Self; 2] = [Self::Float32, Self::Bfloat16];

    /// Its name as users give it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Float32 => "float32",
            Self::Bfloat16 => "bfloat16",
        }
    }

    /// The format of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }

    /// Bytes of one element.
    pub(crate) const fn size(self) -> usize {
        match self {
            Self::Float32 => 4,
            Self::Bfloat16 => 2,
        }
    }

    /// Bytes of a panel with inner dimension `k`; `None` if the number overflows.
    pub(crate) fn panel_bytes(self, k: usize) -> Option<usize> {
        k.checked_next_multiple_of(2)?.checked_mul(PANEL * self.size())
    }
}

/// Bytes of a panel of 8-bit integers with inner dimension `k`; `None` if the number overflows.
pub(crate) fn int8_panel_bytes(k: usize) -> Option<usize> {
    let steps = k.checked_next_multiple_of(4)?.checked_mul(PANEL)?;
    steps.checked_add(k.div_ceil(GROUP) * SCALE_BYTES)
}

/// How the integers of weights and quantized activations lie in memory, as the product of a set walks through them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IntegerLayout {
    /// Weights of a group as `[k / 2][16][2]`, activations as [`quantized_index`] says.
    Pairs,
    /// Weights of a group as `[k / 4][16][4]`. Activations in blocks of [`TILE_ROWS`] rows, each `[k / 64][16][64]`
    /// bytes: eight rows of the upper 8 bits, then of the lower 7.
    Tiles,
}

impl IntegerLayout {
    /// Rows of a block of quantized activations.
    pub(crate) fn row_block(self) -> usize {
        match self {
            Self::Pairs => ROW_BLOCK,
            Self::Tiles => TILE_ROWS,
        }
    }

    /// Elements of a block of quantized activations, in units of 16 bits.
    pub(crate) fn block_len(self, k: usize) -> usize {
        match self {
            Self::Pairs => ROW_BLOCK * k.next_multiple_of(2),
            Self::Tiles => TILE_ROWS * k.next_multiple_of(TILE_STEPS),
        }
    }

    /// Elements of the blocks for `rows` rows, in either layout.
    pub(crate) fn largest_len(rows: usize, k: usize) -> usize {
        let padded = rows.saturating_add(ROW_BLOCK.max(TILE_ROWS));
        padded.saturating_mul(k.next_multiple_of(TILE_STEPS))
    }

    /// Where the weight of a column and a step of a group lies behind the scales of the group.
    #[inline(always)]
    pub(crate) fn weight_index(self, step: usize, column: usize) -> usize {
        let together = match self {
            Self::Pairs => 2,
            Self::Tiles => 4,
        };
        (step / together * PANEL + column) * together + step % together
    }

    /// Bytes that a product may read, and ignores, behind the last panel.
    pub(crate) fn tail_bytes(self) -> usize {
        match self {
            Self::Pairs => 0,
            Self::Tiles => TILE_BYTES,
        }
    }
}

/// Where element `step` of row `row` lies among quantized activations in pairs: in blocks of [`ROW_BLOCK`] rows, each
/// `[k / 2][ROW_BLOCK][2]`, so that the kernel walks through all rows of a block with one pointer.
#[inline(always)]
pub(crate) fn quantized_index(row: usize, step: usize, k: usize) -> usize {
    let pair = row / ROW_BLOCK * k.div_ceil(2) + step / 2;
    (pair * ROW_BLOCK + row % ROW_BLOCK) * 2 + step % 2
}
