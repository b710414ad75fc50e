//! The whole model on the CPU: from a safetensors file to logits, with no Python and no torch.
//!
//! Every matrix product sums in one fixed order along the inner dimension, and so does every other reduction, so a row's
//! result depends on its own tokens alone: not on the number of threads, the size of the batch, the split of a prompt
//! into steps, or the reuse of a prefix.
pub(crate) mod checkpoint;
pub(crate) mod config;
pub(crate) mod engine;
pub(crate) mod kernels;
pub(crate) mod kv;
pub(crate) mod limits;
pub(crate) mod linear;
pub mod names;
#[cfg(test)]
mod tests;
pub(crate) mod text;
pub(crate) mod vision;

pub use checkpoint::{Checkpoint, MemoryTensor, TensorType};
pub use config::{ModelConfig, TextConfig, VisionConfig};
pub use engine::{Engine, LoadOptions, StepInput};
pub use kv::KvFormat;
pub use linear::WeightFormat;
pub use text::{Output, STEP_ROWS};
pub use vision::Frame;
