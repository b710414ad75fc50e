//! Nearest neighbour: which input each output copies, as Pillow and as torch count.

use crate::error::Result;
use crate::machine::vectors::collected;
use crate::pixels::windows::Arithmetic;

/// For each output, the index of the input that it copies.
pub(super) fn sources(inputs: usize, outputs: usize, arithmetic: Arithmetic) -> Result<Vec<usize>> {
    match arithmetic {
        Arithmetic::Pillow => {
            let scale = inputs as f64 / outputs as f64;
            // Pillow adds up the step, so its rounding errors do too.
            let mut at = scale * 0.5;
            let mut next = || {
                let source = (at as usize).min(inputs - 1);
                at += scale;
                source
            };
            collected(outputs, (0..outputs).map(|_| next()))
        }
        Arithmetic::Torch => {
            let scale = inputs as f32 / outputs as f32;
            // One rounding for product and difference, as a fused multiply-add leaves it.
            let centre = |output: usize| ((output as f64 + 0.5) * f64::from(scale) - 0.5) as f32;
            collected(outputs, (0..outputs).map(|output| ((centre(output) + 0.5) as usize).min(inputs - 1)))
        }
    }
}
