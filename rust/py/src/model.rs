//! The native CPU engine as Python sees it: one class that holds a model and its sequences.
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard};

use faster_smolvlm_core::Error;
use faster_smolvlm_core::machine::cpu::Isa;
use faster_smolvlm_core::machine::fingerprint;
use faster_smolvlm_core::model::{
    Checkpoint, Engine, Frame, KvFormat, LoadOptions, MemoryTensor, ModelConfig, Output, STEP_ROWS, StepInput,
    TensorType, TextConfig, VisionConfig, WeightFormat, checkpoint::Memory, limits, linear::packed_file::Outcome,
};
use numpy::{
    PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray1, PyReadonlyArray2, PyReadonlyArray3, PyUntypedArrayMethods,
};
use pyo3::exceptions::{PyKeyError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::gate::{detach, to_python};

fn weight_format(name: &str) -> PyResult<WeightFormat> {
    match name {
        "float32" => Ok(WeightFormat::Float32),
        "bfloat16" => Ok(WeightFormat::Bfloat16),
        "int8" => Ok(WeightFormat::Int8),
        _ => Err(PyValueError::new_err(format!("dtype must be float32, bfloat16 or int8, got {name:?}"))),
    }
}

fn load_options(
    dtype: &str,
    kv_dtype: &str,
    threads: usize,
    cache_positions: usize,
    packed_cache: Option<PathBuf>,
) -> PyResult<LoadOptions> {
    Ok(LoadOptions {
        isa: Isa::of_environment().map_err(to_python)?,
        dtype: weight_format(dtype)?,
        kv_dtype: KvFormat::try_from(weight_format(kv_dtype)?).map_err(to_python)?,
        threads,
        cache_positions,
        packed_cache,
    })
}

fn packed(outcome: &Outcome) -> (&'static str, String) {
    match outcome {
        Outcome::Off => ("off", String::new()),
        Outcome::Read => ("read", String::new()),
        Outcome::Written => ("written", String::new()),
        Outcome::Replaced(reason) => ("replaced", reason.clone()),
        Outcome::Failed(reason) => ("failed", reason.clone()),
    }
}

fn field<'py, T: FromPyObjectOwned<'py>>(config: &Bound<'py, PyDict>, name: &str) -> PyResult<T> {
    let value = config.get_item(name)?.ok_or_else(|| PyKeyError::new_err(name.to_owned()))?;
    value.extract::<T>().map_err(Into::<PyErr>::into).map_err(|e| PyValueError::new_err(format!("{name}: {e}")))
}

fn part<'py>(config: &Bound<'py, PyDict>, name: &str) -> PyResult<Bound<'py, PyDict>> {
    let value = config.get_item(name)?.ok_or_else(|| PyKeyError::new_err(name.to_owned()))?;
    Ok(value.cast_into::<PyDict>()?)
}

fn model_config(config: &Bound<'_, PyDict>) -> PyResult<ModelConfig> {
    let (v, t) = (part(config, "vision")?, part(config, "text")?);
    Ok(ModelConfig {
        scale_factor: field(config, "scale_factor")?,
        vision: VisionConfig {
            hidden_size: field(&v, "hidden_size")?,
            intermediate_size: field(&v, "intermediate_size")?,
            num_hidden_layers: field(&v, "num_hidden_layers")?,
            num_attention_heads: field(&v, "num_attention_heads")?,
            num_channels: field(&v, "num_channels")?,
            image_size: field(&v, "image_size")?,
            patch_size: field(&v, "patch_size")?,
            layer_norm_eps: field(&v, "layer_norm_eps")?,
        },
        text: TextConfig {
            hidden_size: field(&t, "hidden_size")?,
            intermediate_size: field(&t, "intermediate_size")?,
            num_hidden_layers: field(&t, "num_hidden_layers")?,
            num_attention_heads: field(&t, "num_attention_heads")?,
            num_key_value_heads: field(&t, "num_key_value_heads")?,
            head_dim: field(&t, "head_dim")?,
            vocab_size: field(&t, "vocab_size")?,
            max_position_embeddings: field(&t, "max_position_embeddings")?,
            rope_theta: field(&t, "rope_theta")?,
            rms_norm_eps: field(&t, "rms_norm_eps")?,
            tie_word_embeddings: field(&t, "tie_word_embeddings")?,
        },
    })
}

