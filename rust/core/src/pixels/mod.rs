//! A picture's way from decoded bytes to the model's frames.
//!
//! [`preprocess`] is the front door. It takes the [`definition`], plain loops that say what is right, or the [`stream`],
//! which gives the same bits with the inner loops of [`kernels`] in one pass over memory.
pub mod convert;
pub mod definition;
pub mod filters;
pub mod frame_mask;
pub mod kernels;
pub mod layout;
pub mod picture;
pub mod preprocess;
pub mod stream;
pub mod taps;
pub mod windows;
