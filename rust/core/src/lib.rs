//! Pixels, frames and (on the CPU) the model of faster-smolvlm: slices in, slices out, no Python.

pub mod engine;
pub mod error;
pub mod frames;
pub mod geometry;
pub mod image;
pub mod pad;
pub mod pool;
pub mod preprocess;
pub mod resize;
pub mod stream;
pub mod threads;
pub mod tile;

pub use error::Error;
