//! Softmax attention over pages, block by block of keys.
use super::layout::PageLayout;
use super::pages::{Head, Pages, Row};
use crate::error::Result;
use crate::machine::memory::Mapped;
use crate::machine::team::Task;
use crate::model::kernels::{BLOCK, Bfloat16Product, PANEL, Product, RUN, Start};

/// Most query rows (rows of the sequence times query heads of a group) of one task.
pub(crate) const QUERY_ROWS: usize = 48;
/// Better number for bfloat16, if nothing ties rows to others: whole tiles, whose scores stay in the first-level cache.
const BFLOAT16_QUERY_ROWS: usize = 32;

/// Maximum of the base-2 scores and sum of the weights of a query row.
pub(crate) type SoftmaxState = (f32, f32);

/// The state of a row that has seen no key.
pub(crate) const NOTHING_SEEN: SoftmaxState = (f32::NEG_INFINITY, 0.0);

/// Memory that a thread needs for attention.
pub(crate) struct AttentionScratch {
    /// A query or key on its way.
    pub row: Vec<f32>,
    /// The same, rounded.
    pub(crate) rounded_row: Vec<u16>,
    /// Maximum and sum of each query row after [`Pages::attend`].
    pub(crate) states: Vec<SoftmaxState>,
    /// Unnormalised output of each query row, `padded_dim` wide.
    pub outputs: Vec<f32>,
    /// Aligned like those of [`Queries`], or each row of a tile would lie on two lines of the cache.
    block_outputs: Mapped<f32>,
    /// The query rows at work.
    pub(crate) queries: Queries,
}

/// Query rows, and their scores for one block of keys.
pub(crate) struct Queries {
    /// Number of keys that each row sees.
    pub(crate) limits: Vec<usize>,
    rows: Vec<f32>,
    rounded_rows: Mapped<u16>,
    scores: Mapped<f32>,
    rounded_scores: Mapped<u16>,
    expanded: Mapped<f32>,
}

impl AttentionScratch {
    /// Scratch for one thread and up to `rows` query rows.
    pub(crate) fn new(layout: &PageLayout, rows: usize) -> Result<Self> {
        Ok(Self {
            row: vec![0.0; layout.head_dim],
            rounded_row: vec![0; layout.head_dim],
            states: vec![NOTHING_SEEN; rows],
            outputs: vec![0.0; rows * layout.padded_dim()],
            block_outputs: Mapped::zeroed(rows * layout.padded_dim())?,
            queries: Queries {
                limits: vec![0; rows],
                rows: vec![0.0; rows * layout.head_dim],
                rounded_rows: Mapped::zeroed(rows * layout.head_dim.next_multiple_of(2))?,
                scores: Mapped::zeroed(rows * BLOCK)?,
                rounded_scores: Mapped::zeroed(rows * BLOCK)?,
                expanded: Mapped::zeroed(RUN * PANEL)?,
            },
        })
    }
}

/// Keys of a block that the query rows see.
struct Seen<'t, 'k> {
    task: &'t Task,
    head: Head<'k>,
    /// Number of query rows.
    rows: usize,
    /// First key.
    first: usize,
    /// Number of keys, at least one row sees the last.
    keys: usize,
}

impl Seen<'_, '_> {
    /// Keys of the block below a limit.
    fn visible(&self, limit: usize) -> usize {
        limit.saturating_sub(self.first).min(BLOCK)
    }
}