/// The bytes of an array that Python owns.
struct PythonBytes {
    // Keeps the memory in place; `PyReadonlyArray` itself is tied to a token of the interpreter.
    _owner: Py<PyArray1<u8>>,
    start: *const u8,
    len: usize,
}

// SAFETY: the memory stays where it is while `_owner` lives, and nothing here writes it. That nobody else does while a
// model is loaded or at work is asked of the caller in Python, as torch asks it of those who share its tensors.
unsafe impl Send for PythonBytes {}
// SAFETY: as above.
unsafe impl Sync for PythonBytes {}

impl PythonBytes {
    fn new(array: &Bound<'_, PyArray1<u8>>) -> PyResult<Self> {
        if !array.is_c_contiguous() {
            return Err(PyValueError::new_err("the bytes of a tensor must lie in a row"));
        }
        Ok(Self { start: array.data(), len: array.len(), _owner: array.clone().unbind() })
    }
}

impl AsRef<[u8]> for PythonBytes {
    fn as_ref(&self) -> &[u8] {
        if self.len == 0 {
            return &[];
        }
        // SAFETY: `len` contiguous bytes from `start` on, kept alive by `_owner`.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }
}

/// Name, dtype, shape and bytes of a tensor.
type PythonTensor<'py> = (String, String, Vec<usize>, Bound<'py, PyArray1<u8>>);

fn memory_tensor((name, dtype, shape, bytes): PythonTensor<'_>) -> PyResult<MemoryTensor> {
    let dtype = match dtype.as_str() {
        "float32" => TensorType::Float32,
        "float16" => TensorType::Float16,
        "bfloat16" => TensorType::Bfloat16,
        _ => {
            return Err(PyValueError::new_err(format!(
                "tensor {name} is {dtype}; the engine reads float32, float16 and bfloat16"
            )));
        }
    };
    let bytes: Memory = Box::new(PythonBytes::new(&bytes)?);
    Ok(MemoryTensor { name, dtype, shape, bytes })
}

/// Arrays of a step as they come from Python.
struct StepArrays<'py> {
    sequences: Vec<u64>,
    lengths: Vec<usize>,
    ids: PyReadonlyArray1<'py, i64>,
    features: PyReadonlyArray2<'py, f32>,
    feature_rows: PyReadonlyArray1<'py, i64>,
    wanted: Vec<usize>,
}

/// A model loaded for the CPU, and the sequences that it is working on. One call runs at a time.
#[pyclass(frozen, module = "faster_smolvlm._rust")]
pub struct NativeModel {
    engine: Mutex<Engine>,
    #[pyo3(get)]
    isa: &'static str,
    #[pyo3(get)]
    num_threads: usize,
    #[pyo3(get)]
    text_bytes: usize,
    /// Bytes of the key/value cache that a position takes.
    #[pyo3(get)]
    position_bytes: usize,
    /// What became of the file of packed weights: "off", "read", "written", "replaced" or "failed", and why.
    #[pyo3(get)]
    packed: (&'static str, String),
    hidden_size: usize,
    vocab_size: usize,
}

impl NativeModel {
    fn lock(&self) -> MutexGuard<'_, Engine> {
        self.engine.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn load(
        py: Python<'_>,
        open: impl FnOnce() -> Result<Checkpoint, Error> + Send,
        config: &Bound<'_, PyDict>,
        options: &LoadOptions,
    ) -> PyResult<Self> {
        let config = model_config(config)?;
        let (hidden_size, vocab_size) = (config.text.hidden_size, config.text.vocab_size);
        let engine = detach(py, || Engine::new(open, config, options))?;
        Ok(Self {
            isa: engine.isa(),
            num_threads: engine.threads(),
            text_bytes: engine.text_bytes(),
            position_bytes: engine.position_bytes(),
            packed: packed(engine.packed()),
            hidden_size,
            vocab_size,
            engine: Mutex::new(engine),
        })
    }

