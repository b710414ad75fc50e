//! Figures of the native engine for the 256M configuration with random weights, beside the machine's measured limits:
//! `cargo bench -p faster-smolvlm-core --bench engine -- [linear|load|vision|prefill|decode|int8|…]`
//!
//! `ENGINE_THREADS` (default 2) says on how many threads. The figure beside a time is the rate, as a share of the peak or
//! of the bandwidth that the same threads reach.
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Mutex;

use faster_smolvlm_core::bench::{
    Activations, Epilogue, Input, InputFormat, Linear, LinearScratch, Mapped, Order, Quantized, QuantizedRows, Rows,
    Share, Storage, Team, names, select,
};
use faster_smolvlm_core::{
    Checkpoint, Engine, Frame, Isa, KvFormat, Limits, LoadOptions, ModelConfig, Output, STEP_ROWS, StepInput,
    TextConfig, VisionConfig, WeightFormat, measure_limits,
};
use meter::{Benchmarks, Outcome};
use safetensors::tensor::TensorView;

mod meter;

/// Operations of one tile of 512 × 512 pixels through the vision tower.
const VISION_FLOPS: f64 = 214.7e9;

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

/// Operations per second of the numbers that a storage multiplies, and what these are; integers beside float32.
fn peak(limits: &Limits, storage: Storage) -> (f64, &'static str) {
    match (storage.input(), limits.bfloat16_flops) {
        (InputFormat::Bfloat16, Some(flops)) => (flops, "of the bfloat16 peak"),
        _ => (limits.flops, "of the float32 peak"),
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

/// `amount` per second, and as a share of `limit`.
fn figure(amount: f64, scale: f64, unit: &'static str, (limit, what): (f64, &'static str)) -> impl Fn(f64) -> String {
    move |seconds| {
        let rate = amount / seconds;
        format!("{:.1} {unit}, {:.0} % {what}", rate / scale, 100.0 * rate / limit)
    }
}

/// The matrix products of the model alone.
fn linear(benchmarks: &mut Benchmarks, machine: &Machine, format: WeightFormat) -> Outcome<()> {
    let kernels = select(Isa::of_environment()?)?;
    let storage = kernels.storage(format, false);
    let cases = [
        ("vision_model.encoder.layers.0.self_attn.q_proj", 768, 768, 1024),
        ("vision_model.encoder.layers.0.mlp.fc1", 3072, 768, 1024),
        ("vision_model.encoder.layers.0.mlp.fc2", 768, 3072, 1024),
        ("text_model.layers.0.mlp.up_proj", 1536, 576, 256),
        ("text_model.layers.0.mlp.down_proj", 576, 1536, 256),
    ];
    for (tensor, outputs, inputs, rows) in cases {
        let flops = 2.0 * (rows * inputs * outputs) as f64;
        let figure = figure(flops, 1e9, "GFLOP/s", peak(&machine.limits, storage));
        let name = format!("{}/{rows} x {inputs} x {outputs}", format.name());
        benchmarks.run("linear", &name, figure, || {
            let mut team = Team::new(machine.threads)?;
            let checkpoint = Checkpoint::open(&[machine.path.to_string_lossy().into_owned()])?;
            let weight = checkpoint.tensor(&format!("model.{tensor}.weight"), &[outputs, inputs])?;
            let linear = Linear::pack(&[weight], Order::Concatenated, Vec::new(), (kernels, storage), &mut team)?;
            let mut random = Random(3);
            let numbers: Vec<f32> = (0..rows * inputs).map(|_| random.unit()).collect();
            let mut quantized = Quantized::new(&[(rows, inputs)])?;
            let mut input = Activations::buffer(rows, inputs)?;
            let mut output = Mapped::<f32>::zeroed(rows * outputs)?;
            let scratches = (0..machine.threads)
                .map(|_| Ok(Mutex::new(LinearScratch::new(inputs)?)))
                .collect::<Outcome<Vec<_>>>()?;
            let mut filled = false;
            Ok(Box::new(move || {
                let mut shared = Product {
                    input: Activations::new(&mut input, inputs, linear.input(), kernels),
                    quantized: quantized.rows(),
                    output: Rows::new(&mut output, outputs),
                };
                team.run_shared(&mut shared, |worker, shared| {
                    if !filled {
                        let mut scratch = Vec::new();
                        worker.for_each_part(rows, 1, |part| {
                            let row = part.rows().start;
                            let numbers = &numbers[row * inputs..(row + 1) * inputs];
                            shared.input.write_with(part, row, 0..inputs, &mut scratch, |x| x.copy_from_slice(numbers));
                        });
                    }
                    let mut scratch = scratches[worker.index].lock().expect("no panic");
                    let input = Input::made(&shared.input, rows, &mut shared.quantized);
                    linear.phase(worker, &mut scratch, input, Epilogue::Write(&mut shared.output));
                })?;
                filled = true;
                Ok(())
            }))
        });
    }
    Ok(())
}

/// What the benchmarks are measured on.
struct Machine {
    path: PathBuf,
    threads: usize,
    limits: Limits,
}

impl Machine {
    fn load(&self, format: WeightFormat) -> Outcome<Engine> {
        let options = LoadOptions {
            isa: Isa::of_environment()?,
            dtype: format,
            kv_dtype: KvFormat::named(format.name()).unwrap_or(KvFormat::Bfloat16),
            threads: self.threads,
            cache_positions: 16_384,
            packed_cache: None,
        };
        Ok(Engine::load(&[self.path.to_string_lossy().into_owned()], config(), &options)?)
    }
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

/// The engine of a format, loaded when the first benchmark asks for it.
type Shared<'e> = &'e RefCell<Option<Engine>>;

fn with<T>(
    engine: Shared<'_>,
    machine: &Machine,
    format: WeightFormat,
    work: impl FnOnce(&mut Engine) -> Outcome<T>,
) -> Outcome<T> {
    let mut engine = engine.borrow_mut();
    if engine.is_none() {
        *engine = Some(machine.load(format)?);
    }
    work(engine.as_mut().expect("just loaded"))
}

/// The whole model.
fn model(benchmarks: &mut Benchmarks, machine: &Machine, format: WeightFormat) -> Outcome<()> {
    let (name, engine) = (format.name(), RefCell::new(None));
    let storage = select(Isa::of_environment()?)?.storage(format, true);
    let engine = &engine;
    benchmarks.run("load", name, |_| String::new(), || Ok(Box::new(|| machine.load(format).map(drop))));
    let tile = figure(VISION_FLOPS, 1e9, "GFLOP/s", peak(&machine.limits, storage));
    benchmarks.run("vision", name, tile, || {
        let mut random = Random(5);
        let pixels: Vec<f32> = (0..3 * 512 * 512).map(|_| random.unit()).collect();
        let mut out = vec![0.0; 64 * 576];
        Ok(Box::new(move || {
            let frame = Frame { pixels: &pixels, height: 512, width: 512, patch_mask: &[true; 1024] };
            with(engine, machine, format, |engine| Ok(engine.encode(&frame, &mut out)?))
        }))
    });
    let tokens = |count: f64| move |seconds: f64| format!("{:.1} tokens/s", count / seconds);
    benchmarks.run("prefill", &format!("{name}/512 tokens"), tokens(512.0), || {
        let sequence = with(engine, machine, format, |engine| Ok(engine.cache().open()))?;
        Ok(Box::new(move || with(engine, machine, format, |engine| fill(engine, sequence, 512))))
    });
    for (batch, context) in [(1, 8), (1, 1000), (8, 8), (8, 1000)] {
        // A step reads all weights of the text stack.
        let bytes = Rc::new(Cell::new(0.0));
        let (read, limit, tokens) = (Rc::clone(&bytes), machine.limits.read_bytes, tokens(batch as f64));
        let figure = move |seconds| {
            format!("{}, weights at {:.0} % memory", tokens(seconds), 100.0 * read.get() / seconds / limit)
        };
        benchmarks.run("decode", &format!("{name}/{batch} at {context}"), figure, || {
            let sequences = with(engine, machine, format, |engine| {
                bytes.set(engine.text_bytes() as f64);
                let sequences: Vec<u64> = (0..batch).map(|_| engine.cache().open()).collect();
                sequences.iter().try_for_each(|&sequence| fill(engine, sequence, context))?;
                Ok(sequences)
            })?;
            Ok(Box::new(move || {
                with(engine, machine, format, |engine| {
                    sequences.iter().try_for_each(|&sequence| engine.cache().truncate(sequence, context))?;
                    step(engine, &sequences, 1)
                })
            }))
        });
    }
    Ok(())
}

fn main() -> Outcome<()> {
    let threads = std::env::var("ENGINE_THREADS").ok().and_then(|count| count.parse().ok()).unwrap_or(2);
    let limits = measure_limits(threads, Isa::of_environment()?)?;
    println!(
        "{threads} threads: {:.1} GB/s read, {:.1} GFLOP/s float32, {:.1} bfloat16",
        limits.read_bytes / 1e9,
        limits.flops / 1e9,
        limits.bfloat16_flops.unwrap_or(0.0) / 1e9
    );
    let machine = Machine { path: checkpoint(&config())?, threads, limits };
    let mut benchmarks = Benchmarks::new(10, 3.0);
    for format in WeightFormat::ALL {
        linear(&mut benchmarks, &machine, format)?;
        model(&mut benchmarks, &machine, format)?;
    }
    benchmarks.end();
    Ok(())
}
