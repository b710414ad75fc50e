//! Pixels, frames and (on the CPU) the model of faster-smolvlm: slices in, slices out, no Python.

pub mod error;
pub mod machine;
pub mod model;
pub mod pixels;
pub mod video;

pub use error::{Error, ErrorKind};
