//! AMX: a tile of registers holds 16 rows of 64 bytes, and one instruction multiplies two of them. The weights of a
//! panel lie in memory as the instruction takes them: 32 steps of `k` are one tile.
//!
//! Everything that AMX has no instruction for is done as the AVX-512 sets do it.
use std::arch::asm;

use super::avx512;
use super::{Bfloat16Product, IntegerLayout, Kernels, PANEL, Start};
use crate::machine::cpu::{Amx, Isa};

/// Fetches the tile of weights four kilobytes ahead, line by line: the prefetcher of the processor begins anew in every
/// page.
macro_rules! ahead {
    ($w:literal) => {
        ahead!($w, "4096", "4160", "4224", "4288", "4352", "4416", "4480", "4544", "4608", "4672", "4736", "4800", "4864",
            "4928", "4992", "5056")
    };
    ($w:literal, $($at:literal),*) => {
        concat!($("prefetcht0 [{", $w, "} + ", $at, "]\n"),*)
    };
}

/// One step along `k` of a block of one or two tiles of activations and of weights: each tile is loaded once and multiplied
/// by `dot` with those that need it. With few rows the weights come from memory, so they are fetched ahead.
macro_rules! step {
    ($dot:literal, 1 x 1) => {
        concat!(
            "tileloadd tmm4, [{a0} + {sa}]\n",
            "tileloadd tmm6, [{w0} + {line}]\n",
            $dot,
            " tmm0, tmm4, tmm6"
        )
    };
    ($dot:literal, 1 x 2) => {
        concat!(
            ahead!("w0"),
            ahead!("w1"),
            step!($dot, 1 x 1),
            "\ntileloadd tmm7, [{w1} + {line}]\n",
            $dot,
            " tmm1, tmm4, tmm7"
        )
    };
    ($dot:literal, 2 x 1) => {
        concat!(
            step!($dot, 1 x 1),
            "\ntileloadd tmm5, [{a1} + {sa}]\n",
            $dot,
            " tmm2, tmm5, tmm6"
        )
    };
    ($dot:literal, 2 x 2) => {
        concat!(
            step!($dot, 1 x 1),
            "\ntileloadd tmm7, [{w1} + {line}]\n",
            $dot,
            " tmm1, tmm4, tmm7\n",
            "tileloadd tmm5, [{a1} + {sa}]\n",
            $dot,
            " tmm2, tmm5, tmm6\n",
            $dot,
            " tmm3, tmm5, tmm7"
        )
    };
}

mod integer;

/// The kernels for machines with AMX; nothing else gives this table, or what is in it, to the outside.
pub(super) fn kernels(_: Amx) -> &'static Kernels {
    const KERNELS: &Kernels = &Kernels {
        integer_product: integer::product,
        integer_layout: IntegerLayout::Tiles,
        scatter: integer::scatter,
        bfloat16_peak: Some(peak),
        ..avx512::with_bfloat16(Isa::Amx.name(), product)
    };
    KERNELS
}

/// Rows of a tile.
const ROWS: usize = 16;
/// Rows of a block: two tiles, so that each tile that is loaded is multiplied twice.
const BLOCK_ROWS: usize = 2 * ROWS;
/// Steps of `k` in a tile.
const STEPS: usize = 32;
/// Tiles along `k` after which the sums go to memory: those of the activations stay in the first-level cache while the
/// panels go by.
const RUN_TILES: usize = 8;
/// Bytes of a row of a tile, and of a pair of steps of a panel.
const LINE: usize = 64;

/// What `ldtilecfg` reads. Tiles 0 to 3 are sums (first 16 rows of two panels, then the next 16 rows), 4 and 5 the
/// activations of the two groups of rows, 6 and 7 the weights of the two panels.
#[repr(C, align(64))]
struct Shapes {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// Whole tiles.
const WHOLE: &Shapes = &Shapes::new(BLOCK_ROWS, STEPS / 2);

impl Shapes {
    /// Tiles for `rows` rows, at most [`BLOCK_ROWS`], and `pairs` pairs of steps, at most 16. None may be empty.
    const fn new(rows: usize, pairs: usize) -> Self {
        let first = if rows < ROWS { rows } else { ROWS };
        let second = if rows > ROWS { rows - ROWS } else { 1 };
        let (first, second, steps) = (first as u8, second as u8, pairs as u8);
        let (line, bytes) = (LINE as u16, 4 * pairs as u16);
        Self {
            palette: 1,
            start_row: 0,
            reserved: [0; 14],
            row_bytes: [line, line, line, line, bytes, bytes, line, line, 0, 0, 0, 0, 0, 0, 0, 0],
            rows: [first, first, second, second, first, second, steps, steps, 0, 0, 0, 0, 0, 0, 0, 0],
        }
    }

