//! The vision tower and the connector: one frame of pixels to its image tokens.
use std::sync::Mutex;

use super::checkpoint::Checkpoint;
use super::config::ModelConfig;
use super::kernels::Kernels;
use super::kv::{AttentionScratch, KvFormat, PageLayout, Pages, QUERY_ROWS};
use super::linear::packed_file::Packer;
use super::linear::{Activations, InputFormat, Linear, LinearScratch, Order, Quantized, Rows, Storage};
use super::names::{self, Affine};
use crate::error::{Error, Result};
use crate::machine::memory::Mapped;
use crate::machine::team::Team;

mod forward;

use forward::{Activity, Forward};

/// Most patches of a frame.
const MAX_PATCHES: usize = 1 << 16;

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
pub(crate) struct VisionModel {
    config: ModelConfig,
    kernels: &'static Kernels,
    /// What all layers take.
    input: InputFormat,
    patch_embedding: Linear,
    position_embedding: Vec<f32>,
    layers: Vec<Layer>,
    post_norm: Norm,
    projection: Linear,
}

/// Scratch of a thread.
struct VisionScratch {
    linear: LinearScratch,
    attention: AttentionScratch,
    /// One row on its way into [`Activations`].
    row: Vec<f32>,
}

/// Activations of one frame.
pub(crate) struct VisionBuffers {
    patches: usize,
    layout: PageLayout,
    kv: Mapped<u8>,
    input: Mapped<f32>,
    hidden: Mapped<f32>,
    normed: Mapped<f32>,
    qkv: Mapped<f32>,
    mlp: Mapped<f32>,
    quantized: Quantized,
    threads: Vec<Mutex<VisionScratch>>,
}

impl VisionBuffers {
    /// Buffers for frames of up to `patches` patches on `threads` threads; `format` is that of keys and values.
    pub(crate) fn new(c: &ModelConfig, format: KvFormat, patches: usize, threads: usize) -> Result<Self> {
        let v = &c.vision;
        let layout = PageLayout::new(format, 1, v.num_attention_heads, v.head_dim()).large();
        let square = c.scale_factor * c.scale_factor;
        let (tokens, folded) = (patches.div_ceil(square), square * v.hidden_size);
        let pixels = v.num_channels * v.patch_size * v.patch_size;
        let inputs = [Activations::buffer(patches, pixels)?, Activations::buffer(tokens, folded)?];
        let widest = v.hidden_size.max(v.intermediate_size).max(pixels);
        let scratch = || {
            Ok(Mutex::new(VisionScratch {
                linear: LinearScratch::new(widest.max(folded))?,
                attention: AttentionScratch::new(&layout, QUERY_ROWS)?,
                row: Vec::new(),
            }))
        };
        Ok(Self {
            patches,
            kv: Mapped::zeroed(patches.div_ceil(layout.page()) * layout.page_bytes())?,
            // Pixels of the patches at the start, the connector's input at the end.
            input: inputs.into_iter().max_by_key(|input| input.len()).expect("two"),
            hidden: Mapped::zeroed(patches.saturating_mul(v.hidden_size))?,
            normed: Activations::buffer(patches, v.hidden_size)?,
            qkv: Activations::buffer(patches, 3 * v.hidden_size)?,
            mlp: Activations::buffer(patches, v.intermediate_size)?,
            // The connector has few rows, but long ones.
            quantized: Quantized::new(&[(patches, widest), (tokens, folded)])?,
            threads: (0..threads).map(|_| scratch()).collect::<Result<_>>()?,
            layout,
        })
    }