impl Pages<'_> {
    /// Query rows of a task that may have any number, up to [`QUERY_ROWS`].
    pub(crate) fn query_rows(&self) -> usize {
        if self.multiplies_bfloat16() { BFLOAT16_QUERY_ROWS } else { QUERY_ROWS }
    }

    /// Loads a query row, scaled by `log2(e) / sqrt(head_dim)`, which sees `limit` keys.
    pub(crate) fn load_query(&self, q: &mut Queries, row: usize, query: Row<'_>, limit: usize) {
        let d = self.layout.head_dim;
        q.limits[row] = limit;
        if self.multiplies_bfloat16() {
            let start = row * d.next_multiple_of(2);
            let to = &mut q.rounded_rows[start..start + d];
            match query {
                Row::Float32(query) => (self.kernels.round)(query, to),
                Row::Bfloat16(query) => to.copy_from_slice(query),
            }
        } else {
            let Row::Float32(query) = query else {
                unreachable!("rows are rounded only for sets that multiply bfloat16");
            };
            q.rows[row * d..(row + 1) * d].copy_from_slice(query);
        }
    }

    /// Attention of `rows` query rows over all the keys they see: blocks in ascending order, merged one by one.
    pub(crate) fn attend(&self, task: &Task, head: Head<'_>, rows: usize, s: &mut AttentionScratch) {
        let keys = s.queries.limits[..rows].iter().copied().max().unwrap_or(0);
        let width = self.layout.padded_dim();
        s.states[..rows].fill(NOTHING_SEEN);
        for block in 0..keys.div_ceil(BLOCK) {
            let mut states = [(0.0, 0.0); QUERY_ROWS];
            self.attend_block(task, head, block, &mut s.queries, &mut states[..rows], &mut s.block_outputs);
            for (row, &state) in states.iter().enumerate().take(rows).filter(|(_, state)| state.1 > 0.0) {
                let part = row * width..(row + 1) * width;
                let out = &mut s.outputs[part.clone()];
                (self.kernels.merge)(&mut s.states[row], out, state, &s.block_outputs[part]);
            }
        }
    }

    /// One block of keys: a maximum, a sum and an output for each of the query rows, of which there are as many as
    /// `states`; the sum is zero if a row sees no key.
    pub(crate) fn attend_block(
        &self,
        task: &Task,
        head: Head<'_>,
        block: usize,
        q: &mut Queries,
        states: &mut [SoftmaxState],
        out: &mut [f32],
    ) {
        let rows = states.len();
        let mut seen = Seen { task, head, rows, first: block * BLOCK, keys: 0 };
        seen.keys = q.limits[..rows].iter().map(|&limit| seen.visible(limit)).max().unwrap_or(0);
        self.scores(&seen, q);
        self.softmax(&seen, q, states);
        self.outputs(&seen, q, out);
    }

    /// First key in the block, number of keys, keys and values of each page.
    fn pages<'s>(&'s self, seen: &'s Seen<'_, '_>) -> impl Iterator<Item = (usize, usize, (&'s [u8], &'s [u8]))> {
        let size = self.layout.page;
        let pages = seen.head.pages[seen.first / size..].iter().take(seen.keys.div_ceil(size));
        pages
            .enumerate()
            .map(move |(i, &page)| (i * size, (seen.keys - i * size).min(size), self.head(seen.task, page, &seen.head)))
    }

    /// Queries times keys.
    fn scores(&self, seen: &Seen<'_, '_>, q: &mut Queries) {
        let (l, w_stride) = (self.layout, self.layout.key_panel());
        for (start, count, (keys, _)) in self.pages(seen) {
            let (rows, panels, out) = (seen.rows, count.div_ceil(PANEL), &mut q.scores[start..]);
            match self.kernels.bfloat16_product.filter(|_| self.multiplies_bfloat16()) {
                Some(product) => product(Bfloat16Product {
                    a: &q.rounded_rows,
                    a_stride: l.head_dim.next_multiple_of(2),
                    rows,
                    k: l.head_dim,
                    w: keys,
                    w_stride,
                    panels,
                    out,
                    out_stride: BLOCK,
                    start: Start::Zero,
                }),
                None => (self.kernels.product)(Product {
                    a: &q.rows,
                    a_stride: l.head_dim,
                    rows,
                    k: l.head_dim,
                    w: keys,
                    w_stride,
                    format: l.format,
                    panels,
                    out,
                    out_stride: BLOCK,
                    accumulate: false,
                    scratch: &mut q.expanded,
                }),
            }
        }
    }

    /// Scores to weights, which are zero for keys that a row does not see.
    fn softmax(&self, seen: &Seen<'_, '_>, q: &mut Queries, states: &mut [SoftmaxState]) {
        // An odd number of keys is padded with one more that weighs nothing.
        let end = seen.keys.next_multiple_of(2);
        for (row, (scores, state)) in q.scores.chunks_exact_mut(BLOCK).zip(states).enumerate() {
            let visible = seen.visible(q.limits[row]);
            *state = if visible > 0 { (self.kernels.softmax)(&mut scores[..visible]) } else { NOTHING_SEEN };
            scores[visible..end].fill(0.0);
            if self.multiplies_bfloat16() {
                (self.kernels.round)(&scores[..end], &mut q.rounded_scores[row * BLOCK..row * BLOCK + end]);
            }
        }
    }

    /// Weights times values.
    fn outputs(&self, seen: &Seen<'_, '_>, q: &mut Queries, out: &mut [f32]) {
        let (l, w_stride) = (self.layout, self.layout.value_panel());
        let (rows, panels) = (seen.rows, l.padded_dim() / PANEL);
        for (start, k, (_, w)) in self.pages(seen) {
            match self.kernels.bfloat16_product.filter(|_| self.multiplies_bfloat16()) {
                Some(product) => product(Bfloat16Product {
                    a: &q.rounded_scores[start..],
                    a_stride: BLOCK,
                    rows,
                    k,
                    w,
                    w_stride,
                    panels,
                    out,
                    out_stride: l.padded_dim(),
                    start: if start > 0 { Start::Out } else { Start::Zero },
                }),
                None => (self.kernels.product)(Product {
                    a: &q.scores[start..],
                    a_stride: BLOCK,
                    rows,
                    k,
                    w,
                    w_stride,
                    format: l.format,
                    panels,
                    out,
                    out_stride: l.padded_dim(),
                    accumulate: start > 0,
                    scratch: &mut q.expanded,
                }),
            }
        }
    }
}
