//! Python face of `faster-smolvlm-core`: checks arguments, lets go of the interpreter, calls the core.
use pyo3::prelude::*;

mod buffer;
mod config;
mod gate;
mod image;
mod model;
mod pixels;
mod tensors;
mod video;

/// Native half of faster_smolvlm: all that Python can see.
#[pymodule(gil_used = false)]
mod _rust {
    #[pymodule_export]
    use crate::buffer::{empty, fill_frames, pool_trim, pool_waiting};
    #[pymodule_export]
    use crate::image::{
        ImageSettings, ImageSizes, image_threads, kernel_names, layout, preprocess_images, resize_float32,
        resize_float64, resize_uint8,
    };
    #[pymodule_export]
    use crate::model::{NativeModel, checkpoint_tensors, machine_limits, weights_fingerprint};
    #[pymodule_export]
    use crate::video::{
        FrameStream, explicit_frames, frames_at_rate, frames_at_times, key_frames, sample_frames, uniform_frames,
    };

    /// Version of the native code, equal to the package's.
    #[pymodule_export]
    const VERSION: &str = env!("CARGO_PKG_VERSION");

    /// How the native code was compiled: a debug build is many times slower.
    #[pymodule_export]
    const BUILD_PROFILE: &str = if cfg!(debug_assertions) { "debug" } else { "release" };
}
