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
