//! Python face of `faster-smolvlm-core`: checks arguments, lets go of the interpreter, calls the core.
use pyo3::prelude::*;

/// Native half of faster_smolvlm: all that Python can see.
#[pymodule(gil_used = false)]
mod _rust {
    /// Version of the native code, equal to the package's.
    #[pymodule_export]
    const VERSION: &str = env!("CARGO_PKG_VERSION");

    /// How the native code was compiled: a debug build is many times slower.
    #[pymodule_export]
    const BUILD_PROFILE: &str = if cfg!(debug_assertions) { "debug" } else { "release" };
}
