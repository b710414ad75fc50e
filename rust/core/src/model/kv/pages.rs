//! The pages of a job: its threads write new keys and values into them, and read them.
use super::layout::{KvFormat, PageLayout};
use crate::machine::memory::Mapped;
use crate::machine::shared::{Part, Share, Shared};
use crate::machine::team::Task;
use crate::model::kernels::{Kernels, PANEL};

/// A key, a value or a query.
#[derive(Clone, Copy)]
pub(crate) enum Row<'a> {
    /// Rounded when it is stored, if need be.
    Float32(&'a [f32]),
    /// Rounded before.
    Bfloat16(&'a [u16]),
}

/// A position of one head.
#[derive(Clone, Copy)]
pub(crate) struct Slot {
    /// The page.
    pub(crate) page: u32,
    /// The layer.
    pub(crate) layer: usize,
    /// The head.
    pub(crate) head: usize,
    /// The position in the page.
    pub(crate) slot: usize,
}

/// One head of one layer in the pages of a sequence.
#[derive(Clone, Copy)]
pub(crate) struct Head<'k> {
    /// The pages in order of position.
    pub(crate) pages: &'k [u32],
    /// The layer.
    pub(crate) layer: usize,
    /// The head.
    pub(crate) head: usize,
}

/// Pages as a thread of a job sees them.
pub(crate) struct Pages<'a> {
    pub(super) kernels: &'static Kernels,
    pub(super) layout: &'a PageLayout,
    bytes: Shared<'a, u8>,
}

impl Share for Pages<'_> {
    unsafe fn handle(&self) -> Self {
        // SAFETY: the caller promises the same.
        Self { bytes: unsafe { self.bytes.handle() }, ..*self }
    }
}

impl<'a> Pages<'a> {
    /// Pages of `layout` in `bytes`.
    pub(crate) fn new(kernels: &'static Kernels, layout: &'a PageLayout, bytes: &'a mut Mapped<u8>) -> Self {
        Self { kernels, layout, bytes: Shared::new(bytes) }
    }

    /// Positions of a page.
    pub(crate) fn page(&self) -> usize {
        self.layout.page
    }

    /// Whether keys, values and queries are multiplied as bfloat16.
    pub(crate) fn multiplies_bfloat16(&self) -> bool {
        self.layout.format == KvFormat::Bfloat16 && self.kernels.bfloat16_product.is_some()
    }

    /// Keys and values of one head in a page.
    pub(super) fn head<'t>(&'t self, task: &'t Task, page: u32, head: &Head<'_>) -> (&'t [u8], &'t [u8]) {
        let start = self.layout.head_start(page, head.layer, head.head);
        self.bytes.part(task, start..start + self.layout.head_bytes()).split_at(self.layout.key_bytes())
    }

    /// Writes the key and value of one position of one head, of a page and a head that are row and column of the part.
    /// Only pages of bfloat16 take rows that are that; `scratch` holds a row on its way.
    pub(crate) fn store(&mut self, part: &Part<'_>, at: Slot, key: Row<'_>, value: Row<'_>, scratch: &mut [u16]) {
        let (l, kernels) = (self.layout, self.kernels);
        part.check(at.page as usize, &(at.head..at.head + 1));
        let start = l.head_start(at.page, at.layer, at.head);
        // SAFETY: the heads of pages do not overlap, and the part has this one.
        let bytes = unsafe { self.bytes.part_mut(part, start..start + l.head_bytes()) };
        let (keys, values) = bytes.split_at_mut(l.key_bytes());
        let panel = &mut keys[at.slot / PANEL * l.key_panel()..];
        let (slot, column) = (at.slot, at.slot % PANEL);
        match (l.format, key, value) {
            (KvFormat::Float32, Row::Float32(key), Row::Float32(value)) => {
                store_float32(panel, column, key);
                for (panel, x) in values.chunks_exact_mut(l.value_panel()).zip(value.chunks(PANEL)) {
                    for (to, x) in panel[4 * slot * PANEL..].chunks_exact_mut(4).zip(x) {
                        to.copy_from_slice(&x.to_le_bytes());
                    }
                }
            }
            (KvFormat::Float32, ..) => unreachable!("pages of float32 are filled with float32"),
            (KvFormat::Bfloat16, ..) => {
                store_bfloat16_key(panel, column, rounded(kernels, key, scratch));
                let value = rounded(kernels, value, scratch);
                for (panel, x) in values.chunks_exact_mut(l.value_panel()).zip(value.chunks(PANEL)) {
                    store_bfloat16_value(&mut panel[4 * (slot / 2) * PANEL..], slot % 2 == 1, x);
                }
            }
        }
    }
}

fn store_float32(panel: &mut [u8], column: usize, key: &[f32]) {
    for (step, x) in panel.chunks_exact_mut(4 * PANEL).zip(key) {
        step[4 * column..4 * column + 4].copy_from_slice(&x.to_le_bytes());
    }
}

fn store_bfloat16_key(panel: &mut [u8], column: usize, key: &[u16]) {
    for (pair, x) in panel.chunks_exact_mut(4 * PANEL).zip(key.chunks(2)) {
        let both = u32::from(x[0]) | u32::from(x.get(1).copied().unwrap_or(0)) << 16;
        pair[4 * column..4 * column + 4].copy_from_slice(&both.to_le_bytes());
    }
}

/// One step of the values, the second of its pair if `odd`. The odd one comes after its even one. Until then a zero lies
/// there: an odd number of keys is multiplied together with the next one, which weighs nothing.
fn store_bfloat16_value(pair: &mut [u8], odd: bool, value: &[u16]) {
    for (to, &x) in pair.as_chunks_mut().0.iter_mut().zip(value) {
        let both = if odd { u32::from_le_bytes(*to) & 0xffff | u32::from(x) << 16 } else { u32::from(x) };
        *to = both.to_le_bytes();
    }
}

/// A row as bfloat16, in `scratch` if it was not that before.
fn rounded<'r>(kernels: &Kernels, row: Row<'r>, scratch: &'r mut [u16]) -> &'r [u16] {
    match row {
        Row::Bfloat16(row) => row,
        Row::Float32(row) => {
            (kernels.round)(row, &mut scratch[..row.len()]);
            &scratch[..row.len()]
        }
    }
}
