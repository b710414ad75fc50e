//! The arithmetic of the engine behind one table of functions, chosen once for the machine.
//!
//! Weights (and the keys and values of attention) lie in *panels* of [`PANEL`] output columns. Inside a panel the inner
//! dimension `k` ascends, padded to an even number (`Int8`: to a multiple of four):
//!
//! | [`Dtype`] | layout of a panel |
//! |---|---|
//! | `Float32` | `[k][16]` |
//! | `Bfloat16` | `[k / 2][16][2]`, as `vpdpbf16ps` and `tdpbf16ps` take them |
//! | `Int8` | groups of [`GROUP`] steps, each 16 float32 scales, one per column, then `[k / 2][16][2]` (or [tiles][Integers]) |
//!
//! Sums are float32. So are the activations beside `Float32` weights, and beside `Bfloat16` ones unless the set has
//! [`Kernels::bfloat16_product`]: then they are rounded to bfloat16 first, and queries and softmax weights too.
//!
//! Beside `Int8` weights the activations are integers of 15 bits with a scale per row and group
//! ([`Kernels::quantize`]), the sum of a group is an exact integer, and only the sums of the groups are added as
//! float32, in ascending order. 15 bits, because then one group fits 32 bits with room to spare, `vpmaddwd` and
//! `vpdpwssd` take them as they are, and `tdpbssd` as an upper and a lower half of 8 and 7. The vision tower's may
//! become bfloat16 instead ([`Packing::widened`]).
#[cfg(target_arch = "x86_64")]
#[macro_use]
mod row_kernels;
#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub(crate) mod definition;
#[cfg(test)]
mod tests;

use crate::error::{Error, Result};
use crate::machine::cpu::Isa;
#[cfg(target_arch = "x86_64")]
use crate::machine::cpu::{Amx, Avx2, Avx512, Avx512Bf16, Avx512Vnni};

/// Columns of a weight panel.
pub const PANEL: usize = 16;
/// Keys of one softmax block; blocks are merged in ascending order.
pub const BLOCK: usize = 256;
/// Steps of `k` that are summed in one chain. The sums of the runs are added up one after the other: shorter chains
/// round less, and the expanded weights of a run stay in the first-level cache.
pub const RUN: usize = 128;

/// Steps of `k` that share one scale in quantized weights and activations.
pub const GROUP: usize = RUN;
/// Largest quantized activation.
pub const QUANTIZED_MAX: i16 = (1 << 14) - 1;

/// Rows of a block of quantized activations in pairs.
pub const ROW_BLOCK: usize = 6;

/// Where element `step` of row `row` lies among quantized activations in pairs: in blocks of [`ROW_BLOCK`] rows, each
/// `[k / 2][ROW_BLOCK][2]`, so that the kernel walks through all rows of a block with one pointer.
#[inline(always)]
pub fn quantized_index(row: usize, step: usize, k: usize) -> usize {
    let pair = row / ROW_BLOCK * k.div_ceil(2) + step / 2;
    (pair * ROW_BLOCK + row % ROW_BLOCK) * 2 + step % 2
}

/// How the integers of weights and quantized activations lie in memory, as the product of a set walks through them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Integers {
    /// Weights as in the table above, activations as [`quantized_index`] says.
    Pairs,
    /// Weights of a group as `[k / 4][16][4]`. Activations in blocks of [`TILE_ROWS`] rows, each `[k / 64][16][64]`
    /// bytes: eight rows of the upper 8 bits, then of the lower 7.
    Tiles,
}

/// Rows of a block of quantized activations in tiles.
pub const TILE_ROWS: usize = 8;
/// Steps of `k` in a tile of bytes.
pub const TILE_STEPS: usize = 64;
/// Bytes of a tile.
pub const TILE_BYTES: usize = 1024;

impl Integers {
    /// Rows of a block of quantized activations.
    pub fn row_block(self) -> usize {
        match self {
            Self::Pairs => ROW_BLOCK,
            Self::Tiles => TILE_ROWS,
        }
    }

    /// Elements of a block of quantized activations, in units of 16 bits.
    pub fn block_len(self, k: usize) -> usize {
        match self {
            Self::Pairs => ROW_BLOCK * k.next_multiple_of(2),
            Self::Tiles => TILE_ROWS * k.next_multiple_of(TILE_STEPS),
        }
    }

