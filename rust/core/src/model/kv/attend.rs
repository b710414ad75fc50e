//! Keys and values in pages, and softmax attention over them block by block.
//!
//! A page holds some positions of every layer and head in the panel layout of the kernels: keys as weights with
//! inner dimension `head_dim` and one column per position, values as weights with one inner step per position. So the
//! matrix kernel computes scores and outputs alike, for one row or for many.
use crate::error::Result;
use crate::machine::memory::{Mapped, Shared};
use crate::model::kernels::{BLOCK, Bfloat16Product, Dtype, Kernels, PANEL, Product, RUN, Start};

/// Positions of a page of the text stack.
pub const PAGE: usize = 64;
/// Most query rows (rows of the sequence times query heads of a group) of one task.
pub const QUERY_ROWS: usize = 48;
/// Rather so many of bfloat16, if they are not tied to others: whole tiles, whose scores stay in the first-level cache.
const BFLOAT16_QUERY_ROWS: usize = 32;

/// Sizes of the pages.
#[derive(Clone, Debug)]
pub struct PageLayout {
    dtype: Dtype,
    heads: usize,
    head_dim: usize,
    layers: usize,
    page: usize,
}

impl PageLayout {
    /// Pages for `layers` layers of `heads` heads.
    pub fn new(dtype: Dtype, layers: usize, heads: usize, head_dim: usize) -> Self {
        Self { dtype, heads, head_dim, layers, page: PAGE }
    }

    /// The same with pages of a whole block of keys, for what is written at once and shared with nobody.
    pub fn large(self) -> Self {
        Self { page: BLOCK, ..self }
    }

    /// Positions of a page.
    pub fn page(&self) -> usize {
        self.page
    }

    /// How keys and values are stored.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Width of a value row, padded to whole panels.
    pub fn padded_dim(&self) -> usize {
        self.head_dim.next_multiple_of(PANEL)
    }

    fn key_bytes(&self) -> usize {
        self.page / PANEL * self.dtype.panel_bytes(self.head_dim)
    }

    fn head_bytes(&self) -> usize {
        self.key_bytes() + self.padded_dim() / PANEL * self.dtype.panel_bytes(self.page)
    }

    /// Bytes of a page.
    pub fn page_bytes(&self) -> usize {
        self.layers * self.heads * self.head_bytes()
    }

    fn head_start(&self, page: u32, layer: usize, head: usize) -> usize {
        page as usize * self.page_bytes() + (layer * self.heads + head) * self.head_bytes()
    }
}

/// A key, a value or a query.
#[derive(Clone, Copy)]
pub enum Row<'a> {
    /// To be rounded where it must be.
    Float32(&'a [f32]),
    /// Rounded before.
    Bfloat16(&'a [u16]),
}

/// Memory that a thread needs for attention.
pub struct AttentionScratch {
    /// Room for a query or key on its way.
    pub row: Vec<f32>,
    /// Room for a rounded one.
    pub rounded_row: Vec<u16>,
    queries: Vec<f32>,
    /// Number of keys that each query row sees.
    pub limits: Vec<usize>,
    /// Maximum and sum of each query row after [`Pages::attend`].
    pub states: Vec<(f32, f32)>,
    /// Unnormalised output of each query row, `padded_dim` wide.
    pub outputs: Vec<f32>,
    /// Aligned like those below, or each row of a tile would lie on two lines of the cache.
    block_outputs: Mapped<f32>,
    scores: Mapped<f32>,
    rounded_queries: Mapped<u16>,
    rounded_scores: Mapped<u16>,
    expanded: Vec<f32>,
}

impl AttentionScratch {
    /// Scratch for one thread and up to `rows` query rows.
    pub fn new(layout: &PageLayout, rows: usize) -> Result<Self> {
        Ok(Self {
            row: vec![0.0; layout.head_dim],
            rounded_row: vec![0; layout.head_dim],
            queries: vec![0.0; rows * layout.head_dim],
            limits: vec![0; rows],
            states: vec![(0.0, 0.0); rows],
            outputs: vec![0.0; rows * layout.padded_dim()],
            block_outputs: Mapped::zeroed(rows * layout.padded_dim())?,
            scores: Mapped::zeroed(rows * BLOCK)?,
            rounded_queries: Mapped::zeroed(rows * layout.head_dim.next_multiple_of(2))?,
            rounded_scores: Mapped::zeroed(rows * BLOCK)?,
            expanded: vec![0.0; RUN * PANEL],
        })
    }
}

/// Pages as the threads of a job see them.
#[derive(Clone, Copy)]
pub struct Pages<'a> {
    kernels: &'static Kernels,
    layout: &'a PageLayout,
    bytes: Shared<'a, u8>,
}

impl<'a> Pages<'a> {
    /// Pages of `layout` in `bytes`.
    pub fn new(kernels: &'static Kernels, layout: &'a PageLayout, bytes: &'a mut Mapped<u8>) -> Self {
        Self { kernels, layout, bytes: Shared::new(bytes) }
    }

