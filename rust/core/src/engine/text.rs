//! The text stack: a step takes some tokens of some sequences through all layers at once.
use std::sync::Mutex;

use super::attention::{AttentionScratch, PAGE, PageLayout, Pages, QUERY_ROWS};
use super::checkpoint::{Checkpoint, Tensor};
use super::config::TextConfig;
use super::error::Result;
use super::kernels::{BLOCK, Dtype, Kernels, PANEL};
use super::linear::{
    Input, Linear, LinearScratch, Order, Quantized, SharedQuantized, row_stride, task_panels,
};
use super::memory::{Buffer, Shared};
use super::pool::{Pool, Worker};

/// Most tokens of one step.
pub const STEP_ROWS: usize = 256;
/// Steps of at most this many tokens spread the blocks of keys over the threads; longer ones spread the tokens.
const SPLIT_ROWS: usize = 16;
/// Panels of one task of the head.
const HEAD_PANELS: usize = 4;
/// Rows of one task in the norms.
const NORM_ROWS: usize = 8;

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

/// Activations of a step.
pub struct TextBuffers {
    hidden: Buffer<f32>,
    normed: Buffer<f32>,
    qkv: Buffer<f32>,
    attended: Buffer<f32>,
    mlp: Buffer<f32>,
    partial: Buffer<f32>,
    best: Buffer<f32>,
    quantized: Quantized,
    threads: Vec<Mutex<(LinearScratch, AttentionScratch)>>,
}

