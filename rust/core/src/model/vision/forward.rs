//! The encoding of one frame as its threads see it: patches, layers, connector.
use super::{Frame, Layer, Norm, VisionModel, VisionScratch};
use crate::machine::shared::{Part, Share};
use crate::machine::team::{Task, Worker};
use crate::model::kv::{Head, Pages, Row, Slot};
use crate::model::linear::{Activations, Epilogue, Input, QuantizedRows, Rows};

/// Rows of one task in the phases that are no matrix product.
const TASK_ROWS: usize = 16;

/// What the threads only read.
pub(super) struct Forward<'m> {
    pub(crate) model: &'m VisionModel,
    pub(crate) frame: &'m Frame<'m>,
    /// Patches along a side, all of them, and image tokens.
    pub(crate) columns: usize,
    pub rows: usize,
    pub(crate) tokens: usize,
    /// Row of the position table of each patch.
    pub(crate) positions: Vec<usize>,
    /// Visible patches: the others are no keys.
    pub(crate) keys: Vec<usize>,
    /// Pages of their keys and values.
    pub(crate) pages: Vec<u32>,
    pub(crate) padded_dim: usize,
}

/// What the threads write, phase by phase.
pub(super) struct Activity<'a> {
    /// Pixels of the patches; when they are no longer needed, squares of patches side by side.
    pub(crate) input: Activations<'a>,
    pub(crate) hidden: Rows<'a>,
    pub(crate) normed: Activations<'a>,
    /// Queries, scaled, then keys, then values, as attention multiplies them.
    pub(crate) qkv: Activations<'a>,
    pub(crate) mlp: Activations<'a>,
    pub(crate) quantized: QuantizedRows<'a>,
    pub(crate) pages: Pages<'a>,
    /// Receives the image tokens.
    pub(crate) out: Rows<'a>,
}

impl Share for Activity<'_> {
    unsafe fn handle(&self) -> Self {
        // SAFETY: the caller promises the same.
        unsafe {
            Self {
                input: self.input.handle(),
                hidden: self.hidden.handle(),
                normed: self.normed.handle(),
                qkv: self.qkv.handle(),
                mlp: self.mlp.handle(),
                quantized: self.quantized.handle(),
                pages: self.pages.handle(),
                out: self.out.handle(),
            }
        }
    }
}

/// Columns of `qkv`: queries, keys, values.
#[derive(Clone, Copy)]
enum Which {
    Query,
    Key,
    Value,
}

