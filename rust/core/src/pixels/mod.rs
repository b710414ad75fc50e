//! A picture's way from decoded bytes to the model's frames.
//!
//! [`preprocess`] is the front door. It takes the [`definition`], plain loops that say what is right, or the [`stream`],
//! which gives the same bits with the inner loops of [`kernels`] in one pass over memory.
pub(crate) mod convert;
pub(crate) mod definition;
pub(crate) mod filters;
pub(crate) mod frame_mask;
pub(crate) mod kernels;
pub(crate) mod layout;
pub(crate) mod picture;
pub(crate) mod preprocess;
pub(crate) mod stream;
pub(crate) mod taps;
pub(crate) mod windows;
