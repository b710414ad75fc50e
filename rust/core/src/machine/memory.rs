//! Page-aligned zeroed memory from the system, on huge pages if the system has any.
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use memmap2::{MmapMut, MmapOptions};

use crate::error::{Error, Result};

/// Bytes of a huge page.
pub(crate) const HUGE_PAGE: usize = 2 << 20;

/// Number types of which every bit pattern, zero included, is a value.
pub trait Plain: Copy + Send + Sync + 'static {}
impl Plain for f32 {}
impl Plain for i16 {}
impl Plain for u16 {}
impl Plain for u8 {}

/// A fixed, zeroed array mapped from the system. Pages that nobody touches cost no memory.
pub struct Mapped<T: Plain> {
    map: MmapMut,
    offset: usize,
    len: usize,
    kind: PhantomData<T>,
}

impl<T: Plain> Mapped<T> {
    /// Maps `len` zeroed elements.
    pub fn zeroed(len: usize) -> Result<Self> {
        let refuse = || Error::no_memory(len.saturating_mul(size_of::<T>()));
        let bytes = len.checked_mul(size_of::<T>()).ok_or_else(refuse)?.max(1);
        // Large maps start on a huge-page boundary, or the kernel could use huge pages for none of their ends.
        let slack = if bytes >= HUGE_PAGE { HUGE_PAGE } else { 0 };
        let size = bytes.checked_add(slack).filter(|&b| b <= isize::MAX as usize).ok_or_else(refuse)?;
        let map = MmapOptions::new().len(size).no_reserve_swap().map_anon().map_err(|_| refuse())?;
        let offset = if slack > 0 { map.as_ptr().align_offset(HUGE_PAGE) } else { 0 };
        #[cfg(target_os = "linux")]
        if slack > 0 {
            // Advice only: a kernel without huge pages keeps the small ones.
            let _ = map.advise(memmap2::Advice::HugePage);
        }
        Ok(Self { map, offset, len, kind: PhantomData })
    }
}

impl<T: Plain> Deref for Mapped<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        // SAFETY: the map holds `len` elements from `offset` on, page-aligned, and every bit pattern is a `T`.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().add(self.offset).cast(), self.len) }
    }
}

impl<T: Plain> DerefMut for Mapped<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: the map holds `len` elements from `offset` on, each a `T` whatever its bits, and `&mut self` makes the borrow the only one.
        unsafe { std::slice::from_raw_parts_mut(self.map.as_mut_ptr().add(self.offset).cast(), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn buffers_are_zeroed_and_aligned() {
        for len in [0, 1, 4097, HUGE_PAGE / 4 + 3] {
            let mut b = Mapped::<f32>::zeroed(len).expect("a few MiB");
            assert!(b.iter().all(|&x| x == 0.0));
            assert_eq!(b.as_ptr().align_offset(64), 0);
            b.fill(1.0);
            assert_eq!(b.len(), len);
        }
    }

    #[test]
    fn impossible_memory_is_refused() {
        let kind = |refused: Option<Error>| refused.map(|error| error.kind());
        assert_eq!(kind(Mapped::<f32>::zeroed(usize::MAX / 2).err()), Some(ErrorKind::Memory));
        assert_eq!(kind(Mapped::<u8>::zeroed(1 << 60).err()), Some(ErrorKind::Memory));
    }
}