    /// Runs `work` on the engine without holding the interpreter.
    fn run<T: Send>(&self, py: Python<'_>, work: impl FnOnce(&mut Engine) -> Result<T, Error> + Send) -> PyResult<T> {
        detach(py, || work(&mut self.lock()))
    }

    fn step(&self, py: Python<'_>, arrays: &StepArrays<'_>, output: Output<'_>) -> PyResult<()> {
        let hidden = arrays.features.as_array().shape()[1];
        if hidden != self.hidden_size {
            let expected = self.hidden_size;
            return Err(PyValueError::new_err(format!("features are {hidden} wide, expected {expected}")));
        }
        let input = StepInput {
            sequences: &arrays.sequences,
            lengths: &arrays.lengths,
            ids: arrays.ids.as_slice()?,
            features: arrays.features.as_slice()?,
            feature_rows: arrays.feature_rows.as_slice()?,
            wanted: &arrays.wanted,
        };
        self.run(py, |engine| engine.step(&input, output))
    }
}

#[pymethods]
impl NativeModel {
    /// Most tokens of one step.
    #[classattr]
    const STEP_ROWS: usize = STEP_ROWS;

    #[new]
    #[pyo3(signature = (files, config, *, dtype, kv_dtype, num_threads, cache_positions, packed_cache = None))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        py: Python<'_>,
        files: Vec<String>,
        config: &Bound<'_, PyDict>,
        dtype: &str,
        kv_dtype: &str,
        num_threads: usize,
        cache_positions: usize,
        packed_cache: Option<PathBuf>,
    ) -> PyResult<Self> {
        let options = load_options(dtype, kv_dtype, num_threads, cache_positions, packed_cache)?;
        Self::load(py, move || Checkpoint::open(&files), config, &options)
    }

    /// Packs tensors that lie in memory: (name, dtype, shape, bytes as uint8) each. The bytes of the embeddings are
    /// read by later calls too; none may be written during a call.
    #[staticmethod]
    #[pyo3(signature = (tensors, config, *, dtype, kv_dtype, num_threads, cache_positions))]
    fn from_tensors(
        py: Python<'_>,
        tensors: Vec<PythonTensor<'_>>,
        config: &Bound<'_, PyDict>,
        dtype: &str,
        kv_dtype: &str,
        num_threads: usize,
        cache_positions: usize,
    ) -> PyResult<Self> {
        let options = load_options(dtype, kv_dtype, num_threads, cache_positions, None)?;
        let tensors = tensors.into_iter().map(memory_tensor).collect::<PyResult<Vec<_>>>()?;
        Self::load(py, move || Checkpoint::from_memory(tensors), config, &options)
    }

