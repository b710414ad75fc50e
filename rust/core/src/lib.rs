//! Pixels, frames and (on the CPU) the model of faster-smolvlm: slices in, slices out, no Python.
//!
//! This file is the face of the crate. What it does not name is for the crate alone.

mod error;
mod machine;
mod model;
mod pixels;
pub mod video;

pub use error::{Error, ErrorKind};
pub use machine::cpu::Isa;
pub use machine::fingerprint::fingerprint;
pub use machine::vectors::Zero;
pub use machine::{output_buffers, picture_threads};
pub use model::checkpoint::Memory;
pub use model::kv::PAGE;
pub use model::limits::{Limits, measure as measure_limits};
pub use model::linear::packed_file::Outcome;
pub use model::{
    Checkpoint, Engine, Frame, KvFormat, LoadOptions, MemoryTensor, ModelConfig, Output, STEP_ROWS, StepInput,
    TensorType, TextConfig, VisionConfig, WeightFormat,
};
pub use pixels::convert::{Conversion, Formula, Value};
pub use pixels::definition::{Real, resize, resize_float};
pub use pixels::filters::Filter;
pub use pixels::frame_mask::fill_mask;
pub use pixels::kernels::{Loops, PictureKernels, StreamValue};
pub use pixels::layout::{Layout, Settings, Target};
pub use pixels::picture::{Image, ImageView, Picture, RowBlock, RowSource, StridedView, Strides};
pub use pixels::preprocess::{Pixels, preprocess, preprocess_batch};
pub use pixels::windows::Arithmetic;

/// What the benches measure alone; no part of the face.
#[doc(hidden)]
pub mod bench {
    pub use crate::machine::memory::Mapped;
    pub use crate::machine::shared::Share;
    pub use crate::machine::team::Team;
    pub use crate::model::kernels::select;
    pub use crate::model::linear::{
        Activations, Epilogue, Input, InputFormat, Linear, LinearScratch, Order, Quantized, QuantizedRows, Rows,
        Storage,
    };
    pub use crate::model::names;
    pub use crate::pixels::stream::stages;
}
