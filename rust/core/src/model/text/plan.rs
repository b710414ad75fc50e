//! How the tokens of a step are divided among the tasks of its attention.
use super::Segment;
use crate::model::config::TextConfig;
use crate::model::kernels::{BLOCK, PANEL};
use crate::model::kv::{PAGE, QUERY_ROWS};

/// Steps of at most this many tokens spread the blocks of keys over the threads; longer ones spread the tokens.
pub(super) const SPLIT_ROWS: usize = 16;

/// New positions of one page.
pub(super) struct PageWrite {
    pub(crate) page: u32,
    /// First position in the page.
    pub(crate) slot: usize,
    /// First row in the step.
    pub row: usize,
    /// First position in the sequence.
    pub(crate) position: usize,
    pub rows: usize,
}

/// Tokens of one sequence whose attention one task computes for one head.
#[derive(Clone, Copy)]
pub(super) struct Group<'a> {
    pub(crate) pages: &'a [u32],
    /// First row in the step.
    pub row: usize,
    /// First position in the sequence.
    pub(crate) position: usize,
    pub rows: usize,
}

/// The tasks of a step's attention.
pub(super) struct Plan<'a> {
    /// Tokens of the step.
    pub rows: usize,
    pub(crate) page_writes: Vec<PageWrite>,
    pub(crate) groups: Vec<Group<'a>>,
    /// Blocks of keys per token if they are spread over the threads, else 0.
    pub split: usize,
}

/// Most query heads of a group times tokens of a task: whole tokens only.
pub(super) fn query_rows(c: &TextConfig) -> usize {
    (QUERY_ROWS / c.group()).max(1) * c.group()
}

impl<'a> Plan<'a> {
    pub(super) fn new(c: &TextConfig, segments: &'a [Segment]) -> Self {
        let rows = segments.iter().map(|s| s.rows).sum();
        let blocks = segments.iter().map(|s| (s.position + s.rows).div_ceil(BLOCK)).max().unwrap_or(0);
        let split = if rows <= SPLIT_ROWS && blocks > 1 { blocks } else { 0 };
        let group_rows = query_rows(c) / c.group();
        Self {
            rows,
            page_writes: segments.iter().flat_map(page_writes).collect(),
            groups: segments.iter().flat_map(|s| groups(s, group_rows)).collect(),
            split,
        }
    }

    /// Numbers that one task of a split attention leaves for the merge: a state and an output for each query head.
    pub(super) fn partial_width(&self, c: &TextConfig) -> usize {
        c.group() * (c.head_dim.next_multiple_of(PANEL) + 2)
    }

    /// The group that is the single token of row `row`.
    pub(super) fn token(&self, row: usize) -> Group<'a> {
        let holds = |g: &&Group<'_>| (g.row..g.row + g.rows).contains(&row);
        let group = self.groups.iter().find(holds).expect("a row of the step");
        Group { row, position: group.position + row - group.row, rows: 1, ..*group }
    }
}

/// The new positions of a sequence, page by page.
fn page_writes(s: &Segment) -> impl Iterator<Item = PageWrite> {
    let (first, end) = (s.position / PAGE, (s.position + s.rows).div_ceil(PAGE));
    (first..end).map(|index| {
        let position = s.position.max(index * PAGE);
        let rows = (s.position + s.rows).min((index + 1) * PAGE) - position;
        PageWrite { page: s.pages[index], slot: position % PAGE, row: s.row + position - s.position, position, rows }
    })
}

/// The tokens of a sequence, some to a task.
fn groups(s: &Segment, size: usize) -> impl Iterator<Item = Group<'_>> {
    (0..s.rows).step_by(size).map(move |first| Group {
        pages: &s.pages,
        row: s.row + first,
        position: s.position + first,
        rows: size.min(s.rows - first),
    })
}
