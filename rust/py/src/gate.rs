//! The one door between Python and the core: let go of the interpreter, and map the error.

use faster_smolvlm_core::Error;
use faster_smolvlm_core::error::EngineError;
use pyo3::exceptions::{PyMemoryError, PyNotImplementedError, PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;

/// Run `work` without holding the interpreter.
pub(crate) fn detach<T: Send, E: ToPython + Send>(
    py: Python<'_>,
    work: impl FnOnce() -> Result<T, E> + Send,
) -> PyResult<T> {
    py.detach(work).map_err(to_python)
}

/// The exception for an error of the core.
pub(crate) fn to_python(error: impl ToPython) -> PyErr {
    error.to_python()
}

/// An error of the core that has an exception.
pub(crate) trait ToPython {
    /// The exception, with the message of the error.
    fn to_python(self) -> PyErr;
}

impl ToPython for Error {
    fn to_python(self) -> PyErr {
        let message = self.to_string();
        match self {
            Error::UnsupportedFilter { .. } => PyNotImplementedError::new_err(message),
            Error::TooLarge { .. } | Error::NoMemory { .. } => PyMemoryError::new_err(message),
            _ => PyValueError::new_err(message),
        }
    }
}

impl ToPython for EngineError {
    fn to_python(self) -> PyErr {
        let message = self.to_string();
        match self {
            EngineError::File { .. } => PyOSError::new_err(message),
            EngineError::Memory { .. } | EngineError::CacheFull { .. } => PyMemoryError::new_err(message),
            EngineError::Internal(_) => PyRuntimeError::new_err(message),
            _ => PyValueError::new_err(message),
        }
    }
}
