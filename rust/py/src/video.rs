//! Choice of frames; same names as in the core.
use faster_smolvlm_core::video::{self, Clip, Policy};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::gate::to_python;

/// SmolVLM's rule: `fps` frames per second, at most `max_frames`, evenly between the first and the last frame.
#[pyfunction]
#[pyo3(signature = (total, video_fps, duration, max_frames, fps, skip_secs = 1.0))]
pub(crate) fn sample_frames(
    total: u64,
    video_fps: f64,
    duration: f64,
    max_frames: u64,
    fps: f64,
    skip_secs: f64,
) -> PyResult<Vec<u64>> {
    video::sample(Clip { total, fps: video_fps, duration }, max_frames, fps, skip_secs).map_err(to_python)
}

/// `n` frames at equal distance, from the first.
#[pyfunction]
pub(crate) fn uniform_frames(total: u64, n: u64) -> PyResult<Vec<u64>> {
    video::uniform(total, n).map_err(to_python)
}

/// `fps` frames per second of a video of constant frame rate, at least one frame.
#[pyfunction]
pub(crate) fn frames_at_rate(total: u64, video_fps: f64, fps: f64) -> PyResult<Vec<u64>> {
    video::at_rate(total, video_fps, fps).map_err(to_python)
}

/// `fps` frames per second by the times, in ascending seconds, at which the frames are shown.
#[pyfunction]
pub(crate) fn frames_at_times(times: Vec<f64>, fps: f64) -> PyResult<Vec<u64>> {
    video::at_times(&times, fps).map_err(to_python)
}

/// The given frames, ascending and distinct; a negative index counts from the end.
#[pyfunction]
pub(crate) fn explicit_frames(total: u64, indices: Vec<i64>) -> PyResult<Vec<u64>> {
    video::explicit(total, &indices).map_err(to_python)
}

/// At most `max_frames` of the key frames, spread evenly over them.
#[pyfunction]
pub(crate) fn key_frames(keys: Vec<u64>, max_frames: u64) -> PyResult<Vec<u64>> {
    video::key_frames(&keys, max_frames).map_err(to_python)
}

/// Chooses frames of a source of unknown length while they arrive.
#[pyclass(module = "faster_smolvlm._rust")]
pub(crate) struct FrameStream {
    stream: video::Stream,
}

#[pymethods]
impl FrameStream {
    /// Every frame is a candidate, or `fps` per second, or those of `indices`, or the key frames (`keys_only`).
    #[new]
    #[pyo3(signature = (max_frames, *, fps = None, indices = None, keys_only = false))]
    fn new(max_frames: u64, fps: Option<f64>, indices: Option<Vec<u64>>, keys_only: bool) -> PyResult<Self> {
        let policy = match (fps, indices, keys_only) {
            (None, None, false) => Policy::Uniform,
            (Some(fps), None, false) => Policy::Rate(fps),
            (None, Some(indices), false) => Policy::Explicit(indices),
            (None, None, true) => Policy::KeyFrames,
            _ => {
                return Err(PyValueError::new_err("pass at most one of fps, indices and keys_only"));
            }
        };
        Ok(Self { stream: video::Stream::new(policy, max_frames).map_err(to_python)? })
    }

    /// Offer the next frame; returns whether to keep it, and the indices of frames that are no longer needed.
    fn offer(&mut self, time: f64, is_key: bool) -> PyResult<(bool, Vec<u64>)> {
        let verdict = self.stream.offer(time, is_key).map_err(to_python)?;
        Ok((verdict.keep, verdict.release))
    }

    /// The indices of the frames to use, once the source has ended.
    fn finish(&self) -> PyResult<Vec<u64>> {
        self.stream.finish().map_err(to_python)
    }
}
