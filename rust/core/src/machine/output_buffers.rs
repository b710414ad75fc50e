//! Large buffers that are used again: the pages of a fresh one would cost more time than all arithmetic.
//!
//! A buffer belongs to whoever holds it. It comes back when its holder drops it, and only then can it be handed out again.

use std::alloc::{Layout, alloc, dealloc};
use std::ptr::NonNull;
use std::sync::Mutex;

use crate::Error;

/// The environment variable that sets how many bytes may wait to be used again.
const VARIABLE: &str = "FASTER_SMOLVLM_POOL_BYTES";
const DEFAULT_KEPT: usize = 1 << 30;
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
        // Whoever finds the list taken does without: after a fork its holder may not exist.
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
            if waiting + self.capacity <= kept() {
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

fn kept() -> usize {
    static KEPT: std::sync::OnceLock<usize> = std::sync::OnceLock::new();
    *KEPT.get_or_init(|| std::env::var(VARIABLE).ok().and_then(|text| text.parse().ok()).unwrap_or(DEFAULT_KEPT))
}
