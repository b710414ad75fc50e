//! What the machine can do: the figures beside which the engine's own are to be read.
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::error::Result;
use crate::machine::cpu::Isa;
use crate::machine::memory::Mapped;
use crate::machine::team::Team;
use crate::model::kernels::select;

/// Larger than any cache of the machines that this is for.
const BYTES: usize = 512 << 20;
const PIECE: usize = 1 << 18;
const STREAMS: usize = 4;
const ROUNDS: usize = 4_000_000;
const TRIES: usize = 3;

/// The best of some tries.
pub struct Limits {
    /// Bytes per second that all threads together read from memory.
    pub read_bytes: f64,
    /// Floating-point operations per second of all threads together, float32 multiply-adds counted twice.
    pub flops: f64,
    /// The same of bfloat16, where the instruction set multiplies in that.
    pub bfloat16_flops: Option<f64>,
}

/// Measures with `threads` threads and the instruction set that the engine would use if asked for the same.
pub fn measure(threads: usize, isa: Option<Isa>) -> Result<Limits> {
    let kernels = select(isa)?;
    let mut team = Team::new(threads)?;
    let mut memory = Mapped::<u8>::zeroed(BYTES)?;
    memory.fill(1);
    let mut limits = Limits { read_bytes: 0.0, flops: 0.0, bfloat16_flops: kernels.bfloat16_peak.map(|_| 0.0) };
    for _ in 0..TRIES {
        let start = Instant::now();
        team.run(|worker| {
            worker.for_each(BYTES / PIECE, |task| {
                let i = task.index();
                // Several streams at once, as the kernels read: one alone does not fill the memory's queues.
                let (streams, _) = memory[i * PIECE..(i + 1) * PIECE].as_chunks::<{ PIECE / STREAMS }>();
                let mut sum = 0_u64;
                for at in (0..PIECE / STREAMS).step_by(64) {
                    for stream in streams {
                        for word in stream[at..at + 64].as_chunks::<8>().0 {
                            sum = sum.wrapping_add(u64::from_le_bytes(*word));
                        }
                    }
                }
                std::hint::black_box(sum);
            });
        })?;
        limits.read_bytes = limits.read_bytes.max(BYTES as f64 / start.elapsed().as_secs_f64());
        limits.flops = limits.flops.max(rate(&mut team, threads, kernels.peak)?);
        if let Some((best, peak)) = limits.bfloat16_flops.as_mut().zip(kernels.bfloat16_peak) {
            *best = best.max(rate(&mut team, threads, peak)?);
        }
    }
    Ok(limits)
}

/// Operations per second of all threads.
fn rate(team: &mut Team, threads: usize, peak: fn(usize) -> u64) -> Result<f64> {
    let start = Instant::now();
    let operations = AtomicU64::new(0);
    team.run(|worker| {
        worker.for_each(threads, |_| {
            operations.fetch_add(peak(ROUNDS), Ordering::Relaxed);
        });
    })?;
    Ok(operations.into_inner() as f64 / start.elapsed().as_secs_f64())
}
