//! Speed of pictures on their way to frames, for every set of inner loops that this machine has:
//! `cargo bench -p faster-smolvlm-core --bench pictures -- [kernel|pass|preprocess|resize|…]`
//!
//! `kernel` and `pass` are the parts of the way on one thread, `preprocess` is the whole on as many as
//! `FASTER_SMOLVLM_NUM_THREADS` says, `resize` the plain definition, which tensors of torch and single steps take. The
//! figure beside a time is the time of a pixel of the result, and how much of that the bytes that are read and written
//! would take alone at the speed of this machine's memory. Kernels work in the caches, so theirs may be above 100 %.
use std::hint::black_box;

use faster_smolvlm_core::bench::stages::{self, Stage};
use faster_smolvlm_core::{
    Arithmetic, Conversion, Filter, Formula, ImageView, Isa, Layout, Loops, Picture, Pixels, Settings, Target,
    measure_limits, picture_threads, preprocess, resize,
};
use meter::{Benchmarks, Outcome};

mod meter;

/// Height and width: full HD, a small photograph, a page.
const SIZES: [(usize, usize); 3] = [(1080, 1920), (480, 640), (3508, 2480)];
const ARITHMETICS: [Arithmetic; 2] = [Arithmetic::Pillow, Arithmetic::Torch];

fn picture(height: usize, width: usize) -> Vec<u8> {
    (0..height * width * 3).map(|i| ((i * 2_654_435_761) >> 13) as u8).collect()
}

/// Time of a pixel, and what share of it memory would take that gives `speed` bytes per second.
fn figure(pixels: usize, bytes: usize, speed: f64) -> impl Fn(f64) -> String {
    move |seconds| {
        let share = 100.0 * bytes as f64 / speed / seconds;
        format!("{:.3} ns/pixel, {share:.0} % memory", 1e9 * seconds / pixels as f64)
    }
}

/// Every kernel and every pass of every set, on one thread.
fn parts(benchmarks: &mut Benchmarks, speed: f64) -> Outcome<()> {
    for loops in Loops::available() {
        let Loops::Stream(kernels) = loops else { continue };
        for arithmetic in ARITHMETICS {
            let groups =
                [("kernel", stages::kernels(kernels, arithmetic)?), ("pass", stages::passes(kernels, arithmetic)?)];
            for (group, stages) in groups {
                for mut stage in stages {
                    let Stage { name, pixels, bytes, .. } = stage;
                    let name = format!("{name}/{arithmetic:?}/{}", loops.name());
                    benchmarks
                        .run(group, &name, figure(pixels, bytes, speed), || Ok(Box::new(move || Ok(stage.run()?))));
                }
            }
        }
    }
    Ok(())
}

/// Each set's way to the frames of the default settings, float32.
fn frames(benchmarks: &mut Benchmarks, threads: usize, speed: f64) -> Outcome<()> {
    let formula = Formula::new(1.0 / 255.0, 0.5, 0.5);
    let conversions = vec![Conversion::new(std::array::from_fn(|byte| formula.at(byte as u8)), Some(formula)); 3];
    let settings =
        Settings { target: Target::LongestEdge(2048), tile: 512, split: true, upscale: true, max_tiles: None };
    let filter = Filter::from_code(1)?;
    for (height, width) in SIZES {
        let frames = Layout::new(height, width, &settings)?.frames();
        let pixels = frames * 512 * 512;
        // The definition takes seconds, and nobody waits for it.
        let sets = Loops::available().into_iter().filter(|loops| matches!(loops, Loops::Stream(_)));
        let ways = sets.flat_map(|loops| ARITHMETICS.map(|arithmetic| (arithmetic, loops)));
        for (arithmetic, loops) in ways {
            let name = format!("{height}×{width} to {frames} frames/{arithmetic:?}/{}", loops.name());
            let conversions = &conversions;
            let how = Pixels { settings, filter, arithmetic, conversions, loops };
            let figure = figure(pixels, 3 * height * width + 12 * pixels, speed);
            benchmarks.run("preprocess", &name, figure, || {
                let (data, mut out) = (picture(height, width), vec![0_f32; 3 * pixels]);
                Ok(Box::new(move || {
                    let view = ImageView::new(&data, height, width, 3)?;
                    Ok(preprocess(Picture::View(view.into()), &how, &mut out, threads)?)
                }))
            });
        }
    }
    Ok(())
}

/// The plain resize alone.
fn plain(benchmarks: &mut Benchmarks, speed: f64) -> Outcome<()> {
    const TO: (usize, usize) = (1152, 2048);
    for ((height, width), code) in SIZES.into_iter().flat_map(|size| [1, 2, 3].map(|code| (size, code))) {
        let filter = Filter::from_code(code)?;
        let figure = figure(TO.0 * TO.1, 3 * (height * width + TO.0 * TO.1), speed);
        benchmarks.run("resize", &format!("{height}×{width} to {}×{}/{filter:?}", TO.0, TO.1), figure, || {
            let data = picture(height, width);
            Ok(Box::new(move || {
                let view = ImageView::new(&data, height, width, 3)?;
                black_box(resize(view, TO.0, TO.1, filter, Arithmetic::Torch)?);
                Ok(())
            }))
        });
    }
    Ok(())
}

fn main() -> Outcome<()> {
    let threads = picture_threads::count();
    let speed =
        |threads| Ok::<_, faster_smolvlm_core::Error>(measure_limits(threads, Isa::of_environment()?)?.read_bytes);
    let (one, all) = (speed(1)?, speed(threads)?);
    println!("memory: {:.1} GB/s read by one thread, {:.1} by {threads}", one / 1e9, all / 1e9);
    let mut benchmarks = Benchmarks::new(20, 1.0);
    parts(&mut benchmarks, one)?;
    frames(&mut benchmarks, threads, all)?;
    plain(&mut benchmarks, one)?;
    benchmarks.end();
    Ok(())
}
