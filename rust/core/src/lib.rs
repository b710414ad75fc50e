//! Pixels, frames and (on the CPU) the model of faster-smolvlm: slices in, slices out, no Python.

pub mod frames;
