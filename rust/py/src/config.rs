//! The dictionaries that Python gives for a model, mirrored field by field.
use std::path::PathBuf;

use faster_smolvlm_core::{Isa, KvFormat, LoadOptions, ModelConfig, TextConfig, VisionConfig, WeightFormat};
use pyo3::exceptions::{PyKeyError, PyValueError};
use pyo3::prelude::*;

use crate::gate::to_python;

/// The sizes of a model.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct ModelSizes {
    scale_factor: usize,
    vision: VisionSizes,
    text: TextSizes,
}

#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct VisionSizes {
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_channels: usize,
    image_size: usize,
    patch_size: usize,
    layer_norm_eps: f32,
}

#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct TextSizes {
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: usize,
    head_dim: usize,
    vocab_size: usize,
    max_position_embeddings: usize,
    rope_theta: f64,
    rms_norm_eps: f32,
    tie_word_embeddings: bool,
}

/// How to load a model.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct LoadSettings {
    dtype: String,
    kv_dtype: String,
    num_threads: usize,
    cache_positions: usize,
    packed_cache: Option<PathBuf>,
}

/// The fields of a dictionary: KeyError for one that is missing, ValueError for one of a wrong type.
pub(crate) fn fields<'a, 'py, T: FromPyObject<'a, 'py, Error = PyErr>>(given: &'a Bound<'py, PyAny>) -> PyResult<T> {
    given.extract::<T>().map_err(|error| {
        let py = given.py();
        if error.is_instance_of::<PyKeyError>(py) {
            return error;
        }
        let reason = error.cause(py).map_or_else(String::new, |cause| format!(": {}", cause.value(py)));
        PyValueError::new_err(format!("{}{reason}", error.value(py)))
    })
}

impl From<ModelSizes> for ModelConfig {
    fn from(ModelSizes { scale_factor, vision: v, text: t }: ModelSizes) -> Self {
        Self {
            scale_factor,
            vision: VisionConfig {
                hidden_size: v.hidden_size,
                intermediate_size: v.intermediate_size,
                num_hidden_layers: v.num_hidden_layers,
                num_attention_heads: v.num_attention_heads,
                num_channels: v.num_channels,
                image_size: v.image_size,
                patch_size: v.patch_size,
                layer_norm_eps: v.layer_norm_eps,
            },
            text: TextConfig {
                hidden_size: t.hidden_size,
                intermediate_size: t.intermediate_size,
                num_hidden_layers: t.num_hidden_layers,
                num_attention_heads: t.num_attention_heads,
                num_key_value_heads: t.num_key_value_heads,
                head_dim: t.head_dim,
                vocab_size: t.vocab_size,
                max_position_embeddings: t.max_position_embeddings,
                rope_theta: t.rope_theta,
                rms_norm_eps: t.rms_norm_eps,
                tie_word_embeddings: t.tie_word_embeddings,
            },
        }
    }
}

impl LoadSettings {
    /// The options for the core; the instruction set is the one that the environment names.
    pub(crate) fn options(self) -> PyResult<LoadOptions> {
        let (dtype, kv_dtype) = (&self.dtype, &self.kv_dtype);
        Ok(LoadOptions {
            isa: Isa::of_environment().map_err(to_python)?,
            dtype: one_of("dtype", dtype, WeightFormat::named(dtype), &WeightFormat::ALL.map(WeightFormat::name))?,
            kv_dtype: one_of("kv_dtype", kv_dtype, KvFormat::named(kv_dtype), &KvFormat::ALL.map(KvFormat::name))?,
            threads: self.num_threads,
            cache_positions: self.cache_positions,
            packed_cache: self.packed_cache,
        })
    }
}

/// What has this name, or a ValueError with all names.
fn one_of<T>(what: &str, name: &str, found: Option<T>, names: &[&str]) -> PyResult<T> {
    found.ok_or_else(|| PyValueError::new_err(format!("{what} must be one of {}, got {name:?}", names.join(", "))))
}
