//! Figures of the native engine for the 256M configuration with random weights, beside the machine's measured limits:
//! `cargo bench -p faster-smolvlm-core --bench engine -- [limits|linear|vision|prefill|decode|batch|load]…`
//!
//! `ENGINE_THREADS` (default 2) and `ENGINE_ROUNDS` (default 5) say how; every figure is the
//! median of the rounds, with the best of them in brackets.
use std::collections::HashMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;

use faster_smolvlm_core::bench::{
    Activations, Epilogue, Input, InputFormat, Linear, LinearScratch, Mapped, Order, Quantized, QuantizedRows, Rows,
    Share, Storage, Team, names, select,
};
use faster_smolvlm_core::{
    Checkpoint, Engine, Frame, Isa, KvFormat, Limits, LoadOptions, ModelConfig, Output, STEP_ROWS, StepInput,
    TextConfig, VisionConfig, WeightFormat, measure_limits,
};
use safetensors::tensor::TensorView;

type Outcome<T> = Result<T, Box<dyn Error>>;

fn config() -> ModelConfig {
    ModelConfig {
        scale_factor: 4,
        vision: VisionConfig {
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            num_channels: 3,
            image_size: 512,
            patch_size: 16,
            layer_norm_eps: 1e-6,
        },
        text: TextConfig {
            hidden_size: 576,
            intermediate_size: 1536,
            num_hidden_layers: 30,
            num_attention_heads: 9,
            num_key_value_heads: 3,
            head_dim: 64,
            vocab_size: 49_280,
            max_position_embeddings: 8192,
            rope_theta: 100_000.0,
            rms_norm_eps: 1e-5,
            tie_word_embeddings: true,
        },
    }
}

/// Numbers in [-1, 1) from a fixed sequence.
struct Random(u64);

impl Random {
    fn unit(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}

/// Writes a bfloat16 checkpoint, once.
fn checkpoint(c: &ModelConfig) -> Outcome<PathBuf> {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("smolvlm-256m-random.safetensors");
    if path.exists() {
        return Ok(path);
    }
    let mut random = Random(1);
    let data: Vec<(String, Vec<usize>, Vec<u8>)> = names::tensors(c)
        .into_iter()
        .map(|(name, shape)| {
            let count = shape.iter().product();
            // Uniform numbers with the variance that keeps the scale of a stream of unit variance.
            let inputs: usize = shape[1..].iter().product();
            let scale = (3.0 / inputs as f32).sqrt();
            let values = (0..count).flat_map(|_| {
                let x = if name.contains("norm") { 1.0 } else { random.unit() * scale };
                ((x.to_bits() >> 16) as u16).to_le_bytes()
            });
            let bytes = values.collect();
            (name, shape, bytes)
        })
        .collect();
    let mut views = HashMap::new();
    for (name, shape, bytes) in &data {
        views.insert(name.clone(), TensorView::new(safetensors::Dtype::BF16, shape.clone(), bytes)?);
    }
    let part = path.with_extension("part");
    safetensors::serialize_to_file(views, None, &part)?;
    std::fs::rename(part, &path)?;
    Ok(path)
}

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

/// Seconds of some rounds after a warm-up.
struct Seconds {
    median: f64,
    best: f64,
}

impl Seconds {
    /// `amount` per second, with its unit.
    fn rate(&self, amount: f64, unit: &str) -> String {
        format!("{:.1} ({:.1}) {unit}", amount / self.median, amount / self.best)
    }

    /// `amount` per second as a share of `limit`.
    fn share(&self, amount: f64, limit: f64) -> String {
        let percent = 100.0 * amount / limit;
        format!("{:.0} % ({:.0} %)", percent / self.median, percent / self.best)
    }
}

fn time(mut work: impl FnMut() -> Outcome<()>) -> Outcome<Seconds> {
    work()?;
    let mut seconds = Vec::new();
    for _ in 0..number("ENGINE_ROUNDS", 5) {
        let start = Instant::now();
        work()?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    Ok(Seconds { median: seconds[seconds.len() / 2], best: seconds[0] })
}

/// Operations per second of the numbers that a storage multiplies, and what these are; integers beside float32.
fn peak(limits: &Limits, storage: Storage) -> (f64, &'static str) {
    match (storage.input(), limits.bfloat16_flops) {
        (InputFormat::Bfloat16, Some(flops)) => (flops, "bfloat16"),
        _ => (limits.flops, "float32"),
    }
}

/// What the threads of a product share.
struct Product<'a> {
    input: Activations<'a>,
    quantized: QuantizedRows<'a>,
    output: Rows<'a>,
}

impl Share for Product<'_> {
    unsafe fn handle(&self) -> Self {
        // SAFETY: the caller promises the same.
        unsafe { Self { input: self.input.handle(), quantized: self.quantized.handle(), output: self.output.handle() } }
    }
}

