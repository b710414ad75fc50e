//! How a phase is divided into tasks: each multiplies some rows by some panels.
use std::ops::Range;

use crate::machine::shared::Part;
use crate::machine::team::Task;
use crate::model::kernels::{PANEL, ROW_BLOCK};

/// Rows of one product of float32 or of integers in pairs: their activations stay in the second-level cache while the
/// panels go by.
pub(super) const ROW_CHUNK: usize = 192;
/// Rows of one product of tiles: as many as stay in the first-level cache, while the weights of the task stay in the
/// second.
const TILE_CHUNK: usize = 32;
/// Most rows of one task that takes them product by product: weights are read once for all.
const TASK_ROWS: usize = 1024;
/// Fewest rows of a task that prepares its panels first, if there are that many.
const PREPARED_ROWS: usize = 256;
/// Fewest tasks for each thread, so that all end together.
const TASKS_PER_THREAD: usize = 4;
/// Most panels of one task.
pub(super) const TASK_PANELS: usize = 12;
/// Panels of one task of few rows.
const FEW_ROWS_PANELS: usize = 6;
/// Up to this many rows the weights are what costs: tasks are then small, so that the threads end together.
const FEW_ROWS: usize = 16;

/// Panels of one task for a phase of `rows` rows; even, so that interleaved matrices stay together.
pub(super) fn task_panels(rows: usize) -> usize {
    if rows <= FEW_ROWS { FEW_ROWS_PANELS } else { TASK_PANELS }
}

/// How the rows of a phase are divided.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Division {
    /// Into products of [`ROW_CHUNK`] rows, each a task.
    Chunks,
    /// Into products of [`TILE_CHUNK`] rows, of which a task takes many.
    Tiles,
    /// The same for panels that each task prepares anew: fewer tasks of more rows.
    PreparedTiles,
}

/// The tasks of one phase: a grid of rows and panels.
pub(super) struct Schedule {
    rows: usize,
    panels: usize,
    /// Rows and panels of one task.
    task_rows: usize,
    task_panels: usize,
    /// Rows of one product of a task.
    pub(super) product_rows: usize,
}

impl Schedule {
    /// For `rows` rows and `panels` panels, `task_panels` a task, on `threads` threads.
    pub(super) fn new(division: Division, rows: usize, panels: usize, task_panels: usize, threads: usize) -> Self {
        assert!(task_panels <= TASK_PANELS);
        let units = panels.div_ceil(task_panels);
        let (task_rows, product_rows) = task_rows(division, rows, units, threads);
        Self { rows, panels, task_panels, task_rows, product_rows }
    }

    /// Pieces into which the panels are divided.
    fn units(&self) -> usize {
        self.panels.div_ceil(self.task_panels)
    }

    /// Number of tasks.
    pub(super) fn tasks(&self) -> usize {
        self.rows.div_ceil(self.task_rows) * self.units()
    }

    /// What a task multiplies.
    pub(super) fn cell<'t>(&self, task: &'t Task) -> Cell<'t> {
        let (first_row, unit) = (task.index() / self.units() * self.task_rows, task.index() % self.units());
        let first = unit * self.task_panels;
        Cell {
            task,
            rows: first_row..self.rows.min(first_row + self.task_rows),
            panels: first..self.panels.min(first + self.task_panels),
            unit,
        }
    }
}

/// Rows of one task and of one product in it: tasks of equal size, of whole register blocks.
fn task_rows(division: Division, rows: usize, units: usize, threads: usize) -> (usize, usize) {
    let whole = |tasks: usize, block: usize| {
        let rows = rows.div_ceil(tasks.max(1));
        rows.next_multiple_of(block).max(1)
    };
    let (tasks, fewest) = match division {
        Division::Chunks => return (whole(rows.div_ceil(ROW_CHUNK), ROW_BLOCK), ROW_CHUNK),
        Division::Tiles => (TASKS_PER_THREAD * threads, TILE_CHUNK),
        Division::PreparedTiles => (threads, PREPARED_ROWS),
    };
    let few = tasks.div_ceil(units).min(rows.div_ceil(fewest));
    (whole(rows.div_ceil(TASK_ROWS).max(few), TILE_CHUNK), TILE_CHUNK)
}

/// One task of a phase.
pub(super) struct Cell<'t> {
    pub(super) task: &'t Task,
    pub(super) rows: Range<usize>,
    pub(super) panels: Range<usize>,
    /// Number of the piece of the panels.
    pub(super) unit: usize,
}

impl<'t> Cell<'t> {
    /// Rows and columns of the result that are this task's.
    pub(super) fn part(&self) -> Part<'t> {
        // SAFETY: the cells of a schedule do not overlap.
        unsafe { Part::of(self.task, self.rows.clone(), self.panels.start * PANEL..self.panels.end * PANEL) }
    }

    /// The same rows of a matrix that has `width` columns for each piece of the panels.
    pub(super) fn unit_part(&self, width: usize) -> Part<'t> {
        // SAFETY: tasks with the same rows have different pieces.
        unsafe { Part::of(self.task, self.rows.clone(), self.unit * width..(self.unit + 1) * width) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::team::Team;

    /// How often each row and panel is multiplied.
    fn multiplied(schedule: &Schedule, rows: usize, panels: usize) -> Vec<usize> {
        let counts = std::sync::Mutex::new(vec![0; rows * panels]);
        let mut team = Team::new(1).expect("a thread");
        team.run(|worker| {
            worker.for_each(schedule.tasks(), |task| {
                let cell = schedule.cell(task);
                assert!(cell.panels.len() <= TASK_PANELS && cell.panels.start.is_multiple_of(2));
                let mut counts = counts.lock().expect("no panic");
                for row in cell.rows.clone() {
                    cell.panels.clone().for_each(|panel| counts[row * panels + panel] += 1);
                }
            });
        })
        .expect("no panic");
        counts.into_inner().expect("no panic")
    }

    #[test]
    fn the_tasks_are_all_rows_and_panels_once() {
        for division in [Division::Chunks, Division::Tiles, Division::PreparedTiles] {
            for (rows, panels, threads) in
                [(0, 3, 2), (1, 1, 1), (4, 40, 3), (17, 7, 2), (193, 13, 2), (1025, 5, 4), (4096, 96, 64)]
            {
                let schedule = Schedule::new(division, rows, panels, task_panels(rows), threads);
                assert!(multiplied(&schedule, rows, panels).iter().all(|&count| count == 1), "{rows} x {panels}");
                let most = if division == Division::Chunks { ROW_CHUNK } else { TILE_CHUNK };
                assert!((1..=most).contains(&schedule.product_rows), "{rows} x {panels}");
            }
        }
    }
}
