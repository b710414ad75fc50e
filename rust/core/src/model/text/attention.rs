//! The attention of a step: new keys and values go into the pages, then every token reads the pages it sees.
use super::TextScratch;
use super::forward::{Activity, Forward};
use super::plan::Group;
use crate::machine::shared::Part;
use crate::machine::team::{Task, Worker};
use crate::model::kernels::{BLOCK, PANEL};
use crate::model::kv::{AttentionScratch, Head, NOTHING_SEEN, Pages, QUERY_ROWS, Row, Slot};
use crate::model::linear::{Activations, Rows};

impl Forward<'_> {
    fn rotate(&self, x: &[f32], position: usize, scale: f32, out: &mut [f32]) {
        let half = self.model.config.head_dim / 2;
        let table = position * half..(position + 1) * half;
        (self.model.kernels.rotary)(x, &self.model.cos[table.clone()], &self.model.sin[table], scale, out);
    }

    /// Puts the new keys, rotated, and values into the pages.
    pub(super) fn store(&self, worker: &mut Worker<'_>, layer: usize, a: &mut Activity<'_>, s: &mut AttentionScratch) {
        let c = &self.model.config;
        let (d, heads) = (c.head_dim, c.num_key_value_heads);
        worker.for_each(self.plan.page_writes.len() * heads, |task| {
            let (write, head) = (&self.plan.page_writes[task.index() / heads], task.index() % heads);
            let page = write.page as usize;
            // SAFETY: each page that is written belongs to one sequence, and one write has it; each of the tasks of that write
            // has another head.
            let part = unsafe { Part::of(task, page..page + 1, head..head + 1) };
            for i in 0..write.rows {
                let row = a.qkv.row(task, write.row + i);
                let key = (c.num_attention_heads + head) * d;
                let value = key + heads * d;
                self.rotate(&row[key..key + d], write.position + i, 1.0, &mut s.row);
                let (key, value) = (Row::Float32(&s.row), Row::Float32(&row[value..value + d]));
                let slot = Slot { page: write.page, layer, head, slot: write.slot + i };
                a.pages.store(&part, slot, key, value, &mut s.rounded_row);
            }
        });
    }

    /// Every token attends to the keys up to its own.
    pub(super) fn attend(&self, worker: &mut Worker<'_>, layer: usize, a: &mut Activity<'_>, s: &mut TextScratch) {
        if self.plan.split > 0 {
            self.attend_blocks(worker, layer, a, &mut s.attention);
            self.merge_blocks(worker, a, s);
            return;
        }
        let heads = self.model.config.num_key_value_heads;
        worker.for_each(self.plan.groups.len() * heads, |task| {
            let (group, head) = (&self.plan.groups[task.index() / heads], task.index() % heads);
            let rows = self.load_queries((task, &a.qkv, &a.pages), group, head, &mut s.attention);
            a.pages.attend(task, Head { pages: group.pages, layer, head }, rows, &mut s.attention);
            self.write_attended(task, (group, head), &mut a.attended, s);
        });
    }

    /// One token and one block of keys to a task.
    fn attend_blocks(&self, worker: &mut Worker<'_>, layer: usize, a: &mut Activity<'_>, s: &mut AttentionScratch) {
        let (heads, split) = (self.model.config.num_key_value_heads, self.plan.split);
        worker.for_each_part(self.plan.rows * heads * split, 1, |part| {
            let (task, piece) = (part.task(), part.rows().start);
            let (row, head, block) = (piece / split / heads, piece / split % heads, piece % split);
            let group = self.plan.token(row);
            if block * BLOCK > group.position {
                return;
            }
            let rows = self.load_queries((task, &a.qkv, &a.pages), &group, head, s);
            let out = a.partial.part_mut(part, piece, 0..a.partial.columns());
            let (states, out) = out.split_at_mut(2 * rows);
            let mut pairs = [NOTHING_SEEN; QUERY_ROWS];
            let head = Head { pages: group.pages, layer, head };
            a.pages.attend_block(task, head, block, &mut s.queries, &mut pairs[..rows], out);
            for (state, pair) in states.as_chunks_mut().0.iter_mut().zip(pairs) {
                *state = [pair.0, pair.1];
            }
        });
    }

    /// Merges the blocks of each token, in ascending order.
    fn merge_blocks(&self, worker: &mut Worker<'_>, a: &mut Activity<'_>, s: &mut TextScratch) {
        let c = &self.model.config;
        let (heads, per_key, width) = (c.num_key_value_heads, c.group(), c.head_dim.next_multiple_of(PANEL));
        worker.for_each(self.plan.rows * heads, |task| {
            let (row, head) = (task.index() / heads, task.index() % heads);
            let group = self.plan.token(row);
            let AttentionScratch { states, outputs, .. } = &mut s.attention;
            states[..per_key].fill(NOTHING_SEEN);
            for block in 0..=group.position / BLOCK {
                let part = a.partial.row(task, (row * heads + head) * self.plan.split + block);
                let (block_states, block_outputs) = part.split_at(2 * per_key);
                for (g, &[max, sum]) in block_states.as_chunks().0.iter().enumerate() {
                    let columns = g * width..(g + 1) * width;
                    let out = &mut outputs[columns.clone()];
                    (self.model.kernels.merge)(&mut states[g], out, (max, sum), &block_outputs[columns]);
                }
            }
            self.write_attended(task, (&group, head), &mut a.attended, s);
        });
    }

    /// Loads the rotated queries of a group into the scratch; gives their number.
    fn load_queries(
        &self,
        (task, qkv, pages): (&Task, &Rows<'_>, &Pages<'_>),
        group: &Group<'_>,
        head: usize,
        s: &mut AttentionScratch,
    ) -> usize {
        let (d, per_key) = (self.model.config.head_dim, self.model.config.group());
        let scale = std::f32::consts::LOG2_E / (d as f32).sqrt();
        for i in 0..group.rows {
            let row = qkv.row(task, group.row + i);
            for g in 0..per_key {
                let from = (head * per_key + g) * d;
                self.rotate(&row[from..from + d], group.position + i, scale, &mut s.row);
                let limit = group.position + i + 1;
                pages.load_query(&mut s.queries, i * per_key + g, Row::Float32(&s.row), limit);
            }
        }
        group.rows * per_key
    }

    /// Normalises what the scratch holds for a group and writes it as the output projection reads it.
    fn write_attended(
        &self,
        task: &Task,
        (group, head): (&Group<'_>, usize),
        to: &mut Activations<'_>,
        s: &mut TextScratch,
    ) {
        let (d, per_key) = (self.model.config.head_dim, self.model.config.group());
        let width = d.next_multiple_of(PANEL);
        let columns = head * per_key * d..(head + 1) * per_key * d;
        // SAFETY: the tasks of a phase differ in their rows or in their head.
        let part = unsafe { Part::of(task, group.row..group.row + group.rows, columns) };
        let AttentionScratch { states, outputs, .. } = &s.attention;
        for i in 0..group.rows {
            for g in 0..per_key {
                let from = i * per_key + g;
                let first = (head * per_key + g) * d;
                let scale = 1.0 / states[from].1;
                to.write_with(&part, group.row + i, first..first + d, &mut s.row, |out| {
                    for (o, x) in out.iter_mut().zip(&outputs[from * width..]) {
                        *o = x * scale;
                    }
                });
            }
        }
    }
}