    /// Where the weight of a column and a step of a group lies behind the scales of the group.
    #[inline(always)]
    pub fn weight_index(self, step: usize, column: usize) -> usize {
        let together = match self {
            Self::Pairs => 2,
            Self::Tiles => 4,
        };
        (step / together * PANEL + column) * together + step % together
    }

    /// Bytes that a product may read, and ignores, behind the last panel.
    pub fn slack(self) -> usize {
        match self {
            Self::Pairs => 0,
            Self::Tiles => TILE_BYTES,
        }
    }
}

/// How the weights of a layer lie in memory.
#[derive(Debug, Clone, Copy)]
pub struct Packing {
    /// The numbers.
    pub dtype: Dtype,
    /// Their places, if they are integers.
    pub integers: Integers,
    /// Integers that become bfloat16 before they are multiplied: for layers that always have many rows, where a set
    /// multiplies bfloat16 much faster than integers of 15 bits.
    pub widened: bool,
}

impl From<Dtype> for Packing {
    fn from(dtype: Dtype) -> Self {
        Self { dtype, integers: Integers::Pairs, widened: false }
    }
}

impl Packing {
    /// Weights that these kernels multiply, for a layer that always has many rows if `many`.
    pub fn new(dtype: Dtype, kernels: &Kernels, many: bool) -> Self {
        let widened = many && dtype == Dtype::Int8 && kernels.integers == Integers::Tiles;
        Self { dtype, integers: if widened { Integers::Pairs } else { kernels.integers }, widened }
    }

    /// Whether the activations are rounded to bfloat16 before the weights are multiplied with them.
    pub fn rounds(self, kernels: &Kernels) -> bool {
        self.widened || self.dtype == Dtype::Bfloat16 && kernels.bfloat16_product.is_some()
    }
}

/// How weights or cached keys and values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dtype {
    /// 32-bit floating point.
    Float32,
    /// The upper half of a float32.
    Bfloat16,
    /// Signed 8-bit integers with one scale per output column and group.
    Int8,
}

impl Dtype {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Self::Float32 => 4,
            Self::Bfloat16 => 2,
            Self::Int8 => 1,
        }
    }

    /// Bytes of a panel with inner dimension `k`.
    pub fn panel_bytes(self, k: usize) -> usize {
        let scales = match self {
            Self::Int8 => k.div_ceil(GROUP) * SCALE_BYTES,
            _ => 0,
        };
        let steps = match self {
            Self::Int8 => k.next_multiple_of(4),
            _ => k.next_multiple_of(2),
        };
        scales + steps * PANEL * self.size()
    }
}

/// Bytes of the scales of one group in an `Int8` panel.
pub const SCALE_BYTES: usize = 4 * PANEL;
/// Bytes of a whole group in an `Int8` panel.
pub const GROUP_BYTES: usize = SCALE_BYTES + GROUP * PANEL;

/// One call of the matrix kernel: `out[r][c] = sum over k of a[r][k] * w[k][c]`, for `rows` rows and whole panels. Each
/// [`RUN`] of `k` is one chain of multiply-adds that starts from zero.
pub struct Product<'a> {
    /// Activations, row-major.
    pub a: &'a [f32],
    /// Elements from one row of `a` to the next.
    pub a_stride: usize,
    /// Rows of `a` and of `out`.
    pub rows: usize,
    /// Inner dimension.
    pub k: usize,
    /// First panel.
    pub w: &'a [u8],
    /// Bytes from one panel to the next.
    pub w_stride: usize,
    /// Storage of `w`; `Int8` has a product of its own.
    pub dtype: Dtype,
    /// Number of panels.
    pub panels: usize,
    /// Result, row-major, `panels * PANEL` columns wide.
    pub out: &'a mut [f32],
    /// Elements from one row of `out` to the next.
    pub out_stride: usize,
    /// Adds to what `out` holds.
    pub accumulate: bool,
    /// At least `RUN * PANEL` elements that the kernel may overwrite.
    pub scratch: &'a mut [f32],
}

impl Product<'_> {
    /// Panics if a slice is too short: the unsafe kernels rest on this.
    fn check(&self) {
        if self.rows == 0 || self.panels == 0 {
            return;
        }
        assert_ne!(self.dtype, Dtype::Int8, "`IntegerProduct` is for these");
        assert!(self.a.len() >= (self.rows - 1) * self.a_stride + self.k);
        assert!(self.w.len() >= (self.panels - 1) * self.w_stride + self.dtype.panel_bytes(self.k));
        assert!(self.out.len() >= (self.rows - 1) * self.out_stride + self.panels * PANEL);
        assert!(self.scratch.len() >= RUN * PANEL);
    }
}

