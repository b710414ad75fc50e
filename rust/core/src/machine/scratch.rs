//! Working memory that a thread keeps from one picture to the next: fresh pages would cost more than the arithmetic.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

use crate::error::{Error, Result};

/// Bytes that a thread keeps at most.
const KEPT_BYTES: usize = 16 << 20;

thread_local! {
    static FREE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Bytes of any content; given back to the thread when dropped.
pub(crate) struct Scratch(Vec<u8>);

impl Scratch {
    /// At least as many bytes as asked for are there, exactly as many are seen.
    pub(crate) fn new(length: usize) -> Result<Self> {
        let mut bytes = FREE.with_borrow_mut(|free| {
            let fits = free.iter().position(|bytes| bytes.capacity() >= length);
            fits.map_or_else(Vec::new, |at| free.remove(at))
        });
        let more = length.saturating_sub(bytes.len());
        bytes.try_reserve_exact(more).map_err(|_| Error::no_memory(length))?;
        bytes.resize(length, 0);
        Ok(Self(bytes))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.0);
        // A thread that is ending has no list any more.
        let _ = FREE.try_with(|free| {
            let mut free = free.borrow_mut();
            if free.iter().map(Vec::capacity).sum::<usize>() + bytes.capacity() <= KEPT_BYTES {
                free.push(bytes);
                free.sort_by_key(Vec::capacity);
            }
        });
    }
}

impl Deref for Scratch {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn a_thread_gets_its_memory_back_up_to_a_limit() {
        // A thread of its own: others of this test's thread may have left something behind.
        std::thread::spawn(|| {
            let mut first = Scratch::new(1000).expect("small");
            first.fill(9);
            let start = first.as_ptr();
            drop(first);
            let again = Scratch::new(900).expect("small");
            assert_eq!((again.as_ptr(), again.len()), (start, 900));
            let other = Scratch::new(900).expect("small");
            assert_ne!(other.as_ptr(), start, "it has one holder");
            drop((again, other));
            drop(Scratch::new(KEPT_BYTES).expect("sixteen megabytes"));
            let kept = FREE.with_borrow(|free| free.iter().map(Vec::capacity).sum::<usize>());
            assert!((1900..KEPT_BYTES).contains(&kept), "{kept} bytes");
            assert_eq!(Scratch::new(usize::MAX).map(|_| ()).map_err(|error| error.kind()), Err(ErrorKind::Memory));
        })
        .join()
        .expect("no panic");
    }
}