/// The matrix products of the model alone.
fn linear(path: &Path, threads: usize, format: WeightFormat, limits: &Limits) -> Outcome<()> {
    let kernels = select(Isa::of_environment()?)?;
    let (peak, numbers_of_peak) = peak(limits, kernels.storage(format, false));
    let mut team = Team::new(threads)?;
    let checkpoint = Checkpoint::open(&[path.to_string_lossy().into_owned()])?;
    let cases = [
        ("vision_model.encoder.layers.0.self_attn.q_proj", 768, 768, 1024),
        ("vision_model.encoder.layers.0.mlp.fc1", 3072, 768, 1024),
        ("vision_model.encoder.layers.0.mlp.fc2", 768, 3072, 1024),
        ("text_model.layers.0.mlp.up_proj", 1536, 576, 256),
        ("text_model.layers.0.mlp.down_proj", 576, 1536, 256),
    ];
    for (name, outputs, inputs, rows) in cases {
        let weight = checkpoint.tensor(&format!("model.{name}.weight"), &[outputs, inputs])?;
        let storage = kernels.storage(format, false);
        let linear = Linear::pack(&[weight], Order::Concatenated, Vec::new(), (kernels, storage), &mut team)?;
        let mut random = Random(3);
        let numbers: Vec<f32> = (0..rows * inputs).map(|_| random.unit()).collect();
        let mut quantized = Quantized::new(&[(rows, inputs)])?;
        let mut input = Activations::buffer(rows, inputs)?;
        let mut output = Mapped::<f32>::zeroed(rows * outputs)?;
        let mut shared = Product {
            input: Activations::new(&mut input, inputs, linear.input(), kernels),
            quantized: quantized.rows(),
            output: Rows::new(&mut output, outputs),
        };
        team.run_shared(&mut shared, |worker, shared| {
            let mut scratch = Vec::new();
            worker.for_each_part(rows, 1, |part| {
                let row = part.rows().start;
                let numbers = &numbers[row * inputs..(row + 1) * inputs];
                shared.input.write_with(part, row, 0..inputs, &mut scratch, |x| x.copy_from_slice(numbers));
            });
        })?;
        let scratches = (0..threads).map(|_| Ok(Mutex::new(LinearScratch::new()?))).collect::<Outcome<Vec<_>>>()?;
        let seconds = time(|| {
            team.run_shared(&mut shared, |worker, shared| {
                let mut scratch = scratches[worker.index].lock().expect("no panic");
                let input = Input::made(&shared.input, rows, &mut shared.quantized);
                linear.phase(worker, &mut scratch, input, Epilogue::Write(&mut shared.output));
            })?;
            Ok(())
        })?;
        let flops = 2.0 * (rows * inputs * outputs) as f64;
        println!(
            "linear {format:?} {rows} x {inputs} x {outputs}: {}, {} of the {numbers_of_peak} peak",
            seconds.rate(flops / 1e9, "GFLOP/s"),
            seconds.share(flops, peak)
        );
    }

    Ok(())
}

fn load(path: &Path, threads: usize, format: WeightFormat) -> Outcome<Engine> {
    let options = LoadOptions {
        isa: Isa::of_environment()?,
        dtype: format,
        kv_dtype: KvFormat::named(format.name()).unwrap_or(KvFormat::Bfloat16),
        threads,
        cache_positions: 16_384,
        packed_cache: None,
    };
    Ok(Engine::load(&[path.to_string_lossy().into_owned()], config(), &options)?)
}

/// Takes `count` tokens of each sequence through the text stack.
fn step(engine: &mut Engine, sequences: &[u64], count: usize) -> Outcome<()> {
    let ids: Vec<i64> = (0..(count * sequences.len()) as i64).map(|i| 3 + i * 37 % 49_000).collect();
    let (lengths, rows) = (vec![count; sequences.len()], vec![-1; ids.len()]);
    let outputs: Vec<usize> = (1..=sequences.len()).map(|i| i * count - 1).collect();
    let mut best = vec![0; outputs.len()];
    let input =
        StepInput { sequences, lengths: &lengths, ids: &ids, features: &[], feature_rows: &rows, outputs: &outputs };
    Ok(engine.step(&input, Output::Argmax(&mut best))?)
}