/// One call of the matrix kernel for `Int8` weights: `out[r][c]` is the sum over the groups, in ascending order and
/// with one rounding per step, of (sum over k of `a[r][k] * w[k][c]`, exact, then rounded to float32) times
/// (`a_scale[r][group] * w_scale[group][c]`).
pub struct IntegerProduct<'a> {
    /// Quantized activations as [`Integers`] says, padded with zeros along `k`, the last block whole.
    pub a: &'a [i16],
    /// Scales of the activations, row-major, one per group.
    pub a_scale: &'a [f32],
    /// Rows of `a` and of `out`.
    pub rows: usize,
    /// Inner dimension.
    pub k: usize,
    /// First panel.
    pub w: &'a [u8],
    /// Number of panels, one after the other.
    pub panels: usize,
    /// Result, row-major and dense, `panels * PANEL` columns wide; what it held is lost.
    pub out: &'a mut [f32],
    /// At least `GROUP * PANEL` elements that the kernel may overwrite.
    pub scratch: &'a mut [i16],
}

impl IntegerProduct<'_> {
    /// Panics if a slice is too short: the unsafe kernels rest on this.
    fn check(&self, integers: Integers) {
        if self.rows == 0 || self.panels == 0 {
            return;
        }
        assert!(self.k > 0);
        let blocks = self.rows.div_ceil(integers.row_block());
        assert!(
            self.a.len() >= blocks * integers.block_len(self.k)
                && self.a_scale.len() >= self.rows * self.k.div_ceil(GROUP)
        );
        let panels = self.panels * Dtype::Int8.panel_bytes(self.k);
        assert!(self.w.len() >= panels + integers.slack());
        assert!(self.out.len() >= self.rows * self.panels * PANEL);
        assert!(self.scratch.len() >= GROUP * PANEL);
    }
}

/// What sums begin with.
#[derive(Clone, Copy)]
pub enum Start<'a> {
    /// Nothing.
    Zero,
    /// For each row this one, as wide as the result.
    Row(&'a [f32]),
    /// What the result holds.
    Out,
}

/// One call of the matrix kernel for bfloat16 activations and weights: as [`Product`], but the products, which are
/// exact, are added up in float32 in whatever order suits the instruction set, the same for every row. Numbers too
/// small for a normal float32 may count as zero.
pub struct Bfloat16Product<'a> {
    /// Activations, row-major. An odd `k` is padded, here or in the weights with a zero, in the other with what is
    /// finite.
    pub a: &'a [u16],
    /// Elements from one row of `a` to the next.
    pub a_stride: usize,
    /// Rows of `a` and of `out`.
    pub rows: usize,
    /// Inner dimension.
    pub k: usize,
    /// First panel.
    pub w: &'a [u8],
    /// Bytes from one panel to the next.
    pub w_stride: usize,
    /// Number of panels.
    pub panels: usize,
    /// Result, row-major, `panels * PANEL` columns wide.
    pub out: &'a mut [f32],
    /// Elements from one row of `out` to the next.
    pub out_stride: usize,
    /// What the products are added to.
    pub start: Start<'a>,
}

impl Bfloat16Product<'_> {
    /// Panics if a slice is too short: the unsafe kernels rest on this.
    fn check(&self) {
        if self.rows == 0 || self.panels == 0 {
            return;
        }
        let panel = Dtype::Bfloat16.panel_bytes(self.k);
        assert!(self.a.len() >= (self.rows - 1) * self.a_stride + self.k.next_multiple_of(2));
        assert!(self.w.len() >= (self.panels - 1) * self.w_stride + panel);
        assert!(self.out.len() >= (self.rows - 1) * self.out_stride + self.panels * PANEL);
        if let Start::Row(row) = self.start {
            assert!(row.len() >= self.panels * PANEL);
        }
    }
}

