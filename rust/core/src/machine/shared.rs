//! How the threads of a job share memory: each has a handle of its own, and writes through it what belongs to its task.
//!
//! All threads of a job run the same phases one after the other, so what the borrow checker enforces on the handle of
//! one thread holds for all of them: in a phase a handle is borrowed either for reading or for writing. Access takes a
//! [`Task`], which exists only inside a phase, and what is written must lie in the [`Part`] of that task.
use std::marker::PhantomData;
use std::ops::Range;

use super::team::Task;

/// Something of which each thread of a job can have a handle.
pub trait Share {
    /// A handle for one thread.
    ///
    /// # Safety
    /// `self` may not be used while a handle lives, and each thread of a job has one handle at most. All threads use
    /// theirs in the same phases, in the same way.
    unsafe fn handle(&self) -> Self;
}

impl<S: Share> Share for Option<S> {
    unsafe fn handle(&self) -> Self {
        // SAFETY: the caller promises the same.
        self.as_ref().map(|shared| unsafe { shared.handle() })
    }
}

/// The rows and columns of a matrix that one task writes and no other task of its phase reads or writes.
pub struct Part<'t> {
    task: &'t Task,
    rows: Range<usize>,
    columns: Range<usize>,
    /// It stands for memory that only this thread has.
    exclusive: bool,
}

impl<'t> Part<'t> {
    /// These rows and columns.
    ///
    /// # Safety
    /// No other task of the phase may make a part that overlaps with it.
    pub(crate) unsafe fn of(task: &'t Task, rows: Range<usize>, columns: Range<usize>) -> Self {
        Self { task, rows, columns, exclusive: false }
    }

    /// Everything, in memory of which this thread has the only handle.
    pub(crate) fn exclusive(task: &'t Task) -> Self {
        Self { task, rows: 0..usize::MAX, columns: 0..usize::MAX, exclusive: true }
    }

    /// The task.
    pub(crate) fn task(&self) -> &'t Task {
        self.task
    }

    /// The rows.
    pub fn rows(&self) -> Range<usize> {
        self.rows.clone()
    }

    /// The same rows of a matrix with half as many columns.
    pub(crate) fn half_columns(&self) -> Self {
        let Range { start, end } = self.columns;
        assert!(start % 2 == 0 && end % 2 == 0, "two parts would meet in a column");
        Self { columns: start / 2..end / 2, rows: self.rows.clone(), ..*self }
    }

    /// Panics unless the part holds these columns of a row.
    #[inline]
    pub(crate) fn check(&self, row: usize, columns: &Range<usize>) {
        assert!(
            self.rows.contains(&row) && self.columns.start <= columns.start && columns.end <= self.columns.end,
            "row {row}, columns {columns:?} of another task"
        );
    }
}

/// A slice that the threads of a job share.
pub(crate) struct Shared<'a, T> {
    start: *mut T,
    len: usize,
    /// Other threads have handles too.
    divided: bool,
    owner: PhantomData<&'a mut [T]>,
}

// SAFETY: it stands for a `&mut [T]`; what several threads do with handles is bound by the rules of `Share::handle` and
// `Shared::part_mut`.
unsafe impl<T: Send> Send for Shared<'_, T> {}
// SAFETY: a shared borrow only reads.
unsafe impl<T: Sync> Sync for Shared<'_, T> {}

impl<T> Share for Shared<'_, T> {
    unsafe fn handle(&self) -> Self {
        Self { divided: true, ..*self }
    }
}

impl<'a, T> Shared<'a, T> {
    /// Takes the slice over for the lifetime `'a`.
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), divided: false, owner: PhantomData }
    }

    /// The same handle for a shorter time.
    pub(crate) fn reborrow(&mut self) -> Shared<'_, T> {
        Shared { ..*self }
    }

    /// Number of elements.
    #[allow(clippy::len_without_is_empty)]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Reads elements. The task is only a witness that no thread is in another phase.
    #[inline]
    pub(crate) fn part<'t>(&'t self, _: &'t Task, range: Range<usize>) -> &'t [T] {
        self.check(&range);
        // SAFETY: the elements are there. All threads of the job are in the phase of the task, in which every handle is
        // borrowed for reading, as this one is.
        unsafe { std::slice::from_raw_parts(self.start.add(range.start), range.len()) }
    }

    /// Borrows elements for writing.
    ///
    /// # Safety
    /// The elements must be those that the part stands for.
    #[inline]
    pub(crate) unsafe fn part_mut<'t>(&'t mut self, part: &'t Part<'_>, range: Range<usize>) -> &'t mut [T] {
        // SAFETY: the caller promises the same.
        unsafe { self.reborrow().into_part_mut(part, range) }
    }

    /// Borrows elements for writing for as long as the handle would live.
    ///
    /// # Safety
    /// The elements must be those that the part stands for.
    #[inline]
    #[allow(clippy::mut_from_ref)] // `self` is what is borrowed; the part says which of it
    pub(crate) unsafe fn into_part_mut(self, part: &'a Part<'_>, range: Range<usize>) -> &'a mut [T] {
        self.check(&range);
        assert!(!(self.divided && part.exclusive), "this memory is not the thread's own");
        // SAFETY: the elements are there. No other task has them, by the promise of `Part::of`, or no other thread has
        // the memory at all; and this thread's handle is borrowed as long as the elements are.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }

    fn check(&self, range: &Range<usize>) {
        let Range { start, end } = *range;
        assert!(start <= end && end <= self.len, "part {start}..{end} of {} elements", self.len);
    }
}

