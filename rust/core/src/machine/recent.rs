//! A small cache of values that are costly to make.
use std::sync::{Arc, Mutex};

/// The values used last, at most a fixed number of them.
pub(crate) struct Recent<K, V> {
    /// The least recently used comes first.
    entries: Mutex<Vec<(K, Arc<V>)>>,
    limit: usize,
}

/// Declares a function that gives the cache of the whole process for values of one kind.
macro_rules! recent_of_process {
    ($(#[$doc:meta])* fn $name:ident() -> Recent<$key:ty, $value:ty>, limit: $limit:expr) => {
        $(#[$doc])*
        fn $name() -> &'static $crate::machine::recent::Recent<$key, $value> {
            static CACHE: $crate::machine::recent::Recent<$key, $value> = $crate::machine::recent::Recent::new($limit);
            &CACHE
        }
    };
}
pub(crate) use recent_of_process;

impl<K: Copy + PartialEq, V> Recent<K, V> {
    /// An empty cache of at most `limit` values, at least one.
    pub(crate) const fn new(limit: usize) -> Self {
        assert!(limit > 0);
        Self { entries: Mutex::new(Vec::new()), limit }
    }

    /// The value of a key, made if the cache does not have it. What fails to be made is not kept.
    pub(crate) fn get_or_make<E>(&self, key: &K, make: impl FnOnce() -> Result<V, E>) -> Result<Arc<V>, E> {
        // After a fork the lock may be held by a thread that does not exist any more: without the lock the value is made.
        if let Ok(mut entries) = self.entries.try_lock()
            && let Some(at) = entries.iter().position(|(known, _)| known == key)
        {
            let entry = entries.remove(at);
            let value = entry.1.clone();
            entries.push(entry);
            return Ok(value);
        }
        let value = Arc::new(make()?);
        if let Ok(mut entries) = self.entries.try_lock() {
            if entries.len() >= self.limit {
                entries.remove(0);
            }
            entries.push((*key, value.clone()));
        }
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_values_used_last_are_kept() {
        let cache = Recent::<u32, u32>::new(2);
        let made = |key: u32| {
            let mut made = false;
            let value = cache.get_or_make(&key, || {
                made = true;
                if key == 9 { Err(()) } else { Ok(key * 2) }
            });
            assert_eq!(value.ok().as_deref(), (key != 9).then_some(&(key * 2)));
            made
        };
        assert_eq!([1, 2, 1, 3, 1, 2, 3].map(made), [true, true, false, true, false, true, true]);
        assert_eq!([9, 9].map(made), [true, true], "a failure is not kept");
        let locked = cache.entries.lock().expect("no panic while it is held");
        assert!(made(3), "without the lock the value is made");
        drop(locked);
    }
}
