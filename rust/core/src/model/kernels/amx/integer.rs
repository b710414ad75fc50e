//! The product of 15-bit activations and 8-bit weights: both halves of eight rows of activations are one tile, so one
//! instruction gives the sums of the upper and of the lower bits. They are exact, hence the same as those of any other
//! set.
use std::arch::asm;
use std::arch::x86_64::*;

use super::{LINE, ROWS, Shapes, WHOLE};
use crate::model::kernels::{
    GROUP, GROUP_BYTES, IntegerLayout, IntegerProduct, PANEL, SCALE_BYTES, TILE_BYTES, TILE_ROWS, TILE_STEPS,
    definition,
};

/// The two halves of one row.
const ONE_ROW: &Shapes = &Shapes::new(2, TILE_STEPS / 4);
/// Bits of the lower half of an activation.
const LOWER_BITS: u32 = 7;

pub(super) fn scatter(row: &[i16], index: usize, block: &mut [i16]) {
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    fn compiled(row: &[i16], index: usize, block: &mut [i16]) {
        definition::scatter_tiles(row, index, block);
    }
    // SAFETY: the table that this is in is given for a proof of AMX only, which is one of these features too.
    unsafe { compiled(row, index, block) }
}

pub(super) fn product(mut p: IntegerProduct<'_>) {
    p.check(IntegerLayout::Tiles);
    if p.rows == 0 || p.panels == 0 {
        return;
    }
    // SAFETY: `check` has compared every slice with the sizes, and the table that this is in is given for a proof of
    // AMX only.
    unsafe {
        if p.rows == 1 {
            ONE_ROW.load();
        } else {
            WHOLE.load();
        }
        let mut sums = Sums([[0; ROWS * PANEL]; 4]);
        for panel in (0..p.panels).step_by(2) {
            for first in (0..p.rows).step_by(2 * TILE_ROWS) {
                both_blocks(&mut p, first, panel, &mut sums);
            }
        }
        asm!("tilerelease", options(nomem, nostack, preserves_flags));
    }
}

/// Sums of up to two blocks of rows times two panels.
#[repr(align(64))]
struct Sums([[i32; ROWS * PANEL]; 4]);

/// Two blocks of rows from `first` on, or what is left of them, times two panels.
///
/// # Safety
/// As for [`product`].
#[target_feature(enable = "avx512f")]
unsafe fn both_blocks(p: &mut IntegerProduct<'_>, first: usize, panel: usize, sums: &mut Sums) {
    let (groups, panel_bytes) = (p.k.div_ceil(GROUP), p.panel_bytes());
    let block_bytes = 2 * IntegerLayout::Tiles.block_len(p.k);
    let (rows, panels) = ((p.rows - first).min(2 * TILE_ROWS), (p.panels - panel).min(2));
    for group in 0..groups {
        // SAFETY: the offsets stay inside the slices, by the caller's promise, the last tile of a panel in what lies
        // behind it; each sum that is read was just stored.
        unsafe {
            let a = p.a.as_ptr().cast::<u8>().add(first / TILE_ROWS * block_bytes);
            let w = p.w.as_ptr().add(panel * panel_bytes + group * GROUP_BYTES);
            let block = IntegerBlock {
                a: a.add(group * GROUP / TILE_STEPS * TILE_BYTES),
                // A single row has its lower half eight lines behind the upper one.
                a_line: if p.rows == 1 { TILE_ROWS * LINE } else { LINE },
                a_stride: block_bytes,
                w: w.add(SCALE_BYTES),
                w_stride: panel_bytes,
                count: (p.k - group * GROUP).min(GROUP).div_ceil(TILE_STEPS),
                sums: sums.0.as_mut_ptr().cast(),
            };
            match (rows > TILE_ROWS, panels) {
                (false, 1) => block.run_1x1(),
                (false, _) => block.run_1x2(),
                (true, 1) => block.run_2x1(),
                (true, _) => block.run_2x2(),
            }
            let lower = if p.rows == 1 { 1 } else { TILE_ROWS };
            for panel_of in 0..panels {
                let w_scale = _mm512_loadu_ps(w.add(panel_of * panel_bytes).cast());
                for row in 0..rows {
                    let tile = sums.0[row / TILE_ROWS * 2 + panel_of].as_ptr();
                    let line = row % TILE_ROWS;
                    let upper = _mm512_load_si512(tile.add(line * PANEL).cast());
                    let lower = _mm512_load_si512(tile.add((line + lower) * PANEL).cast());
                    let sum = _mm512_add_epi32(_mm512_slli_epi32::<LOWER_BITS>(upper), lower);
                    let a_scale = _mm512_set1_ps(p.a_scale[(first + row) * groups + group]);
                    let out = p.out.as_mut_ptr();
                    let out = out.add(((first + row) * p.panels + panel + panel_of) * PANEL);
                    let previous = if group > 0 { _mm512_loadu_ps(out) } else { _mm512_setzero_ps() };
                    let scale = _mm512_mul_ps(a_scale, w_scale);
                    _mm512_storeu_ps(out, _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), scale, previous));
                }
            }
        }
    }
}

