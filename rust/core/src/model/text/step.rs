//! One step as its threads see it: the phases of a layer and of the head.
use std::ops::Range;
use std::sync::Mutex;

use super::{HEAD_PANELS, Layer, SPLIT_ROWS, Scratch, Segment, TextBuffers, TextModel, query_rows};
use crate::machine::memory::Shared;
use crate::machine::team::Worker;
use crate::model::kernels::{BLOCK, Kernels, PANEL};
use crate::model::kv::{PAGE, Pages};
use crate::model::linear::{ALONE_ROWS, Activations, Input, Linear, LinearScratch, SharedQuantized, task_panels};

mod attention;

/// Rows of one task in the norms.
const NORM_ROWS: usize = 8;

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
pub struct Step<'a> {
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
    normed: Activations<'a>,
    qkv: Shared<'a, f32>,
    attended: Activations<'a>,
    mlp: Activations<'a>,
    partial: Shared<'a, f32>,
    best: Shared<'a, f32>,
    quantized: SharedQuantized<'a>,
    threads: &'a [Mutex<Scratch>],
}

// In all the blocks below: a phase reads only what earlier phases wrote, and each of its tasks writes rows, columns or
// pages that no other task of the phase touches.
impl<'a> Step<'a> {
    pub fn new(
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
                fills.push(Fill { page: s.pages[position / PAGE], slot, row: s.row + done, position, rows });
                done += rows;
            }
            for done in (0..s.rows).step_by(group_rows) {
                let rows = group_rows.min(s.rows - done);
                groups.push(Group { pages: &s.pages, row: s.row + done, position: s.position + done, rows });
            }
        }
        let blocks = segments.iter().map(|s| (s.position + s.rows).div_ceil(BLOCK)).max().unwrap_or(0);
        let (c, rounds) = (&model.config, model.head.packing().rounds(kernels));
        let before = |room, columns| Activations::new(Shared::new(room), columns, rounds, kernels);
        Self {
            model,
            kernels,
            pages,
            rows,
            fills,
            groups,
            split: if rows <= SPLIT_ROWS && blocks > 1 { blocks } else { 0 },
            padded_dim: model.config.head_dim.next_multiple_of(PANEL),
            hidden: Shared::new(&mut b.hidden),
            normed: before(&mut b.normed, c.hidden_size),
            qkv: Shared::new(&mut b.qkv),
            attended: before(&mut b.attended, c.num_attention_heads * c.head_dim),
            mlp: before(&mut b.mlp, c.intermediate_size),
            partial: Shared::new(&mut b.partial),
            best: Shared::new(&mut b.best),
            quantized: b.quantized.shared(),
            threads: &b.threads,
        }
    }

    pub fn scratch(&self, worker: &Worker<'_>) -> std::sync::MutexGuard<'a, Scratch> {
        self.threads[worker.index].lock().unwrap_or_else(|e| e.into_inner())
    }

    pub fn layer(&self, worker: &mut Worker<'_>, scratch: &mut Scratch, index: usize, layer: &Layer) {
        let c = &self.model.config;
        let h = c.hidden_size;
        let qkv_width = layer.qkv.outputs();
        let Scratch { linear, norm_row, normed, .. } = scratch;
        // SAFETY: see above.
        unsafe {
            self.normed_phase(
                worker,
                (linear, norm_row, normed),
                (&layer.input_norm, &layer.qkv),
                self.rows,
                |row| row,
                task_panels(self.rows),
                |row, _, columns, v| {
                    self.qkv
                        .part_mut(row * qkv_width + columns.start..row * qkv_width + columns.end)
                        .copy_from_slice(v);
                },
            );
        }
        self.store(worker, index, &mut scratch.attention);
        self.attention(worker, index, scratch);
        // SAFETY: see above.
        unsafe {
            layer.o.phase(
                worker,
                self.kernels,
                &mut scratch.linear,
                self.input(self.attended),
                task_panels(self.rows),
                |row, _, columns, v| {
                    (self.kernels.add)(self.hidden.part_mut(row * h + columns.start..row * h + columns.end), v);
                },
            );
        }
        let Scratch { linear, row: spare, norm_row, normed, .. } = scratch;
        // SAFETY: see above.
        unsafe {
            self.normed_phase(
                worker,
                (linear, norm_row, normed),
                (&layer.post_norm, &layer.gate_up),
                self.rows,
                |row| row,
                task_panels(self.rows),
                |row, _, columns, v| {
                    let start = columns.start / 2;
                    self.mlp.fill(row, start..start + v.len() / 2, spare, |out| {
                        for (pair, out) in v.chunks_exact(2 * PANEL).zip(out.chunks_exact_mut(PANEL)) {
                            let (gate, up) = pair.split_at(PANEL);
                            (self.kernels.silu_mul)(gate, up, out);
                        }
                    });
                },
            );
            layer.down.phase(
                worker,
                self.kernels,
                &mut scratch.linear,
                self.input(self.mlp),
                task_panels(self.rows),
                |row, _, columns, v| {
                    (self.kernels.add)(self.hidden.part_mut(row * h + columns.start..row * h + columns.end), v);
                },
            );
        }
    }

    fn input(&self, values: Activations<'a>) -> Input<'a> {
        Input { values, rows: self.rows, quantized: self.quantized }
    }

    /// Norms rows of the residual stream, `source(i)` for the i-th, and applies a layer to them. Many rows are normed in a
    /// phase of their own; few by each thread for itself.
    ///
    /// # Safety
    /// As for [`Linear::phase`].
    #[allow(clippy::too_many_arguments)]
    unsafe fn normed_phase(
        &self,
        worker: &mut Worker<'_>,
        (linear, norm_row, own): (&mut LinearScratch, &mut Vec<f32>, &mut [f32]),
        (weight, layer): (&[f32], &Linear),
        rows: usize,
        source: impl Fn(usize) -> usize,
        panels: usize,
        done: impl FnMut(usize, usize, Range<usize>, &mut [f32]),
    ) {
        let h = weight.len();
        let mut norm = |row: usize, to: Activations<'_>| {
            let from = source(row);
            // SAFETY: nobody writes the residual stream in this phase, and the output row is this task's.
            unsafe {
                let x = self.hidden.part(from * h..(from + 1) * h);
                to.fill(row, 0..h, norm_row, |out| {
                    (self.kernels.rms_norm)(x, weight, self.model.config.rms_norm_eps, out);
                });
            }
        };
        let kernels = self.kernels;
        let input = |values| Input { values, rows, quantized: self.quantized };
        // SAFETY: by the caller's promise.
        unsafe {
            if rows <= ALONE_ROWS {
                let rounds = layer.packing().rounds(kernels);
                let own = Activations::new(Shared::new(own), h, rounds, kernels);
                let before = || (0..rows).for_each(|row| norm(row, own));
                layer.phase_after(worker, kernels, linear, input(own), panels, before, done);
            } else {
                worker.for_each(rows.div_ceil(NORM_ROWS), |task| {
                    let rows = task * NORM_ROWS..((task + 1) * NORM_ROWS).min(rows);
                    rows.for_each(|row| norm(row, self.normed));
                });
                layer.phase(worker, kernels, linear, input(self.normed), panels, done);
            }
        }
    }

    pub fn head(&self, worker: &mut Worker<'_>, s: &mut Scratch, wanted: &[usize], logits: Option<Shared<'_, f32>>) {
        let vocab = self.model.config.vocab_size;
        let tasks = self.model.head_tasks();
        // SAFETY: each task writes columns or places of its own.
        unsafe {
            self.normed_phase(
                worker,
                (&mut s.linear, &mut s.norm_row, &mut s.normed),
                (&self.model.norm, &self.model.head),
                wanted.len(),
                |row| wanted[row],
                HEAD_PANELS,
                |row, task, columns, v| {
                    if let Some(logits) = logits {
                        logits.part_mut(row * vocab + columns.start..row * vocab + columns.end).copy_from_slice(v);
                    } else {
                        let (index, value) = (self.kernels.argmax)(v);
                        let place = self.best.part_mut(2 * (row * tasks + task)..2 * (row * tasks + task) + 2);
                        place[0] = value;
                        // Ids stay far below 2^24: exact in float32.
                        place[1] = (columns.start + index) as f32;
                    }
                },
            );
        }
    }

    /// The best token among those of the head's tasks; the lowest id wins a tie.
    pub fn best_token(&self, row: usize) -> i64 {
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
