//! A hash of weights, to notice that they changed.
use std::sync::atomic::{AtomicU64, Ordering};

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::team::Team;
use crate::error::Result;

/// Bytes of one piece: the pieces are what the threads share out.
const PIECE: usize = 4 << 20;

/// Hashes the arrays, one after the other, at the speed of memory on up to `threads` threads; the result does not depend
/// on their number.
pub fn fingerprint(arrays: &[&[u8]], threads: usize) -> Result<u64> {
    let pieces: Vec<&[u8]> = arrays.iter().flat_map(|a| a.chunks(PIECE)).collect();
    let hashes: Vec<AtomicU64> = pieces.iter().map(|_| AtomicU64::default()).collect();
    let mut team = Team::new(threads.min(pieces.len()).max(1))?;
    team.run(|worker| {
        worker.for_each(pieces.len(), |task| {
            hashes[task.index()].store(xxh3_64(pieces[task.index()]), Ordering::Relaxed);
        });
    })?;
    let lengths =
        arrays.iter().fold(arrays.len() as u64, |seed, a| xxh3_64_with_seed(&(a.len() as u64).to_le_bytes(), seed));
    let hashes = hashes.into_iter().map(AtomicU64::into_inner);
    Ok(hashes.fold(lengths, |seed, hash| xxh3_64_with_seed(&hash.to_le_bytes(), seed)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_and_border_counts_and_no_thread_does() {
        let bytes: Vec<u8> = (0..2 * PIECE + 77).map(|i| (i * 31 % 251) as u8).collect();
        let fingerprint = |arrays: &[&[u8]], threads| super::fingerprint(arrays, threads).expect("threads");
        let whole = fingerprint(&[&bytes, &bytes[..9]], 1);
        // As it was when each share had a thread of its own: weights that are known keep their number.
        assert_eq!(whole, 12_454_590_839_702_487_990);
        assert_eq!(fingerprint(&[&bytes, &bytes[..9]], 0), whole);
        assert_eq!(fingerprint(&[&bytes, &bytes[..9]], 3), whole);
        assert_ne!(fingerprint(&[&bytes], 1), whole);
        let (start, end) = bytes.split_at(PIECE);
        assert_ne!(fingerprint(&[start, end], 1), fingerprint(&[&bytes], 1));
        for place in [0, PIECE, 2 * PIECE + 76] {
            let mut changed = bytes.clone();
            changed[place] ^= 1;
            assert_ne!(fingerprint(&[&changed, &bytes[..9]], 2), whole, "{place}");
        }
        assert_ne!(fingerprint(&[], 2), fingerprint(&[&[]], 2));
        // No more threads than pieces, whatever is asked for.
        assert_eq!(fingerprint(&[&bytes[..9]], usize::MAX), fingerprint(&[&bytes[..9]], 1));
    }
}
