//! Every set that this CPU has against the plain loops, kernel by kernel, and all of them together against the definition.

use super::*;
use crate::machine::cpu::Isa;
use crate::pixels::convert::Formula;
use crate::pixels::filters::Filter;
use crate::pixels::layout::{Settings, Target};
use crate::pixels::picture::{Picture, StridedView, Strides};
use crate::pixels::preprocess::{Pixels, preprocess};
use crate::pixels::taps::LANES;
use crate::pixels::windows::Arithmetic;

/// Bytes from a fixed sequence, extremes among them.
fn bytes(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let byte = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        match state >> 61 {
            0 => 0,
            1 => 255,
            _ => (state >> 40) as u8,
        }
    };
    std::iter::repeat_with(byte).take(length).collect()
}

fn fast_sets() -> impl Iterator<Item = &'static PictureKernels> {
    SETS.iter().copied().filter(|&isa| isa != Isa::Portable).filter_map(for_isa)
}

/// Passes of all filters with both roundings: enlarged, shrunk, one input, one output.
fn passes() -> Vec<(String, Taps)> {
    let mut passes = Vec::new();
    for (inputs, outputs) in [(1, 3), (5, 64), (33, 7), (100, 99), (300, 11), (64, 1)] {
        for filter in Filter::weighing() {
            for arithmetic in [Arithmetic::Pillow, Arithmetic::Torch] {
                // torch has no box and no Hamming filter.
                if let Ok(taps) = Taps::new(inputs, outputs, filter, arithmetic) {
                    passes.push((format!("{inputs} to {outputs}, {filter:?}, {arithmetic:?}"), taps));
                }
            }
        }
    }
    assert_eq!(passes.len(), 6 * (5 + 3), "five filters of Pillow, three of torch");
    passes
}

#[test]
fn transposes() {
    for set in fast_sets() {
        for (from_stride, to_stride) in [(32, 32), (45, 96), (96, 33)] {
            let from = bytes(31 * from_stride + 32, 1);
            let transposed = |set: &PictureKernels| {
                let mut to = bytes(31 * to_stride + 32, 2);
                (set.transpose)(&from, from_stride, &mut to, to_stride);
                to
            };
            assert_eq!(transposed(set), transposed(portable::KERNELS), "{}", set.name);
        }
    }
}

#[test]
fn weighted_sums() {
    for (name, taps) in passes() {
        for width in [32, 64, 160] {
            let data = bytes(taps.widest() * width, width as u64);
            let rows: Vec<&[u8]> = data.chunks_exact(width).collect();
            for output in [0, taps.outputs() / 2, taps.outputs() - 1] {
                let weighed = |set: &PictureKernels| {
                    let mut out = vec![7; width];
                    (set.weigh_rows)(&rows[..taps.count(output)], &taps, output, &mut out);
                    out
                };
                for set in fast_sets() {
                    assert_eq!(weighed(set), weighed(portable::KERNELS), "{} {name}", set.name);
                }
            }
        }
        let block = bytes(taps.end(taps.outputs() - 1) * 3 * LANES, 3);
        let first = taps.outputs() / 3;
        let weighed = |set: &PictureKernels| {
            let mut out = vec![7; (taps.outputs() - first).min(LANES) * 3 * LANES];
            (set.weigh_pixels)(&block, 3 * LANES, &taps, first, &mut out);
            out
        };
        for set in fast_sets() {
            assert_eq!(weighed(set), weighed(portable::KERNELS), "{} {name}", set.name);
        }
    }
}

/// The rare pass of torch whose largest weight needs a third digit.
#[test]
fn weights_at_the_limit_of_16_bits() {
    let limit = |size: &(usize, usize)| {
        let taps = Taps::new(size.0, size.1, Filter::from_code(1).expect("Lanczos"), Arithmetic::Torch);
        taps.ok().filter(|taps| taps.digits() == 3)
    };
    let sizes = (2..90).flat_map(|inputs| (1..90).map(move |outputs| (inputs, outputs)));
    let taps = sizes.into_iter().find_map(|size| limit(&size)).expect("a pass with three digits");
    let rows: Vec<Vec<u8>> = (0..taps.widest()).map(|row| bytes(96, row as u64)).collect();
    for output in 0..taps.outputs() {
        let rows: Vec<&[u8]> = rows[..taps.count(output)].iter().map(Vec::as_slice).collect();
        let weighed = |set: &PictureKernels| {
            let mut out = vec![0; 96];
            (set.weigh_rows)(&rows, &taps, output, &mut out);
            out
        };
        for set in fast_sets() {
            assert_eq!(weighed(set), weighed(portable::KERNELS), "{}", set.name);
        }
    }
}

/// torch's arithmetic, which has a formula, and a table that has none.
fn conversions() -> [Conversion; 2] {
    let table = std::array::from_fn(|x| (x as f32 - 127.5) / 127.5);
    let formula = Conversion::new(table, Some(Formula::new(1.0, 127.5, 127.5)));
    assert!(formula.formula.is_some());
    [formula, Conversion::new(table.map(f32::sqrt), None)]
}

