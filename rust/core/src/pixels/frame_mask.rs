//! The attention mask over padded batches.

use rayon::prelude::*;

use crate::Error;
use crate::machine::picture_threads;
use crate::pixels::kernels::PictureKernels;

/// Fill a mask of `frames` frames of `frame` values for each sample: 1 in the first `counts[k]` frames of sample k, else 0.
pub fn fill_mask(
    mask: &mut [i64],
    frames: usize,
    frame: usize,
    counts: &[usize],
    kernels: &'static PictureKernels,
) -> Result<(), Error> {
    let needed = counts.len().saturating_mul(frames).saturating_mul(frame);
    if mask.len() != needed || frame == 0 {
        return Err(Error::output_length(mask.len(), needed));
    }
    let fill = |(index, values): (usize, &mut [i64])| {
        (kernels.fill)(values, i64::from(index % frames < counts[index / frames]));
        (kernels.fence)();
    };
    if picture_threads::count() == 1 {
        mask.chunks_exact_mut(frame).enumerate().for_each(fill);
    } else {
        picture_threads::install(|| mask.par_chunks_exact_mut(frame).enumerate().for_each(fill));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pixels::kernels::Loops;

    #[test]
    fn the_first_frames_of_a_sample_are_ones() {
        for loops in Loops::available() {
            // One value before the mask, so that it is not aligned.
            let mut values = vec![7; 1 + 3 * 4 * 13];
            fill_mask(&mut values[1..], 4, 13, &[4, 0, 2], loops.kernels()).expect("three samples");
            for (index, value) in values[1..].iter().enumerate() {
                let (sample, frame) = (index / 13 / 4, index / 13 % 4);
                assert_eq!(*value, i64::from(frame < [4, 0, 2][sample]), "{} {sample} {frame}", loops.name());
            }
        }
    }

    #[test]
    fn masks_of_another_length_are_refused() {
        let kernels = Loops::Definition.kernels();
        for (length, frames, frame) in [(5, 2, 3), (0, 2, 0), (7, 2, 3), (6, usize::MAX, 2)] {
            assert!(fill_mask(&mut vec![0; length], frames, frame, &[1], kernels).is_err(), "{length}");
        }
        assert!(fill_mask(&mut [0; 6], 2, 3, &[1], kernels).is_ok());
    }
}