    /// # Safety
    /// The machine must have AMX.
    unsafe fn load(&self) {
        // SAFETY: the caller promises AMX; the instruction reads the 64 bytes of `self`, which name shapes that exist.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) self, out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _, options(nostack, preserves_flags, readonly));
        }
    }
}

/// Four chains of sums, which do not wait for each other.
fn peak(rounds: usize) -> u64 {
    // SAFETY: the table that this is in is given for a proof of AMX only.
    unsafe {
        WHOLE.load();
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "tilezero tmm4",
            "tilezero tmm6",
            "2:",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm6",
            "tdpbf16ps tmm2, tmm4, tmm6",
            "tdpbf16ps tmm3, tmm4, tmm6",
            "dec {rounds}",
            "jnz 2b",
            "tilerelease",
            rounds = inout(reg) rounds.max(1) => _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _, out("tmm4") _, out("tmm6") _,
            options(nomem, nostack),
        );
    }
    (rounds.max(1) * 4 * ROWS * PANEL * STEPS * 2) as u64
}

fn product(mut p: Bfloat16Product<'_>) {
    p.check();
    if p.rows == 0 || p.panels == 0 {
        return;
    }
    // SAFETY: `check` has compared every slice with the sizes, and the table that this is in is given for a proof of AMX only.
    unsafe {
        let (whole, rest) = (p.k / STEPS, p.k % STEPS);
        if whole > 0 || rest == 0 {
            all_rows(&mut p, 0, whole, STEPS / 2);
        }
        if rest > 0 {
            if whole > 0 {
                p.start = Start::Out;
            }
            all_rows(&mut p, whole * STEPS, 1, rest.div_ceil(2));
        }
        asm!("tilerelease", options(nomem, nostack, preserves_flags));
    }
}

/// All rows and panels, `count` times `pairs` pairs of steps from `from` on.
///
/// # Safety
/// As for [`product`].
unsafe fn all_rows(p: &mut Bfloat16Product<'_>, from: usize, count: usize, pairs: usize) {
    let last = p.rows % BLOCK_ROWS;
    let blocks = [(0, p.rows - last, BLOCK_ROWS), (p.rows - last, p.rows, last)];
    for (start, end, rows) in blocks {
        if start == end {
            continue;
        }
        // SAFETY: the offsets stay inside the slices, whose lengths have been compared with the sizes; the shapes are
        // for these rows and pairs.
        unsafe {
            if (rows, pairs) == (BLOCK_ROWS, STEPS / 2) {
                // A constant in memory, so that no store to it is still on its way when the instruction reads it.
                WHOLE.load();
            } else {
                Shapes::new(rows, pairs).load();
            }
            for row in (start..end).step_by(BLOCK_ROWS) {
                for first in (0..count.max(1)).step_by(RUN_TILES) {
                    let from = from + first * STEPS;
                    for panel in (0..p.panels).step_by(2) {
                        let out = p.out.as_mut_ptr().add(row * p.out_stride + panel * PANEL);
                        let block = FloatBlock {
                            a: p.a.as_ptr().add(row * p.a_stride + from),
                            a_stride: p.a_stride,
                            w: p.w.as_ptr().add(panel * p.w_stride + from * PANEL * 2),
                            w_stride: p.w_stride,
                            out,
                            out_stride: p.out_stride,
                            count: (count - first).min(RUN_TILES),
                            start: match p.start {
                                Start::Zero if first == 0 => None,
                                // The same line for each row of a tile.
                                Start::Row(row) if first == 0 => Some((row.as_ptr().add(panel * PANEL), 0)),
                                _ => Some((out.cast_const(), p.out_stride)),
                            },
                        };
                        match (rows > ROWS, p.panels - panel) {
                            (false, 1) => block.run_1x1(),
                            (false, _) => block.run_1x2(),
                            (true, 1) => block.run_2x1(),
                            (true, _) => block.run_2x2(),
                        }
                    }
                }
            }
        }
    }
}

