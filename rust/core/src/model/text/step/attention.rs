//! The attention of a step: new keys and values go into the pages, then every token reads the pages it sees.
use super::{Group, Scratch, Step};
use crate::machine::team::Worker;
use crate::model::kernels::BLOCK;
use crate::model::kv::{AttentionScratch, QUERY_ROWS, Row};

// As in the parent: a phase reads only what earlier phases wrote, and each of its tasks writes rows, columns or pages
// that no other task of the phase touches.
impl<'a> Step<'a> {
    fn qkv_row(&self, row: usize) -> &'a [f32] {
        let c = &self.model.config;
        let width = (c.num_attention_heads + 2 * c.num_key_value_heads) * c.head_dim;
        // SAFETY: rows of `qkv` are written in one phase and read in later ones.
        unsafe { self.qkv.part(row * width..(row + 1) * width) }
    }

    fn rotate(&self, x: &[f32], position: usize, scale: f32, out: &mut [f32]) {
        let half = self.model.config.head_dim / 2;
        let table = position * half..(position + 1) * half;
        (self.kernels.rotary)(x, &self.model.cos[table.clone()], &self.model.sin[table], scale, out);
    }

    /// Puts the new keys, rotated, and values into the pages.
    pub fn store(&self, worker: &mut Worker<'_>, layer: usize, s: &mut AttentionScratch) {
        let c = &self.model.config;
        let (d, heads) = (c.head_dim, c.num_key_value_heads);
        worker.for_each(self.fills.len() * heads, |task| {
            let (fill, head) = (&self.fills[task / heads], task % heads);
            for i in 0..fill.rows {
                let row = self.qkv_row(fill.row + i);
                let key = (c.num_attention_heads + head) * d;
                let value = key + heads * d;
                self.rotate(&row[key..key + d], fill.position + i, 1.0, &mut s.row);
                // SAFETY: this task alone writes this head of this page, and nobody reads it in this phase.
                unsafe {
                    self.pages.store(
                        fill.page,
                        layer,
                        head,
                        fill.slot + i,
                        Row::Float32(&s.row),
                        Row::Float32(&row[value..value + d]),
                        &mut s.rounded_row,
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
                let mut query = std::mem::take(&mut s.row);
                self.rotate(&row[from..from + d], group.position + i, scale, &mut query);
                self.pages.query(s, to, Row::Float32(&query));
                s.row = query;
                s.limits[to] = group.position + i + 1;
            }
        }
        group.rows * per_key
    }

    pub fn attention(&self, worker: &mut Worker<'_>, layer: usize, scratch: &mut Scratch) {
        let (s, spare) = (&mut scratch.attention, &mut scratch.row);
        let heads = self.model.config.num_key_value_heads;
        if self.split == 0 {
            worker.for_each(self.groups.len() * heads, |task| {
                let (group, head) = (&self.groups[task / heads], task % heads);
                let rows = self.queries(group, head, s);
                // SAFETY: the pages were written in an earlier phase.
                unsafe { self.pages.attend(group.pages, layer, head, rows, s) };
                self.attended(group, head, s, spare);
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
            let (row, head, block) = (task / self.split / heads, task / self.split % heads, task % self.split);
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
            unsafe { self.pages.block(group.pages, layer, head, block, rows, s, pairs, Some(out)) };
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
            self.attended(&group, head, s, spare);
        });
    }

    /// The group that is the single token of row `row`.
    fn token(&self, row: usize) -> Group<'a> {
        let group = self.groups.iter().find(|g| (g.row..g.row + g.rows).contains(&row)).unwrap_or(&self.groups[0]);
        Group { pages: group.pages, row, position: group.position + row - group.row, rows: 1 }
    }

    /// Normalises what the scratch holds for a group and writes it where the output projection reads.
    fn attended(&self, group: &Group<'_>, head: usize, s: &AttentionScratch, spare: &mut Vec<f32>) {
        let c = &self.model.config;
        let (d, per_key) = (c.head_dim, c.num_attention_heads / c.num_key_value_heads);
        for i in 0..group.rows {
            for g in 0..per_key {
                let from = i * per_key + g;
                let to = (head * per_key + g) * d;
                let scale = 1.0 / s.states[from].1;
                let make = |out: &mut [f32]| {
                    for (o, x) in out.iter_mut().zip(&s.outputs[from * self.padded_dim..]) {
                        *o = x * scale;
                    }
                };
                // SAFETY: these columns of this row are this task's.
                unsafe { self.attended.fill(group.row + i, to..to + d, spare, make) };
            }
        }
    }
}
