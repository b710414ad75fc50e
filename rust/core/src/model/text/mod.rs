//! The text stack: a step takes some tokens of some sequences through all layers at once.
use std::sync::Mutex;

use crate::error::Result;
use crate::machine::memory::{Mapped, Shared};
use crate::machine::team::Team;
use crate::model::checkpoint::{Checkpoint, Tensor};
use crate::model::config::TextConfig;
use crate::model::kernels::{BLOCK, Kernels};
use crate::model::kv::{AttentionScratch, PageLayout, Pages, QUERY_ROWS};
use crate::model::linear::packed_file::Packer;
use crate::model::linear::{ALONE_ROWS, Activations, Linear, LinearScratch, Order, Quantized};

mod step;

use step::Step;

/// Most tokens of one step.
pub const STEP_ROWS: usize = 512;
/// Steps of at most this many tokens spread the blocks of keys over the threads; longer ones spread the tokens.
const SPLIT_ROWS: usize = 16;
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
pub struct TextModel {
    config: TextConfig,
    layers: Vec<Layer>,
    norm: Vec<f32>,
    head: Linear,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

/// A run of consecutive tokens of one sequence in a step.
pub struct Segment {
    /// Pages of the sequence.
    pub pages: Vec<u32>,
    /// Position of the first token.
    pub position: usize,
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
struct Scratch {
    linear: LinearScratch,
    attention: AttentionScratch,
    /// One row on its way into [`Activations`], and another one while it is normed.
    row: Vec<f32>,
    norm_row: Vec<f32>,
    /// Few rows that each thread norms for itself.
    normed: Mapped<f32>,
}

/// Activations of a step.
pub struct TextBuffers {
    hidden: Mapped<f32>,
    normed: Mapped<f32>,
    qkv: Mapped<f32>,
    attended: Mapped<f32>,
    mlp: Mapped<f32>,
    partial: Mapped<f32>,
    best: Mapped<f32>,
    quantized: Quantized,
    threads: Vec<Mutex<Scratch>>,
}

impl TextBuffers {
    /// Buffers for the largest step on `threads` threads.
    pub fn new(c: &TextConfig, layout: &PageLayout, head_tasks: usize, threads: usize) -> Result<Self> {
        let blocks = c.max_position_embeddings.div_ceil(BLOCK);
        let zeroed = |columns: usize| Mapped::zeroed(STEP_ROWS * columns);
        Ok(Self {
            hidden: zeroed(c.hidden_size)?,
            normed: Activations::room(STEP_ROWS, c.hidden_size)?,
            qkv: zeroed((c.num_attention_heads + 2 * c.num_key_value_heads) * c.head_dim)?,
            attended: Activations::room(STEP_ROWS, c.num_attention_heads * c.head_dim)?,
            mlp: Activations::room(STEP_ROWS, c.intermediate_size)?,
            partial: Mapped::zeroed(SPLIT_ROWS * c.num_attention_heads * blocks * (layout.padded_dim() + 2))?,
            best: zeroed(2 * head_tasks)?,
            quantized: Quantized::new(&[(
                STEP_ROWS,
                c.hidden_size.max(c.intermediate_size).max(c.num_attention_heads * c.head_dim),
            )])?,
            threads: (0..threads)
                .map(|_| {
                    Ok(Mutex::new(Scratch {
                        linear: LinearScratch::new()?,
                        attention: AttentionScratch::new(layout, query_rows(c))?,
                        row: Vec::new(),
                        norm_row: Vec::new(),
                        normed: Activations::room(ALONE_ROWS, c.hidden_size)?,
                    }))
                })
                .collect::<Result<_>>()?,
        })
    }

