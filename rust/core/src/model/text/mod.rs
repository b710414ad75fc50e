//! The text stack: a step takes some tokens of some sequences through all layers at once.
use std::sync::Mutex;

use super::checkpoint::Checkpoint;
use super::config::TextConfig;
use super::kernels::{BLOCK, Kernels};
use super::kv::{AttentionScratch, PageLayout, Pages};
use super::linear::packed_file::Packer;
use super::linear::{
    Activations, InputFormat, LargestMemory, Linear, LinearScratch, OWN_ROWS, Order, Quantized, Rows, Storage,
};
use super::names::{self, Spec};
use crate::error::Result;
use crate::machine::memory::Mapped;
use crate::machine::team::Team;
use crate::machine::vectors::with_capacity;

mod attention;
mod forward;
mod plan;

use forward::{Activity, Forward, Residual};
use plan::{Plan, query_rows};

/// Most tokens of one step.
pub const STEP_ROWS: usize = 512;
/// Panels of one task of the head.
const HEAD_PANELS: usize = 6;

struct Layer {
    input_norm: Vec<f32>,
    qkv: Linear,
    o: Linear,
    post_norm: Vec<f32>,
    gate_up: Linear,
    down: Linear,
}

/// Weights of the text stack and its head.
pub(crate) struct TextModel {
    config: TextConfig,
    kernels: &'static Kernels,
    /// What all layers take.
    input: InputFormat,
    layers: Vec<Layer>,
    norm: Vec<f32>,
    head: Linear,
    /// Tasks of the head, for each of its rows.
    head_tasks: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

/// A run of consecutive tokens of one sequence in a step.
pub(crate) struct Segment {
    /// Pages of the sequence.
    pub(crate) pages: Vec<u32>,
    /// Position of the first token.
    pub(crate) position: usize,
    /// Row of the first token in the step.
    pub row: usize,
    /// Number of tokens.
    pub rows: usize,
}

/// What a step does with the rows asked for.
pub enum Output<'a> {
    /// Scores of the whole vocabulary, one row after the other.
    Logits(&'a mut [f32]),
    /// The best token of each row.
    Argmax(&'a mut [i64]),
}

/// Scratch of a thread.
struct TextScratch {
    linear: LinearScratch,
    attention: AttentionScratch,
    /// One row on its way into [`Activations`].
    row: Vec<f32>,
    /// Few rows that each thread norms for itself.
    normed: Mapped<f32>,
}

/// Activations of a step.
pub(crate) struct TextBuffers {
    hidden: Mapped<f32>,
    normed: Mapped<f32>,
    qkv: Mapped<f32>,
    attended: Mapped<f32>,
    mlp: Mapped<f32>,
    partial: Mapped<f32>,
    largest: LargestMemory,
    quantized: Quantized,
    threads: Vec<Mutex<TextScratch>>,
}

impl TextBuffers {
    /// Buffers for the largest step on `threads` threads.
    pub(crate) fn new(model: &TextModel, layout: &PageLayout, threads: usize) -> Result<Self> {
        let c = &model.config;
        let blocks = c.max_position_embeddings.div_ceil(BLOCK);
        let attended = c.num_attention_heads * c.head_dim;
        let inputs = c.hidden_size.max(c.intermediate_size).max(attended);
        let scratch = || {
            Ok(Mutex::new(TextScratch {
                linear: LinearScratch::new(inputs)?,
                attention: AttentionScratch::new(layout, query_rows(c))?,
                row: Vec::new(),
                normed: Activations::buffer(OWN_ROWS, c.hidden_size)?,
            }))
        };
        Ok(Self {
            hidden: Mapped::zeroed(STEP_ROWS * c.hidden_size)?,
            normed: Activations::buffer(STEP_ROWS, c.hidden_size)?,
            qkv: Mapped::zeroed(STEP_ROWS * c.qkv_width())?,
            attended: Activations::buffer(STEP_ROWS, attended)?,
            mlp: Activations::buffer(STEP_ROWS, c.intermediate_size)?,
            partial: Mapped::zeroed(plan::SPLIT_ROWS * c.num_attention_heads * blocks * (layout.padded_dim() + 2))?,
            largest: LargestMemory::new(STEP_ROWS, model.head_tasks)?,
            quantized: Quantized::new(&[(STEP_ROWS, inputs)])?,
            threads: (0..threads).map(|_| scratch()).collect::<Result<_>>()?,
        })
    }

    /// Rows that receive the embeddings of the step's tokens.
    pub(crate) fn hidden(&mut self) -> &mut [f32] {
        &mut self.hidden
    }
}

/// How a model is packed: with which kernels, and as what they multiply.
struct Loader<'l, 'p> {
    checkpoint: &'l Checkpoint,
    packer: &'l mut Packer<'p>,
}

impl Loader<'_, '_> {
    fn vector(&self, (name, shape): &Spec) -> Result<Vec<f32>> {
        self.checkpoint.vector(name, shape)
    }

    fn linear(&mut self, matrices: &[&Spec], order: Order) -> Result<Linear> {
        let tensor = |spec: &&Spec| self.checkpoint.tensor(&spec.0, &spec.1);
        let tensors = matrices.iter().map(tensor).collect::<Result<Vec<_>>>()?;
        self.packer.linear(&tensors, order, Vec::new())
    }
}

impl TextModel {
    /// Reads and packs the weights.
    pub(crate) fn load(
        c: &TextConfig,
        checkpoint: &Checkpoint,
        packer: &mut Packer<'_>,
        (kernels, storage): (&'static Kernels, Storage),
    ) -> Result<Self> {
        packer.pack_for(storage);
        let mut load = Loader { checkpoint, packer };
        let mut layers = Vec::with_capacity(c.num_hidden_layers);
        for index in 0..c.num_hidden_layers {
            let n = names::text_layer(c, index);
            layers.push(Layer {
                input_norm: load.vector(&n.input_norm)?,
                qkv: load.linear(&[&n.q, &n.k, &n.v], Order::Concatenated)?,
                o: load.linear(&[&n.o], Order::Concatenated)?,
                post_norm: load.vector(&n.post_norm)?,
                gate_up: load.linear(&[&n.gate, &n.up], Order::Interleaved)?,
                down: load.linear(&[&n.down], Order::Concatenated)?,
            });
            checkpoint.release();
        }
        let mut head = load.linear(&[&names::head(c)], Order::Concatenated)?;
        checkpoint.release();
        let (cos, sin) = rotary_tables(c)?;
        Ok(Self {
            config: c.clone(),
            kernels,
            input: storage.input(),
            layers,
            norm: load.vector(&names::text_norm(c))?,
            head_tasks: head.fix_task_panels(HEAD_PANELS),
            head,
            cos,
            sin,
        })
    }

    /// Bytes of weights that one step reads.
    pub(crate) fn bytes(&self) -> usize {
        let layer = |l: &Layer| l.qkv.bytes() + l.o.bytes() + l.gate_up.bytes() + l.down.bytes();
        self.layers.iter().map(layer).sum::<usize>() + self.head.bytes()
    }

    /// Takes the rows of `buffers.hidden` through the stack; `output` receives what is computed of the rows `selected`.
    pub(crate) fn step(
        &self,
        team: &mut Team,
        buffers: &mut TextBuffers,
        pages: Pages<'_>,
        segments: &[Segment],
        (selected, output): (&[usize], Output<'_>),
    ) -> Result<()> {
        let c = &self.config;
        let plan = Plan::new(c, segments);
        let TextBuffers { hidden, normed, qkv, attended, mlp, partial, largest, quantized, threads } = buffers;
        let activations = |memory, columns| Activations::new(memory, columns, self.input, self.kernels);
        let (logits, best) = match output {
            Output::Logits(logits) => (Some(Rows::new(logits, c.vocab_size)), None),
            Output::Argmax(best) => (None, Some(best)),
        };
        let mut shared = Activity {
            residual: Residual {
                hidden: Rows::new(hidden, c.hidden_size),
                normed: activations(normed, c.hidden_size),
                quantized: quantized.rows(),
            },
            qkv: Rows::new(qkv, c.qkv_width()),
            partial: Rows::new(partial, plan.partial_width(c)),
            attended: activations(attended, c.num_attention_heads * c.head_dim),
            mlp: activations(mlp, c.intermediate_size),
            largest: largest.rows(),
            pages,
            logits,
        };
        let forward = Forward { model: self, plan, selected };
        team.run_shared(&mut shared, |worker, shared| {
            let mut scratch = threads[worker.index].lock().unwrap_or_else(|e| e.into_inner());
            forward.run(worker, shared, &mut scratch);
        })?;
        if let Some(best) = best {
            for (row, best) in best.iter_mut().enumerate() {
                *best = largest.column(row) as i64;
            }
        }
        Ok(())
    }
}

/// `cos` and `sin` of position times frequency, `head_dim / 2` per position. Frequencies and angles are rounded to
/// float32, as Transformers does: at far positions the rounding of the angle is larger than that of anything else.
fn rotary_tables(c: &TextConfig) -> Result<(Vec<f32>, Vec<f32>)> {
    let half = c.head_dim / 2;
    let frequencies: Vec<f32> =
        (0..half).map(|i| 1.0 / c.rope_theta.powf((2 * i) as f64 / c.head_dim as f64) as f32).collect();
    let angles = (0..c.max_position_embeddings).flat_map(|p| frequencies.iter().map(move |f| f64::from(p as f32 * f)));
    let length = half * c.max_position_embeddings;
    let (mut cos, mut sin) = (with_capacity(length)?, with_capacity(length)?);
    for angle in angles {
        cos.push(angle.cos() as f32);
        sin.push(angle.sin() as f32);
    }
    Ok((cos, sin))
}