/// Where a block of up to 32 rows and 2 panels lies.
struct FloatBlock {
    a: *const u16,
    a_stride: usize,
    w: *const u8,
    w_stride: usize,
    out: *mut f32,
    out_stride: usize,
    /// Tiles along `k`.
    count: usize,
    /// The first row that the sums begin with, and the elements to the next.
    start: Option<(*const f32, usize)>,
}

/// A method that multiplies the block with the tiles named: sums are zeroed or loaded, then one loop along `k`.
macro_rules! block {
    ($name:ident, zero: [$($zero:literal),*], load: [$($load:literal),*], step: $step:expr, store: [$($store:literal),*]) => {
        /// # Safety
        /// The rows, panels and results must be there, and the shapes loaded.
        unsafe fn $name(&self) {
            // SAFETY: the caller promises rows, panels, results and shapes. The tiles keep their sums from one block to the next: the compiler uses
            // none.
            unsafe {
                match self.start {
                    None => asm!(
                        $($zero,)*
                        out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                        options(nomem, nostack, preserves_flags),
                    ),
                    Some((start, stride)) => asm!(
                        $($load,)*
                        "# {l1}",
                        l0 = in(reg) start,
                        l1 = in(reg) start.wrapping_add(ROWS * stride),
                        sl = in(reg) 4 * stride,
                        out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                        options(readonly, nostack, preserves_flags),
                    ),
                }
                asm!(
                    "test {count}, {count}",
                    "jz 5f",
                    "2:",
                    $step,
                    "add {a0}, 64",
                    "add {a1}, 64",
                    "add {w0}, 1024",
                    "add {w1}, 1024",
                    "dec {count}",
                    "jnz 2b",
                    "5:",
                    $($store,)*
                    "# {a1} {w1} {c1}",
                    count = inout(reg) self.count => _,
                    a0 = inout(reg) self.a => _,
                    a1 = inout(reg) self.a.wrapping_add(ROWS * self.a_stride) => _,
                    sa = in(reg) 2 * self.a_stride,
                    w0 = inout(reg) self.w => _,
                    w1 = inout(reg) self.w.wrapping_add(self.w_stride) => _,
                    line = in(reg) LINE,
                    c0 = in(reg) self.out,
                    c1 = in(reg) self.out.wrapping_add(ROWS * self.out_stride),
                    sc = in(reg) 4 * self.out_stride,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                );
            }
        }
    };
}

impl FloatBlock {
    block!(
        run_1x1,
        zero: ["tilezero tmm0"],
        load: ["tileloadd tmm0, [{l0} + {sl}]"],
        step: step!("tdpbf16ps", 1 x 1),
        store: ["tilestored [{c0} + {sc}], tmm0"]
    );
    block!(
        run_1x2,
        zero: ["tilezero tmm0", "tilezero tmm1"],
        load: ["tileloadd tmm0, [{l0} + {sl}]", "tileloadd tmm1, [{l0} + {sl} + 64]"],
        step: step!("tdpbf16ps", 1 x 2),
        store: ["tilestored [{c0} + {sc}], tmm0", "tilestored [{c0} + {sc} + 64], tmm1"]
    );
    block!(
        run_2x1,
        zero: ["tilezero tmm0", "tilezero tmm2"],
        load: ["tileloadd tmm0, [{l0} + {sl}]", "tileloadd tmm2, [{l1} + {sl}]"],
        step: step!("tdpbf16ps", 2 x 1),
        store: ["tilestored [{c0} + {sc}], tmm0", "tilestored [{c1} + {sc}], tmm2"]
    );
    block!(
        run_2x2,
        zero: ["tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3"],
        load: [
            "tileloadd tmm0, [{l0} + {sl}]",
            "tileloadd tmm1, [{l0} + {sl} + 64]",
            "tileloadd tmm2, [{l1} + {sl}]",
            "tileloadd tmm3, [{l1} + {sl} + 64]"
        ],
        step: step!("tdpbf16ps", 2 x 2),
        store: [
            "tilestored [{c0} + {sc}], tmm0",
            "tilestored [{c0} + {sc} + 64], tmm1",
            "tilestored [{c1} + {sc}], tmm2",
            "tilestored [{c1} + {sc} + 64], tmm3"
        ]
    );
}
