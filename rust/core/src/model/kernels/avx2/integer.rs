//! The product of 15-bit activations and 8-bit weights: `vpmaddwd` multiplies pairs of 16-bit integers and adds them to
//! 32 bits, twice as many products per instruction as float32 multiply-adds, and the adds go to other ports.
use std::arch::x86_64::*;

use crate::model::kernels::{
    GROUP, GROUP_BYTES, IntegerLayout, IntegerProduct, PANEL, ROW_BLOCK, SCALE_BYTES, quantized_index,
};

/// Most rows for which weights are widened in registers; above that they are widened once for all rows.
const DIRECT_ROWS: usize = 2 * ROW_BLOCK;
/// Bytes from the weights at work to those that are fetched from memory meanwhile.
const AHEAD: usize = 512;
/// Pairs of steps in a whole group.
const PAIRS: usize = GROUP / 2;

pub(super) fn product(p: IntegerProduct<'_>) {
    p.check(IntegerLayout::Pairs);
    if p.rows == 0 {
        return;
    }
    // SAFETY: `check` has compared every slice with the sizes, and the table that this is in is given for a proof of
    // AVX2 and FMA only.
    unsafe { walk(p) }
}

/// Weights of a group as registers see them.
trait Weights: Copy {
    /// The same group of a panel that lies `bytes` further on.
    fn panel(self, bytes: usize) -> Self;

    /// Pair `pair` of steps: columns 0..8 and 8..16, 16 bits each.
    ///
    /// # Safety
    /// The group must hold the pair, and the caller must be compiled for AVX2.
    unsafe fn pair(self, pair: usize) -> [__m256i; 2];
}

/// As they are stored.
#[derive(Clone, Copy)]
struct Narrow(*const u8);

impl Weights for Narrow {
    #[inline(always)]
    fn panel(self, bytes: usize) -> Self {
        Self(self.0.wrapping_add(bytes))
    }

    #[inline(always)]
    unsafe fn pair(self, pair: usize) -> [__m256i; 2] {
        // SAFETY: the caller promises the pair; loads need no alignment.
        unsafe {
            let p = self.0.add(pair * 2 * PANEL).cast::<__m128i>();
            _mm_prefetch::<_MM_HINT_T0>(p.cast::<i8>().wrapping_add(AHEAD));
            [_mm256_cvtepi8_epi16(_mm_loadu_si128(p)), _mm256_cvtepi8_epi16(_mm_loadu_si128(p.add(1)))]
        }
    }
}

/// Widened before.
#[derive(Clone, Copy)]
struct Wide(*const i16);

impl Weights for Wide {
    #[inline(always)]
    fn panel(self, bytes: usize) -> Self {
        Self(self.0.wrapping_byte_add(bytes))
    }

    #[inline(always)]
    unsafe fn pair(self, pair: usize) -> [__m256i; 2] {
        // SAFETY: the caller promises the pair; loads need no alignment.
        unsafe {
            let p = self.0.add(pair * 2 * PANEL).cast::<__m256i>();
            [_mm256_loadu_si256(p), _mm256_loadu_si256(p.add(1))]
        }
    }
}

/// All rows and panels.
///
/// # Safety
/// The lengths must have been checked, and the machine must have AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
unsafe fn walk(p: IntegerProduct<'_>) {
    let (panel_bytes, groups) = (p.panel_bytes(), p.k.div_ceil(GROUP));
    let out = p.out.as_mut_ptr();
    // SAFETY: the offsets stay inside the slices, whose lengths `check` has compared with the sizes.
    let rows = |group: usize, panel: usize| unsafe {
        let w = p.w.as_ptr().add(panel * panel_bytes + group * GROUP_BYTES);
        Rows {
            a: p.a.as_ptr().add(quantized_index(0, group * GROUP, p.k)),
            a_stride: ROW_BLOCK * p.k.next_multiple_of(2),
            a_scale: p.a_scale.as_ptr().add(group),
            groups,
            pairs: (p.k - group * GROUP).div_ceil(2).min(PAIRS),
            w_scale: w.cast(),
            out: out.add(panel * PANEL),
            out_stride: p.panels * PANEL,
            add: group > 0,
        }
    };
    if p.rows <= DIRECT_ROWS {
        // Panels side by side: several streams from memory are quicker than one.
        let mut panel = 0;
        while panel < p.panels {
            let mut wide = 1;
            for group in 0..groups {
                let mut rows = rows(group, panel);
                // SAFETY: the rows, panels and weights that a tile takes are matched here.
                unsafe {
                    let w = Narrow(rows.w_scale.cast::<u8>().add(SCALE_BYTES));
                    wide = match (p.rows, p.panels - panel) {
                        (1, 6..) => rows.tile::<_, 1, 6>(w, panel_bytes),
                        (1, 3..) => rows.tile::<_, 1, 3>(w, panel_bytes),
                        (1, 2) => rows.tile::<_, 1, 2>(w, panel_bytes),
                        (2, 3..) => rows.tile::<_, 2, 3>(w, panel_bytes),
                        (2, 2) => rows.tile::<_, 2, 2>(w, panel_bytes),
                        (3, 2..) => rows.tile::<_, 3, 2>(w, panel_bytes),
                        _ => rows.all(p.rows, w),
                    };
                }
            }
            panel += wide;
        }
        return;
    }
    // Group by group, so that the activations of a group stay in the second-level cache while the panels go by.
    for group in 0..groups {
        for panel in 0..p.panels {
            let mut rows = rows(group, panel);
            // SAFETY: the rows and weights of the group are there, and the scratch holds a group.
            unsafe {
                let narrow = Narrow(rows.w_scale.cast::<u8>().add(SCALE_BYTES));
                let to = p.scratch.as_mut_ptr().cast::<__m256i>();
                for pair in 0..rows.pairs {
                    let [low, high] = narrow.pair(pair);
                    _mm256_storeu_si256(to.add(2 * pair), low);
                    _mm256_storeu_si256(to.add(2 * pair + 1), high);
                }
                rows.all(p.rows, Wide(p.scratch.as_ptr()));
            }
        }
    }
}

