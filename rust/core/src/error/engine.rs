//! Every way in which the engine refuses work; the message says what was given and what was expected.
use std::fmt;

/// Result of every fallible engine function.
pub type Result<T> = std::result::Result<T, EngineError>;

/// Cause of a refusal. All but `Internal` are found before any work starts.
#[derive(Debug, Clone, PartialEq)]
pub enum EngineError {
    /// A file could not be read, or is not a safetensors file.
    File {
        /// Path as given.
        path: String,
        /// What the system or the parser said.
        reason: String,
    },
    /// The checkpoint lacks a tensor of the architecture.
    MissingTensor {
        /// Name of the tensor.
        name: String,
    },
    /// A tensor has another shape than the configuration implies.
    Shape {
        /// Name of the tensor.
        name: String,
        /// Shape found.
        given: Vec<usize>,
        /// Shape that the configuration implies.
        expected: Vec<usize>,
    },
    /// A tensor has a dtype that the engine does not read.
    Dtype {
        /// Name of the tensor.
        name: String,
        /// Dtype found.
        given: String,
    },
    /// A weight is NaN or infinite.
    NotFinite {
        /// Name of the tensor.
        name: String,
        /// Row of the first bad value.
        row: usize,
    },
    /// The configuration contradicts itself or asks for what the engine cannot do.
    Config(String),
    /// Memory that the system does not give.
    Memory {
        /// Bytes asked for.
        bytes: usize,
    },
    /// A sequence would grow past the position limit of the model.
    Position {
        /// Length asked for.
        given: usize,
        /// Longest length allowed.
        limit: usize,
    },
    /// A token id outside the vocabulary.
    Token {
        /// The id.
        id: i64,
        /// Size of the vocabulary.
        vocab_size: usize,
    },
    /// A file of packed weights cannot be used; they are packed anew.
    Packed(String),
    /// No such sequence.
    Sequence {
        /// The handle.
        id: u64,
    },
    /// The key/value cache has no free page left.
    CacheFull {
        /// Pages needed.
        needed: usize,
        /// Pages free.
        free: usize,
    },
    /// An argument of a wrong size or value.
    Input(String),
    /// A defect of the engine itself.
    Internal(String),
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, reason } => {
                write!(f, "cannot read the checkpoint file {path}: {reason}")
            }
            Self::MissingTensor { name } => write!(
                f,
                "the checkpoint has no tensor {name}; expected a SmolVLM or Idefics3 checkpoint with the tensor names of Transformers"
            ),
            Self::Shape { name, given, expected } => {
                write!(f, "tensor {name} has shape {given:?}, the configuration implies {expected:?}")
            }
            Self::Dtype { name, given } => {
                write!(f, "tensor {name} has dtype {given}; the engine reads F32, F16 and BF16")
            }
            Self::NotFinite { name, row } => {
                write!(f, "tensor {name} holds NaN or infinity in row {row}; the checkpoint is damaged")
            }
            Self::Config(reason) => write!(f, "configuration: {reason}"),
            Self::Memory { bytes } => {
                write!(f, "could not get {bytes} bytes of memory from the system")
            }
            Self::Position { given, limit } => write!(
                f,
                "the sequence would be {given} tokens long, the model's position limit is {limit}; shorten the prompt or generate less"
            ),
            Self::Token { id, vocab_size } => {
                write!(f, "token id {id} is outside the vocabulary of {vocab_size} tokens")
            }
            Self::Sequence { id } => write!(f, "there is no sequence {id}; it was released or never opened"),
            Self::CacheFull { needed, free } => write!(
                f,
                "the key/value cache has {free} free pages, {needed} are needed; release sequences or load with a larger cache"
            ),
            Self::Packed(reason) => write!(f, "the file of packed weights is damaged: {reason}"),
            Self::Input(reason) => f.write_str(reason),
            Self::Internal(reason) => write!(f, "defect in the native engine: {reason}"),
        }
    }
}

impl std::error::Error for EngineError {}
