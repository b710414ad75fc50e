//! Keys and values: the pages that hold them, the sequences that own the pages, and attention over both.
mod attend;
mod cache;

pub use attend::*;
pub use cache::*;
