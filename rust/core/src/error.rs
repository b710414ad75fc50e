//! The one error of the core: a kind, for those who must decide, and a message with the numbers, for those who read.
use std::fmt;

/// Result of every fallible function of the core.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of thing went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// An argument, a picture, a configuration or a checkpoint is wrong.
    Value,
    /// Asked for what is defined elsewhere but not here.
    Unsupported,
    /// The system does not give the memory, or the key/value cache is full.
    Memory,
    /// A file cannot be read, or is not what it should be.
    File,
    /// A file of packed weights cannot be used; the weights are packed anew.
    Packed,
    /// A defect of the native code itself.
    Defect,
}

/// Why something was refused. All kinds but `Defect` are found before any work starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    kind: ErrorKind,
    message: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl Error {
    fn new(kind: ErrorKind, message: String) -> Self {
        Self { kind, message }
    }

    /// Its kind.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// An argument of a wrong size or value.
    pub fn value(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Value, message.into())
    }

    /// A configuration that contradicts itself or asks for what the engine cannot do.
    pub(crate) fn config(reason: impl fmt::Display) -> Self {
        Self::value(format!("configuration: {reason}"))
    }

    /// A file that cannot be read, or is not a safetensors file.
    pub(crate) fn file(path: &str, reason: impl fmt::Display) -> Self {
        Self::new(ErrorKind::File, format!("cannot read the checkpoint file {path}: {reason}"))
    }

    /// A file of packed weights that cannot be used; the message is the reason alone.
    pub(crate) fn packed(reason: impl Into<String>) -> Self {
        Self::new(ErrorKind::Packed, reason.into())
    }

    /// A defect of the native code.
    pub(crate) fn defect(reason: impl fmt::Display) -> Self {
        Self::new(ErrorKind::Defect, format!("defect in the native engine: {reason}"))
    }

    /// Memory that the system does not give.
    pub(crate) fn no_memory(bytes: usize) -> Self {
        Self::new(ErrorKind::Memory, format!("could not get {bytes} bytes of memory from the system"))
    }

    /// A key/value cache without a free page.
    pub(crate) fn cache_full(needed: usize, free: usize) -> Self {
        let message = format!(
            "the key/value cache has {free} free pages, {needed} are needed; release sequences or load with a larger cache"
        );
        Self::new(ErrorKind::Memory, message)
    }

    /// A sequence that was never opened, or released.
    pub(crate) fn no_sequence(id: u64) -> Self {
        Self::value(format!("there is no sequence {id}; it was released or never opened"))
    }

    /// A picture without pixels.
    pub fn empty_picture(height: usize, width: usize) -> Self {
        Self::value(format!("the picture has no pixels (height {height}, width {width}); both must be at least 1"))
    }

    /// A slice that does not hold the picture that its sizes describe.
    pub(crate) fn picture_length(given: usize, (height, width, channels): (usize, usize, usize)) -> Self {
        Self::value(format!("got {given} values for a picture of {height}×{width}×{channels}"))
    }

    /// A target size of zero.
    pub(crate) fn empty_target(height: usize, width: usize) -> Self {
        Self::value(format!("cannot resize to height {height}, width {width}; both must be at least 1"))
    }

    /// A tile, or a longest edge, of zero.
    pub(crate) fn zero_setting(name: &str) -> Self {
        Self::value(format!("{name} must be at least 1, got 0"))
    }

    /// Sizes whose product does not fit in memory.
    pub fn too_large(height: usize, width: usize, channels: usize) -> Self {
        let message = format!("a picture of {height}×{width}×{channels} values does not fit in memory");
        Self::new(ErrorKind::Memory, message)
    }

    /// A resampling filter that this arithmetic does not define.
    pub(crate) fn unsupported_filter(filter: &str) -> Self {
        let message = format!("resampling with {filter} is defined for the Pillow arithmetic only");
        Self::new(ErrorKind::Unsupported, message)
    }

    /// An output that does not hold the frames that the pictures need.
    pub fn output_length(given: usize, needed: usize) -> Self {
        Self::value(format!("the output holds {given} values, the frames need {needed}"))
    }
}