    /// Writes the key and value of one position of one head. Only pages of bfloat16 take rows that are that; `room`
    /// holds a row on its way.
    ///
    /// # Safety
    /// No other thread may use this head of this page meanwhile.
    #[allow(clippy::too_many_arguments)]
    pub unsafe fn store(
        &self,
        page: u32,
        layer: usize,
        head: usize,
        slot: usize,
        key: Row<'_>,
        value: Row<'_>,
        room: &mut [u16],
    ) {
        let l = self.layout;
        let start = l.head_start(page, layer, head);
        // SAFETY: by the caller's promise.
        let bytes = unsafe { self.bytes.part_mut(start..start + l.head_bytes()) };
        let (keys, values) = bytes.split_at_mut(l.key_bytes());
        let panel = &mut keys[slot / PANEL * l.dtype.panel_bytes(l.head_dim)..];
        let column = slot % PANEL;
        match (key, value) {
            (Row::Bfloat16(_), _) | (_, Row::Bfloat16(_)) if l.dtype == Dtype::Float32 => {
                unreachable!("pages of float32 are filled with float32");
            }
            (Row::Float32(key), Row::Float32(value)) if l.dtype == Dtype::Float32 => {
                for (step, x) in panel.chunks_exact_mut(4 * PANEL).zip(key) {
                    step[4 * column..4 * column + 4].copy_from_slice(&x.to_le_bytes());
                }
                for (panel, x) in values.chunks_exact_mut(l.dtype.panel_bytes(l.page)).zip(value.chunks(PANEL)) {
                    for (to, x) in panel[4 * slot * PANEL..].chunks_exact_mut(4).zip(x) {
                        to.copy_from_slice(&x.to_le_bytes());
                    }
                }
            }
            _ => {
                let key = self.rounded(key, room);
                for (pair, x) in panel.chunks_exact_mut(4 * PANEL).zip(key.chunks(2)) {
                    let both = u32::from(x[0]) | u32::from(x.get(1).copied().unwrap_or(0)) << 16;
                    pair[4 * column..4 * column + 4].copy_from_slice(&both.to_le_bytes());
                }
                let value = self.rounded(value, room);
                for (panel, x) in values.chunks_exact_mut(l.dtype.panel_bytes(l.page)).zip(value.chunks(PANEL)) {
                    let pair = panel[4 * (slot / 2) * PANEL..].as_chunks_mut().0;
                    for (to, &x) in pair.iter_mut().zip(x) {
                        // The odd one comes after its even one. Until then a zero lies in its place: an odd number of
                        // keys is multiplied together with the next one, which weighs nothing.
                        *to = match slot % 2 {
                            0 => u32::from(x),
                            _ => u32::from_le_bytes(*to) & 0xffff | u32::from(x) << 16,
                        }
                        .to_le_bytes();
                    }
                }
            }
        }
    }

    /// A row as bfloat16, in `room` if it was not that before.
    fn rounded<'r>(&self, row: Row<'r>, room: &'r mut [u16]) -> &'r [u16] {
        match row {
            Row::Bfloat16(row) => row,
            Row::Float32(row) => {
                (self.kernels.round)(row, &mut room[..row.len()]);
                &room[..row.len()]
            }
        }
    }

    /// Positions of a page.
    pub fn page(&self) -> usize {
        self.layout.page
    }

    /// Query rows of a task that may have any number, up to [`QUERY_ROWS`].
    pub fn query_rows(&self) -> usize {
        if self.multiplies_bfloat16() { BFLOAT16_QUERY_ROWS } else { QUERY_ROWS }
    }

    /// Whether keys, values and queries are multiplied as bfloat16.
    pub fn multiplies_bfloat16(&self) -> bool {
        self.layout.dtype == Dtype::Bfloat16 && self.kernels.bfloat16_product.is_some()
    }

    /// Puts a query row, scaled by `log2(e) / sqrt(head_dim)`, where [`Pages::attend`] reads it.
    pub fn query(&self, s: &mut AttentionScratch, row: usize, query: Row<'_>) {
        let d = self.layout.head_dim;
        if self.multiplies_bfloat16() {
            let start = row * d.next_multiple_of(2);
            let to = &mut s.rounded_queries[start..start + d];
            match query {
                Row::Float32(query) => (self.kernels.round)(query, to),
                Row::Bfloat16(query) => to.copy_from_slice(query),
            }
        } else {
            let Row::Float32(query) = query else {
                unreachable!("rows are rounded for those who multiply them so");
            };
            s.queries[row * d..(row + 1) * d].copy_from_slice(query);
        }
    }

