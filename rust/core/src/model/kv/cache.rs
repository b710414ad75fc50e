//! The key/value cache: sequences as lists of pages, which forks share until one of them writes.
use std::collections::HashMap;

use crate::error::{Error, Result};
use crate::machine::memory::Mapped;
use crate::model::kernels::Kernels;
use crate::model::kv::{PAGE, PageLayout, Pages};

/// Tokens that have gone through the text stack, and where their keys and values lie.
#[derive(Default, Clone)]
pub struct Sequence {
    /// Pages in order of position.
    pub(crate) pages: Vec<u32>,
    /// Number of positions filled.
    pub length: usize,
}

/// A fixed number of pages, handed out to sequences.
pub struct KvCache {
    layout: PageLayout,
    bytes: Mapped<u8>,
    pages: usize,
    /// Sequences that have a page, for each page up to the last that was ever used: their number comes from outside, and
    /// a list of all could be larger than what is used of them.
    users: Vec<u32>,
    /// Pages that were used and are free again.
    free: Vec<u32>,
    sequences: HashMap<u64, Sequence>,
    next_id: u64,
    limit: usize,
}

impl KvCache {
    /// Capacity for `positions` positions in all; a sequence has at most `limit`. Untouched pages cost no memory.
    pub(crate) fn new(layout: PageLayout, positions: usize, limit: usize) -> Result<Self> {
        let pages = positions.div_ceil(PAGE);
        if pages == 0 {
            return Err(Error::config("the cache must hold at least one position, got 0"));
        }
        if pages > u32::MAX as usize {
            return Err(Error::no_memory(usize::MAX));
        }
        let size = layout.page_bytes().checked_mul(pages).ok_or_else(|| Error::no_memory(usize::MAX))?;
        let bytes = Mapped::zeroed(size)?;
        let (users, free, sequences) = (Vec::new(), Vec::new(), HashMap::new());
        Ok(Self { layout, bytes, pages, users, free, sequences, next_id: 1, limit })
    }

    /// Raises the capacity to at least `positions` positions in all; the sequences stay as they are.
    pub fn grow(&mut self, positions: usize) -> Result<()> {
        if positions.div_ceil(PAGE) <= self.pages {
            return Ok(());
        }
        let Self { mut bytes, pages, .. } = Self::new(self.layout.clone(), positions, self.limit)?;
        let size = self.layout.page_bytes();
        // Only pages in use: to read the others would make the system give memory for them.
        for page in (0..self.users.len()).filter(|&page| self.users[page] > 0) {
            let part = page * size..(page + 1) * size;
            bytes[part.clone()].copy_from_slice(&self.bytes[part]);
        }
        (self.bytes, self.pages) = (bytes, pages);
        Ok(())
    }

    /// Starts an empty sequence.
    pub fn open(&mut self) -> u64 {
        self.insert(Sequence::default())
    }

