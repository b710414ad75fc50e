//! The engine's threads. All of them run the same function; work inside it is claimed task by task, so a thread
//! that the system has suspended holds up the others only for the task it is in.
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::shared::{Part, Share};
use crate::error::{Error, Result};

/// Busy iterations before an idle thread parks: some tens of microseconds, longer than the gaps inside a step and too
/// short to cost power between steps.
const SPINS_BEFORE_PARK: u32 = 10_000;
/// Busy iterations before a thread that waits for the last tasks of a phase offers its core to others.
const SPINS_BEFORE_YIELD: u32 = 2_000;
/// Most jobs that the caller does alone after threads were held up by other processes.
const MAX_REST: u32 = 256;
/// Jobs longer than the turns that the system gives to processes go through their tasks with whatever cores there are.
const LONGEST_REST: Duration = Duration::from_millis(50);
/// `claim` packs the phase number above the index of the next task.
const TASK_BITS: u32 = 24;
const TASK_MASK: u64 = (1 << TASK_BITS) - 1;
/// `gate` packs the job number above an "open" bit above the number of threads inside.
const OPEN: u64 = 1 << 16;
const JOB: u64 = 1 << 17;

/// Keeps a hot counter on a cache line of its own.
#[repr(align(128))]
#[derive(Default)]
struct CacheLine<T>(T);

struct Job<'a> {
    work: &'a (dyn Fn(&mut Worker<'_>) + Sync),
    phase: u64,
    done: u64,
}

#[derive(Default)]
struct State {
    gate: CacheLine<AtomicU64>,
    claim: CacheLine<AtomicU64>,
    done: CacheLine<AtomicU64>,
    job: AtomicPtr<()>,
    active: AtomicUsize,
    panicked: AtomicBool,
    stop: AtomicBool,
}

/// A thread's place in a running job.
pub struct Worker<'a> {
    /// Index of the thread, below [`Team::threads`]; picks its scratch memory.
    pub index: usize,
    state: &'a State,
    phase: u64,
    done: u64,
    stalled: Duration,
}

