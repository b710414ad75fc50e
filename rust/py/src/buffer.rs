//! NumPy arrays over buffers of the pool. The array holds the buffer; every view, tensor or DLPack capsule made from it
//! holds the array; so the buffer comes back when the last of them is gone.

use faster_smolvlm_core::{
    fill_mask,
    output_buffers::{self as pool, Buffer},
};
use numpy::ndarray::{ArrayViewD, IxDyn};
use numpy::{Element, PyArrayDyn, PyReadwriteArray4, PyUntypedArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::gate::{detach, to_python};

/// What every version of NumPy takes.
const MAX_DIMENSIONS: usize = 32;

/// The owner of the memory behind an array.
#[pyclass(frozen, module = "faster_smolvlm._rust")]
struct Lease(#[expect(dead_code, reason = "held until the last view of the array is gone")] Buffer);

/// An array of this shape from the pool, its content undefined; `dtype` is float32, uint16, uint8 or int64.
#[pyfunction]
pub(crate) fn empty<'py>(py: Python<'py>, shape: Vec<usize>, dtype: &str) -> PyResult<Bound<'py, PyAny>> {
    match dtype {
        "float32" => Ok(leased::<f32>(py, shape)?.into_any()),
        "uint16" => Ok(leased::<u16>(py, shape)?.into_any()),
        "uint8" => Ok(leased::<u8>(py, shape)?.into_any()),
        "int64" => Ok(leased::<i64>(py, shape)?.into_any()),
        _ => Err(PyValueError::new_err(format!("dtype must be float32, uint16, uint8 or int64, got {dtype:?}"))),
    }
}

fn leased<T: Element>(py: Python<'_>, shape: Vec<usize>) -> PyResult<Bound<'_, PyArrayDyn<T>>> {
    if shape.len() > MAX_DIMENSIONS {
        return Err(PyValueError::new_err(format!(
            "an array has at most {MAX_DIMENSIONS} dimensions, got {}",
            shape.len()
        )));
    }
    // As NumPy counts: the other sides of an array without elements have to fit, too.
    let bytes = shape.iter().try_fold(size_of::<T>(), |bytes, &side| bytes.checked_mul(side.max(1)));
    let fits = bytes.is_some_and(|bytes| isize::try_from(bytes).is_ok());
    let bytes = if fits && shape.contains(&0) { Some(0) } else { bytes.filter(|_| fits) };
    let buffer = Buffer::new(bytes.unwrap_or(usize::MAX)).map_err(to_python)?;
    let start = buffer.as_ptr();
    let lease = Bound::new(py, Lease(buffer))?;
    // SAFETY: the buffer is large enough, aligned beyond any element, lives as long as `lease`, which the array holds, and
    // nobody else has its address. Its bytes are valid values of the plain numbers above, whatever they are.
    unsafe {
        let view = ArrayViewD::<T>::from_shape_ptr(IxDyn(&shape), start.cast::<T>());
        Ok(PyArrayDyn::borrow_from_array(&view, lease.into_any()))
    }
}

/// Write 1 into the first `counts[k]` frames of sample k of a mask, (samples, frames, height, width), 0 into the others.
#[pyfunction]
#[pyo3(name = "fill_mask")]
pub(crate) fn fill_frames(py: Python<'_>, mut mask: PyReadwriteArray4<'_, i64>, counts: Vec<usize>) -> PyResult<()> {
    let (frames, frame) = (mask.shape()[1], mask.shape()[2] * mask.shape()[3]);
    let values = mask.as_slice_mut()?;
    let kernels = crate::image::loops(None)?.kernels();
    detach(py, || fill_mask(values, frames, frame, &counts, kernels))
}

/// Bytes of the pool that wait to be used again.
#[pyfunction]
pub(crate) fn pool_waiting() -> usize {
    pool::waiting()
}

/// Give the memory that waits in the pool back to the system.
#[pyfunction]
pub(crate) fn pool_trim() {
    pool::trim();
}