    /// Patches that the buffers hold.
    pub(crate) fn patches(&self) -> usize {
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

/// Reads the tensors of a checkpoint and packs its matrices.
struct Loader<'l, 'p> {
    checkpoint: &'l Checkpoint,
    packer: &'l mut Packer<'p>,
}

impl Loader<'_, '_> {
    fn norm(&self, names: &Affine) -> Result<Norm> {
        let vector = |(name, shape): &names::Spec| self.checkpoint.vector(name, shape);
        Ok(Norm { weight: vector(&names.weight)?, bias: vector(&names.bias)? })
    }

    /// One layer of several matrices, one after the other, and their biases.
    fn linear(&mut self, parts: &[&Affine]) -> Result<Linear> {
        let (mut weights, mut bias) = (Vec::new(), Vec::new());
        for part in parts {
            weights.push(self.checkpoint.tensor(&part.weight.0, &part.weight.1)?);
            bias.extend(self.checkpoint.vector(&part.bias.0, &part.bias.1)?);
        }
        self.packer.linear(&weights, Order::Concatenated, bias)
    }
}

impl VisionModel {
    /// Reads and packs the weights.
    pub(crate) fn load(
        c: &ModelConfig,
        checkpoint: &Checkpoint,
        packer: &mut Packer<'_>,
        (kernels, storage): (&'static Kernels, Storage),
    ) -> Result<Self> {
        packer.pack_for(storage);
        let v = &c.vision;
        let mut load = Loader { checkpoint, packer };
        let mut layers = Vec::with_capacity(v.num_hidden_layers);
        for index in 0..v.num_hidden_layers {
            let n = names::vision_layer(v, index);
            layers.push(Layer {
                norm1: load.norm(&n.norm1)?,
                qkv: load.linear(&[&n.q, &n.k, &n.v])?,
                out: load.linear(&[&n.out])?,
                norm2: load.norm(&n.norm2)?,
                fc1: load.linear(&[&n.fc1])?,
                fc2: load.linear(&[&n.fc2])?,
            });
            checkpoint.release();
        }
        let (name, shape) = names::position_embedding(v);
        let (connector, connector_shape) = names::connector(c);
        let connector = checkpoint.tensor(&connector, &connector_shape)?;
        Ok(Self {
            config: c.clone(),
            kernels,
            input: storage.input(),
            patch_embedding: load.linear(&[&names::patch_embedding(v)])?,
            position_embedding: checkpoint.vector(&name, &shape)?,
            layers,
            post_norm: load.norm(&names::post_norm(v))?,
            projection: load.packer.linear(&[connector], Order::Concatenated, Vec::new())?,
        })
    }

    /// Patches along both sides and image tokens of a frame, or why the connector cannot fold it.
    pub(crate) fn frame_size(&self, height: usize, width: usize) -> Result<(usize, usize, usize)> {
        let (p, s) = (self.config.vision.patch_size, self.config.scale_factor);
        let (rows, columns) = (height / p, width / p);
        if rows == 0 || rows != columns || rows % s != 0 || rows.saturating_mul(columns) > MAX_PATCHES {
            return Err(Error::value(format!(
                "a frame of {height} x {width} pixels has {rows} x {columns} patches; expected a square grid of at most \
                 {MAX_PATCHES} patches whose side is a multiple of {s}"
            )));
        }
        Ok((rows, columns, rows * columns / (s * s)))
    }

    /// Writes the image tokens of a frame, `text hidden_size` wide, to `out`.
    pub(crate) fn encode(
        &self,
        team: &mut Team,
        buffers: &mut VisionBuffers,
        frame: &Frame<'_>,
        out: &mut [f32],
    ) -> Result<()> {
        let (rows, columns, tokens) = self.frame_size(frame.height, frame.width)?;
        self.check(frame, (rows * columns, tokens), out.len())?;
        let keys: Vec<usize> = (0..rows * columns).filter(|&i| frame.patch_mask[i]).collect();
        if keys.is_empty() {
            return Err(Error::value("the pixel attention mask hides every patch of a frame"));
        }
        let (v, kernels) = (&self.config.vision, self.kernels);
        let VisionBuffers { layout, kv, input, hidden, normed, qkv, mlp, quantized, threads, .. } = buffers;
        let forward = Forward {
            model: self,
            frame,
            columns,
            rows: rows * columns,
            tokens,
            positions: position_ids(frame.patch_mask, rows, columns, v.grid()),
            pages: (0..keys.len().div_ceil(layout.page()) as u32).collect(),
            keys,
            padded_dim: layout.padded_dim(),
        };
        let pages = Pages::new(kernels, layout, kv);
        let attended = if pages.multiplies_bfloat16() { InputFormat::Bfloat16 } else { InputFormat::Float32 };
        let activations = |memory, columns| Activations::new(memory, columns, self.input, kernels);
        let mut shared = Activity {
            input: activations(input, v.num_channels * v.patch_size * v.patch_size),
            hidden: Rows::new(hidden, v.hidden_size),
            normed: activations(normed, v.hidden_size),
            qkv: Activations::new(qkv, 3 * v.hidden_size, attended, kernels),
            mlp: activations(mlp, v.intermediate_size),
            quantized: quantized.rows(),
            pages,
            out: Rows::new(out, self.config.text.hidden_size),
        };
        team.run_shared(&mut shared, |worker, shared| {
            let mut scratch = threads[worker.index].lock().unwrap_or_else(|e| e.into_inner());
            forward.run(worker, shared, &mut scratch);
        })
    }

    /// Refuses slices that are not what a frame of this size has.
    fn check(&self, frame: &Frame<'_>, (patches, tokens): (usize, usize), out: usize) -> Result<()> {
        let pixels = self.config.vision.num_channels * frame.height * frame.width;
        let sizes = [
            ("pixels", frame.pixels.len(), pixels),
            ("patch mask", frame.patch_mask.len(), patches),
            ("image tokens", out, tokens * self.config.text.hidden_size),
        ];
        for (what, given, expected) in sizes {
            if given != expected {
                return Err(Error::value(format!("{what}: {given} elements given, {expected} expected")));
            }
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_spread_the_visible_patches_over_the_whole_table() {
        assert_eq!(position_ids(&[true; 16], 4, 4, 4), (0..16).collect::<Vec<_>>());
        // As many patches as the table has in one direction, half as many in the other.
        let upper: Vec<bool> = (0..16).map(|patch| patch < 8).collect();
        assert_eq!(position_ids(&upper, 4, 4, 4), [0, 1, 2, 3, 8, 9, 10, 11, 0, 0, 0, 0, 0, 0, 0, 0]);
        let left: Vec<bool> = (0..16).map(|patch| patch % 4 < 2).collect();
        assert_eq!(position_ids(&left, 4, 4, 4), [0, 2, 0, 0, 4, 6, 0, 0, 8, 10, 0, 0, 12, 14, 0, 0]);
        // More patches than the table has.
        assert_eq!(position_ids(&[true; 16], 4, 4, 2), [0, 0, 1, 1, 0, 0, 1, 1, 2, 2, 3, 3, 2, 2, 3, 3]);
    }
}
