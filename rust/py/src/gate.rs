//! The one door between Python and the core: let go of the interpreter, and map the error.

use faster_smolvlm_core::{Error, ErrorKind};
use pyo3::exceptions::{PyMemoryError, PyNotImplementedError, PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;

/// Run `work` without holding the interpreter.
pub(crate) fn detach<T: Send>(py: Python<'_>, work: impl FnOnce() -> Result<T, Error> + Send) -> PyResult<T> {
    py.detach(work).map_err(to_python)
}

/// The exception for an error of the core.
pub(crate) fn to_python(error: Error) -> PyErr {
    let message = error.to_string();
    match error.kind() {
        ErrorKind::Value | ErrorKind::Packed => PyValueError::new_err(message),
        ErrorKind::Unsupported => PyNotImplementedError::new_err(message),
        ErrorKind::Memory => PyMemoryError::new_err(message),
        ErrorKind::File => PyOSError::new_err(message),
        ErrorKind::Defect => PyRuntimeError::new_err(message),
    }
}
