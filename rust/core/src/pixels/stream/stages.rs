//! The parts of a picture's way one by one, for the benches alone.
use std::hint::black_box;

use super::chain::Chain;
use super::columns::Columns;
use super::plan::Pass;
use super::rows::plane_stride;
use crate::error::Result;
use crate::machine::memory::Mapped;
use crate::pixels::convert::{Conversion, Formula};
use crate::pixels::filters::Filter;
use crate::pixels::kernels::PictureKernels;
use crate::pixels::picture::{ImageView, Picture, StridedView, Strides};
use crate::pixels::taps::{LANES, Taps};
use crate::pixels::windows::Arithmetic;

/// A part of the way, with data that suits it.
pub struct Stage {
    /// Its name.
    pub name: &'static str,
    /// Pixels that a run makes, of three channels.
    pub pixels: usize,
    /// Bytes that a run reads and writes, each counted once.
    pub bytes: usize,
    run: Box<dyn FnMut() -> Result<()>>,
}

impl Stage {
    /// Does the work once, on the calling thread.
    pub fn run(&mut self) -> Result<()> {
        (self.run)()
    }
}

/// Height and width before and after: full HD, and what the longest edge of the default settings makes of it.
const FROM: (usize, usize) = (1080, 1920);
const TO: (usize, usize) = (1152, 2048);
/// Side of a square that is turned.
const SQUARE: usize = LANES * LANES;

/// The kernels of a set: those that are called for each strip or row, on data in the first caches.
pub fn kernels(kernels: &'static PictureKernels, arithmetic: Arithmetic) -> Result<Vec<Stage>> {
    let (plane, width) = (plane_stride(TO.1), TO.1);
    let from = bytes(3 * plane * LANES);
    let mut to = vec![0; 3 * plane];
    let mut stages = Vec::new();

    let (square, mut turned) = (bytes(SQUARE), vec![0; SQUARE]);
    let turn = move || (kernels.transpose)(black_box(&square), LANES, black_box(&mut turned), LANES);
    stages.push(endless("transpose", SQUARE / 3, 2 * SQUARE, turn));

    let rows = taps(FROM.0, TO.0, arithmetic)?;
    let output = TO.0 / 2;
    let count = rows.count(output);
    let source = from.clone();
    let weigh = move || {
        let rows_of_window: Vec<&[u8]> = source.chunks_exact(3 * plane).take(count).collect();
        (kernels.weigh_rows)(black_box(&rows_of_window), &rows, output, black_box(&mut to));
    };
    stages.push(endless("weigh_rows", width, 3 * width * (count + 1), weigh));

    let columns = taps(FROM.1, TO.1, arithmetic)?;
    let (block, mut pixels) = (bytes(3 * LANES * columns.end(LANES - 1)), vec![0; 3 * SQUARE]);
    let traffic = block.len() + pixels.len();
    let weigh = move || (kernels.weigh_pixels)(black_box(&block), 3 * LANES, &columns, 0, black_box(&mut pixels));
    stages.push(endless("weigh_pixels", SQUARE, traffic, weigh));

    let (conversion, row) = (conversion(), bytes(width));
    let mut floats = Mapped::<f32>::zeroed(width)?;
    let (rounding, same) = (conversion.clone(), row.clone());
    let convert = move || (kernels.to_f32)(black_box(&row), &conversion, black_box(&mut floats));
    stages.push(endless("to_f32", width / 3, 5 * width, convert));
    let mut halves = Mapped::<u16>::zeroed(width)?;
    let convert = move || (kernels.to_bf16)(black_box(&same), &rounding, black_box(&mut halves));
    stages.push(endless("to_bf16", width / 3, 3 * width, convert));
    Ok(stages)
}

/// Whole passes over a picture in memory, as the chain runs them on one thread.
pub fn passes(kernels: &'static PictureKernels, arithmetic: Arithmetic) -> Result<Vec<Stage>> {
    let horizontal = vec![Pass::Horizontal(Columns::new(&taps(FROM.1, TO.1, arithmetic)?)?)];
    let vertical = vec![Pass::Vertical(taps(FROM.0, TO.0, arithmetic)?)];
    let pixels = bytes(3 * FROM.0 * FROM.1);
    let stage = |name, passes: Vec<Pass>, planes: bool, (height, width): (usize, usize)| {
        let data = pixels.clone();
        // What a pass makes stays in the caches: the chain hands it on.
        let bytes = data.len();
        let run = move || {
            let (from_height, from_width) = FROM;
            let view = match planes {
                true => {
                    let strides = Strides { row: 3 * from_width, pixel: 1, channel: from_width };
                    StridedView::new(&data, (from_height, from_width, 3), strides)?
                }
                false => ImageView::new(&data, from_height, from_width, 3)?.into(),
            };
            let mut chain = Chain::new(Picture::View(view), &passes, 0..height, kernels)?;
            (0..height).try_for_each(|y| {
                chain.produce(y, plane_stride(width), &mut |_, _, row| {
                    black_box(row);
                })
            })
        };
        Stage { name, pixels: height * width, bytes, run: Box::new(run) }
    };
    Ok(vec![
        stage("split", vec![Pass::Split], false, FROM),
        stage("horizontal", horizontal, false, (FROM.0, TO.1)),
        stage("vertical", vertical, true, (TO.0, FROM.1)),
    ])
}

/// A kernel that cannot fail.
fn endless(name: &'static str, pixels: usize, bytes: usize, mut run: impl FnMut() + 'static) -> Stage {
    let run = move || {
        run();
        Ok(())
    };
    Stage { name, pixels, bytes, run: Box::new(run) }
}

fn taps(inputs: usize, outputs: usize, arithmetic: Arithmetic) -> Result<Taps> {
    let code = if arithmetic == Arithmetic::Pillow { 1 } else { 3 };
    Taps::new(inputs, outputs, Filter::from_code(code)?, arithmetic)
}

fn conversion() -> Conversion {
    let formula = Formula::new(1.0 / 255.0, 0.5, 0.5);
    Conversion::new(std::array::from_fn(|byte| formula.at(byte as u8)), Some(formula))
}

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}
