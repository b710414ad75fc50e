//! The one pool of threads for pictures, bounded, and made anew in a process that was forked.

use std::sync::atomic::{AtomicPtr, Ordering};

use rayon::{Scope, ThreadPool, ThreadPoolBuilder};

/// The environment variable that sets the number of threads.
const VARIABLE: &str = "FASTER_SMOLVLM_NUM_THREADS";
/// More threads than this do not pay where memory is the limit.
const DEFAULT_LIMIT: usize = 4;

struct Pool {
    process: u32,
    /// None where one thread is enough, or no threads can be had.
    workers: Option<ThreadPool>,
    count: usize,
}

static POOL: AtomicPtr<Pool> = AtomicPtr::new(std::ptr::null_mut());

/// Threads that pictures are spread over.
pub fn count() -> usize {
    pool().count
}

/// Run tasks on the pool and wait for them; on the calling thread where there is no pool.
pub(crate) fn scope<'s, R: Send>(work: impl FnOnce(&Scope<'s>) -> R + Send) -> R {
    match &pool().workers {
        Some(workers) => workers.scope(work),
        None => rayon::in_place_scope(work),
    }
}

/// Run work on the pool, so that what it splits is spread over the threads of the pool.
pub(crate) fn install<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    match &pool().workers {
        Some(workers) => workers.install(work),
        None => work(),
    }
}

fn pool() -> &'static Pool {
    let process = std::process::id();
    let current = POOL.load(Ordering::Acquire);
    // SAFETY: what is stored was leaked from a box, so it lives as long as the process.
    if let Some(pool) = unsafe { current.as_ref() }
        && pool.process == process
    {
        return pool;
    }
    let made = Box::into_raw(Box::new(make(process)));
    // The pool of a parent process is leaked: its threads do not exist here, and waiting for them would never end.
    match POOL.compare_exchange(current, made, Ordering::AcqRel, Ordering::Acquire) {
        // SAFETY: what was stored is leaked from a box, so it lives as long as the process.
        Ok(_) => unsafe { &*made },
        Err(other) => {
            // SAFETY: `made` was never shared; `other` was leaked by another thread of this process.
            unsafe {
                drop(Box::from_raw(made));
                &*other
            }
        }
    }
}

fn make(process: u32) -> Pool {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let asked = std::env::var(VARIABLE).ok().and_then(|text| text.parse().ok()).filter(|&count| count > 0);
    let count: usize = asked.unwrap_or(cores.min(DEFAULT_LIMIT));
    let workers = (count > 1)
        .then(|| ThreadPoolBuilder::new().num_threads(count).thread_name(|i| format!("smolvlm-{i}")).build().ok())
        .flatten();
    let count = if workers.is_some() { count } else { 1 };
    Pool { process, workers, count }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    /// How many tasks of eight ran.
    fn work_done() -> usize {
        let done = AtomicUsize::new(0);
        scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|_| {
                    done.fetch_add(1, Ordering::Relaxed);
                });
            }
        });
        install(|| done.load(Ordering::Relaxed))
    }

    #[test]
    fn all_tasks_run_here_and_in_a_forked_process() {
        assert_eq!(work_done(), 8);
        assert!(count() >= 1 && std::ptr::eq(pool(), pool()));
        #[cfg(target_os = "linux")]
        {
            // SAFETY: the child makes threads and allocates, which glibc allows after a fork, and leaves at once.
            let child = unsafe { libc::fork() };
            if child == 0 {
                // The threads of the parent do not exist here: with its pool this would never end.
                let works = work_done() == 8 && pool().process == std::process::id();
                // SAFETY: ends the child without its parent's destructors. A signal, since memcheck counts at an exit what the
                // threads held that do not exist here.
                unsafe {
                    libc::kill(libc::getpid(), if works { libc::SIGKILL } else { libc::SIGABRT });
                    libc::_exit(1);
                }
            }
            let mut status = -1;
            // SAFETY: waits for the child that was just made; the status is a local.
            let ended = unsafe { libc::waitpid(child, &raw mut status, 0) };
            assert_eq!((ended, libc::WTERMSIG(status)), (child, libc::SIGKILL));
        }
    }
}
