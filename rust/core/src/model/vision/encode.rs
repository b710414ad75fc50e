//! The encoding of one frame as its threads see it.
use super::{Frame, Layer, Norm, Scratch, VisionModel};
use crate::machine::memory::Shared;
use crate::machine::team::Worker;
use crate::model::kernels::Kernels;
use crate::model::kv::{Pages, Row};
use crate::model::linear::{Activations, Input, SharedQuantized, task_panels};

/// Rows of one task in the phases that are no matrix product.
const TASK_ROWS: usize = 16;

/// One frame as the threads see it.
pub struct Encode<'a> {
    pub model: &'a VisionModel,
    pub kernels: &'static Kernels,
    pub frame: &'a Frame<'a>,
    pub columns: usize,
    pub rows: usize,
    pub positions: Vec<usize>,
    /// Visible patches: the others are no keys.
    pub keys: Vec<usize>,
    pub table: Vec<u32>,
    pub pages: Pages<'a>,
    /// Pixels of the patches.
    pub input: Activations<'a>,
    /// Squares of patches: in the same memory, which the pixels no longer need.
    pub folded: Activations<'a>,
    pub hidden: Shared<'a, f32>,
    pub normed: Activations<'a>,
    /// Queries, scaled, then keys, then values.
    pub qkv: Activations<'a>,
    pub mlp: Activations<'a>,
    pub quantized: SharedQuantized<'a>,
    pub padded_dim: usize,
}