impl<'a> Shared<'a, f32> {
    /// The same memory as numbers of half the size, for as long as the handle is not used otherwise.
    pub(crate) fn halves(&mut self) -> Shared<'_, u16> {
        Shared { start: self.start.cast(), len: 2 * self.len, divided: self.divided, owner: PhantomData }
    }

    /// The same memory as numbers of half the size, for reading.
    #[inline]
    pub(crate) fn half_part<'t>(&'t self, task: &'t Task, range: Range<usize>) -> &'t [u16] {
        let Range { start, end } = range;
        let whole = self.part(task, start / 2..end.div_ceil(2));
        // SAFETY: the same memory; every pattern of bits is a value, and `u16` needs less alignment.
        let halves = unsafe { std::slice::from_raw_parts(whole.as_ptr().cast::<u16>(), 2 * whole.len()) };
        &halves[start % 2..][..range.len()]
    }
}

#[cfg(test)]
mod tests {
    use super::super::team::Team;
    use super::*;

    /// Whether a job of two tasks on shared memory, one row each, ends without a panic.
    fn works(task: impl Fn(&Part<'_>, &mut Shared<'_, u32>) + Sync) -> (bool, [u32; 8]) {
        let mut values = [0; 8];
        let mut team = Team::new(2).expect("threads");
        let outcome = team.run_shared(&mut Shared::new(&mut values), |worker, shared| {
            worker.for_each_part(2, 1, |part| task(part, shared));
        });
        (outcome.is_ok(), values)
    }

    /// Writes four elements that are row `row`.
    fn write(part: &Part<'_>, row: usize, shared: &mut Shared<'_, u32>) {
        part.check(row, &(0..4));
        // SAFETY: rows are four elements each, and the part has this one.
        unsafe { shared.part_mut(part, 4 * row..4 * row + 4) }.fill(row as u32 + 1);
    }

    #[test]
    fn each_task_writes_its_part_and_no_other() {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let good = works(|part, shared| write(part, part.rows().start, shared));
        let other = works(|part, shared| write(part, 1 - part.rows().start, shared));
        let own = works(|part, shared| write(&Part::exclusive(part.task()), part.rows().start, shared));
        let outside = works(|part, shared| write(part, part.rows().start + 2, shared));
        std::panic::set_hook(hook);
        assert_eq!(good, (true, [1, 1, 1, 1, 2, 2, 2, 2]));
        for refused in [other, own, outside] {
            assert_eq!(refused, (false, [0; 8]));
        }
    }

    #[test]
    fn memory_of_one_thread_is_its_own() {
        let mut values = [0.0_f32; 8];
        let mut team = Team::new(1).expect("a thread");
        let memory = std::sync::Mutex::new(&mut values);
        team.run(|worker| {
            let mut memory = memory.lock().expect("no panic");
            let mut shared = Shared::new(&mut memory[..]);
            worker.for_each(1, |task| {
                let part = Part::exclusive(task);
                // SAFETY: the part is everything.
                unsafe { shared.part_mut(&part, 2..4) }.fill(f32::from_bits(0x0002_0001));
                assert_eq!(shared.half_part(task, 4..8), [1, 2, 1, 2]);
                assert_eq!(shared.half_part(task, 5..7), [2, 1]);
                assert_eq!(shared.part(task, 0..2), [0.0, 0.0]);
            });
        })
        .expect("no panic");
    }

    #[test]
    fn halves_of_a_part_do_not_meet() {
        let mut team = Team::new(1).expect("a thread");
        team.run(|worker| {
            worker.for_each(1, |task| {
                // SAFETY: there is no other task.
                let half = unsafe { Part::of(task, 3..5, 32..64) }.half_columns();
                half.check(4, &(16..32));
            });
        })
        .expect("no panic");
    }
}
