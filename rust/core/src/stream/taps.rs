//! The windows of a pass in the order in which the kernels read them.

use crate::Error;
use crate::resize::{Arithmetic, Filter, Pass};

/// Bits of the lower part of a weight that takes more than 16.
pub const LOW_BITS: u32 = 12;

/// The weights of one pass, packed in pairs of 16-bit halves: two taps for each i32, once (torch) or in two parts
/// (Pillow: first the part above [`LOW_BITS`], then the part below).
pub struct Taps {
    windows: Vec<Packed>,
    pairs: Vec<i32>,
    precision: u32,
    parts: usize,
    widest: usize,
}

#[derive(Clone, Copy)]
struct Packed {
    first: usize,
    count: usize,
    offset: usize,
}

impl Taps {
    /// The pass from `inputs` to `outputs` pixels.
    pub fn new(
        inputs: usize,
        outputs: usize,
        filter: Filter,
        arithmetic: Arithmetic,
    ) -> Result<Self, Error> {
        let pass = Pass::new(inputs, outputs, filter, arithmetic)?;
        let parts = if arithmetic == Arithmetic::Pillow {
            2
        } else {
            1
        };
        let mut taps = Self {
            windows: Vec::new(),
            pairs: Vec::new(),
            precision: pass.precision,
            parts,
            widest: 0,
        };
        for window in &pass.windows {
            let (count, offset) = (window.weights.len(), taps.pairs.len());
            taps.windows.push(Packed {
                first: window.first,
                count,
                offset,
            });
            taps.widest = taps.widest.max(count);
            for pair in window.weights.chunks(2) {
                let (a, b) = (pair[0], pair.get(1).copied().unwrap_or(0));
                if parts == 2 {
                    taps.pairs.push(pack(a >> LOW_BITS, b >> LOW_BITS));
                    let low = |weight: i32| weight & ((1 << LOW_BITS) - 1);
                    taps.pairs.push(pack(low(a), low(b)));
                } else {
                    taps.pairs.push(pack(a, b));
                }
            }
        }
        Ok(taps)
    }

    /// Outputs of the pass.
    pub fn outputs(&self) -> usize {
        self.windows.len()
    }

    /// The first input of an output.
    pub fn first(&self, output: usize) -> usize {
        self.windows[output].first
    }

    /// How many inputs an output has.
    pub fn count(&self, output: usize) -> usize {
        self.windows[output].count
    }

    /// One past the last input of an output.
    pub fn end(&self, output: usize) -> usize {
        self.first(output) + self.count(output)
    }

    /// The largest number of inputs.
    pub fn widest(&self) -> usize {
        self.widest
    }

    /// The packed weights of an output: for each pair of taps, as many i32 as there are parts.
    pub fn pairs(&self, output: usize) -> &[i32] {
        let window = self.windows[output];
        &self.pairs[window.offset..window.offset + window.count.div_ceil(2) * self.parts]
    }

    /// The weights of an output, one after the other.
    pub fn weights(&self, output: usize) -> impl Iterator<Item = i32> {
        let half =
            |packed: i32, second: bool| i32::from((packed >> if second { 16 } else { 0 }) as i16);
        let parts = self.parts;
        let weight = move |pair: &[i32], second: bool| match parts {
            1 => half(pair[0], second),
            _ => (half(pair[0], second) << LOW_BITS) + half(pair[1], second),
        };
        let pairs = self.pairs(output).chunks_exact(parts);
        pairs
            .flat_map(move |pair| [weight(pair, false), weight(pair, true)])
            .take(self.count(output))
    }

    /// Parts of a weight.
    pub fn parts(&self) -> usize {
        self.parts
    }

    /// Fractional bits of the weights.
    pub fn precision(&self) -> u32 {
        self.precision
    }

    /// One half in the fixed point of the weights.
    pub fn half(&self) -> i32 {
        1 << (self.precision - 1)
    }
}

fn pack(a: i32, b: i32) -> i32 {
    (a & 0xFFFF) | (b << 16)
}
