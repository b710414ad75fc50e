//! Attention over pages against float64.
use super::*;
use crate::machine::memory::Mapped;
use crate::machine::shared::Part;
use crate::machine::team::Team;
use crate::model::kernels::{BLOCK, Kernels, available, definition};

const HEADS: usize = 2;
const LAYERS: usize = 2;

/// Numbers in ±1 that look random.
fn number(seed: usize) -> f32 {
    let mixed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    mixed as f32 / (1 << 23) as f32 - 1.0
}

/// Element `i` of the key (`which` 0) or value (1) of a position of a head.
fn stored(which: usize, head: usize, position: usize, i: usize) -> f32 {
    number(((which * HEADS + head) * 4096 + position) * 128 + i + 1)
}

struct Case {
    kernels: &'static Kernels,
    layout: PageLayout,
    dim: usize,
    keys: usize,
    /// Keys that each query row sees.
    limits: Vec<usize>,
}

impl Case {
    fn query(&self, row: usize) -> Vec<f32> {
        (0..self.dim).map(|i| 3.0 * number(row * 131 + i + 77_777)).collect()
    }

    /// Outputs of all rows for one head, `dim` wide: all at once, and block by block.
    fn run(&self, head: usize) -> [Vec<f32>; 2] {
        let rows = self.limits.len();
        let pages = self.keys.div_ceil(self.layout.page());
        // Pages in another order than positions.
        let table: Vec<u32> = (0..pages as u32).rev().collect();
        let mut bytes = Mapped::zeroed(pages * self.layout.page_bytes()).expect("memory");
        let mut shared = Pages::new(self.kernels, &self.layout, &mut bytes);
        let outcome = std::sync::Mutex::new([Vec::new(), Vec::new()]);
        let mut team = Team::new(1).expect("a thread");
        team.run_shared(&mut shared, |worker, p| {
            let mut s = AttentionScratch::new(&self.layout, QUERY_ROWS).expect("memory");
            worker.for_each(HEADS, |task| {
                let head = task.index();
                // SAFETY: each head is one task's.
                let part = unsafe { Part::of(task, 0..pages, head..head + 1) };
                for position in 0..self.keys {
                    let [key, value] =
                        [0, 1].map(|w| (0..self.dim).map(|i| stored(w, head, position, i)).collect::<Vec<_>>());
                    let page = table[position / p.page()];
                    let at = Slot { page, layer: 1, head, slot: position % p.page() };
                    p.store(&part, at, Row::Float32(&key), Row::Float32(&value), &mut s.rounded_row);
                }
            });
            worker.for_each(1, |task| {
                for row in 0..rows {
                    p.load_query(&mut s.queries, row, Row::Float32(&self.query(row)), self.limits[row]);
                }
                let head = Head { pages: &table, layer: 1, head };
                p.attend(task, head, rows, &mut s);
                let whole = self.normalised(&s.states, &s.outputs);
                let mut states = vec![NOTHING_SEEN; rows];
                let width = self.layout.padded_dim();
                let mut merged = vec![0.0; rows * width];
                for block in 0..self.keys.div_ceil(BLOCK) {
                    let (mut block_states, mut out) = (vec![NOTHING_SEEN; rows], vec![f32::NAN; rows * width]);
                    p.attend_block(task, head, block, &mut s.queries, &mut block_states, &mut out);
                    for row in (0..rows).filter(|&row| block_states[row].1 > 0.0) {
                        let columns = row * width..(row + 1) * width;
                        let to = &mut merged[columns.clone()];
                        (self.kernels.merge)(&mut states[row], to, block_states[row], &out[columns]);
                    }
                }
                *outcome.lock().expect("no panic") = [whole, self.normalised(&states, &merged)];
            });
        })
        .expect("no panic");
        outcome.into_inner().expect("no panic")
    }

    fn normalised(&self, states: &[SoftmaxState], outputs: &[f32]) -> Vec<f32> {
        let rows = outputs.chunks_exact(self.layout.padded_dim()).zip(states).take(self.limits.len());
        rows.flat_map(|(row, state)| row[..self.dim].iter().map(|x| x / state.1).collect::<Vec<_>>()).collect()
    }

    fn exact(&self, head: usize, row: usize) -> Vec<f64> {
        let query = self.query(row);
        let score = |position: usize| {
            let terms = (0..self.dim).map(|i| f64::from(query[i]) * f64::from(stored(0, head, position, i)));
            terms.sum::<f64>().exp2()
        };
        let weights: Vec<f64> = (0..self.limits[row]).map(score).collect();
        let sum: f64 = weights.iter().sum();
        let value = |i: usize| {
            let terms = weights.iter().enumerate().map(|(p, w)| w / sum * f64::from(stored(1, head, p, i)));
            terms.sum()
        };
        (0..self.dim).map(value).collect()
    }
}

#[test]
fn attention_is_the_softmax_of_scores_times_values() {
    let sets: Vec<_> = available().into_iter().chain([definition::TILES]).collect();
    for kernels in sets {
        for format in [KvFormat::Float32, KvFormat::Bfloat16] {
            for (dim, limits) in [(12, vec![1]), (24, vec![1, 2, 3, 63, 64, 65]), (9, vec![255, 300, 256, 257])] {
                let keys = limits.iter().copied().max().expect("rows");
                let layout = PageLayout::new(format, LAYERS, HEADS, dim);
                for layout in [layout.clone(), layout.large()] {
                    let case = Case { kernels, layout, dim, keys, limits: limits.clone() };
                    for head in 0..HEADS {
                        let [whole, blocks] = case.run(head);
                        let what = format!("{} {format:?} {dim} {limits:?}", kernels.name);
                        assert_eq!(whole, blocks, "{what}: all at once and block by block");
                        for (row, given) in whole.chunks_exact(dim).enumerate() {
                            // bfloat16: scores of up to 36 terms of 3, off by a 256th of their size.
                            let tolerance = if format == KvFormat::Float32 { 1e-5 } else { 0.04 };
                            for (given, exact) in given.iter().zip(case.exact(head, row)) {
                                assert!((f64::from(*given) - exact).abs() < tolerance, "{what}: {given} {exact}");
                            }
                        }
                    }
                }
            }
        }
    }
}
