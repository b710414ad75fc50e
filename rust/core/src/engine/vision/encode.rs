//! The encoding of one frame as its threads see it.
use super::{Frame, Layer, Norm, Scratch, VisionModel};
use crate::engine::attention::{AttentionScratch, PAGE, Pages, QUERY_ROWS};
use crate::engine::kernels::Kernels;
use crate::engine::linear::{Input, LinearScratch, SharedQuantized, row_stride, task_panels};
use crate::engine::memory::Shared;
use crate::engine::pool::Worker;

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
    pub input: Shared<'a, f32>,
    pub hidden: Shared<'a, f32>,
    pub normed: Shared<'a, f32>,
    pub qkv: Shared<'a, f32>,
    pub mlp: Shared<'a, f32>,
    pub quantized: SharedQuantized<'a>,
    pub padded_dim: usize,
}

// In all the blocks below: a phase reads only what earlier phases wrote, and each of its tasks writes rows, columns or
// pages that no other task of the phase touches.
impl<'a> Encode<'a> {
    fn input(&self, values: Shared<'a, f32>, stride: usize, rows: usize) -> Input<'a> {
        Input {
            values,
            stride,
            rows,
            quantized: self.quantized,
        }
    }

    /// Calls `task(row)` for every row, some rows to a task.
    fn each_row(&self, worker: &mut Worker<'_>, rows: usize, mut task: impl FnMut(usize)) {
        worker.for_each(rows.div_ceil(TASK_ROWS), |i| {
            (i * TASK_ROWS..((i + 1) * TASK_ROWS).min(rows)).for_each(&mut task);
        });
    }

    /// Pixels of the patches times the convolution's weights, plus the position embeddings.
    pub fn embed(&self, worker: &mut Worker<'_>, s: &mut LinearScratch) {
        let v = &self.model.config.vision;
        let (h, p) = (v.hidden_size, v.patch_size);
        let inputs = v.num_channels * p * p;
        self.each_row(worker, self.rows, |row| {
            // SAFETY: the row is this task's.
            let out = unsafe { self.input.part_mut(row * inputs..(row + 1) * inputs) };
            let (top, left) = (row / self.columns * p, row % self.columns * p);
            for (line, out) in out.chunks_exact_mut(p).enumerate() {
                let (channel, y) = (line / p, top + line % p);
                let start = (channel * self.frame.height + y) * self.frame.width + left;
                out.copy_from_slice(&self.frame.pixels[start..start + p]);
            }
        });
        // SAFETY: see above.
        unsafe {
            self.model.patch_embedding.phase(
                worker,
                self.kernels,
                s,
                self.input(self.input, inputs, self.rows),
                task_panels(self.rows),
                |row, _, columns, v| {
                    let position = self.positions[row] * h;
                    let table = &self.model.position_embedding
                        [position + columns.start..position + columns.end];
                    (self.kernels.add)(v, table);
                    self.hidden
                        .part_mut(row * h + columns.start..row * h + columns.end)
                        .copy_from_slice(v);
                },
            );
        }
    }

    fn norm(&self, worker: &mut Worker<'_>, norm: &Norm) {
        let h = norm.weight.len();
        self.each_row(worker, self.rows, |row| {
            // SAFETY: see above.
            let (x, out) = unsafe {
                (
                    self.hidden.part(row * h..(row + 1) * h),
                    self.normed.part_mut(row * h..(row + 1) * h),
                )
            };
            (self.kernels.layer_norm)(
                x,
                &norm.weight,
                &norm.bias,
                self.model.config.vision.layer_norm_eps,
                out,
            );
        });
    }

    pub fn layer(&self, worker: &mut Worker<'_>, scratch: &mut Scratch, layer: &Layer) {
        let (h, m) = (
            self.model.config.vision.hidden_size,
            self.model.config.vision.intermediate_size,
        );
        let (linear, k) = (&mut scratch.0, self.kernels);
        self.norm(worker, &layer.norm1);
        // SAFETY: see above.
        unsafe {
            layer.qkv.phase(
                worker,
                k,
                linear,
                self.input(self.normed, h, self.rows),
                task_panels(self.rows),
                |row, _, columns, v| {
                    self.qkv
                        .part_mut(row * 3 * h + columns.start..row * 3 * h + columns.end)
                        .copy_from_slice(v);
                },
            );
        }
        self.attention(worker, &mut scratch.1);
        let linear = &mut scratch.0;
        // SAFETY: see above.
        unsafe {
            layer.out.phase(
                worker,
                k,
                linear,
                self.input(self.normed, h, self.rows),
                task_panels(self.rows),
                |row, _, columns, v| {
                    (k.add)(
                        self.hidden
                            .part_mut(row * h + columns.start..row * h + columns.end),
                        v,
                    );
                },
            );
        }
        self.norm(worker, &layer.norm2);
        // SAFETY: see above.
        unsafe {
            layer.fc1.phase(
                worker,
                k,
                linear,
                self.input(self.normed, h, self.rows),
                task_panels(self.rows),
                |row, _, columns, v| {
                    (k.gelu)(v);
                    let start = row * row_stride(m);
                    self.mlp
                        .part_mut(start + columns.start..start + columns.end)
                        .copy_from_slice(v);
                },
            );
            layer.fc2.phase(
                worker,
                k,
                linear,
                self.input(self.mlp, row_stride(m), self.rows),
                task_panels(self.rows),
                |row, _, columns, v| {
                    (k.add)(
                        self.hidden
                            .part_mut(row * h + columns.start..row * h + columns.end),
                        v,
                    );
                },
            );
        }
    }

    /// Every patch attends to the visible ones; the result replaces the normed rows.
    fn attention(&self, worker: &mut Worker<'_>, s: &mut AttentionScratch) {
        let v = &self.model.config.vision;
        let (h, d, heads) = (v.hidden_size, v.head_dim(), v.num_attention_heads);
        // SAFETY: `qkv` was written in an earlier phase.
        let qkv = |row: usize, part: usize, head: usize| unsafe {
            let start = row * 3 * h + part * h + head * d;
            self.qkv.part(start..start + d)
        };
        worker.for_each(self.table.len() * heads, |task| {
            let (page, head) = (task / heads, task % heads);
            for (slot, &row) in self.keys[page * PAGE..].iter().take(PAGE).enumerate() {
                // SAFETY: see above.
                unsafe {
                    self.pages.store(
                        page as u32,
                        0,
                        head,
                        slot,
                        qkv(row, 1, head),
                        qkv(row, 2, head),
                    )
                };
            }
        });
        let scale = std::f32::consts::LOG2_E / (d as f32).sqrt();
        worker.for_each(self.rows.div_ceil(QUERY_ROWS) * heads, |task| {
            let (first, head) = (task / heads * QUERY_ROWS, task % heads);
            let rows = (self.rows - first).min(QUERY_ROWS);
            for row in 0..rows {
                for (to, x) in
                    s.queries[row * d..(row + 1) * d]
                        .iter_mut()
                        .zip(qkv(first + row, 0, head))
                {
                    *to = x * scale;
                }
            }
            s.limits[..rows].fill(self.keys.len());
            // SAFETY: see above.
            unsafe { self.pages.attend(&self.table, 0, head, rows, s) };
            for row in 0..rows {
                let to = (first + row) * h + head * d;
                let scale = 1.0 / s.states[row].1;
                // SAFETY: see above.
                let out = unsafe { self.normed.part_mut(to..to + d) };
                for (o, x) in out.iter_mut().zip(&s.outputs[row * self.padded_dim..]) {
                    *o = x * scale;
                }
            }
        });
    }

    /// Final norm, then squares of patches side by side as the rows of the projection.
    pub fn connect(
        &self,
        worker: &mut Worker<'_>,
        s: &mut LinearScratch,
        tokens: usize,
        out: Shared<'_, f32>,
    ) {
        let (h, side) = (
            self.model.config.vision.hidden_size,
            self.model.config.scale_factor,
        );
        let (inputs, width) = (h * side * side, self.model.config.text.hidden_size);
        self.norm(worker, &self.model.post_norm);
        let per_line = self.columns / side;
        self.each_row(worker, tokens, |token| {
            // SAFETY: see above.
            let row = unsafe { self.input.part_mut(token * inputs..(token + 1) * inputs) };
            let (top, left) = (token / per_line * side, token % per_line * side);
            for (i, to) in row.chunks_exact_mut(side * h).enumerate() {
                let patch = (top + i) * self.columns + left;
                // SAFETY: see above.
                to.copy_from_slice(unsafe { self.normed.part(patch * h..(patch + side) * h) });
            }
        });
        // SAFETY: see above.
        unsafe {
            self.model.projection.phase(
                worker,
                self.kernels,
                s,
                self.input(self.input, inputs, tokens),
                task_panels(tokens),
                |row, _, columns, v| {
                    out.part_mut(row * width + columns.start..row * width + columns.end)
                        .copy_from_slice(v);
                },
            );
        }
    }
}