    /// Encodes one frame: float32 [channels, height, width] and bool [patch rows, patch columns] to image tokens,
    /// float32 [tokens, hidden_size].
    fn encode<'py>(
        &self,
        py: Python<'py>,
        pixels: PyReadonlyArray3<'py, f32>,
        patch_mask: PyReadonlyArray2<'py, bool>,
    ) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let (height, width) = (pixels.as_array().shape()[1], pixels.as_array().shape()[2]);
        let frame = Frame { pixels: pixels.as_slice()?, height, width, patch_mask: patch_mask.as_slice()? };
        let tokens = self.run(py, |engine| engine.image_tokens(height, width))?;
        let out = PyArray2::zeros(py, [tokens, self.hidden_size], false);
        let mut writer = out.readwrite();
        let values = writer.as_slice_mut()?;
        self.run(py, |engine| engine.encode(&frame, values))?;
        drop(writer);
        Ok(out)
    }

    /// Takes tokens through the text stack and gives the logits, float32 [wanted, vocabulary].
    #[allow(clippy::too_many_arguments)]
    fn step_logits<'py>(
        &self,
        py: Python<'py>,
        sequences: Vec<u64>,
        lengths: Vec<usize>,
        ids: PyReadonlyArray1<'py, i64>,
        features: PyReadonlyArray2<'py, f32>,
        feature_rows: PyReadonlyArray1<'py, i64>,
        wanted: Vec<usize>,
    ) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let out = PyArray2::zeros(py, [wanted.len(), self.vocab_size], false);
        let arrays = StepArrays { sequences, lengths, ids, features, feature_rows, wanted };
        let mut writer = out.readwrite();
        self.step(py, &arrays, Output::Logits(writer.as_slice_mut()?))?;
        drop(writer);
        Ok(out)
    }

    /// Takes tokens through the text stack and gives the most likely next tokens, int64 [wanted].
    #[allow(clippy::too_many_arguments)]
    fn step_argmax<'py>(
        &self,
        py: Python<'py>,
        sequences: Vec<u64>,
        lengths: Vec<usize>,
        ids: PyReadonlyArray1<'py, i64>,
        features: PyReadonlyArray2<'py, f32>,
        feature_rows: PyReadonlyArray1<'py, i64>,
        wanted: Vec<usize>,
    ) -> PyResult<Bound<'py, PyArray1<i64>>> {
        let out = PyArray1::zeros(py, [wanted.len()], false);
        let arrays = StepArrays { sequences, lengths, ids, features, feature_rows, wanted };
        let mut writer = out.readwrite();
        self.step(py, &arrays, Output::Argmax(writer.as_slice_mut()?))?;
        drop(writer);
        Ok(out)
    }

    /// Starts an empty sequence and gives its handle.
    fn open(&self, py: Python<'_>) -> PyResult<u64> {
        self.run(py, |engine| Ok(engine.cache().open()))
    }

    /// Ends a sequence.
    fn close(&self, py: Python<'_>, sequence: u64) -> PyResult<()> {
        self.run(py, |engine| engine.cache().close(sequence))
    }

    /// Starts a sequence whose first `length` positions are those of another, without copying them.
    fn fork(&self, py: Python<'_>, sequence: u64, length: usize) -> PyResult<u64> {
        self.run(py, |engine| engine.cache().fork(sequence, length))
    }

    /// Forgets the positions of a sequence from `length` on.
    fn truncate(&self, py: Python<'_>, sequence: u64, length: usize) -> PyResult<()> {
        self.run(py, |engine| engine.cache().truncate(sequence, length))
    }

    /// Number of positions of a sequence.
    fn length(&self, py: Python<'_>, sequence: u64) -> PyResult<usize> {
        self.run(py, |engine| Ok(engine.cache().get(sequence)?.length))
    }

    /// Makes room for at least `positions` positions in all.
    fn grow_cache(&self, py: Python<'_>, positions: usize) -> PyResult<()> {
        self.run(py, |engine| engine.cache().grow(positions))
    }

    /// Free and all pages of the key/value cache, and the positions of a page.
    fn cache_pages(&self, py: Python<'_>) -> PyResult<(usize, usize, usize)> {
        self.run(py, |engine| {
            let cache = engine.cache();
            Ok((cache.free_pages(), cache.pages(), faster_smolvlm_core::model::kv::PAGE))
        })
    }
}

/// Bytes per second read from memory, float32 operations per second, and bfloat16 ones if the instruction set has them,
/// of `num_threads` threads together.
#[pyfunction]
pub fn machine_limits(py: Python<'_>, num_threads: usize) -> PyResult<(f64, f64, Option<f64>)> {
    let limits = detach(py, || limits::measure(num_threads, Isa::of_environment()?))?;
    Ok((limits.read_bytes, limits.flops, limits.bfloat16_flops))
}

/// A hash of the arrays, one after the other, to notice that one of them changed.
#[pyfunction]
pub fn weights_fingerprint(py: Python<'_>, arrays: Vec<Bound<'_, PyArray1<u8>>>, num_threads: usize) -> PyResult<u64> {
    let arrays = arrays.iter().map(PythonBytes::new).collect::<PyResult<Vec<_>>>()?;
    let slices: Vec<&[u8]> = arrays.iter().map(AsRef::as_ref).collect();
    Ok(py.detach(|| fingerprint::fingerprint(&slices, num_threads)))
}
