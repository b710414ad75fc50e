//! A hash of weights, to notice that they changed.
use std::thread;

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// Bytes of one piece: the pieces are what the threads share out.
const PIECE: usize = 4 << 20;

/// Hashes the arrays, one after the other, at the speed of memory on `threads` threads; the result does not depend on
/// their number.
pub fn fingerprint(arrays: &[&[u8]], threads: usize) -> u64 {
    let pieces: Vec<&[u8]> = arrays.iter().flat_map(|a| a.chunks(PIECE)).collect();
    let mut hashes = vec![0_u64; pieces.len()];
    let share = pieces.len().div_ceil(threads.max(1)).max(1);
    thread::scope(|scope| {
        for (pieces, hashes) in pieces.chunks(share).zip(hashes.chunks_mut(share)) {
            scope.spawn(|| {
                for (piece, hash) in pieces.iter().zip(hashes) {
                    *hash = xxh3_64(piece);
                }
            });
        }
    });
    let lengths =
        arrays.iter().fold(arrays.len() as u64, |seed, a| xxh3_64_with_seed(&(a.len() as u64).to_le_bytes(), seed));
    hashes.iter().fold(lengths, |seed, hash| xxh3_64_with_seed(&hash.to_le_bytes(), seed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_and_border_counts_and_no_thread_does() {
        let bytes: Vec<u8> = (0..2 * PIECE + 77).map(|i| (i * 31 % 251) as u8).collect();
        let whole = fingerprint(&[&bytes, &bytes[..9]], 1);
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
    }
}