/// One group of the rows from some block on, and one panel.
struct Rows {
    a: *const i16,
    /// From one block of rows to the next.
    a_stride: usize,
    a_scale: *const f32,
    groups: usize,
    pairs: usize,
    w_scale: *const f32,
    out: *mut f32,
    out_stride: usize,
    add: bool,
}

impl Rows {
    /// All rows times one panel; gives 1.
    ///
    /// # Safety
    /// There must be `rows` rows, and the group's weights.
    #[target_feature(enable = "avx2,fma")]
    unsafe fn all<W: Weights>(&mut self, mut rows: usize, w: W) -> usize {
        // SAFETY: the caller promises the rows and the group's weights; each step moves on by a block of rows.
        unsafe {
            while rows >= ROW_BLOCK {
                self.tile::<_, ROW_BLOCK, 1>(w, 0);
                self.a = self.a.add(self.a_stride);
                self.a_scale = self.a_scale.add(ROW_BLOCK * self.groups);
                self.out = self.out.add(ROW_BLOCK * self.out_stride);
                rows -= ROW_BLOCK;
            }
            match rows {
                0 => 1,
                1 => self.tile::<_, 1, 1>(w, 0),
                2 => self.tile::<_, 2, 1>(w, 0),
                3 => self.tile::<_, 3, 1>(w, 0),
                4 => self.tile::<_, 4, 1>(w, 0),
                _ => self.tile::<_, 5, 1>(w, 0),
            }
        }
    }

    /// `R` rows times `N` panels, `panel_bytes` apart: exact sums in registers, then scaled and added to the result;
    /// gives `N`.
    ///
    /// # Safety
    /// The block must have `R` rows, and the panels the group's weights.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    #[allow(clippy::needless_range_loop)]
    unsafe fn tile<W: Weights, const R: usize, const N: usize>(&self, w: W, panel_bytes: usize) -> usize {
        // SAFETY: the caller promises the rows and weights; rows of activations are padded to whole pairs.
        unsafe {
            let mut sums = [[[_mm256_setzero_si256(); 2]; N]; R];
            let mut a = self.a.cast::<i32>();
            for pair in 0..self.pairs {
                for n in 0..N {
                    let [low, high] = w.panel(n * panel_bytes).pair(pair);
                    for r in 0..R {
                        let a = _mm256_set1_epi32(a.add(r).read_unaligned());
                        let [to_low, to_high] = &mut sums[r][n];
                        *to_low = _mm256_add_epi32(*to_low, _mm256_madd_epi16(a, low));
                        *to_high = _mm256_add_epi32(*to_high, _mm256_madd_epi16(a, high));
                    }
                }
                a = a.add(ROW_BLOCK);
            }
            for n in 0..N {
                let w_scale = self.w_scale.byte_add(n * panel_bytes);
                for r in 0..R {
                    let a_scale = _mm256_broadcast_ss(&*self.a_scale.add(r * self.groups));
                    for half in 0..2 {
                        let out = self.out.add(r * self.out_stride + n * PANEL + 8 * half);
                        let previous = if self.add { _mm256_loadu_ps(out) } else { _mm256_setzero_ps() };
                        let scale = _mm256_mul_ps(a_scale, _mm256_loadu_ps(w_scale.add(8 * half)));
                        let sum = _mm256_cvtepi32_ps(sums[r][n][half]);
                        _mm256_storeu_ps(out, _mm256_fmadd_ps(sum, scale, previous));
                    }
                }
            }
            N
        }
    }
}
