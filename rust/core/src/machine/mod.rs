//! What the other rooms stand on: the processor, memory and threads. Nothing outside reads the environment, asks for the
//! architecture or keeps state of its own for the process.
pub(crate) mod cpu;
pub(crate) mod fingerprint;
pub(crate) mod memory;
pub(crate) mod numbers;
pub mod output_buffers;
pub mod picture_threads;
pub(crate) mod private_files;
pub(crate) mod recent;
pub(crate) mod scratch;
pub(crate) mod shared;
pub(crate) mod team;
pub(crate) mod vectors;