// In all the blocks below: a phase reads only what earlier phases wrote, and each of its tasks writes rows, columns or
// pages that no other task of the phase touches.
impl<'a> Encode<'a> {
    fn input(&self, values: Activations<'a>, rows: usize) -> Input<'a> {
        Input { values, rows, quantized: self.quantized }
    }

    /// Calls `task(row)` for every row, some rows to a task.
    fn each_row(&self, worker: &mut Worker<'_>, rows: usize, mut task: impl FnMut(usize)) {
        worker.for_each(rows.div_ceil(TASK_ROWS), |i| {
            (i * TASK_ROWS..((i + 1) * TASK_ROWS).min(rows)).for_each(&mut task);
        });
    }

    /// Pixels of the patches times the convolution's weights, plus the position embeddings.
    pub fn embed(&self, worker: &mut Worker<'_>, s: &mut Scratch) {
        let v = &self.model.config.vision;
        let (h, p) = (v.hidden_size, v.patch_size);
        let inputs = v.num_channels * p * p;
        self.each_row(worker, self.rows, |row| {
            let (top, left) = (row / self.columns * p, row % self.columns * p);
            let patch = |out: &mut [f32]| {
                for (line, out) in out.chunks_exact_mut(p).enumerate() {
                    let (channel, y) = (line / p, top + line % p);
                    let start = (channel * self.frame.height + y) * self.frame.width + left;
                    out.copy_from_slice(&self.frame.pixels[start..start + p]);
                }
            };
            // SAFETY: the row is this task's.
            unsafe { self.input.fill(row, 0..inputs, &mut s.2, patch) };
        });
        // SAFETY: see above.
        unsafe {
            self.model.patch_embedding.phase(
                worker,
                self.kernels,
                &mut s.0,
                self.input(self.input, self.rows),
                task_panels(self.rows),
                |row, _, columns, v| {
                    let position = self.positions[row] * h;
                    let table = &self.model.position_embedding[position + columns.start..position + columns.end];
                    (self.kernels.add)(v, table);
                    self.hidden.part_mut(row * h + columns.start..row * h + columns.end).copy_from_slice(v);
                },
            );
        }
    }

    /// Norms row `row` of the residual stream into columns of a row of `to`.
    ///
    /// # Safety
    /// As for [`Activations::fill`].
    unsafe fn norm_row(
        &self,
        norm: &Norm,
        row: usize,
        spare: &mut Vec<f32>,
        to: Activations<'a>,
        (to_row, start): (usize, usize),
    ) {
        let h = norm.weight.len();
        let eps = self.model.config.vision.layer_norm_eps;
        // SAFETY: nobody writes the residual stream in this phase, and the caller's promise.
        unsafe {
            let x = self.hidden.part(row * h..(row + 1) * h);
            to.fill(to_row, start..start + h, spare, |out| {
                (self.kernels.layer_norm)(x, &norm.weight, &norm.bias, eps, out);
            });
        }
    }

    fn norm(&self, worker: &mut Worker<'_>, norm: &Norm, spare: &mut Vec<f32>) {
        self.each_row(worker, self.rows, |row| {
            // SAFETY: see above.
            unsafe { self.norm_row(norm, row, spare, self.normed, (row, 0)) };
        });
    }

    pub fn layer(&self, worker: &mut Worker<'_>, scratch: &mut Scratch, layer: &Layer) {
        let h = self.model.config.vision.hidden_size;
        let (linear, k) = (&mut scratch.0, self.kernels);
        let head_dim = self.model.config.vision.head_dim();
        let scale = std::f32::consts::LOG2_E / (head_dim as f32).sqrt();
        self.norm(worker, &layer.norm1, &mut scratch.2);
        // SAFETY: see above.
        unsafe {
            layer.qkv.phase(
                worker,
                k,
                linear,
                self.input(self.normed, self.rows),
                task_panels(self.rows),
                |row, _, columns, v| {
                    let queries = h.saturating_sub(columns.start).min(v.len());
                    v[..queries].iter_mut().for_each(|x| *x *= scale);
                    self.qkv.put(row, columns.start, v);
                },
            );
        }
        self.attention(worker, scratch);
        let linear = &mut scratch.0;
        // SAFETY: see above.
        unsafe {
            layer.out.phase(
                worker,
                k,
                linear,
                self.input(self.normed, self.rows),
                task_panels(self.rows),
                |row, _, columns, v| {
                    (k.add)(self.hidden.part_mut(row * h + columns.start..row * h + columns.end), v);
                },
            );
        }
        self.norm(worker, &layer.norm2, &mut scratch.2);
        // SAFETY: see above.
        unsafe {
            layer.fc1.phase(
                worker,
                k,
                linear,
                self.input(self.normed, self.rows),
                task_panels(self.rows),
                |row, _, columns, v| {
                    (k.gelu)(v);
                    self.mlp.put(row, columns.start, v);
                },
            );
            layer.fc2.phase(
                worker,
                k,
                linear,
                self.input(self.mlp, self.rows),
                task_panels(self.rows),
                |row, _, columns, v| {
                    (k.add)(self.hidden.part_mut(row * h + columns.start..row * h + columns.end), v);
                },
            );
        }
    }

    /// Every patch attends to the visible ones; the result replaces the normed rows.
    fn attention(&self, worker: &mut Worker<'_>, (_, s, spare): &mut Scratch) {
        let v = &self.model.config.vision;
        let (h, d, heads) = (v.hidden_size, v.head_dim(), v.num_attention_heads);
        // SAFETY: `qkv` was written in an earlier phase.
        let qkv = |row: usize, part: usize, head: usize| unsafe {
            let columns = part * h + head * d..part * h + (head + 1) * d;
            if self.qkv.rounded() {
                Row::Bfloat16(&self.qkv.rounded_rows(row..row + 1)[columns])
            } else {
                Row::Float32(&self.qkv.rows(row..row + 1)[columns])
            }
        };
        let page = self.pages.page();
        worker.for_each(self.table.len() * heads, |task| {
            let (index, head) = (task / heads, task % heads);
            for (slot, &row) in self.keys[index * page..].iter().take(page).enumerate() {
                let room = &mut s.rounded_row;
                // SAFETY: see above.
                unsafe { self.pages.store(index as u32, 0, head, slot, qkv(row, 1, head), qkv(row, 2, head), room) };
            }
        });
        // Head after head, so that its keys and values stay in the second-level cache.
        let query_rows = self.pages.query_rows();
        let blocks = self.rows.div_ceil(query_rows);
        worker.for_each(blocks * heads, |task| {
            let (first, head) = (task % blocks * query_rows, task / blocks);
            let rows = (self.rows - first).min(query_rows);
            for row in 0..rows {
                self.pages.query(s, row, qkv(first + row, 0, head));
            }
            s.limits[..rows].fill(self.keys.len());
            // SAFETY: see above.
            unsafe { self.pages.attend(&self.table, 0, head, rows, s) };
            for row in 0..rows {
                let scale = 1.0 / s.states[row].1;
                let attended = |out: &mut [f32]| {
                    for (o, x) in out.iter_mut().zip(&s.outputs[row * self.padded_dim..]) {
                        *o = x * scale;
                    }
                };
                let columns = head * d..(head + 1) * d;
                // SAFETY: see above.
                unsafe { self.normed.fill(first + row, columns, spare, attended) };
            }
        });
    }

    /// Final norm, squares of patches side by side, and their projection.
    pub fn connect(&self, worker: &mut Worker<'_>, s: &mut Scratch, tokens: usize, out: Shared<'_, f32>) {
        let h = self.model.config.vision.hidden_size;
        let side = self.model.config.scale_factor;
        let width = self.model.config.text.hidden_size;
        let per_line = self.columns / side;
        self.each_row(worker, self.rows, |row| {
            let (y, x) = (row / self.columns, row % self.columns);
            let token = y / side * per_line + x / side;
            let place = (token, (y % side * side + x % side) * h);
            let norm = &self.model.post_norm;
            // SAFETY: see above.
            unsafe { self.norm_row(norm, row, &mut s.2, self.folded, place) };
        });
        // SAFETY: see above.
        unsafe {
            self.model.projection.phase(
                worker,
                self.kernels,
                &mut s.0,
                self.input(self.folded, tokens),
                task_panels(tokens),
                |row, _, columns, v| {
                    out.part_mut(row * width + columns.start..row * width + columns.end).copy_from_slice(v);
                },
            );
        }
    }
}