    /// Rows that receive the embeddings of the step's tokens.
    pub fn hidden(&mut self) -> &mut [f32] {
        &mut self.hidden
    }
}

/// Query heads of a group times tokens of a task: whole tokens only.
fn query_rows(c: &TextConfig) -> usize {
    let group = c.num_attention_heads / c.num_key_value_heads;
    (QUERY_ROWS / group).max(1) * group
}

impl TextModel {
    /// Reads and packs the weights.
    pub fn load(c: &TextConfig, checkpoint: &Checkpoint, packer: &mut Packer<'_>) -> Result<Self> {
        let (h, m, d) = (c.hidden_size, c.intermediate_size, c.head_dim);
        let (q, kv) = (c.num_attention_heads * d, c.num_key_value_heads * d);
        let mut layers = Vec::with_capacity(c.num_hidden_layers);
        for i in 0..c.num_hidden_layers {
            let name = |part: &str| format!("model.text_model.layers.{i}.{part}.weight");
            let tensor = |part: &str, rows, columns| checkpoint.tensor(&name(part), &[rows, columns]);
            let qkv = [
                tensor("self_attn.q_proj", q, h)?,
                tensor("self_attn.k_proj", kv, h)?,
                tensor("self_attn.v_proj", kv, h)?,
            ];
            let gate_up = [tensor("mlp.gate_proj", m, h)?, tensor("mlp.up_proj", m, h)?];
            let mut pack = |w: &[Tensor<'_>], order| packer.linear(w, order, Vec::new());
            layers.push(Layer {
                input_norm: checkpoint.vector(&name("input_layernorm"), &[h])?,
                qkv: pack(&qkv, Order::Concatenated)?,
                o: pack(&[tensor("self_attn.o_proj", h, q)?], Order::Concatenated)?,
                post_norm: checkpoint.vector(&name("post_attention_layernorm"), &[h])?,
                gate_up: pack(&gate_up, Order::Interleaved)?,
                down: pack(&[tensor("mlp.down_proj", h, m)?], Order::Concatenated)?,
            });
            checkpoint.release();
        }
        let head = if c.tie_word_embeddings { EMBEDDING } else { "lm_head.weight" };
        let head = checkpoint.tensor(head, &[c.vocab_size, h])?;
        let head = packer.linear(&[head], Order::Concatenated, Vec::new())?;
        checkpoint.release();
        let (cos, sin) = rotary_tables(c);
        Ok(Self {
            config: c.clone(),
            layers,
            norm: checkpoint.vector("model.text_model.norm.weight", &[h])?,
            head,
            cos,
            sin,
        })
    }

    /// Bytes of weights that one step reads.
    pub fn bytes(&self) -> usize {
        let layer = |l: &Layer| l.qkv.bytes() + l.o.bytes() + l.gate_up.bytes() + l.down.bytes();
        self.layers.iter().map(layer).sum::<usize>() + self.head.bytes()
    }

    /// Number of pieces in which the head is computed.
    pub fn head_tasks(&self) -> usize {
        self.head.tasks(HEAD_PANELS)
    }

    /// Takes the rows of `buffers.hidden` through the stack; `wanted` are the rows of which `output` is to be computed.
    #[allow(clippy::too_many_arguments)]
    pub fn step(
        &self,
        kernels: &'static Kernels,
        team: &mut Team,
        buffers: &mut TextBuffers,
        pages: Pages<'_>,
        segments: &[Segment],
        wanted: &[usize],
        output: Output<'_>,
    ) -> Result<()> {
        let rows = segments.iter().map(|s| s.rows).sum();
        let step = Step::new(self, kernels, pages, buffers, segments, rows);
        let (logits, best) = match output {
            Output::Logits(logits) => (Some(Shared::new(logits)), None),
            Output::Argmax(best) => (None, Some(best)),
        };
        team.run(|worker| {
            let mut scratch = step.scratch(worker);
            for (index, layer) in self.layers.iter().enumerate() {
                step.layer(worker, &mut scratch, index, layer);
            }
            step.head(worker, &mut scratch, wanted, logits);
        })?;
        if let Some(best) = best {
            for (row, best) in best.iter_mut().enumerate() {
                *best = step.best_token(row);
            }
        }
        Ok(())
    }
}

/// Name of the embedding table.
pub const EMBEDDING: &str = "model.text_model.embed_tokens.weight";

/// `cos` and `sin` of position times frequency, `head_dim / 2` per position. Frequencies and angles are rounded to
/// float32, as Transformers does: at far positions the rounding of the angle is larger than that of anything else.
fn rotary_tables(c: &TextConfig) -> (Vec<f32>, Vec<f32>) {
    let half = c.head_dim / 2;
    let frequencies: Vec<f32> =
        (0..half).map(|i| 1.0 / c.rope_theta.powf((2 * i) as f64 / c.head_dim as f64) as f32).collect();
    let angles = (0..c.max_position_embeddings).flat_map(|p| frequencies.iter().map(move |f| f64::from(p as f32 * f)));
    angles.map(|a| (a.cos() as f32, a.sin() as f32)).unzip()
}
