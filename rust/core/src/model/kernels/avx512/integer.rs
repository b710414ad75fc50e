//! The product of 15-bit activations and 8-bit weights. The sums of a group are exact, so they may be made in several
//! chains: `vpdpwssd` adds to the sum that it is given and takes some cycles for it.
use std::arch::asm;
use std::arch::x86_64::*;

use crate::model::kernels::{
    GROUP, GROUP_BYTES, IntegerLayout, IntegerProduct, PANEL, ROW_BLOCK, SCALE_BYTES, quantized_index,
};

/// Up to this many rows the weights are what costs.
const FEW_ROWS: usize = 3;
/// Pairs of steps in a whole group.
const PAIRS: usize = GROUP / 2;

pub(super) fn product(p: IntegerProduct<'_>) {
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn compiled(p: IntegerProduct<'_>) {
        // SAFETY: the lengths are checked below, and this function is compiled for the instructions.
        unsafe { by_groups::<Plain>(p) }
    }
    p.check(IntegerLayout::Pairs);
    // SAFETY: `check` has compared every slice with the sizes, and the table that this is in is given for a proof of
    // AVX-512 only.
    unsafe { compiled(p) }
}

pub(super) fn product_vnni(p: IntegerProduct<'_>) {
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    unsafe fn compiled(p: IntegerProduct<'_>) {
        // SAFETY: the lengths are checked below, and this function is compiled for the instructions.
        unsafe { by_groups::<Vnni>(p) }
    }
    p.check(IntegerLayout::Pairs);
    // SAFETY: `check` has compared every slice with the sizes, and the table that this is in is given for a proof of VNNI
    // only.
    unsafe { compiled(p) }
}

/// Products of pairs of 16-bit integers, added to 32-bit sums.
trait Dot {
    /// # Safety
    /// The caller must be compiled for the instructions.
    unsafe fn dot(sum: __m512i, a: __m512i, w: __m512i) -> __m512i;
}

struct Plain;
struct Vnni;

impl Dot for Plain {
    #[inline(always)]
    unsafe fn dot(sum: __m512i, a: __m512i, w: __m512i) -> __m512i {
        // SAFETY: the caller is compiled for AVX-512 BW.
        unsafe { _mm512_add_epi32(sum, _mm512_madd_epi16(a, w)) }
    }
}

impl Dot for Vnni {
    #[inline(always)]
    unsafe fn dot(sum: __m512i, a: __m512i, w: __m512i) -> __m512i {
        // SAFETY: the caller is compiled for VNNI.
        unsafe { vpdpwssd(sum, a, w) }
    }
}

