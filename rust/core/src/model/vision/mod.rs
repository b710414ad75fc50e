//! The vision tower and the connector: one frame of pixels to its image tokens.
use std::sync::Mutex;

use crate::error::{Error, Result};
use crate::machine::memory::{Mapped, Shared};
use crate::machine::team::Team;
use crate::model::checkpoint::{Checkpoint, Tensor};
use crate::model::config::ModelConfig;
use crate::model::kernels::{Dtype, Kernels, Packing};
use crate::model::kv::{AttentionScratch, PageLayout, Pages, QUERY_ROWS};
use crate::model::linear::packed_file::Packer;
use crate::model::linear::{Activations, Linear, LinearScratch, Order, Quantized};

mod encode;

use encode::Encode;

/// Most patches of a frame.
const MOST_PATCHES: usize = 1 << 16;

struct Norm {
    weight: Vec<f32>,
    bias: Vec<f32>,
}

struct Layer {
    norm1: Norm,
    qkv: Linear,
    out: Linear,
    norm2: Norm,
    fc1: Linear,
    fc2: Linear,
}

/// Weights of the vision tower and the connector.
pub struct VisionModel {
    config: ModelConfig,
    patch_embedding: Linear,
    position_embedding: Vec<f32>,
    layers: Vec<Layer>,
    post_norm: Norm,
    projection: Linear,
}

/// Scratch of a thread, and room for one row on its way into [`Activations`].
type Scratch = (LinearScratch, AttentionScratch, Vec<f32>);

/// Activations of one frame.
pub struct VisionBuffers {
    patches: usize,
    layout: PageLayout,
    kv: Mapped<u8>,
    input: Mapped<f32>,
    hidden: Mapped<f32>,
    normed: Mapped<f32>,
    qkv: Mapped<f32>,
    mlp: Mapped<f32>,
    quantized: Quantized,
    threads: Vec<Mutex<Scratch>>,
}

impl VisionBuffers {
    /// Buffers for frames of up to `patches` patches on `threads` threads; `dtype` is that of keys and values.
    pub fn new(c: &ModelConfig, dtype: Dtype, patches: usize, threads: usize) -> Result<Self> {
        let v = &c.vision;
        let layout = PageLayout::new(dtype, 1, v.num_attention_heads, v.head_dim()).large();
        let zeroed = |columns: usize| Mapped::zeroed(patches.saturating_mul(columns));
        let folded = c.scale_factor * c.scale_factor;
        let shuffled = Activations::room(patches.div_ceil(folded), folded * v.hidden_size)?;
        let pixels = Activations::room(patches, v.num_channels * v.patch_size * v.patch_size)?;
        // The connector has few rows, but long ones.
        let inputs = v.hidden_size.max(v.intermediate_size).max(v.num_channels * v.patch_size * v.patch_size);
        let quantized = Quantized::new(&[(patches, inputs), (patches.div_ceil(folded), folded * v.hidden_size)])?;
        Ok(Self {
            patches,
            kv: Mapped::zeroed(patches.div_ceil(layout.page()) * layout.page_bytes())?,
            // Pixels of the patches at the start, the connector's input at the end.
            input: if pixels.len() > shuffled.len() { pixels } else { shuffled },
            hidden: zeroed(v.hidden_size)?,
            normed: Activations::room(patches, v.hidden_size)?,
            qkv: Activations::room(patches, 3 * v.hidden_size)?,
            mlp: Activations::room(patches, v.intermediate_size)?,
            quantized,
            threads: (0..threads)
                .map(|_| {
                    Ok(Mutex::new((LinearScratch::new()?, AttentionScratch::new(&layout, QUERY_ROWS)?, Vec::new())))
                })
                .collect::<Result<_>>()?,
            layout,
        })
    }

    /// Patches that the buffers hold.
    pub fn patches(&self) -> usize {
        self.patches
    }
}

/// One frame: `[channels][height][width]` pixels, and which patches belong to the picture.
pub struct Frame<'a> {
    /// Pixels.
    pub pixels: &'a [f32],
    /// Height in pixels.
    pub height: usize,
    /// Width in pixels.
    pub width: usize,
    /// `[height / patch_size][width / patch_size]`, row-major.
    pub patch_mask: &'a [bool],
}