fn fill(engine: &mut Engine, sequence: u64, count: usize) -> Outcome<()> {
    engine.cache().truncate(sequence, 0)?;
    for start in (0..count).step_by(STEP_ROWS) {
        step(engine, &[sequence], STEP_ROWS.min(count - start))?;
    }
    Ok(())
}

fn model(
    path: &Path,
    threads: usize,
    format: WeightFormat,
    wants: &dyn Fn(&str) -> bool,
    limits: &Limits,
) -> Outcome<()> {
    let storage = select(Isa::of_environment()?)?.storage(format, true);
    let (peak, numbers_of_peak) = peak(limits, storage);
    let start = Instant::now();
    let mut engine = load(path, threads, format)?;
    if wants("load") {
        println!("load {format:?}: {:.2} s", start.elapsed().as_secs_f64());
    }
    if wants("vision") {
        let mut random = Random(5);
        let pixels: Vec<f32> = (0..3 * 512 * 512).map(|_| random.unit()).collect();
        let frame = Frame { pixels: &pixels, height: 512, width: 512, patch_mask: &[true; 1024] };
        let mut out = vec![0.0; 64 * 576];
        let seconds = time(|| Ok(engine.encode(&frame, &mut out)?))?;
        println!(
            "vision {format:?}, one 512 x 512 tile: {:.1} ({:.1}) ms, {} of the {numbers_of_peak} peak",
            1e3 * seconds.median,
            1e3 * seconds.best,
            seconds.share(214.7e9, peak)
        );
    }
    if wants("prefill") {
        let sequence = engine.cache().open();
        let seconds = time(|| fill(&mut engine, sequence, 512))?;
        println!("prefill {format:?}, 512 tokens: {}", seconds.rate(512.0, "tokens/s"));
        engine.cache().close(sequence)?;
    }
    for (name, batch, context) in [("decode", 1, 8), ("decode", 1, 1000), ("batch", 8, 8), ("batch", 8, 1000)] {
        if !wants(name) {
            continue;
        }
        const TOKENS: usize = 24;
        let sequences: Vec<u64> = (0..batch).map(|_| engine.cache().open()).collect();
        for &sequence in &sequences {
            fill(&mut engine, sequence, context)?;
        }
        let seconds = time(|| {
            for &sequence in &sequences {
                engine.cache().truncate(sequence, context)?;
            }
            (0..TOKENS).try_for_each(|_| step(&mut engine, &sequences, 1))
        })?;
        println!(
            "decode {format:?}, {batch} sequences at {context}: {}, weights at {} of the bandwidth",
            seconds.rate((TOKENS * batch) as f64, "tokens/s"),
            seconds.share((TOKENS * engine.text_bytes()) as f64, limits.read_bytes)
        );
        for sequence in sequences {
            engine.cache().close(sequence)?;
        }
    }
    Ok(())
}

fn main() -> Outcome<()> {
    let chosen: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let wants = |what: &str| chosen.is_empty() || chosen.iter().any(|w| w == what);
    let is_chosen = |format: &WeightFormat| chosen.iter().any(|w| w == format.name());
    let all = !WeightFormat::ALL.iter().any(is_chosen);
    let formats = WeightFormat::ALL.into_iter().filter(|format| all || is_chosen(format));
    let threads = number("ENGINE_THREADS", 2);
    let path = checkpoint(&config())?;
    let limits = measure_limits(threads, Isa::of_environment()?)?;
    println!(
        "{threads} threads: {:.1} GB/s read, {:.1} GFLOP/s float32, {:.1} bfloat16",
        limits.read_bytes / 1e9,
        limits.flops / 1e9,
        limits.bfloat16_flops.unwrap_or(0.0) / 1e9
    );
    for format in formats {
        if wants("linear") {
            linear(&path, threads, format, &limits)?;
        }
        if ["load", "vision", "prefill", "decode", "batch"].iter().any(|w| wants(w)) {
            model(&path, threads, format, &wants, &limits)?;
        }
    }
    Ok(())
}
