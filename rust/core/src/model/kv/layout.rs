//! How keys and values lie in pages.
use crate::model::kernels::{BLOCK, FloatFormat, PANEL};

/// How keys and values are stored.
pub type KvFormat = FloatFormat;

/// Positions of a page of the text stack.
pub const PAGE: usize = 64;

/// Sizes of the pages. A page holds some positions of every layer and head in the panel layout of the kernels: keys as
/// weights with inner dimension `head_dim` and one column per position, values as weights with one inner step per
/// position. So the matrix kernel computes scores and outputs alike, for one row or for many.
#[derive(Clone, Debug)]
pub(crate) struct PageLayout {
    pub(super) format: KvFormat,
    pub(super) head_dim: usize,
    pub(super) page: usize,
    layers: usize,
    heads: usize,
}

impl PageLayout {
    /// Pages for `layers` layers of `heads` heads.
    pub(crate) fn new(format: KvFormat, layers: usize, heads: usize, head_dim: usize) -> Self {
        Self { format, heads, head_dim, layers, page: PAGE }
    }

    /// The same with pages of a whole block of keys, for what is written at once and shared with nobody.
    pub(crate) fn large(self) -> Self {
        Self { page: BLOCK, ..self }
    }

    /// Positions of a page.
    pub(crate) fn page(&self) -> usize {
        self.page
    }

    /// Width of a value row, padded to whole panels.
    pub(crate) fn padded_dim(&self) -> usize {
        self.head_dim.next_multiple_of(PANEL)
    }

    /// Bytes of a panel of keys.
    pub(super) fn key_panel(&self) -> usize {
        self.panel_bytes(self.head_dim)
    }

    /// Bytes of a panel of values.
    pub(super) fn value_panel(&self) -> usize {
        self.panel_bytes(self.page)
    }

    fn panel_bytes(&self, k: usize) -> usize {
        self.format.panel_bytes(k).expect("sizes that the configuration was checked for")
    }

    /// Bytes of the keys of one head in a page; its values come behind them.
    pub(super) fn key_bytes(&self) -> usize {
        self.page / PANEL * self.key_panel()
    }

    /// Bytes of one head in a page.
    pub(super) fn head_bytes(&self) -> usize {
        self.key_bytes() + self.padded_dim() / PANEL * self.value_panel()
    }

    /// Bytes of a page.
    pub(crate) fn page_bytes(&self) -> usize {
        self.layers * self.heads * self.head_bytes()
    }

    /// Where a head begins.
    pub(super) fn head_start(&self, page: u32, layer: usize, head: usize) -> usize {
        page as usize * self.page_bytes() + (layer * self.heads + head) * self.head_bytes()
    }
}
