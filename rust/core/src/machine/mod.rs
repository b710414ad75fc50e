//! What the other rooms stand on: the processor, memory and threads. Nothing outside reads the environment, asks for the
//! architecture or keeps state of its own for the process.
pub mod cpu;
pub mod fingerprint;
pub mod memory;
pub mod numbers;
pub mod output_buffers;
pub mod picture_threads;
pub mod scratch;
pub mod shared;
pub mod team;
pub mod vectors;
