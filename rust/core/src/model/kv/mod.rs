//! Keys and values: the pages that hold them, the sequences that own the pages, and attention over both.
mod attend;
mod cache;
mod layout;
mod pages;
#[cfg(test)]
mod tests;

pub(crate) use attend::*;
pub(crate) use cache::*;
pub use layout::*;
pub(crate) use pages::*;