#[test]
fn conversions_with_and_without_alignment() {
    fn converted<V: StreamValue>(set: &PictureKernels, input: &[u8], skip: usize) -> Vec<Vec<V>> {
        let all = conversions();
        let each = all.iter().map(|conversion| {
            let mut out = vec![V::default(); input.len() + skip];
            V::convert(set, input, conversion, &mut out[skip..]);
            (set.fence)();
            out
        });
        each.collect()
    }
    let bits = |rows: Vec<Vec<f32>>| -> Vec<u32> { rows.into_iter().flatten().map(f32::to_bits).collect() };
    for set in fast_sets() {
        for length in [0, 1, 16, 31, 64, 333] {
            let input = bytes(length, 4);
            for skip in 0..17 {
                assert_eq!(
                    bits(converted(set, &input, skip)),
                    bits(converted(portable::KERNELS, &input, skip)),
                    "{}",
                    set.name
                );
                assert_eq!(
                    converted::<u16>(set, &input, skip),
                    converted::<u16>(portable::KERNELS, &input, skip),
                    "{}",
                    set.name
                );
            }
        }
        for range in [0..0, 0..40, 1..40, 3..5, 7..33] {
            let mut mask = vec![0; 40];
            (set.fill)(&mut mask[range.clone()], -3);
            (set.fence)();
            let expected = (0..40).map(|i| if range.contains(&i) { -3 } else { 0 });
            assert!(mask.into_iter().eq(expected), "{}", set.name);
        }
    }
}

#[test]
fn whole_pictures_equal_the_definition() {
    let [conversion, _] = conversions();
    let conversions = [conversion.clone(), conversion.clone(), conversion];
    for (height, width, edge) in [(37, 61, 64), (90, 35, 128), (200, 150, 96)] {
        for arithmetic in [Arithmetic::Pillow, Arithmetic::Torch] {
            let settings =
                Settings { target: Target::LongestEdge(edge), tile: 32, split: true, upscale: true, max_tiles: None };
            let data = bytes(height * width * 3, 5);
            let frames = |loops: Loops| {
                let strides = Strides { row: 3 * width, pixel: 3, channel: 1 };
                let view = StridedView::new(&data, (height, width, 3), strides);
                let image = Picture::View(view.expect("three channels"));
                let layout = crate::pixels::layout::Layout::new(height, width, &settings).expect("valid");
                let mut out = vec![f32::NAN; layout.frames() * 3 * 32 * 32];
                let pixels = Pixels {
                    settings,
                    filter: Filter::from_code(1).expect("Lanczos"),
                    arithmetic,
                    conversions: &conversions,
                    loops,
                };
                preprocess(image, &pixels, &mut out, 1).expect("valid");
                out.into_iter().map(f32::to_bits).collect::<Vec<_>>()
            };
            let definition = frames(Loops::Definition);
            for loops in Loops::available() {
                assert!(frames(loops) == definition, "{} {arithmetic:?}", loops.name());
            }
        }
    }
}

#[test]
fn loops_are_listed_and_named() {
    let names = Loops::names();
    assert!(names.ends_with(&["portable", "scalar"]), "{names:?}");
    for isa in [Isa::Avx2, Isa::Avx512Vnni] {
        assert_eq!(names.contains(&isa.name()), isa.available(), "{isa:?}");
    }
    assert_eq!(names[0], Loops::best().name());
    for name in &names {
        assert_eq!(Loops::named(name).map(Loops::name), Some(*name));
    }
    assert!(Loops::named("abacus").is_none() && Loops::named("amx").is_none());
    println!("image kernels on this machine: {}", names.join(", "));
}

#[test]
fn short_slices_are_refused() {
    let taps = Taps::new(64, 8, Filter::from_code(2).expect("bilinear"), Arithmetic::Pillow).expect("defined");
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let refused = |work: &(dyn Fn() + std::panic::RefUnwindSafe)| std::panic::catch_unwind(work).is_err();
    let sets: Vec<_> = SETS.iter().copied().filter_map(for_isa).collect();
    let outcomes: Vec<_> = sets
        .iter()
        .map(|set| {
            // Products that wrap around: 31 * stride + 32 is 1 for the first stride.
            let stride = usize::MAX / 31;
            [
                refused(&|| (set.transpose)(&[0; 1024], stride, &mut [0; 1024], 32)),
                refused(&|| (set.transpose)(&[0; 1024], 32, &mut [0; 1024], usize::MAX / 31 - 1)),
                refused(&|| (set.transpose)(&[0; 1023], 32, &mut [0; 1024], 32)),
                refused(&|| (set.weigh_rows)(&[&[0; 32][..]; 3], &taps, 4, &mut [0; 32])),
                refused(&|| (set.weigh_rows)(&[&[0; 31][..]; 64], &taps, 4, &mut [0; 32])),
                refused(&|| (set.weigh_rows)(&[&[0; 40][..]; 64], &taps, 4, &mut [0; 40])),
                refused(&|| (set.weigh_pixels)(&[0; 64 * 96 - 1], 96, &taps, 0, &mut [0; 8 * 96])),
                refused(&|| (set.weigh_pixels)(&[0; 64 * 96], usize::MAX / 4, &taps, 0, &mut [0; 8 * 96])),
                refused(&|| (set.weigh_pixels)(&[0; 64 * 96], 96, &taps, 1, &mut [0; 8 * 96])),
                refused(&|| (set.weigh_pixels)(&[0; 64 * 96], 96, &taps, usize::MAX, &mut [0; 96])),
            ]
        })
        .collect();
    std::panic::set_hook(hook);
    for (set, outcomes) in sets.iter().zip(outcomes) {
        assert_eq!(outcomes, [true; 10], "{}", set.name);
    }
}