    /// Attention of `rows` query rows over all the keys they see: blocks in ascending order, merged one by one.
    ///
    /// # Safety
    /// No thread may write this layer and head of these pages meanwhile.
    pub unsafe fn attend(&self, table: &[u32], layer: usize, head: usize, rows: usize, s: &mut AttentionScratch) {
        let keys = s.limits[..rows].iter().copied().max().unwrap_or(0);
        let width = self.layout.padded_dim();
        s.states[..rows].fill((f32::NEG_INFINITY, 0.0));
        for block in 0..keys.div_ceil(BLOCK) {
            let mut block_states = [(0.0, 0.0); QUERY_ROWS];
            // SAFETY: by the caller's promise.
            unsafe { self.block(table, layer, head, block, rows, s, &mut block_states, None) };
            for (row, &state) in block_states.iter().enumerate().take(rows) {
                if state.1 > 0.0 {
                    let part = row * width..(row + 1) * width;
                    let block_out = &s.block_outputs[part.clone()];
                    (self.kernels.merge)(&mut s.states[row], &mut s.outputs[part], state, block_out);
                }
            }
        }
    }

    /// One block of keys: a maximum, a sum and an output per query row, in the scratch where no other place is given;
    /// the sum is zero where a row sees no key.
    ///
    /// # Safety
    /// As for [`Pages::attend`].
    #[allow(clippy::too_many_arguments)]
    pub unsafe fn block(
        &self,
        table: &[u32],
        layer: usize,
        head: usize,
        block: usize,
        rows: usize,
        s: &mut AttentionScratch,
        states: &mut [(f32, f32)],
        out: Option<&mut [f32]>,
    ) {
        let out = match out {
            Some(out) => out,
            None => &mut s.block_outputs,
        };
        let (l, first) = (self.layout, block * BLOCK);
        let seen = |limit: usize| limit.saturating_sub(first).min(BLOCK);
        let keys = s.limits[..rows].iter().copied().map(seen).max().unwrap_or(0);
        let pages = || {
            table[first / l.page..].iter().take(keys.div_ceil(l.page)).enumerate().map(|(i, &page)| {
                let start = l.head_start(page, layer, head);
                // SAFETY: by the caller's promise.
                let bytes = unsafe { self.bytes.part(start..start + l.head_bytes()) };
                (i * l.page, (keys - i * l.page).min(l.page), bytes.split_at(l.key_bytes()))
            })
        };
        let bfloat16_product = self.kernels.bfloat16_product.filter(|_| self.multiplies_bfloat16());
        for (at, count, (k, _)) in pages() {
            let (w_stride, panels) = (l.dtype.panel_bytes(l.head_dim), count.div_ceil(PANEL));
            let out = &mut s.scores[at..];
            match bfloat16_product {
                Some(product) => product(Bfloat16Product {
                    a: &s.rounded_queries,
                    a_stride: l.head_dim.next_multiple_of(2),
                    rows,
                    k: l.head_dim,
                    w: k,
                    w_stride,
                    panels,
                    out,
                    out_stride: BLOCK,
                    start: Start::Zero,
                }),
                None => (self.kernels.product)(Product {
                    a: &s.queries,
                    a_stride: l.head_dim,
                    rows,
                    k: l.head_dim,
                    w: k,
                    w_stride,
                    dtype: l.dtype,
                    panels,
                    out,
                    out_stride: BLOCK,
                    accumulate: false,
                    scratch: &mut s.expanded,
                }),
            }
        }
        for (row, scores) in s.scores.chunks_exact_mut(BLOCK).take(rows).enumerate() {
            let visible = seen(s.limits[row]);
            states[row] =
                if visible > 0 { (self.kernels.softmax)(&mut scores[..visible]) } else { (f32::NEG_INFINITY, 0.0) };
            // An odd number of keys is padded with one more that weighs nothing.
            let end = keys.next_multiple_of(2);
            scores[visible..end].fill(0.0);
            if bfloat16_product.is_some() {
                let to = &mut s.rounded_scores[row * BLOCK..row * BLOCK + end];
                (self.kernels.round)(&scores[..end], to);
            }
        }
        for (at, count, (_, v)) in pages() {
            let (w_stride, panels) = (l.dtype.panel_bytes(l.page), l.padded_dim() / PANEL);
            match bfloat16_product {
                Some(product) => product(Bfloat16Product {
                    a: &s.rounded_scores[at..],
                    a_stride: BLOCK,
                    rows,
                    k: count,
                    w: v,
                    w_stride,
                    panels,
                    out,
                    out_stride: l.padded_dim(),
                    start: if at > 0 { Start::Out } else { Start::Zero },
                }),
                None => (self.kernels.product)(Product {
                    a: &s.scores[at..],
                    a_stride: BLOCK,
                    rows,
                    k: count,
                    w: v,
                    w_stride,
                    dtype: l.dtype,
                    panels,
                    out,
                    out_stride: l.padded_dim(),
                    accumulate: at > 0,
                    scratch: &mut s.expanded,
                }),
            }
        }
    }
}