impl Forward<'_> {
    /// What each thread of the job does.
    pub(super) fn run(&self, worker: &mut Worker<'_>, a: &mut Activity<'_>, s: &mut VisionScratch) {
        self.embed(worker, a, s);
        for layer in &self.model.layers {
            self.layer(worker, a, s, layer);
        }
        self.connect(worker, a, s);
    }

    fn layer(&self, worker: &mut Worker<'_>, a: &mut Activity<'_>, s: &mut VisionScratch, l: &Layer) {
        let (rows, width) = (self.rows, self.model.config.vision.hidden_size);
        let scale = std::f32::consts::LOG2_E / (self.model.config.vision.head_dim() as f32).sqrt();

        self.norm(worker, a, s, &l.norm1);
        let normed = Input::made(&a.normed, rows, &mut a.quantized);
        let scaled = Epilogue::Scale { to: &mut a.qkv, columns: width, scale };
        l.qkv.phase(worker, &mut s.linear, normed, scaled);
        self.store(worker, a, s);
        self.attend(worker, a, s);
        let attended = Input::made(&a.normed, rows, &mut a.quantized);
        l.out.phase(worker, &mut s.linear, attended, Epilogue::Add(&mut a.hidden));

        self.norm(worker, a, s, &l.norm2);
        let normed = Input::made(&a.normed, rows, &mut a.quantized);
        l.fc1.phase(worker, &mut s.linear, normed, Epilogue::Gelu(&mut a.mlp));
        let activated = Input::made(&a.mlp, rows, &mut a.quantized);
        l.fc2.phase(worker, &mut s.linear, activated, Epilogue::Add(&mut a.hidden));
    }

    /// Pixels of the patches times the convolution's weights, plus the position embeddings.
    fn embed(&self, worker: &mut Worker<'_>, a: &mut Activity<'_>, s: &mut VisionScratch) {
        let v = &self.model.config.vision;
        let p = v.patch_size;
        worker.for_each_part(self.rows, TASK_ROWS, |part| {
            for row in part.rows() {
                let (top, left) = (row / self.columns * p, row % self.columns * p);
                a.input.write_with(part, row, 0..v.num_channels * p * p, &mut s.row, |out| {
                    for (line, out) in out.chunks_exact_mut(p).enumerate() {
                        let (channel, y) = (line / p, top + line % p);
                        let start = (channel * self.frame.height + y) * self.frame.width + left;
                        out.copy_from_slice(&self.frame.pixels[start..start + p]);
                    }
                });
            }
        });
        let patches = Input::made(&a.input, self.rows, &mut a.quantized);
        let (table, index) = (&self.model.position_embedding[..], &self.positions[..]);
        let placed = Epilogue::AddTable { to: &mut a.hidden, table, index };
        self.model.patch_embedding.phase(worker, &mut s.linear, patches, placed);
    }

    /// Norms every row of the residual stream.
    fn norm(&self, worker: &mut Worker<'_>, a: &mut Activity<'_>, s: &mut VisionScratch, norm: &Norm) {
        let Activity { hidden, normed, .. } = a;
        worker.for_each_part(self.rows, TASK_ROWS, |part| {
            for row in part.rows() {
                let x = hidden.row(part.task(), row);
                normed.write_with(part, row, 0..x.len(), &mut s.row, |out| self.norm_row(norm, x, out));
            }
        });
    }

    fn norm_row(&self, norm: &Norm, x: &[f32], out: &mut [f32]) {
        let eps = self.model.config.vision.layer_norm_eps;
        (self.model.kernels.layer_norm)(x, &norm.weight, &norm.bias, eps, out);
    }

    /// One head of a row of `qkv`.
    fn qkv_row<'t>(&self, task: &'t Task, qkv: &'t Activations<'_>, row: usize, head: (Which, usize)) -> Row<'t> {
        let v = &self.model.config.vision;
        let start = head.0 as usize * v.hidden_size + head.1 * v.head_dim();
        let columns = start..start + v.head_dim();
        if qkv.is_bfloat16() {
            Row::Bfloat16(&qkv.bfloat16_rows(task, row..row + 1)[columns])
        } else {
            Row::Float32(&qkv.rows(task, row..row + 1)[columns])
        }
    }

    /// Puts the keys and values of the visible patches into the pages.
    fn store(&self, worker: &mut Worker<'_>, a: &mut Activity<'_>, s: &mut VisionScratch) {
        let (heads, size) = (self.model.config.vision.num_attention_heads, a.pages.page());
        worker.for_each(self.pages.len() * heads, |task| {
            let (page, head) = (task.index() / heads, task.index() % heads);
            // SAFETY: the tasks differ in their page or in their head.
            let part = unsafe { Part::of(task, page..page + 1, head..head + 1) };
            for (slot, &row) in self.keys[page * size..].iter().take(size).enumerate() {
                let [key, value] = [Which::Key, Which::Value].map(|w| self.qkv_row(task, &a.qkv, row, (w, head)));
                let slot = Slot { page: page as u32, layer: 0, head, slot };
                a.pages.store(&part, slot, key, value, &mut s.attention.rounded_row);
            }
        });
    }

    /// Every patch attends to the visible ones; the result replaces the normed rows. Head after head, so that its keys
    /// and values stay in the second-level cache.
    fn attend(&self, worker: &mut Worker<'_>, a: &mut Activity<'_>, s: &mut VisionScratch) {
        let (heads, d) = (self.model.config.vision.num_attention_heads, self.model.config.vision.head_dim());
        let size = a.pages.query_rows();
        let blocks = self.rows.div_ceil(size);
        let VisionScratch { attention, row: scratch, .. } = s;
        worker.for_each(blocks * heads, |task| {
            let (first, head) = (task.index() % blocks * size, task.index() / blocks);
            let rows = (self.rows - first).min(size);
            for row in 0..rows {
                let query = self.qkv_row(task, &a.qkv, first + row, (Which::Query, head));
                a.pages.load_query(&mut attention.queries, row, query, self.keys.len());
            }
            a.pages.attend(task, Head { pages: &self.pages, layer: 0, head }, rows, attention);
            let columns = head * d..(head + 1) * d;
            // SAFETY: the tasks differ in their rows or in their head.
            let part = unsafe { Part::of(task, first..first + rows, columns.clone()) };
            for row in 0..rows {
                let scale = 1.0 / attention.states[row].1;
                a.normed.write_with(&part, first + row, columns.clone(), scratch, |out| {
                    for (o, x) in out.iter_mut().zip(&attention.outputs[row * self.padded_dim..]) {
                        *o = x * scale;
                    }
                });
            }
        });
    }

    /// Final norm, squares of patches side by side, and their projection.
    fn connect(&self, worker: &mut Worker<'_>, a: &mut Activity<'_>, s: &mut VisionScratch) {
        let (width, side) = (self.model.config.vision.hidden_size, self.model.config.scale_factor);
        let Activity { input: folded, hidden, quantized, out, .. } = a;
        folded.reshape(width * side * side);
        worker.for_each_part(self.tokens, 1, |part| {
            let token = part.rows().start;
            let (top, left) = (token / (self.columns / side) * side, token % (self.columns / side) * side);
            for index in 0..side * side {
                let row = (top + index / side) * self.columns + left + index % side;
                let x = hidden.row(part.task(), row);
                let columns = index * width..(index + 1) * width;
                folded.write_with(part, token, columns, &mut s.row, |out| self.norm_row(&self.model.post_norm, x, out));
            }
        });
        let squares = Input::made(folded, self.tokens, quantized);
        self.model.projection.phase(worker, &mut s.linear, squares, Epilogue::Write(out));
    }
}
