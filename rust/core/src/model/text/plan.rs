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

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> TextConfig {
        TextConfig {
            hidden_size: 36,
            intermediate_size: 70,
            num_hidden_layers: 2,
            num_attention_heads: 9,
            num_key_value_heads: 3,
            head_dim: 12,
            vocab_size: 83,
            max_position_embeddings: 640,
            rope_theta: 10_000.0,
            rms_norm_eps: 1e-5,
            tie_word_embeddings: true,
        }
    }

    /// Segments that begin at a position and have some tokens; page `100 * sequence + n` is the n-th of a sequence.
    fn segments(of: &[(usize, usize)]) -> Vec<Segment> {
        let mut row = 0;
        let segment = |(sequence, &(position, rows)): (usize, &(usize, usize))| {
            let pages = (0..(position + rows).div_ceil(PAGE)).map(|n| (100 * sequence + n) as u32).collect();
            row += rows;
            Segment { pages, position, row: row - rows, rows }
        };
        of.iter().enumerate().map(segment).collect()
    }

    #[test]
    fn every_token_is_written_once_and_attends_once() {
        for of in [&[(0, 1)][..], &[(63, 2)], &[(0, 300), (130, 1), (64, 64)], &[(511, 1), (5, 3)]] {
            let segments = segments(of);
            let plan = Plan::new(&config(), &segments);
            assert_eq!(plan.rows, of.iter().map(|(_, rows)| rows).sum::<usize>());
            let writes = plan.page_writes.iter().flat_map(|w| {
                assert!(w.slot + w.rows <= PAGE && w.page as usize % 100 == w.position / PAGE);
                (0..w.rows).map(|i| (w.row + i, w.position + i))
            });
            let groups = plan.groups.iter().flat_map(|g| {
                assert!(g.rows * config().group() <= QUERY_ROWS);
                (0..g.rows).map(|i| (g.row + i, g.position + i))
            });
            let expected = segments.iter().flat_map(|s| (0..s.rows).map(|i| (s.row + i, s.position + i)));
            assert!(writes.eq(expected.clone()) && groups.eq(expected.clone()), "{of:?}");
            for (row, position) in expected {
                let token = plan.token(row);
                assert_eq!((token.row, token.position, token.rows), (row, position, 1));
            }
        }
    }

    #[test]
    fn few_tokens_with_many_keys_are_split_into_blocks_of_keys() {
        let split = |of: &[(usize, usize)]| Plan::new(&config(), &segments(of)).split;
        assert_eq!(split(&[(BLOCK - 1, 1)]), 0, "one block");
        assert_eq!(split(&[(BLOCK, 1)]), 2);
        assert_eq!(split(&[(3, 2), (2 * BLOCK, SPLIT_ROWS - 2)]), 3);
        assert_eq!(split(&[(2 * BLOCK, SPLIT_ROWS + 1)]), 0, "enough tokens for all threads");
    }
}