/// `_mm512_dpwssd_epi32`, which the compiler takes apart into three instructions where it sees a load to fold.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
fn vpdpwssd(mut sum: __m512i, a: __m512i, w: __m512i) -> __m512i {
    // SAFETY: the instruction reads and writes these registers and nothing else, and the machine has it.
    unsafe {
        asm!(
            "vpdpwssd {sum}, {a}, {w}",
            sum = inout(zmm_reg) sum,
            a = in(zmm_reg) a,
            w = in(zmm_reg) w,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sum
}

/// # Safety
/// The lengths must have been checked, and the caller must be compiled for AVX-512 F, BW and what `D` needs.
#[inline(always)]
unsafe fn by_groups<D: Dot>(mut p: IntegerProduct<'_>) {
    let (groups, panels) = (p.k.div_ceil(GROUP), p.panels);
    for i in 0..groups * panels {
        // Few rows go panel by panel, so that the weights stream from memory in the order in which they lie there; many
        // go group by group, so that the activations of a group stay in the second-level cache while the panels go by.
        let (group, panel) = match p.rows {
            0..=FEW_ROWS => (i % groups, i / groups),
            _ => (i / panels, i % panels),
        };
        // SAFETY: the lengths were checked, and the group and the panel are among those that there are.
        unsafe { all_rows::<D>(&mut p, group, panel) };
    }
}

/// All rows times one group of one panel.
///
/// # Safety
/// As for `by_groups`.
#[inline(always)]
unsafe fn all_rows<D: Dot>(p: &mut IntegerProduct<'_>, group: usize, panel: usize) {
    let (panel_bytes, groups) = (p.panel_bytes(), p.k.div_ceil(GROUP));
    let mut row = 0;
    while row < p.rows {
        // SAFETY: the offsets stay inside the slices, by the caller's promise; a tile has the rows of one block, or of
        // two.
        row += unsafe {
            let tile = IntegerTile {
                a: p.a.as_ptr().add(quantized_index(row, group * GROUP, p.k)),
                a_stride: ROW_BLOCK * p.k.next_multiple_of(2),
                a_scale: p.a_scale.as_ptr().add(row * groups + group),
                groups,
                pairs: (p.k - group * GROUP).div_ceil(2).min(PAIRS),
                w: p.w.as_ptr().add(panel * panel_bytes + group * GROUP_BYTES),
                out: p.out.as_mut_ptr().add((row * p.panels + panel) * PANEL),
                out_stride: p.panels * PANEL,
                add: group > 0,
            };
            match p.rows - row {
                1 => tile.run::<D, 1, 8>(),
                2 | 3 => tile.run::<D, 2, 4>(),
                4 | 5 => tile.run::<D, 4, 2>(),
                6..=11 => tile.run::<D, ROW_BLOCK, 2>(),
                _ => tile.run::<D, { 2 * ROW_BLOCK }, 1>(),
            }
        };
    }
}

/// One group of the rows from some row on, and one panel.
struct IntegerTile {
    a: *const i16,
    /// From one block of rows to the next.
    a_stride: usize,
    a_scale: *const f32,
    groups: usize,
    pairs: usize,
    w: *const u8,
    out: *mut f32,
    out_stride: usize,
    add: bool,
}

impl IntegerTile {
    /// `R` rows times the panel: exact sums in registers, `C` chains for each row, then scaled and added to the result;
    /// gives `R`.
    ///
    /// # Safety
    /// There must be `R` rows, padded to whole pairs, and the group's weights; the caller must be compiled for AVX-512 F,
    /// BW and what `D` needs.
    #[inline(always)]
    #[allow(clippy::needless_range_loop)]
    unsafe fn run<D: Dot, const R: usize, const C: usize>(&self) -> usize {
        // SAFETY: the caller promises the rows and the group's weights, which these offsets stay in.
        unsafe {
            let mut sums = [[_mm512_setzero_si512(); C]; R];
            let whole = self.pairs / C * C;
            for pair in (0..whole).step_by(C) {
                for chain in 0..C {
                    self.step::<D, R, C>(&mut sums, pair + chain, chain);
                }
            }
            for pair in whole..self.pairs {
                self.step::<D, R, C>(&mut sums, pair, 0);
            }
            let w_scale = _mm512_loadu_ps(self.w.cast());
            for r in 0..R {
                let out = self.out.add(r * self.out_stride);
                let previous = if self.add { _mm512_loadu_ps(out) } else { _mm512_setzero_ps() };
                let mut sum = sums[r][0];
                for c in 1..C {
                    sum = _mm512_add_epi32(sum, sums[r][c]);
                }
                let scale = _mm512_mul_ps(_mm512_set1_ps(*self.a_scale.add(r * self.groups)), w_scale);
                _mm512_storeu_ps(out, _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), scale, previous));
            }
        }
        R
    }

    /// One pair of steps, added to one chain of each row.
    ///
    /// # Safety
    /// As for `run`.
    #[inline(always)]
    unsafe fn step<D: Dot, const R: usize, const C: usize>(
        &self,
        sums: &mut [[__m512i; C]; R],
        pair: usize,
        chain: usize,
    ) {
        // SAFETY: the caller of `run` promises the rows and weights, and the pair is among them.
        unsafe {
            let w = self.w.add(SCALE_BYTES + pair * 2 * PANEL).cast();
            let w = _mm512_cvtepi8_epi16(_mm256_loadu_si256(w));
            for (r, sums) in sums.iter_mut().enumerate() {
                let block = self.a.add(r / ROW_BLOCK * self.a_stride).cast::<i32>();
                let a = block.add(pair * ROW_BLOCK + r % ROW_BLOCK);
                let a = _mm512_set1_epi32(a.read_unaligned());
                sums[chain] = D::dot(sums[chain], a, w);
            }
        }
    }
}
