//! The parts of the stream alone: taps, pieces of columns, rows, the ring, and the chain against the definition.

use super::*;
use crate::pixels::definition::resize;
use crate::pixels::filters::Filter;
use crate::pixels::kernels::Loops;
use crate::pixels::layout::{Settings, Target};
use crate::pixels::picture::ImageView;
use crate::pixels::stream::plan::Key;
use crate::pixels::stream::rows::{Reader, Ring, Rows};
use crate::pixels::taps::{LOW_BITS, Taps};
use crate::pixels::windows::{Arithmetic, WindowPass as Windows};

const SIZES: [(usize, usize); 5] = [(1, 3), (5, 64), (33, 7), (300, 11), (640, 97)];

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 37 % 251) as u8).collect()
}

fn every_pass(mut check: impl FnMut(usize, usize, Filter, Arithmetic)) {
    for (inputs, outputs) in SIZES {
        for filter in Filter::weighing() {
            check(inputs, outputs, filter, Arithmetic::Pillow);
            if filter.check_torch().is_ok() {
                check(inputs, outputs, filter, Arithmetic::Torch);
            }
        }
    }
}

#[test]
fn taps_hold_the_weights_of_the_windows_in_both_packings() {
    every_pass(|inputs, outputs, filter, arithmetic| {
        let windows = Windows::new(inputs, outputs, filter, arithmetic).expect("defined");
        let taps = Taps::new(inputs, outputs, filter, arithmetic).expect("defined");
        assert_eq!((taps.outputs(), taps.precision()), (outputs, windows.precision));
        let widest = windows.windows.iter().map(|(_, weights)| weights.len()).max();
        assert_eq!(Some(taps.widest()), widest);
        for (output, (first, weights)) in windows.windows.iter().enumerate() {
            assert_eq!((taps.first(output), taps.count(output)), (first, weights.len()));
            let half = |packed: i32, tap: usize| i32::from((packed >> (16 * (tap % 2))) as i16);
            let of_pairs = (0..taps.count(output)).map(|tap| {
                let parts = &taps.pairs(output)[tap / 2 * taps.parts()..][..taps.parts()];
                parts.iter().fold(0, |weight, &part| (weight << LOW_BITS) + half(part, tap))
            });
            assert!(of_pairs.eq(weights.iter().copied()), "{filter:?} {arithmetic:?}");
            let of_quads = (0..taps.count(output)).map(|tap| {
                let digits = &taps.quads(output)[tap / 4 * taps.digits()..][..taps.digits()];
                digits.iter().fold(0, |weight, digit| (weight << 8) + i32::from(digit.to_le_bytes()[tap % 4] as i8))
            });
            assert!(of_quads.eq(weights.iter().copied()), "{filter:?} {arithmetic:?}");
        }
    });
}

#[test]
fn pieces_of_columns_are_the_pass_and_start_at_whole_strips() {
    every_pass(|inputs, outputs, filter, arithmetic| {
        let taps = Taps::new(inputs, outputs, filter, arithmetic).expect("defined");
        let columns = Columns::new(&taps).expect("memory");
        let mut output = 0;
        for piece in &columns.pieces {
            assert!(output % LANES == 0 && piece.first + piece.inputs <= inputs);
            for part in 0..piece.taps.outputs() {
                assert_eq!(piece.first + piece.taps.first(part), taps.first(output));
                assert!(piece.taps.end(part) <= piece.inputs);
                assert_eq!(piece.taps.pairs(part), taps.pairs(output));
                assert_eq!(piece.taps.quads(part), taps.quads(output));
                output += 1;
            }
        }
        assert_eq!((output, columns.outputs), (outputs, outputs));
    });
}

#[test]
fn blocks_at_the_end_of_the_data_are_filled_up_with_zeros() {
    for loops in Loops::available() {
        let data = bytes(31 * 40 + 20);
        for count in [1, 31, 32] {
            let rows = Rows { data: &data, stride: 40, pixel: 1, plane: 0, count };
            let mut block = [9; LANES * LANES];
            rows.transpose(loops.kernels(), 3, &mut block, LANES);
            for (i, &byte) in block.iter().enumerate() {
                let (x, y) = (i / LANES, i % LANES);
                let there = y < count && 3 + y * 40 + x < data.len();
                assert_eq!(byte, if there { data[3 + y * 40 + x] } else { 0 }, "{} {x} {y}", loops.name());
            }
        }
    }
}

#[test]
fn a_ring_keeps_its_last_rows() {
    let mut ring = Ring::new(5, 64, 7).expect("memory");
    for y in 7..7 + 150 {
        ring.row_mut(y).fill(y as u8);
        let oldest = y.saturating_sub(63).max(7);
        assert!((oldest..=y).all(|row| ring.row(row).iter().all(|&byte| byte == row as u8)), "{y}");
    }
    let block = ring.block(7 + 96, 20);
    assert_eq!((block.count, block.plane, block.pixel), (20, 32, 1));
    assert_eq!((block.data[0], block.data[19 * block.stride]), (103, 122));
    assert!(Ring::new(usize::MAX / 64, 64, 0).is_err());
}

#[test]
fn a_reader_gives_the_rows_asked_for() {
    let data = bytes(20 * 7 * 3);
    let view = ImageView::new(&data, 20, 7, 3).expect("twenty rows");
    let mut reader = Reader::new(Picture::View(view.into()));
    let rows = reader.rows(4, 3).expect("there");
    assert_eq!((rows.stride, rows.pixel, rows.plane, rows.count), (21, 3, 1, 3));
    assert_eq!(rows.data[..63], data[4 * 21..7 * 21]);
}

/// A chain over a band gives the rows of the definition, wherever the band begins.
#[test]
fn chains_give_the_rows_of_the_definition() {
    let (height, width) = (70, 45);
    let data = bytes(height * width * 3);
    let image = ImageView::new(&data, height, width, 3).expect("seventy rows");
    for (to_height, to_width) in [(33, 64), (140, 20), (70, 96), (90, 45), (70, 45)] {
        for arithmetic in [Arithmetic::Pillow, Arithmetic::Torch] {
            let filter = Filter::from_code(3).expect("bicubic");
            let expected = resize(image, to_height, to_width, filter, arithmetic).expect("defined");
            let target = Target::Exact { height: to_height, width: to_width };
            let settings = Settings { target, tile: 1, split: true, upscale: true, max_tiles: None };
            let plan = Plan::new(&Key { size: (height, width), settings, filter, arithmetic }).expect("valid");
            assert_eq!(plan.layout.stage_b, (to_height, to_width));
            for loops in Loops::available() {
                for band in [0..to_height, 5..to_height, 21..22] {
                    let picture = Picture::View(image.into());
                    let mut chain = Chain::new(picture, &plan.tiles, band.clone(), loops.kernels()).expect("memory");
                    for y in band {
                        let plane = plane_stride(to_width);
                        chain
                            .produce(y, plane, &mut |channel, x, bytes| {
                                assert_eq!((x, bytes.len()), (0, plane));
                                let row = expected.view().row(y)[channel..].iter().step_by(3);
                                assert!(bytes[..to_width].iter().eq(row), "{} row {y}", loops.name());
                            })
                            .expect("no error");
                    }
                }
            }
        }
    }
}
