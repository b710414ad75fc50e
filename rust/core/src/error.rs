//! Every way in which pixels can fail; the numbers are in the message.

use std::fmt;

mod engine;

pub use engine::{EngineError, Result};

/// What went wrong, a variant per cause.
#[allow(missing_docs)] // the fields are the numbers that the message shows
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// A picture without pixels.
    EmptyImage { height: usize, width: usize },
    /// The slice does not hold the picture that its sizes describe.
    ImageLength { given: usize, height: usize, width: usize, channels: usize },
    /// A target size of zero.
    EmptyTarget { height: usize, width: usize },
    /// A tile, or a longest edge, of zero.
    ZeroSetting { name: &'static str },
    /// Sizes whose product does not fit in memory.
    TooLarge { height: usize, width: usize, channels: usize },
    /// The system does not give the memory.
    NoMemory { bytes: usize },
    /// A resampling filter that this arithmetic does not define.
    UnsupportedFilter { filter: &'static str },
    /// A filter code outside Pillow's 0 to 5.
    UnknownFilter { code: u8 },
    /// The output does not hold the frames that the pictures need.
    OutputLength { given: usize, needed: usize },
    /// The conversion table does not hold 256 values per channel.
    TableLength { given: usize, channels: usize },
    /// Pictures and places for their frames do not pair up.
    Places { images: usize, places: usize },
    /// The rows of a picture could not be read.
    Rows { reason: String },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EmptyImage { height, width } => {
                write!(f, "the picture has no pixels (height {height}, width {width}); both must be at least 1")
            }
            Self::ImageLength { given, height, width, channels } => {
                write!(f, "got {given} values for a picture of {height}×{width}×{channels}")
            }
            Self::EmptyTarget { height, width } => {
                write!(f, "cannot resize to height {height}, width {width}; both must be at least 1")
            }
            Self::ZeroSetting { name } => write!(f, "{name} must be at least 1, got 0"),
            Self::TooLarge { height, width, channels } => {
                write!(f, "a picture of {height}×{width}×{channels} values does not fit in memory")
            }
            Self::NoMemory { bytes } => write!(f, "cannot get {bytes} bytes of memory"),
            Self::UnsupportedFilter { filter } => {
                write!(f, "resampling with {filter} is defined for the Pillow arithmetic only")
            }
            Self::UnknownFilter { code } => {
                write!(
                    f,
                    "resample must be one of 0 (nearest), 1 (Lanczos), 2 (bilinear), 3 (bicubic), 4 (box), 5 (Hamming), got {code}"
                )
            }
            Self::OutputLength { given, needed } => {
                write!(f, "the output holds {given} values, the frames need {needed}")
            }
            Self::TableLength { given, channels } => {
                write!(f, "the conversion table has {given} entries, {channels} channels need 256 each")
            }
            Self::Places { images, places } => write!(f, "got {images} pictures and {places} places for their frames"),
            Self::Rows { reason } => write!(f, "the rows of the picture cannot be read: {reason}"),
        }
    }
}

impl std::error::Error for Error {}
