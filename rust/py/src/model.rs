//! The native CPU engine as Python sees it: one class that holds a model and its sequences.
use std::sync::{Mutex, MutexGuard};

use faster_smolvlm_core::{
    Checkpoint, Engine, Error, Frame, Isa, LoadOptions, ModelConfig, Outcome, Output, PAGE, STEP_ROWS, StepInput,
    fingerprint, measure_limits,
};
use numpy::{
    PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray1, PyReadonlyArray2, PyReadonlyArray3, PyUntypedArrayMethods,
};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::config::{LoadSettings, ModelSizes, fields};
use crate::gate::{detach, to_python};
use crate::tensors::{PythonBytes, PythonTensor, memory_tensor};

fn packed(outcome: &Outcome) -> (&'static str, String) {
    match outcome {
        Outcome::Off => ("off", String::new()),
        Outcome::Read => ("read", String::new()),
        Outcome::Written => ("written", String::new()),
        Outcome::Replaced(reason) => ("replaced", reason.clone()),
        Outcome::Failed(reason) => ("failed", reason.clone()),
    }
}

/// The attributes of a step as they come from Python.
#[derive(FromPyObject)]
pub(crate) struct Step<'py> {
    sequences: Vec<u64>,
    lengths: Vec<usize>,
    ids: PyReadonlyArray1<'py, i64>,
    features: PyReadonlyArray2<'py, f32>,
    feature_rows: PyReadonlyArray1<'py, i64>,
    outputs: Vec<usize>,
}

/// A model loaded for the CPU, and the sequences that it is working on. One call runs at a time.
#[pyclass(frozen, module = "faster_smolvlm._rust")]
pub(crate) struct NativeModel {
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
        config: ModelConfig,
        options: &LoadOptions,
    ) -> PyResult<Self> {
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

    fn take(&self, py: Python<'_>, step: &Step<'_>, output: Output<'_>) -> PyResult<()> {
        let hidden = step.features.shape()[1];
        if hidden != self.hidden_size {
            let expected = self.hidden_size;
            return Err(PyValueError::new_err(format!("features are {hidden} wide, expected {expected}")));
        }
        let input = StepInput {
            sequences: &step.sequences,
            lengths: &step.lengths,
            ids: step.ids.as_slice()?,
            features: step.features.as_slice()?,
            feature_rows: step.feature_rows.as_slice()?,
            outputs: &step.outputs,
        };
        self.run(py, |engine| engine.step(&input, output))
    }
}

#[pymethods]
impl NativeModel {
    /// Most tokens of one step.
    #[classattr]
    const STEP_ROWS: usize = STEP_ROWS;

    /// Packs the weights in safetensors files. `config` and `options` are dictionaries with all fields.
    #[new]
    fn new(
        py: Python<'_>,
        files: Vec<String>,
        config: &Bound<'_, PyAny>,
        options: &Bound<'_, PyAny>,
    ) -> PyResult<Self> {
        let config = fields::<ModelSizes>(config)?.into();
        let options = fields::<LoadSettings>(options)?.options()?;
        Self::load(py, move || Checkpoint::open(&files), config, &options)
    }

    /// Packs tensors that lie in memory: (name, dtype, shape, bytes as uint8) each. The bytes of the embeddings are
    /// read by later calls too; none may be written during a call.
    #[staticmethod]
    fn from_tensors(
        py: Python<'_>,
        tensors: Vec<PythonTensor<'_>>,
        config: &Bound<'_, PyAny>,
        options: &Bound<'_, PyAny>,
    ) -> PyResult<Self> {
        let config = fields::<ModelSizes>(config)?.into();
        let options = fields::<LoadSettings>(options)?.options()?;
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

    /// Takes tokens through the text stack and gives, for each of the outputs asked for, the logits, float32 [outputs,
    /// vocabulary], or with `argmax` the likeliest next token, int64 [outputs].
    fn step<'py>(&self, py: Python<'py>, step: Step<'py>, argmax: bool) -> PyResult<Bound<'py, PyAny>> {
        let outputs = step.outputs.len();
        if outputs > STEP_ROWS {
            return Err(PyValueError::new_err(format!("{outputs} outputs were asked for, a step has {STEP_ROWS}")));
        }
        if argmax {
            let out = PyArray1::zeros(py, [outputs], false);
            self.take(py, &step, Output::Argmax(out.readwrite().as_slice_mut()?))?;
            return Ok(out.into_any());
        }
        let out = PyArray2::zeros(py, [outputs, self.vocab_size], false);
        self.take(py, &step, Output::Logits(out.readwrite().as_slice_mut()?))?;
        Ok(out.into_any())
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

    /// Enlarges the key/value cache to at least `positions` positions in all.
    fn grow_cache(&self, py: Python<'_>, positions: usize) -> PyResult<()> {
        self.run(py, |engine| engine.cache().grow(positions))
    }

    /// Free and all pages of the key/value cache, and the positions of a page.
    fn cache_pages(&self, py: Python<'_>) -> PyResult<(usize, usize, usize)> {
        self.run(py, |engine| {
            let cache = engine.cache();
            Ok((cache.free_pages(), cache.pages(), PAGE))
        })
    }
}

/// Names and shapes of the tensors of a checkpoint for a model of these sizes, as Transformers names them. ValueError
/// for sizes that the engine refuses.
#[pyfunction]
pub(crate) fn checkpoint_tensors(config: &Bound<'_, PyAny>) -> PyResult<Vec<(String, Vec<usize>)>> {
    ModelConfig::from(fields::<ModelSizes>(config)?).tensors().map_err(to_python)
}

/// Bytes per second read from memory, float32 operations per second, and bfloat16 ones if the instruction set has them,
/// of `num_threads` threads together.
#[pyfunction]
pub(crate) fn machine_limits(py: Python<'_>, num_threads: usize) -> PyResult<(f64, f64, Option<f64>)> {
    let limits = detach(py, || measure_limits(num_threads, Isa::of_environment()?))?;
    Ok((limits.read_bytes, limits.flops, limits.bfloat16_flops))
}

/// A hash of the arrays, one after the other, to notice that one of them changed.
#[pyfunction]
pub(crate) fn weights_fingerprint(
    py: Python<'_>,
    arrays: Vec<Bound<'_, PyArray1<u8>>>,
    num_threads: usize,
) -> PyResult<u64> {
    let arrays = arrays.iter().map(PythonBytes::new).collect::<PyResult<Vec<_>>>()?;
    let slices: Vec<&[u8]> = arrays.iter().map(AsRef::as_ref).collect();
    detach(py, || fingerprint(&slices, num_threads))
}
