//! The windows of a pass in the order in which the kernels read them.

use std::ops::Range;

use crate::Error;
use crate::machine::vectors::{collected, with_capacity};
use crate::pixels::filters::Filter;
use crate::pixels::windows::{Arithmetic, WindowPass};

/// Bytes in a strip, and rows in a transposed block: what the kernels take at once.
pub(crate) const LANES: usize = 32;

/// Bits of the lower part of a weight that takes more than 16.
pub(crate) const LOW_BITS: u32 = 12;

/// The weights of one pass, packed twice, as instruction sets multiply: in pairs of 16-bit halves, two taps for each
/// i32, once (torch) or in two parts (Pillow: first the part above [`LOW_BITS`], then the part below); and in quads of
/// bytes, four taps for each i32, as many times as the weights have digits to the base 256.
pub(crate) struct Taps {
    windows: Vec<Packed>,
    pairs: Vec<i32>,
    quads: Vec<i32>,
    precision: u32,
    parts: usize,
    digits: usize,
    widest: usize,
}

#[derive(Clone, Copy)]
struct Packed {
    first: usize,
    count: usize,
    pairs: usize,
    quads: usize,
}

impl Taps {
    /// The pass from `inputs` to `outputs` pixels.
    pub(crate) fn new(inputs: usize, outputs: usize, filter: Filter, arithmetic: Arithmetic) -> Result<Self, Error> {
        let pass = WindowPass::new(inputs, outputs, filter, arithmetic)?;
        let parts = if arithmetic == Arithmetic::Pillow { 2 } else { 1 };
        let weights = pass.windows.iter().flat_map(|(_, weights)| weights);
        let digits = weights
            .filter_map(|&weight| to_digits(weight).iter().rposition(|&digit| digit != 0))
            .fold(2, |most, highest| most.max(highest + 1));
        let packed = |taps: usize, parts: usize| {
            pass.windows.iter().map(|(_, weights)| weights.len().div_ceil(taps) * parts).sum::<usize>()
        };
        let (mut pairs, mut quads) = (with_capacity(packed(2, parts))?, with_capacity(packed(4, digits))?);
        let mut windows = with_capacity(outputs)?;
        for (first, weights) in pass.windows.iter() {
            windows.push(Packed { first, count: weights.len(), pairs: pairs.len(), quads: quads.len() });
            for pair in weights.chunks(2) {
                let (a, b) = (pair[0], pair.get(1).copied().unwrap_or(0));
                if parts == 2 {
                    pairs.push(pack(a >> LOW_BITS, b >> LOW_BITS));
                    let low = |weight: i32| weight & ((1 << LOW_BITS) - 1);
                    pairs.push(pack(low(a), low(b)));
                } else {
                    pairs.push(pack(a, b));
                }
            }
            for quad in weights.chunks(4) {
                let weights: [[i8; 3]; 4] = std::array::from_fn(|tap| to_digits(quad.get(tap).copied().unwrap_or(0)));
                for place in (0..digits).rev() {
                    let bytes = weights.map(|weight| weight[place] as u8);
                    quads.push(i32::from_le_bytes(bytes));
                }
            }
        }
        Ok(Self {
            widest: windows.iter().map(|window| window.count).max().unwrap_or(0),
            windows,
            pairs,
            quads,
            precision: pass.precision,
            parts,
            digits,
        })
    }

    /// Some outputs alone, at least one, their inputs counted from `base`.
    pub(super) fn part(&self, outputs: Range<usize>, base: usize) -> Result<Self, Error> {
        let start = self.windows[outputs.start];
        let end = self.windows.get(outputs.end).map_or((self.pairs.len(), self.quads.len()), |w| (w.pairs, w.quads));
        let shift = |window: &Packed| Packed {
            first: window.first - base,
            count: window.count,
            pairs: window.pairs - start.pairs,
            quads: window.quads - start.quads,
        };
        let copy = |weights: &[i32]| collected(weights.len(), weights.iter().copied());
        Ok(Self {
            windows: collected(outputs.len(), self.windows[outputs].iter().map(shift))?,
            pairs: copy(&self.pairs[start.pairs..end.0])?,
            quads: copy(&self.quads[start.quads..end.1])?,
            ..*self
        })
    }

    /// Outputs of the pass.
    pub(crate) fn outputs(&self) -> usize {
        self.windows.len()
    }

    /// The first input of an output.
    pub(crate) fn first(&self, output: usize) -> usize {
        self.windows[output].first
    }

    /// How many inputs an output has.
    pub(crate) fn count(&self, output: usize) -> usize {
        self.windows[output].count
    }

    /// One past the last input of an output.
    pub(crate) fn end(&self, output: usize) -> usize {
        self.first(output) + self.count(output)
    }

    /// The largest number of inputs.
    pub(crate) fn widest(&self) -> usize {
        self.widest
    }

    /// The packed weights of an output: for each pair of taps, as many i32 as there are parts.
    pub(crate) fn pairs(&self, output: usize) -> &[i32] {
        let window = self.windows[output];
        &self.pairs[window.pairs..window.pairs + window.count.div_ceil(2) * self.parts]
    }

    /// The weights of an output as signed digits: for each four taps, as many i32 as there are digits, the highest
    /// first; zeros after the last tap.
    #[allow(dead_code, reason = "for sets that multiply bytes")]
    pub(crate) fn quads(&self, output: usize) -> &[i32] {
        let window = self.windows[output];
        &self.quads[window.quads..window.quads + window.count.div_ceil(4) * self.digits]
    }

    /// Parts of a weight.
    pub(crate) fn parts(&self) -> usize {
        self.parts
    }

    /// Digits of a weight, 2 or 3.
    #[allow(dead_code, reason = "for sets that multiply bytes")]
    pub(crate) fn digits(&self) -> usize {
        self.digits
    }

    /// Fractional bits of the weights.
    pub(crate) fn precision(&self) -> u32 {
        self.precision
    }

    /// One half in the fixed point of the weights.
    pub(crate) fn half(&self) -> i32 {
        1 << (self.precision - 1)
    }
}

fn pack(a: i32, b: i32) -> i32 {
    (a & 0xFFFF) | (b << 16)
}

/// A weight in signed digits to the base 256, the lowest first. Windows are normalised to a sum of 1, so weights stay
/// below 1.99 and three digits hold Pillow's 22 fractional bits.
fn to_digits(weight: i32) -> [i8; 3] {
    let mut rest = weight;
    let digits = std::array::from_fn(|_| {
        let digit = rest as i8;
        rest = (rest - i32::from(digit)) >> 8;
        digit
    });
    debug_assert_eq!(rest, 0, "a weight of {weight}");
    digits
}