    fn insert(&mut self, sequence: Sequence) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.sequences.insert(id, sequence);
        id
    }

    /// The sequence with this handle.
    pub fn get(&self, id: u64) -> Result<&Sequence> {
        self.sequences.get(&id).ok_or_else(|| Error::no_sequence(id))
    }

    /// Ends a sequence and frees the pages that no other one shares.
    pub fn close(&mut self, id: u64) -> Result<()> {
        let sequence = self.sequences.remove(&id).ok_or_else(|| Error::no_sequence(id))?;
        self.release(&sequence.pages);
        Ok(())
    }

    /// Starts a sequence whose first `length` positions are those of another; nothing is copied.
    pub fn fork(&mut self, id: u64, length: usize) -> Result<u64> {
        let source = self.get(id)?;
        if length > source.length {
            let have = source.length;
            return Err(Error::value(format!("cannot fork {length} positions of a sequence of {have}")));
        }
        let pages = source.pages[..length.div_ceil(PAGE)].to_vec();
        for &page in &pages {
            self.users[page as usize] += 1;
        }
        Ok(self.insert(Sequence { pages, length }))
    }

    /// Forgets the positions from `length` on.
    pub fn truncate(&mut self, id: u64, length: usize) -> Result<()> {
        let sequence = self.sequences.get_mut(&id).ok_or_else(|| Error::no_sequence(id))?;
        if length > sequence.length {
            let have = sequence.length;
            return Err(Error::value(format!("cannot truncate a sequence of {have} positions to {length}")));
        }
        sequence.length = length;
        let pages = sequence.pages.split_off(length.div_ceil(PAGE));
        self.release(&pages);
        Ok(())
    }

    fn release(&mut self, pages: &[u32]) {
        for &page in pages {
            self.users[page as usize] -= 1;
            if self.users[page as usize] == 0 {
                self.free.push(page);
            }
        }
    }

    /// Reserves `more[i]` further positions of `ids[i]`, for all or for none.
    pub(crate) fn reserve(&mut self, ids: &[u64], more: &[usize]) -> Result<()> {
        let mut needed = 0;
        for (i, (&id, &more)) in ids.iter().zip(more).enumerate() {
            if ids[..i].contains(&id) {
                return Err(Error::value(format!("sequence {id} appears twice in one step")));
            }
            let s = self.get(id)?;
            let length = s.length.saturating_add(more);
            if length > self.limit {
                return Err(too_long(length, self.limit));
            }
            needed += length.div_ceil(PAGE) - s.pages.len() + usize::from(more > 0 && self.shares_end(s));
        }
        if needed > self.free_pages() {
            return Err(Error::cache_full(needed, self.free_pages()));
        }
        for (&id, &more) in ids.iter().zip(more).filter(|(_, more)| **more > 0) {
            let mut s = self.sequences.remove(&id).ok_or_else(|| Error::no_sequence(id))?;
            if self.shares_end(&s)
                && let (Some(copy), Some(shared)) = (self.take_page(), s.pages.pop())
            {
                self.copy(shared, copy);
                self.release(&[shared]);
                s.pages.push(copy);
            }
            while s.pages.len() * PAGE < s.length + more
                && let Some(page) = self.take_page()
            {
                s.pages.push(page);
            }
            self.sequences.insert(id, s);
        }
        Ok(())
    }

    fn take_page(&mut self) -> Option<u32> {
        if let Some(page) = self.free.pop() {
            self.users[page as usize] = 1;
            return Some(page);
        }
        let page = u32::try_from(self.users.len()).ok().filter(|&page| (page as usize) < self.pages)?;
        self.users.push(1);
        Some(page)
    }

    /// Whether the next position would be written into a page that another sequence reads.
    fn shares_end(&self, s: &Sequence) -> bool {
        !s.length.is_multiple_of(PAGE) && s.pages.last().is_some_and(|&page| self.users[page as usize] > 1)
    }

    fn copy(&mut self, from: u32, to: u32) {
        let (from, to, size) = (from as usize, to as usize, self.layout.page_bytes());
        self.bytes.copy_within(from * size..(from + 1) * size, to * size);
    }

    /// Counts positions that a step has filled.
    pub(crate) fn advance(&mut self, ids: &[u64], more: &[usize]) {
        for (id, more) in ids.iter().zip(more) {
            if let Some(s) = self.sequences.get_mut(id) {
                s.length += more;
            }
        }
    }

    /// The pages' memory for one job, and the sequences that use it.
    pub(crate) fn view(&mut self, kernels: &'static Kernels) -> (Pages<'_>, &HashMap<u64, Sequence>) {
        (Pages::new(kernels, &self.layout, &mut self.bytes), &self.sequences)
    }

    /// Sizes of the pages.
    pub(crate) fn layout(&self) -> &PageLayout {
        &self.layout
    }

    /// Pages that no sequence uses.
    pub fn free_pages(&self) -> usize {
        self.pages - self.users.len() + self.free.len()
    }

    /// Number of pages in all.
    pub fn pages(&self) -> usize {
        self.pages
    }
}

