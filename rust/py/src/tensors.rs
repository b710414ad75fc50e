//! Arrays of bytes that Python owns, read where they lie.
use faster_smolvlm_core::{Memory, MemoryTensor, TensorType};
use numpy::{PyArray1, PyArrayMethods, PyUntypedArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// The bytes of an array that Python owns.
pub(crate) struct PythonBytes {
    // Keeps the memory in place; `PyReadonlyArray` itself is tied to a token of the interpreter.
    _owner: Py<PyArray1<u8>>,
    start: *const u8,
    len: usize,
}

// SAFETY: the memory stays where it is while `_owner` lives, and nothing here writes it. That nobody else does while a
// model is loaded or at work is asked of the caller in Python, as torch asks it of those who share its tensors.
unsafe impl Send for PythonBytes {}
// SAFETY: a shared value gives out a slice of memory that nobody writes; see `Send`.
unsafe impl Sync for PythonBytes {}

impl PythonBytes {
    pub(crate) fn new(array: &Bound<'_, PyArray1<u8>>) -> PyResult<Self> {
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
pub(crate) type PythonTensor<'py> = (String, String, Vec<usize>, Bound<'py, PyArray1<u8>>);

pub(crate) fn memory_tensor((name, dtype, shape, bytes): PythonTensor<'_>) -> PyResult<MemoryTensor> {
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