impl TextBuffers {
    /// Buffers for the largest step on `threads` threads.
    pub fn new(
        c: &TextConfig,
        layout: &PageLayout,
        head_tasks: usize,
        threads: usize,
    ) -> Result<Self> {
        let blocks = c.max_position_embeddings.div_ceil(BLOCK);
        let zeroed = |columns: usize| Buffer::zeroed(STEP_ROWS * columns);
        Ok(Self {
            hidden: zeroed(c.hidden_size)?,
            normed: zeroed(c.hidden_size)?,
            qkv: zeroed((c.num_attention_heads + 2 * c.num_key_value_heads) * c.head_dim)?,
            attended: zeroed(c.num_attention_heads * c.head_dim)?,
            mlp: zeroed(row_stride(c.intermediate_size))?,
            partial: Buffer::zeroed(
                SPLIT_ROWS * c.num_attention_heads * blocks * (layout.padded_dim() + 2),
            )?,
            best: zeroed(2 * head_tasks)?,
            quantized: Quantized::new(
                STEP_ROWS,
                c.hidden_size
                    .max(c.intermediate_size)
                    .max(c.num_attention_heads * c.head_dim),
            )?,
            threads: (0..threads)
                .map(|_| {
                    Mutex::new((
                        LinearScratch::new(),
                        AttentionScratch::new(layout, query_rows(c)),
                    ))
                })
                .collect(),
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
    pub fn load(
        c: &TextConfig,
        checkpoint: &Checkpoint,
        dtype: Dtype,
        pool: &mut Pool,
    ) -> Result<Self> {
        let (h, m, d) = (c.hidden_size, c.intermediate_size, c.head_dim);
        let (q, kv) = (c.num_attention_heads * d, c.num_key_value_heads * d);
        let mut layers = Vec::with_capacity(c.num_hidden_layers);
        for i in 0..c.num_hidden_layers {
            let name = |part: &str| format!("model.text_model.layers.{i}.{part}.weight");
            let tensor =
                |part: &str, rows, columns| checkpoint.tensor(&name(part), &[rows, columns]);
            let qkv = [
                tensor("self_attn.q_proj", q, h)?,
                tensor("self_attn.k_proj", kv, h)?,
                tensor("self_attn.v_proj", kv, h)?,
            ];
            let gate_up = [tensor("mlp.gate_proj", m, h)?, tensor("mlp.up_proj", m, h)?];
            let mut pack =
                |w: &[Tensor<'_>], order| Linear::pack(w, order, Vec::new(), dtype, pool);
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
        let head = if c.tie_word_embeddings {
            EMBEDDING
        } else {
            "lm_head.weight"
        };
        let head = checkpoint.tensor(head, &[c.vocab_size, h])?;
        let head = Linear::pack(&[head], Order::Concatenated, Vec::new(), dtype, pool)?;
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
        pool: &mut Pool,
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
        pool.run(|worker| {
            let mut scratch = step.scratch(worker);
            for (index, layer) in self.layers.iter().enumerate() {
                step.layer(worker, &mut scratch, index, layer);
            }
            step.head(worker, &mut scratch.0, wanted, logits);
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
    let frequencies: Vec<f32> = (0..half)
        .map(|i| 1.0 / c.rope_theta.powf((2 * i) as f64 / c.head_dim as f64) as f32)
        .collect();
    let angles = (0..c.max_position_embeddings)
        .flat_map(|p| frequencies.iter().map(move |f| f64::from(p as f32 * f)));
    angles.map(|a| (a.cos() as f32, a.sin() as f32)).unzip()
}

/// New positions of one page.
struct Fill {
    page: u32,
    slot: usize,
    row: usize,
    position: usize,
    rows: usize,
}

/// Tokens of one sequence whose attention one task computes for one head.
struct Group<'a> {
    pages: &'a [u32],
    row: usize,
    position: usize,
    rows: usize,
}

/// A step as its threads see it.
struct Step<'a> {
    model: &'a TextModel,
    kernels: &'static Kernels,
    pages: Pages<'a>,
    rows: usize,
    fills: Vec<Fill>,
    groups: Vec<Group<'a>>,
    /// Blocks of keys per group when they are spread over the threads, else 0.
    split: usize,
    padded_dim: usize,
    hidden: Shared<'a, f32>,
    normed: Shared<'a, f32>,
    qkv: Shared<'a, f32>,
    attended: Shared<'a, f32>,
    mlp: Shared<'a, f32>,
    partial: Shared<'a, f32>,
    best: Shared<'a, f32>,
    quantized: SharedQuantized<'a>,
    threads: &'a [Mutex<(LinearScratch, AttentionScratch)>],
}

type Scratch = (LinearScratch, AttentionScratch);

// In all the blocks below: a phase reads only what earlier phases wrote, and each of its tasks writes rows, columns or
// pages that no other task of the phase touches.
impl<'a> Step<'a> {
    fn new(
        model: &'a TextModel,
        kernels: &'static Kernels,
        pages: Pages<'a>,
        b: &'a mut TextBuffers,
        segments: &'a [Segment],
        rows: usize,
    ) -> Self {
        let (mut fills, mut groups) = (Vec::new(), Vec::new());
        let heads = model.config.num_attention_heads / model.config.num_key_value_heads;
        let group_rows = query_rows(&model.config) / heads;
        for s in segments {
            let mut done = 0;
            while done < s.rows {
                let position = s.position + done;
                let slot = position % PAGE;
                let rows = (PAGE - slot).min(s.rows - done);
                fills.push(Fill {
                    page: s.pages[position / PAGE],
                    slot,
                    row: s.row + done,
                    position,
                    rows,
                });
                done += rows;
            }
            for done in (0..s.rows).step_by(group_rows) {
                let rows = group_rows.min(s.rows - done);
                groups.push(Group {
                    pages: &s.pages,
                    row: s.row + done,
                    position: s.position + done,
                    rows,
                });
            }
        }
        let blocks = segments
            .iter()
            .map(|s| (s.position + s.rows).div_ceil(BLOCK))
            .max()
            .unwrap_or(0);
        Self {
            model,
            kernels,
            pages,
            rows,
            fills,
            groups,
            split: if rows <= SPLIT_ROWS && blocks > 1 {
                blocks
            } else {
                0
            },
            padded_dim: model.config.head_dim.next_multiple_of(PANEL),
            hidden: Shared::new(&mut b.hidden),
            normed: Shared::new(&mut b.normed),
            qkv: Shared::new(&mut b.qkv),
            attended: Shared::new(&mut b.attended),
            mlp: Shared::new(&mut b.mlp),
            partial: Shared::new(&mut b.partial),
            best: Shared::new(&mut b.best),
            quantized: b.quantized.shared(),
            threads: &b.threads,
        }
    }

    fn scratch(&self, worker: &Worker<'_>) -> std::sync::MutexGuard<'a, Scratch> {
        self.threads[worker.index]
            .lock()
            .unwrap_or_else(|e| e.into_inner())
    }

    fn layer(&self, worker: &mut Worker<'_>, scratch: &mut Scratch, index: usize, layer: &Layer) {
        let c = &self.model.config;
        let (h, q) = (c.hidden_size, c.num_attention_heads * c.head_dim);
        let qkv_width = layer.qkv.outputs();
        self.norm(worker, &layer.input_norm, self.rows, |row| row);
        // SAFETY: see above.
        unsafe {
            layer.qkv.phase(
                worker,
                self.kernels,
                &mut scratch.0,
                self.input(self.normed, h),
                task_panels(self.rows),
                |row, _, columns, v| {
                    self.qkv
                        .part_mut(row * qkv_width + columns.start..row * qkv_width + columns.end)
                        .copy_from_slice(v);
                },
            );
        }
        self.store(worker, index, &mut scratch.1);
        self.attention(worker, index, &mut scratch.1);
        // SAFETY: see above.
        unsafe {
            layer.o.phase(
                worker,
                self.kernels,
                &mut scratch.0,
                self.input(self.attended, q),
                task_panels(self.rows),
                |row, _, columns, v| {
                    (self.kernels.add)(
                        self.hidden
                            .part_mut(row * h + columns.start..row * h + columns.end),
                        v,
                    );
                },
            );
        }
        self.norm(worker, &layer.post_norm, self.rows, |row| row);
        let m = c.intermediate_size;
        let width = row_stride(m);
        // SAFETY: see above.
        unsafe {
            layer.gate_up.phase(
                worker,
                self.kernels,
                &mut scratch.0,
                self.input(self.normed, h),
                task_panels(self.rows),
                |row, _, columns, v| {
                    for (i, pair) in v.chunks_exact(2 * PANEL).enumerate() {
                        let start = row * width + columns.start / 2 + i * PANEL;
                        let (gate, up) = pair.split_at(PANEL);
                        (self.kernels.silu_mul)(gate, up, self.mlp.part_mut(start..start + PANEL));
                    }
                },
            );
            layer.down.phase(
                worker,
                self.kernels,
                &mut scratch.0,
                self.input(self.mlp, width),
                task_panels(self.rows),
                |row, _, columns, v| {
                    (self.kernels.add)(
                        self.hidden
                            .part_mut(row * h + columns.start..row * h + columns.end),
                        v,
                    );
                },
            );
        }
    }

    fn input(&self, values: Shared<'a, f32>, stride: usize) -> Input<'a> {
        Input {
            values,
            stride,
            rows: self.rows,
            quantized: self.quantized,
        }
    }

    /// Norms row `source(i)` of the residual stream into row `i`, for `i` below `rows`.
    fn norm(
        &self,
        worker: &mut Worker<'_>,
        weight: &[f32],
        rows: usize,
        source: impl Fn(usize) -> usize,
    ) {
        let h = weight.len();
        worker.for_each(rows.div_ceil(NORM_ROWS), |task| {
            for row in task * NORM_ROWS..((task + 1) * NORM_ROWS).min(rows) {
                let from = source(row);
                // SAFETY: nobody writes the residual stream in this phase, and the output row is this task's.
                let (x, out) = unsafe {
                    (
                        self.hidden.part(from * h..(from + 1) * h),
                        self.normed.part_mut(row * h..(row + 1) * h),
                    )
                };
                (self.kernels.rms_norm)(x, weight, self.model.config.rms_norm_eps, out);
            }
        });
    }

    fn qkv_row(&self, row: usize) -> &'a [f32] {
        let c = &self.model.config;
        let width = (c.num_attention_heads + 2 * c.num_key_value_heads) * c.head_dim;
        // SAFETY: rows of `qkv` are written in one phase and read in later ones.
        unsafe { self.qkv.part(row * width..(row + 1) * width) }
    }

    fn rotate(&self, x: &[f32], position: usize, scale: f32, out: &mut [f32]) {
        let half = self.model.config.head_dim / 2;
        let table = position * half..(position + 1) * half;
        (self.kernels.rotary)(
            x,
            &self.model.cos[table.clone()],
            &self.model.sin[table],
            scale,
            out,
        );
    }

    /// Puts the new keys, rotated, and values into the pages.
    fn store(&self, worker: &mut Worker<'_>, layer: usize, s: &mut AttentionScratch) {
        let c = &self.model.config;
        let (d, heads) = (c.head_dim, c.num_key_value_heads);
        worker.for_each(self.fills.len() * heads, |task| {
            let (fill, head) = (&self.fills[task / heads], task % heads);
            for i in 0..fill.rows {
                let row = self.qkv_row(fill.row + i);
                let key = (c.num_attention_heads + head) * d;
                let value = key + heads * d;
                let rotated = &mut s.queries[..d];
                self.rotate(&row[key..key + d], fill.position + i, 1.0, rotated);
                // SAFETY: this task alone writes this head of this page, and nobody reads it in this phase.
                unsafe {
                    self.pages.store(
                        fill.page,
                        layer,
                        head,
                        fill.slot + i,
                        rotated,
                        &row[value..value + d],
                    )
                };
            }
        });
    }

    /// Loads the rotated queries of a group into the scratch.
    fn queries(&self, group: &Group<'_>, head: usize, s: &mut AttentionScratch) -> usize {
        let c = &self.model.config;
        let (d, per_key) = (c.head_dim, c.num_attention_heads / c.num_key_value_heads);
        let scale = std::f32::consts::LOG2_E / (d as f32).sqrt();
        for i in 0..group.rows {
            let row = self.qkv_row(group.row + i);
            for g in 0..per_key {
                let (from, to) = ((head * per_key + g) * d, i * per_key + g);
                let out = &mut s.queries[to * d..(to + 1) * d];
                self.rotate(&row[from..from + d], group.position + i, scale, out);
                s.limits[to] = group.position + i + 1;
            }
        }
        group.rows * per_key
    }

    fn attention(&self, worker: &mut Worker<'_>, layer: usize, s: &mut AttentionScratch) {
        let heads = self.model.config.num_key_value_heads;
        if self.split == 0 {
            worker.for_each(self.groups.len() * heads, |task| {
                let (group, head) = (&self.groups[task / heads], task % heads);
                let rows = self.queries(group, head, s);
                // SAFETY: the pages were written in an earlier phase.
                unsafe { self.pages.attend(group.pages, layer, head, rows, s) };
                self.attended(group, head, s);
            });
            return;
        }
        let per_key = self.model.config.num_attention_heads / heads;
        let row_size = self.padded_dim + 2;
        let piece = |row: usize, head: usize, block: usize| {
            let first = ((row * heads + head) * self.split + block) * per_key * row_size;
            move |rows: usize| first..first + rows * row_size
        };
        // One token per task and block: the piece of a token lies where no other task writes.
        worker.for_each(self.rows * heads * self.split, |task| {
            let (row, head, block) = (
                task / self.split / heads,
                task / self.split % heads,
                task % self.split,
            );
            let group = self.token(row);
            if block * BLOCK > group.position {
                return;
            }
            let rows = self.queries(&group, head, s);
            // SAFETY: the pages were written in an earlier phase, the piece is this task's.
            let out = unsafe { self.partial.part_mut(piece(row, head, block)(rows)) };
            let (states, out) = out.split_at_mut(2 * rows);
            let mut pairs = [(0.0, 0.0); QUERY_ROWS];
            let pairs = &mut pairs[..rows.min(QUERY_ROWS)];
            // SAFETY: as above.
            unsafe {
                self.pages
                    .block(group.pages, layer, head, block, rows, s, pairs, out)
            };
            for (state, pair) in states.chunks_exact_mut(2).zip(pairs) {
                (state[0], state[1]) = *pair;
            }
        });
        worker.for_each(self.rows * heads, |task| {
            let (row, head) = (task / heads, task % heads);
            let group = self.token(row);
            s.states[..per_key].fill((f32::NEG_INFINITY, 0.0));
            for block in 0..=group.position / BLOCK {
                // SAFETY: written in the phase before.
                let part = unsafe { self.partial.part(piece(row, head, block)(per_key)) };
                let (states, outputs) = part.split_at(2 * per_key);
                for g in 0..per_key {
                    let columns = g * self.padded_dim..(g + 1) * self.padded_dim;
                    let block_state = (states[2 * g], states[2 * g + 1]);
                    let out = &mut s.outputs[columns.clone()];
                    (self.kernels.merge)(&mut s.states[g], out, block_state, &outputs[columns]);
                }
            }
            self.attended(&group, head, s);
        });
    }

    /// The group that is the single token of row `row`.
    fn token(&self, row: usize) -> Group<'a> {
        let group = self
            .groups
            .iter()
            .find(|g| (g.row..g.row + g.rows).contains(&row))
            .unwrap_or(&self.groups[0]);
        Group {
            pages: group.pages,
            row,
            position: group.position + row - group.row,
            rows: 1,
        }
    }

    /// Normalises what the scratch holds for a group and writes it where the output projection reads.
    fn attended(&self, group: &Group<'_>, head: usize, s: &mut AttentionScratch) {
        let c = &self.model.config;
        let (d, per_key) = (c.head_dim, c.num_attention_heads / c.num_key_value_heads);
        for i in 0..group.rows {
            for g in 0..per_key {
                let from = i * per_key + g;
                let to = ((group.row + i) * c.num_attention_heads + head * per_key + g) * d;
                let scale = 1.0 / s.states[from].1;
                // SAFETY: these columns of this row are this task's.
                let out = unsafe { self.attended.part_mut(to..to + d) };
                for (o, x) in out.iter_mut().zip(&s.outputs[from * self.padded_dim..]) {
                    *o = x * scale;
                }
            }
        }
    }

    fn head(
        &self,
        worker: &mut Worker<'_>,
        s: &mut LinearScratch,
        wanted: &[usize],
        logits: Option<Shared<'_, f32>>,
    ) {
        let (h, vocab) = (self.model.config.hidden_size, self.model.config.vocab_size);
        let tasks = self.model.head_tasks();
        self.norm(worker, &self.model.norm, wanted.len(), |row| wanted[row]);
        // SAFETY: each task writes columns or places of its own.
        unsafe {
            self.model.head.phase(
                worker,
                self.kernels,
                s,
                Input {
                    rows: wanted.len(),
                    ..self.input(self.normed, h)
                },
                HEAD_PANELS,
                |row, task, columns, v| {
                    if let Some(logits) = logits {
                        logits
                            .part_mut(row * vocab + columns.start..row * vocab + columns.end)
                            .copy_from_slice(v);
                    } else {
                        let (index, value) = (self.kernels.argmax)(v);
                        let place = self
                            .best
                            .part_mut(2 * (row * tasks + task)..2 * (row * tasks + task) + 2);
                        place[0] = value;
                        // Ids stay far below 2^24: exact in float32.
                        place[1] = (columns.start + index) as f32;
                    }
                },
            );
        }
    }

    /// The best token among those of the head's tasks; the lowest id wins a tie.
    fn best_token(&self, row: usize) -> i64 {
        let tasks = self.model.head_tasks();
        // SAFETY: the job is over.
        let pairs = unsafe { self.best.part(2 * row * tasks..2 * (row + 1) * tasks) };
        let mut best = (f32::NEG_INFINITY, 0.0);
        for pair in pairs.chunks_exact(2) {
            if pair[0] > best.0 {
                best = (pair[0], pair[1]);
            }
        }
        best.1 as i64
    }
}
