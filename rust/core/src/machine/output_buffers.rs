//! Large buffers that are used again: the pages of a fresh one would cost more time than all arithmetic.
//!
//! A buffer belongs to its holder. It comes back when the holder drops it, and only then can it be handed out again.

use std::alloc::{Layout, alloc, dealloc};
use std::ptr::NonNull;
use std::sync::Mutex;

use crate::Error;

/// The environment variable that sets how many bytes may wait to be used again.
const VARIABLE: &str = "FASTER_SMOLVLM_POOL_BYTES";
const DEFAULT_LIMIT: usize = 1 << 30;
/// Whole huge pages, which the kernel can hand out in one step.
const ALIGNMENT: usize = 2 << 20;

/// Aligned memory, its content undefined.
pub struct Buffer {
    start: NonNull<u8>,
    capacity: usize,
}

// SAFETY: a buffer is plain memory with one owner.
unsafe impl Send for Buffer {}
// SAFETY: a shared buffer gives out its address only.
unsafe impl Sync for Buffer {}

static FREE: Mutex<Vec<Buffer>> = Mutex::new(Vec::new());

impl Buffer {
    /// At least `bytes` bytes, used before if there are such.
    pub fn new(bytes: usize) -> Result<Self, Error> {
        let capacity = bytes.max(1).checked_next_multiple_of(ALIGNMENT).ok_or_else(|| Error::no_memory(bytes))?;
        // If the list is locked, go on without it: after a fork the thread that locked it may not exist.
        if let Ok(mut free) = FREE.try_lock() {
            let fits = |buffer: &Buffer| (capacity..=capacity + capacity / 4).contains(&buffer.capacity);
            if let Some(at) = free.iter().position(fits) {
                return Ok(free.swap_remove(at));
            }
        }
        let layout = Layout::from_size_align(capacity, ALIGNMENT).map_err(|_| Error::no_memory(bytes))?;
        // SAFETY: the size is not zero.
        let start = NonNull::new(unsafe { alloc(layout) }).ok_or_else(|| Error::no_memory(bytes))?;
        #[cfg(target_os = "linux")]
        // SAFETY: advice about pages that this buffer owns; an error means that it is not taken.
        unsafe {
            libc::madvise(start.as_ptr().cast(), capacity, libc::MADV_HUGEPAGE);
        }
        Ok(Self { start, capacity })
    }

    /// Where it begins.
    pub fn as_ptr(&self) -> *mut u8 {
        self.start.as_ptr()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Ok(mut free) = FREE.try_lock() {
            let waiting: usize = free.iter().map(|buffer| buffer.capacity).sum();
            if waiting + self.capacity <= limit() {
                free.push(Self { start: self.start, capacity: self.capacity });
                return;
            }
        }
        release(self.start, self.capacity);
    }
}

/// Bytes that wait to be used again.
pub fn waiting() -> usize {
    FREE.try_lock().map_or(0, |free| free.iter().map(|buffer| buffer.capacity).sum())
}

/// Give all memory that waits back to the system.
pub fn trim() {
    if let Ok(mut free) = FREE.try_lock() {
        for buffer in free.drain(..) {
            let buffer = std::mem::ManuallyDrop::new(buffer);
            release(buffer.start, buffer.capacity);
        }
    }
}

fn release(start: NonNull<u8>, capacity: usize) {
    // SAFETY: `new` allocated it with this layout, and its owner is giving it up.
    unsafe { dealloc(start.as_ptr(), Layout::from_size_align_unchecked(capacity, ALIGNMENT)) }
}

fn limit() -> usize {
    static LIMIT: std::sync::OnceLock<usize> = std::sync::OnceLock::new();
    *LIMIT.get_or_init(|| std::env::var(VARIABLE).ok().and_then(|text| text.parse().ok()).unwrap_or(DEFAULT_LIMIT))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One test: the list of free buffers belongs to the process.
    #[test]
    fn buffers_are_used_again_and_a_fork_does_without_the_list() {
        trim();
        let first = Buffer::new(3 * ALIGNMENT - 5).expect("six megabytes");
        assert!(first.as_ptr().addr().is_multiple_of(ALIGNMENT));
        let (start, other) = (first.as_ptr(), Buffer::new(3 * ALIGNMENT).expect("six megabytes"));
        assert_ne!(start, other.as_ptr(), "a buffer has one holder");
        drop(first);
        assert_eq!(waiting(), 3 * ALIGNMENT);
        // Less than a quarter larger than asked for fits, much larger does not.
        assert_ne!(Buffer::new(ALIGNMENT).expect("two megabytes").as_ptr(), start);
        trim();
        assert_eq!(waiting(), 0);
        drop(other);
        let again = Buffer::new(3 * ALIGNMENT - 1).expect("six megabytes");
        assert_eq!(waiting(), 0, "the one that waited is in use");
        drop(again);
        assert!(Buffer::new(usize::MAX).is_err() && Buffer::new(isize::MAX as usize - ALIGNMENT).is_err());
        #[cfg(target_os = "linux")]
        fork_with_the_list_taken();
        trim();
    }

    #[cfg(target_os = "linux")]
    fn fork_with_the_list_taken() {
        let taken = FREE.lock().expect("no panic while it is held");
        // SAFETY: the child allocates, which glibc allows after a fork, and leaves at once.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let works = Buffer::new(ALIGNMENT).is_ok() && waiting() == 0;
            // SAFETY: ends the child without its parent's destructors.
            unsafe { libc::_exit(if works { 0 } else { 1 }) };
        }
        let mut status = -1;
        // SAFETY: waits for the child that was just made; the status is a local.
        let ended = unsafe { libc::waitpid(child, &raw mut status, 0) };
        assert_eq!((ended, status), (child, 0));
        drop(taken);
    }
}
