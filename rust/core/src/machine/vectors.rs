//! Vectors whose length comes from outside: memory that the system does not give is an error, not the end of the process.
use crate::error::{Error, Result};

/// Collects `len` items. The iterator should give no more: those would be stored too, but without this care.
pub(crate) fn collected<T>(len: usize, items: impl Iterator<Item = T>) -> Result<Vec<T>> {
    let mut vector = with_capacity(len)?;
    vector.extend(items);
    Ok(vector)
}

/// An empty vector with a capacity of `len` items.
pub(crate) fn with_capacity<T>(len: usize) -> Result<Vec<T>> {
    let mut vector = Vec::new();
    vector.try_reserve_exact(len).map_err(|_| Error::no_memory(len.saturating_mul(size_of::<T>())))?;
    Ok(vector)
}

/// A number of which all bits zero are the value zero.
///
/// # Safety
/// Zeroed memory must be a valid value of the type, and dropping a value must do nothing.
pub unsafe trait Zero: Copy {}

// SAFETY: an integer.
unsafe impl Zero for u8 {}
// SAFETY: all bits zero are 0.0.
unsafe impl Zero for f32 {}
// SAFETY: all bits zero are 0.0.
unsafe impl Zero for f64 {}

/// `len` zeros, in memory that the system may have zeroed already.
pub(crate) fn zeros<T: Zero>(len: usize) -> Result<Vec<T>> {
    let refuse = || Error::no_memory(len.saturating_mul(size_of::<T>()));
    let layout = std::alloc::Layout::array::<T>(len).map_err(|_| refuse())?;
    if layout.size() == 0 {
        return Ok(Vec::new());
    }
    // SAFETY: the layout has a size.
    let start = unsafe { std::alloc::alloc_zeroed(layout) };
    if start.is_null() {
        return Err(refuse());
    }
    // SAFETY: the global allocator gave memory with the layout of `len` values, all of them zero, which is a value of `T`.
    Ok(unsafe { Vec::from_raw_parts(start.cast(), len, len) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn too_much_is_an_error() {
        let kind = |error: Error| error.kind();
        for len in [usize::MAX, usize::MAX / 8, isize::MAX as usize / 8] {
            assert_eq!(zeros::<f64>(len).map_err(kind).err(), Some(ErrorKind::Memory));
            assert_eq!(collected(len, [0_u64; 2].into_iter()).map_err(kind).err(), Some(ErrorKind::Memory));
        }
        assert_eq!(zeros::<f32>(3), Ok(vec![0.0; 3]));
        assert_eq!(zeros::<u8>(0), Ok(vec![]));
        assert_eq!(collected(2, [5, 6].into_iter()), Ok(vec![5, 6]));
    }
}