impl Worker<'_> {
    /// Number of threads that may take part.
    pub(crate) fn threads(&self) -> usize {
        self.state.active.load(Ordering::Relaxed)
    }

    /// Runs `work` once for each of `tasks` tasks, on whichever threads are free, and returns when all are done.
    /// Every thread of the job must make the same calls in the same order.
    pub(crate) fn for_each(&mut self, tasks: usize, mut work: impl FnMut(&Task)) {
        assert!((tasks as u64) < TASK_MASK, "a phase of {tasks} tasks");
        let (s, first) = (self.state, self.phase << TASK_BITS);
        let last = first + tasks as u64;
        let mut next = s.claim.0.load(Ordering::Relaxed);
        while next < last {
            match s.claim.0.compare_exchange_weak(next, next + 1, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => {
                    // An earlier phase is over, so nothing but this one's tasks can be claimed.
                    let index = next.checked_sub(first).expect("a task of this phase");
                    let task = Task { index: index as usize };
                    if catch_unwind(AssertUnwindSafe(|| work(&task))).is_err() {
                        s.panicked.store(true, Ordering::Relaxed);
                    }
                    s.done.0.fetch_add(1, Ordering::AcqRel);
                    next = s.claim.0.load(Ordering::Relaxed);
                }
                Err(now) => next = now,
            }
        }
        self.done += tasks as u64;
        self.phase += 1;
        if let Some(since) = wait_until(|| s.done.0.load(Ordering::Acquire) >= self.done) {
            self.stalled += since.elapsed();
        }
        // The first thread opens the next phase; for the others this fails.
        let _ = s.claim.0.compare_exchange(last, self.phase << TASK_BITS, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// A phase in which each task has `size` of `rows` rows.
    pub fn for_each_part(&mut self, rows: usize, size: usize, mut work: impl FnMut(&Part<'_>)) {
        self.for_each(rows.div_ceil(size), |task| {
            let part = task.index() * size..((task.index() + 1) * size).min(rows);
            // SAFETY: other tasks have other rows, and nobody else in this phase makes parts.
            work(&unsafe { Part::of(task, part, 0..usize::MAX) });
        });
    }
}

/// A task of a phase. Only the thread that has claimed it has it, and only while it works on it.
pub(crate) struct Task {
    index: usize,
}

impl Task {
    /// Number of the task in its phase.
    pub(crate) fn index(&self) -> usize {
        self.index
    }
}

/// Waits for a condition: busy at first, then offering the core to others; returns since when it has offered it.
fn wait_until(mut holds: impl FnMut() -> bool) -> Option<Instant> {
    for _ in 0..SPINS_BEFORE_YIELD {
        if holds() {
            return None;
        }
        std::hint::spin_loop();
    }
    let since = Instant::now();
    while !holds() {
        thread::yield_now();
    }
    Some(since)
}

/// Threads that wait for work between jobs: spinning at first, then parked.
pub struct Team {
    state: Arc<State>,
    threads: Vec<JoinHandle<()>>,
    process: u32,
    phase: u64,
    done: u64,
    /// Jobs that the caller does alone, now and after the next hold-up.
    rest: u32,
    next_rest: u32,
}

impl Team {
    /// Starts `threads - 1` threads; the caller of [`Team::run`] is the first.
    pub fn new(threads: usize) -> Result<Self> {
        if threads == 0 || threads > 1024 {
            return Err(Error::value(format!("num_threads must lie between 1 and 1024, got {threads}")));
        }
        let state = Arc::new(State::default());
        state.active.store(threads, Ordering::Relaxed);
        let mut team =
            Self { state, threads: Vec::new(), process: std::process::id(), phase: 0, done: 0, rest: 0, next_rest: 0 };
        for index in 1..threads {
            let state = Arc::clone(&team.state);
            let handle = thread::Builder::new()
                .name(format!("smolvlm-{index}"))
                .spawn(move || serve(&state, index))
                .map_err(|e| Error::value(format!("could not start thread {index} of {threads}: {e}")))?;
            team.threads.push(handle);
        }
        Ok(team)
    }

    /// Number of threads, the caller included.
    pub fn threads(&self) -> usize {
        self.threads.len() + 1
    }

    /// Lets only the first `threads` take part in the jobs to come.
    #[cfg(test)]
    pub(crate) fn set_active(&mut self, threads: usize) {
        self.state.active.store(threads.clamp(1, self.threads()), Ordering::Relaxed);
    }

    /// Runs `work` on every thread, each with a handle of what they share.
    pub fn run_shared<S: Share + Sync>(
        &mut self,
        shared: &mut S,
        work: impl Fn(&mut Worker<'_>, &mut S) + Sync,
    ) -> Result<()> {
        let shared = &*shared;
        self.run(|worker| {
            // SAFETY: a thread takes part in a job once, all do the same work, and the job has the only borrow.
            let mut handle = unsafe { shared.handle() };
            work(worker, &mut handle);
        })
    }

    /// Runs `work` on every thread; a thread that wakes late joins in, or misses the job if it is over.
    pub(crate) fn run(&mut self, work: impl Fn(&mut Worker<'_>) + Sync) -> Result<()> {
        let s = &*self.state;
        let mut job = Job { work: &work, phase: self.phase, done: self.done };
        // The threads do not exist in a forked child: there the caller works alone.
        let alone = self.threads.is_empty() || self.rest > 0 || self.process != std::process::id();
        self.rest = self.rest.saturating_sub(1);
        let start = Instant::now();
        if !alone {
            s.job.store((&raw mut job).cast(), Ordering::Relaxed);
            s.gate.0.fetch_add(JOB | OPEN, Ordering::AcqRel);
            for thread in self.threads.iter().take(s.active.load(Ordering::Relaxed) - 1) {
                thread.thread().unpark();
            }
        }
        let mut worker = Worker { index: 0, state: s, phase: job.phase, done: job.done, stalled: Duration::ZERO };
        let outcome = catch_unwind(AssertUnwindSafe(|| work(&mut worker)));
        if !alone {
            s.gate.0.fetch_and(!OPEN, Ordering::AcqRel);
            if let Some(since) = wait_until(|| s.gate.0.load(Ordering::Acquire) & (OPEN - 1) == 0) {
                worker.stalled += since.elapsed();
            }
            // A thread that another process keeps from its core holds up every phase: one thread is then quicker.
            let elapsed = start.elapsed();
            if worker.stalled * 4 > elapsed && elapsed < LONGEST_REST {
                self.next_rest = (self.next_rest * 2).clamp(1, MAX_REST);
                self.rest = self.next_rest;
            } else {
                self.next_rest = 0;
            }
        }
        (self.phase, self.done) = (worker.phase, worker.done);
        if outcome.is_err() || s.panicked.swap(false, Ordering::Relaxed) {
            // The caller may have left its phases half-way: start over behind all that was claimed.
            self.phase = (s.claim.0.load(Ordering::Acquire) >> TASK_BITS) + 1;
            s.claim.0.store(self.phase << TASK_BITS, Ordering::Release);
            self.done = s.done.0.load(Ordering::Acquire);
            return Err(Error::defect("a task panicked; the message above says where"));
        }
        Ok(())
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        if self.process != std::process::id() {
            return;
        }
        self.state.stop.store(true, Ordering::Release);
        for handle in self.threads.drain(..) {
            handle.thread().unpark();
            let _ = handle.join();
        }
    }
}

/// Body of a waiting thread.
fn serve(s: &State, index: usize) {
    let mut last_job = 0;
    let mut spins = 0;
    loop {
        let gate = s.gate.0.load(Ordering::Acquire);
        let fresh = gate & OPEN != 0 && gate / JOB != last_job && index < s.active.load(Ordering::Relaxed);
        if fresh && s.gate.0.compare_exchange(gate, gate + 1, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            last_job = gate / JOB;
            // SAFETY: the job lives on the stack of `run`, which stored it before it opened the gate and does not
            // return before every thread that went in has come out again.
            let job = unsafe { &*s.job.load(Ordering::Relaxed).cast::<Job<'_>>() };
            let mut worker = Worker { index, state: s, phase: job.phase, done: job.done, stalled: Duration::ZERO };
            if catch_unwind(AssertUnwindSafe(|| (job.work)(&mut worker))).is_err() {
                s.panicked.store(true, Ordering::Relaxed);
            }
            s.gate.0.fetch_sub(1, Ordering::AcqRel);
            spins = 0;
            continue;
        }
        if s.stop.load(Ordering::Acquire) {
            return;
        }
        spins += 1;
        if spins < SPINS_BEFORE_PARK {
            std::hint::spin_loop();
        } else {
            // An unpark between the look at the gate and this line makes `park` return at once.
            thread::park();
            spins = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn every_task_runs_once_and_phases_are_ordered() {
        for threads in [1, 2, 3, 5] {
            let mut team = Team::new(threads).expect("threads");
            for round in 0..200 {
                let counts: Vec<AtomicUsize> = (0..37 + round % 5).map(|_| AtomicUsize::new(0)).collect();
                team.run(|w| {
                    for phase in 0..4 {
                        w.for_each(counts.len(), |task| {
                            let i = task.index();
                            assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) >= phase));
                            counts[i].fetch_add(1, Ordering::Relaxed);
                        });
                    }
                    w.for_each(0, |_| unreachable!());
                })
                .expect("no panic");
                assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 4));
            }
        }
    }

    #[test]
    fn a_panicking_task_is_an_error_and_the_pool_lives_on() {
        let mut team = Team::new(2).expect("threads");
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let failed = team.run(|w| w.for_each(8, |task| assert_ne!(task.index(), 5)));
        std::panic::set_hook(hook);
        assert_eq!(failed.map_err(|error| error.kind()), Err(ErrorKind::Defect));
        team.run(|w| w.for_each(8, |_| ())).expect("works again");
    }

    #[test]
    fn thread_counts_are_checked() {
        assert!(Team::new(0).is_err());
        let mut team = Team::new(3).expect("threads");
        team.set_active(1);
        team.run(|w| w.for_each(3, |_| assert_eq!(w_index(), 0))).expect("only the caller works");
    }

    fn w_index() -> usize {
        usize::from(thread::current().name().is_some_and(|n| n.starts_with("smolvlm-")))
    }
}
