//! What the other rooms stand on: memory and threads.
pub mod fingerprint;
pub mod memory;
pub mod output_buffers;
pub mod picture_threads;
pub mod scratch;
pub mod team;