fn too_long(length: usize, limit: usize) -> Error {
    Error::value(format!(
        "the sequence would be {length} tokens long, the model's position limit is {limit}; shorten the prompt or generate less"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::kv::KvFormat;

    fn cache(positions: usize) -> KvCache {
        KvCache::new(PageLayout::new(KvFormat::Float32, 2, 1, 8), positions, 1000).expect("small")
    }

    fn grow(c: &mut KvCache, id: u64, more: usize) {
        c.reserve(&[id], &[more]).expect("enough pages");
        c.advance(&[id], &[more]);
    }

    #[test]
    fn forks_share_pages_until_one_writes() {
        let mut c = cache(640);
        let a = c.open();
        grow(&mut c, a, 100);
        assert_eq!(c.free_pages(), 8);
        let b = c.fork(a, 100).expect("fork");
        let whole = c.fork(a, 64).expect("fork");
        assert_eq!(c.free_pages(), 8);
        grow(&mut c, b, 1);
        assert_eq!(c.free_pages(), 7, "the half-full page was copied");
        grow(&mut c, whole, 1);
        assert_eq!(c.free_pages(), 6);
        let shared = c.get(a).expect("a").pages[0];
        assert!([b, whole].iter().all(|&s| c.get(s).expect("there").pages[0] == shared));
        for id in [a, b, whole] {
            c.close(id).expect("there");
        }
        assert_eq!(c.free_pages(), 10);
    }

    #[test]
    fn refusals_change_nothing() {
        let mut c = cache(128);
        let (a, b) = (c.open(), c.open());
        grow(&mut c, a, 60);
        let full = c.reserve(&[a, b], &[5, 65]);
        assert_eq!(full, Err(Error::cache_full(3, 1)));
        assert_eq!((c.free_pages(), c.get(a).expect("a").pages.len()), (1, 1));
        assert_eq!(c.reserve(&[b], &[1001]), Err(too_long(1001, 1000)));
        assert!(c.reserve(&[a, a], &[1, 1]).is_err());
        assert_eq!(c.close(77), Err(Error::no_sequence(77)));
        assert!(c.fork(a, 61).is_err());
    }

    #[test]
    fn growth_keeps_what_is_there() {
        let mut c = cache(128);
        let a = c.open();
        grow(&mut c, a, 65);
        let page = c.get(a).expect("a").pages[1] as usize;
        let size = c.layout.page_bytes();
        c.bytes[page * size] = 7;
        c.grow(100).expect("no change");
        assert_eq!((c.pages(), c.free_pages()), (2, 0));
        c.grow(500).expect("small");
        assert_eq!((c.pages(), c.free_pages()), (8, 6));
        assert_eq!(c.bytes[page * size], 7);
        let b = c.open();
        grow(&mut c, b, 384);
        let (a, b) = (&c.get(a).expect("a").pages, &c.get(b).expect("b").pages);
        assert!(a.iter().all(|page| !b.contains(page)));
    }

    #[test]
    fn pages_that_nobody_has_used_cost_nothing() {
        let mut c = cache(1 << 20);
        let a = c.open();
        grow(&mut c, a, 65);
        c.grow(1 << 21).expect("a gigabyte that is not touched");
        assert_eq!((c.pages(), c.free_pages()), (1 << 15, (1 << 15) - 2));
        assert_eq!((c.users.len(), c.free.len()), (2, 0), "one number for each page in use");
        c.truncate(a, 64).expect("shorter");
        let b = c.open();
        grow(&mut c, b, 100);
        assert_eq!(c.get(b).expect("b").pages, [1, 2], "what was used before comes first");
    }

    #[test]
    fn truncation_frees_whole_pages() {
        let mut c = cache(640);
        let a = c.open();
        grow(&mut c, a, 300);
        c.truncate(a, 64).expect("shorter");
        assert_eq!((c.free_pages(), c.get(a).expect("a").length), (9, 64));
        assert!(c.truncate(a, 65).is_err());
    }
}