/// The kernels of one instruction set. All but the products work on one row; lengths must agree.
#[allow(clippy::type_complexity)]
#[derive(Clone, Copy)]
pub struct Kernels {
    /// Name as the environment variable takes it.
    pub name: &'static str,
    /// Matrix product with packed weights.
    pub product: fn(Product<'_>),
    /// Matrix product with packed `Int8` weights and quantized activations.
    pub integer_product: fn(IntegerProduct<'_>),
    /// Where it expects the integers.
    pub integers: Integers,
    /// Puts a quantized row, padded with a zero to an even length, into its place (its number in the block) in a block.
    pub place: fn(row: &[i16], index: usize, block: &mut [i16]),
    /// Matrix product with packed `Bfloat16` weights and rounded activations, where the instruction set has one. These
    /// weights are then multiplied by nothing else.
    pub bfloat16_product: Option<fn(Bfloat16Product<'_>)>,
    /// Makes a `Bfloat16` panel of an `Int8` one in pairs: each weight times the scale of its column and group, and
    /// that of its input, then rounded.
    pub widen: fn(panel: &[u8], input_scales: &[f32], out: &mut [u8]),
    /// Rounds to bfloat16, to nearest even; numbers too small for a normal float32 become zero, NaN stays NaN.
    pub round: fn(x: &[f32], out: &mut [u16]),
    /// Scales each [`GROUP`] of a row to integers in ±[`QUANTIZED_MAX`], to nearest even; `out` is padded to an even
    /// length with a zero. A group of zeros has scale 0, one with NaN or infinity has scale NaN.
    pub quantize: fn(x: &[f32], out: &mut [i16], scale: &mut [f32]),
    /// `x = gelu_tanh(x)`.
    pub gelu: fn(x: &mut [f32]),
    /// `out = silu(gate) * up`.
    pub silu_mul: fn(gate: &[f32], up: &[f32], out: &mut [f32]),
    /// `x = x + y`.
    pub add: fn(x: &mut [f32], y: &[f32]),
    /// `out = x / sqrt(mean(x^2) + eps) * weight`.
    pub rms_norm: fn(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]),
    /// `out = (x - mean) / sqrt(var + eps) * weight + bias`.
    pub layer_norm: fn(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]),
    /// Half-split rotary embedding of one head: `cos` and `sin` are half as long as `x`; the result times `scale`.
    pub rotary: fn(x: &[f32], cos: &[f32], sin: &[f32], scale: f32, out: &mut [f32]),
    /// Turns base-2 scores into weights `2^(s - max)`; gives the maximum and the sum of the weights.
    pub softmax: fn(scores: &mut [f32]) -> (f32, f32),
    /// Merges a block's maximum, sum and output into the running ones.
    pub merge: fn(state: &mut (f32, f32), out: &mut [f32], block: (f32, f32), block_out: &[f32]),
    /// Index and value of the first largest element; NaN is never chosen.
    pub argmax: fn(x: &[f32]) -> (usize, f32),
    /// Keeps the multiply-add units busy for so many rounds: the number of floating-point operations done.
    pub burn: fn(rounds: usize) -> u64,
    /// The same for multiply-adds of bfloat16, where [`Kernels::bfloat16_product`] is.
    pub burn_bfloat16: Option<fn(rounds: usize) -> u64>,
}

/// The kernels of an instruction set, if this machine has it.
pub fn for_isa(isa: Isa) -> Option<&'static Kernels> {
    #[cfg(target_arch = "x86_64")]
    return match isa {
        Isa::Amx => Amx::detect().map(amx::kernels),
        Isa::Avx512Bf16 => Avx512Bf16::detect().map(avx512::bfloat16_kernels),
        Isa::Avx512Vnni => Avx512Vnni::detect().map(avx512::vnni_kernels),
        Isa::Avx512 => Avx512::detect().map(avx512::kernels),
        Isa::Avx2 => Avx2::detect().map(avx2::kernels),
        Isa::Portable => Some(&definition::KERNELS),
    };
    #[cfg(not(target_arch = "x86_64"))]
    (isa == Isa::Portable).then_some(&definition::KERNELS)
}

/// The kernels of every instruction set that this machine has, the preferred first.
pub fn available() -> Vec<&'static Kernels> {
    Isa::ALL.into_iter().filter_map(for_isa).collect()
}

/// The kernels of the instruction set asked for, or the preferred ones.
pub fn select(isa: Option<Isa>) -> Result<&'static Kernels> {
    let preferred = || Isa::ALL.into_iter().find_map(for_isa).unwrap_or(&definition::KERNELS);
    let Some(isa) = isa else { return Ok(preferred()) };
    for_isa(isa).ok_or_else(|| Error::config(format!("this machine has no instruction set {}", isa.name())))
}
