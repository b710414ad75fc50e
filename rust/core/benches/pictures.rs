//! Speed of pictures on their way to frames, for every way that this machine has:
//! `cargo bench -p faster-smolvlm-core --bench pictures -- [preprocess|resize]…`
//!
//! `FASTER_SMOLVLM_NUM_THREADS` says on how many threads a picture is spread, `PICTURE_ROUNDS` (default 15) how often each
//! way is timed; the ways alternate. Every figure is the median of the rounds in milliseconds, with the best of them in
//! brackets.
use std::error::Error;
use std::time::Instant;

use faster_smolvlm_core::{
    Arithmetic, Conversion, Filter, Formula, ImageView, Layout, Loops, Picture, Pixels, Settings, Target,
    picture_threads, preprocess, resize,
};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Height and width: full HD, a small photograph, a page.
const SIZES: [(usize, usize); 3] = [(1080, 1920), (480, 640), (3508, 2480)];

fn picture(height: usize, width: usize) -> Vec<u8> {
    (0..height * width * 3).map(|i| ((i * 2_654_435_761) >> 13) as u8).collect()
}

/// Times each of the works in turn, some rounds long: (median, best) in milliseconds of each.
fn alternating(works: &mut [Box<dyn FnMut() -> Outcome<()> + '_>]) -> Outcome<Vec<(f64, f64)>> {
    let rounds = std::env::var("PICTURE_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(15);
    let mut times = vec![Vec::new(); works.len()];
    for work in works.iter_mut() {
        work()?;
    }
    for _ in 0..rounds {
        for (work, times) in works.iter_mut().zip(&mut times) {
            let start = Instant::now();
            work()?;
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
    }
    let sorted = times.into_iter().map(|mut times| {
        times.sort_by(f64::total_cmp);
        (times[times.len() / 2], times[0])
    });
    Ok(sorted.collect())
}

/// Each way to the frames of the default settings, float32.
fn frames(arithmetic: Arithmetic) -> Outcome<()> {
    let formula = Formula::new(1.0 / 255.0, 0.5, 0.5);
    let table = std::array::from_fn(|byte| formula.at(byte as u8));
    let conversions = vec![Conversion::new(table, Some(formula)); 3];
    let settings =
        Settings { target: Target::LongestEdge(2048), tile: 512, split: true, upscale: true, max_tiles: None };
    let threads = picture_threads::count();
    for (height, width) in SIZES {
        let data = picture(height, width);
        let view = ImageView::new(&data, height, width, 3)?;
        let frames = Layout::new(height, width, &settings)?.frames();
        let mut outs = vec![vec![0_f32; frames * 3 * 512 * 512]; Loops::available().len()];
        let mut works: Vec<Box<dyn FnMut() -> Outcome<()> + '_>> = Vec::new();
        for (loops, out) in Loops::available().into_iter().zip(&mut outs) {
            let filter = Filter::from_code(1)?;
            let pixels = Pixels { settings, filter, arithmetic, conversions: &conversions, loops };
            works.push(Box::new(move || Ok(preprocess(Picture::View(view.into()), &pixels, out, threads)?)));
        }
        for (loops, (median, best)) in Loops::available().into_iter().zip(alternating(&mut works)?) {
            let name = loops.name();
            println!(
                "preprocess {height}×{width}, {frames} frames, {arithmetic:?}, {name}: {median:.2} ({best:.2}) ms"
            );
        }
    }
    Ok(())
}

/// The plain resize alone, which tensors of torch and single steps take.
fn plain() -> Outcome<()> {
    for (height, width) in SIZES {
        let data = picture(height, width);
        let view = ImageView::new(&data, height, width, 3)?;
        for code in [1, 2, 3] {
            let filter = Filter::from_code(code)?;
            let work = || resize(view, 1152, 2048, filter, Arithmetic::Torch).map(drop).map_err(Into::into);
            let (median, best) = alternating(&mut [Box::new(work)])?[0];
            println!("resize {height}×{width} to 1152×2048, {filter:?}: {median:.2} ({best:.2}) ms");
        }
    }
    Ok(())
}

fn main() -> Outcome<()> {
    let chosen: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let wants = |what: &str| chosen.is_empty() || chosen.iter().any(|w| w == what);
    println!("{} threads", picture_threads::count());
    if wants("preprocess") {
        frames(Arithmetic::Pillow)?;
        frames(Arithmetic::Torch)?;
    }
    if wants("resize") {
        plain()?;
    }
    Ok(())
}