/// One group of two blocks of rows and two panels.
struct IntegerBlock {
    a: *const u8,
    a_line: usize,
    a_stride: usize,
    w: *const u8,
    w_stride: usize,
    /// Tiles along `k`, at least one.
    count: usize,
    sums: *mut i32,
}

/// A method that multiplies the tiles named and stores their sums.
macro_rules! block {
    ($name:ident, zero: [$($zero:literal),*], step: $step:expr, store: [$($store:literal),*]) => {
        /// # Safety
        /// The rows and panels must be there, the memory for the sums too, and the shapes loaded.
        unsafe fn $name(&self) {
            // SAFETY: the caller promises rows, panels, the memory for sums and the shapes. All the work on tiles is in this one block, which names what it
            // overwrites.
            unsafe {
                asm!(
                    $($zero,)*
                    "2:",
                    $step,
                    "add {a0}, 1024",
                    "add {a1}, 1024",
                    "add {w0}, 1024",
                    "add {w1}, 1024",
                    "dec {count}",
                    "jnz 2b",
                    $($store,)*
                    "# {a1} {w1}",
                    count = inout(reg) self.count => _,
                    a0 = inout(reg) self.a => _,
                    a1 = inout(reg) self.a.wrapping_add(self.a_stride) => _,
                    sa = in(reg) self.a_line,
                    w0 = inout(reg) self.w => _,
                    w1 = inout(reg) self.w.wrapping_add(self.w_stride) => _,
                    line = in(reg) LINE,
                    sums = in(reg) self.sums,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                );
            }
        }
    };
}

impl IntegerBlock {
    block!(
        run_1x1,
        zero: ["tilezero tmm0"],
        step: step!("tdpbssd", 1 x 1),
        store: ["tilestored [{sums} + {line}], tmm0"]
    );
    block!(
        run_1x2,
        zero: ["tilezero tmm0", "tilezero tmm1"],
        step: step!("tdpbssd", 1 x 2),
        store: ["tilestored [{sums} + {line}], tmm0", "tilestored [{sums} + {line} + 1024], tmm1"]
    );
    block!(
        run_2x1,
        zero: ["tilezero tmm0", "tilezero tmm2"],
        step: step!("tdpbssd", 2 x 1),
        store: ["tilestored [{sums} + {line}], tmm0", "tilestored [{sums} + {line} + 2048], tmm2"]
    );
    block!(
        run_2x2,
        zero: ["tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3"],
        step: step!("tdpbssd", 2 x 2),
        store: [
            "tilestored [{sums} + {line}], tmm0",
            "tilestored [{sums} + {line} + 1024], tmm1",
            "tilestored [{sums} + {line} + 2048], tmm2",
            "tilestored [{sums} + {line} + 3072], tmm3"
        ]
    );
}