impl VisionModel {
    /// Reads and packs the weights.
    pub fn load(c: &ModelConfig, checkpoint: &Checkpoint, packer: &mut Packer<'_>) -> Result<Self> {
        let v = &c.vision;
        let (h, m, p) = (v.hidden_size, v.intermediate_size, v.patch_size);
        let prefix = "model.vision_model";
        let norm = |name: &str| -> Result<Norm> {
            let part = |kind: &str| checkpoint.vector(&format!("{prefix}.{name}.{kind}"), &[h]);
            Ok(Norm { weight: part("weight")?, bias: part("bias")? })
        };
        let mut pack = |w: &[Tensor<'_>], bias| packer.linear(w, Order::Concatenated, bias);
        let mut layers = Vec::with_capacity(v.num_hidden_layers);
        for i in 0..v.num_hidden_layers {
            let name = |part: &str, kind: &str| format!("{prefix}.encoder.layers.{i}.{part}.{kind}");
            let weight = |part: &str, rows, columns| checkpoint.tensor(&name(part, "weight"), &[rows, columns]);
            let bias = |part: &str, rows| checkpoint.vector(&name(part, "bias"), &[rows]);
            let projections = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"];
            let mut qkv = Vec::new();
            let mut qkv_bias = Vec::new();
            for part in projections {
                qkv.push(weight(part, h, h)?);
                qkv_bias.extend(bias(part, h)?);
            }
            layers.push(Layer {
                norm1: norm(&format!("encoder.layers.{i}.layer_norm1"))?,
                qkv: pack(&qkv, qkv_bias)?,
                out: pack(&[weight("self_attn.out_proj", h, h)?], bias("self_attn.out_proj", h)?)?,
                norm2: norm(&format!("encoder.layers.{i}.layer_norm2"))?,
                fc1: pack(&[weight("mlp.fc1", m, h)?], bias("mlp.fc1", m)?)?,
                fc2: pack(&[weight("mlp.fc2", h, m)?], bias("mlp.fc2", h)?)?,
            });
            checkpoint.release();
        }
        let embedding =
            checkpoint.tensor(&format!("{prefix}.embeddings.patch_embedding.weight"), &[h, v.num_channels, p, p])?;
        let bias = checkpoint.vector(&format!("{prefix}.embeddings.patch_embedding.bias"), &[h])?;
        let positions = v.grid() * v.grid();
        let inputs = h * c.scale_factor * c.scale_factor;
        let projection =
            checkpoint.tensor("model.connector.modality_projection.proj.weight", &[c.text.hidden_size, inputs])?;
        Ok(Self {
            config: c.clone(),
            patch_embedding: pack(&[embedding], bias)?,
            position_embedding: checkpoint
                .vector(&format!("{prefix}.embeddings.position_embedding.weight"), &[positions, h])?,
            layers,
            post_norm: norm("post_layernorm")?,
            projection: pack(&[projection], Vec::new())?,
        })
    }

    /// Patches along both sides and image tokens of a frame, or why the connector cannot fold it.
    pub fn frame_size(&self, height: usize, width: usize) -> Result<(usize, usize, usize)> {
        let (p, s) = (self.config.vision.patch_size, self.config.scale_factor);
        let (rows, columns) = (height / p, width / p);
        if rows == 0 || rows != columns || rows % s != 0 || rows.saturating_mul(columns) > MOST_PATCHES {
            return Err(Error::value(format!(
                "a frame of {height} x {width} pixels has {rows} x {columns} patches; expected a square grid of at most \
                 {MOST_PATCHES} patches whose side is a multiple of {s}"
            )));
        }
        Ok((rows, columns, rows * columns / (s * s)))
    }

    /// Writes the image tokens of a frame, `text hidden_size` wide, to `out`.
    pub fn encode(
        &self,
        kernels: &'static Kernels,
        team: &mut Team,
        buffers: &mut VisionBuffers,
        frame: &Frame<'_>,
        out: &mut [f32],
    ) -> Result<()> {
        let (rows, columns, tokens) = self.frame_size(frame.height, frame.width)?;
        let v = &self.config.vision;
        let expected = [
            ("pixels", frame.pixels.len(), v.num_channels * frame.height * frame.width),
            ("patch mask", frame.patch_mask.len(), rows * columns),
            ("image tokens", out.len(), tokens * self.config.text.hidden_size),
        ];
        for (what, given, expected) in expected {
            if given != expected {
                return Err(Error::value(format!("{what}: {given} elements given, {expected} expected")));
            }
        }
        let keys: Vec<usize> = (0..rows * columns).filter(|&i| frame.patch_mask[i]).collect();
        if keys.is_empty() {
            return Err(Error::value("the pixel attention mask hides every patch of a frame"));
        }
        let VisionBuffers { layout, kv, input, hidden, normed, qkv, mlp, quantized, threads, .. } = buffers;
        let rounds = self.projection.packing().rounds(kernels);
        let rounds_keys = Packing::from(layout.dtype()).rounds(kernels);
        let before = |room, columns| Activations::new(Shared::new(room), columns, rounds, kernels);
        let patch = v.num_channels * v.patch_size * v.patch_size;
        let input = Shared::new(input);
        let task = Encode {
            model: self,
            kernels,
            frame,
            columns,
            rows: rows * columns,
            positions: position_ids(frame.patch_mask, rows, columns, v.grid()),
            table: (0..keys.len().div_ceil(layout.page()) as u32).collect(),
            keys,
            pages: Pages::new(kernels, layout, kv),
            input: Activations::new(input, patch, rounds, kernels),
            folded: Activations::new(input, v.hidden_size * (rows * columns / tokens), rounds, kernels),
            hidden: Shared::new(hidden),
            normed: before(normed, v.hidden_size),
            // As attention multiplies them.
            qkv: Activations::new(Shared::new(qkv), 3 * v.hidden_size, rounds_keys, kernels),
            mlp: before(mlp, v.intermediate_size),
            quantized: quantized.shared(),
            padded_dim: layout.padded_dim(),
        };
        let (out, threads) = (Shared::new(out), &*threads);
        team.run(|worker| {
            let mut scratch = threads[worker.index].lock().unwrap_or_else(|e| e.into_inner());
            task.embed(worker, &mut scratch);
            for layer in &self.layers {
                task.layer(worker, &mut scratch, layer);
            }
            task.connect(worker, &mut scratch, tokens, out);
        })
    }
}

/// Row of the position table of each patch: the picture's patches are spread evenly over the whole table.
fn position_ids(mask: &[bool], rows: usize, columns: usize, grid: usize) -> Vec<usize> {
    let height = (0..rows).filter(|r| mask[r * columns]).count();
    let width = (0..columns).filter(|&c| mask[c]).count();
    let spread = |i: usize, n: usize| (i * grid).checked_div(n).map_or(0, |id| id.min(grid - 1));
    let mut ids = vec![0; rows * columns];
    // The n-th visible patch takes the n-th id of the visible rectangle.
    let rectangle = (0..height).flat_map(|r| (0..width).map(move |c| spread(r, height) * grid + spread(c, width)));
    for (id, position) in ids.iter_mut().zip(mask).filter(|(_, visible)| **visible).map(|(id, _)| id).zip(rectangle) {
        *id = position;
    }
    ids
}
