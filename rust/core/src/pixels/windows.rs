//! The weights of one pass as Pillow and as torch round them.

use std::ops::Range;

use crate::error::{Error, Result};
use crate::machine::vectors::{collected, with_capacity};
use crate::pixels::filters::Filter;

/// Whose rounding of the weights is reproduced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arithmetic {
    /// Pillow: 22 fractional bits.
    Pillow,
    /// torch, behind torchvision: as many bits as keep the largest weight of the pass within 15.
    Torch,
}

/// For each output pixel of a pass the inputs that it is made of: the first of them, and weights from there on. All
/// weights lie in one piece of memory, since their number comes from outside: a huge one is an error.
#[derive(Clone, Debug)]
pub(crate) struct Windows<T> {
    /// The first input of each window, and the end of its weights.
    spans: Vec<(usize, usize)>,
    weights: Vec<T>,
}

impl<T> Windows<T> {
    /// No windows yet; there will be `outputs`.
    pub(crate) fn new(outputs: usize) -> Result<Self> {
        Ok(Self { spans: with_capacity(outputs)?, weights: Vec::new() })
    }

    /// Adds the window of the next output; gives its weights, to be normalised.
    pub(crate) fn push(&mut self, inputs: Range<usize>, weight: impl FnMut(usize) -> T) -> Result<&mut [T]> {
        let (first, start) = (inputs.start, self.weights.len());
        let refuse = |_| Error::no_memory(inputs.len().saturating_mul(size_of::<T>()));
        self.weights.try_reserve(inputs.len()).map_err(refuse)?;
        self.weights.extend(inputs.map(weight));
        self.spans.push((first, self.weights.len()));
        Ok(&mut self.weights[start..])
    }

    /// The same windows of other weights.
    pub(crate) fn map<U>(self, weight: impl FnMut(T) -> U) -> Result<Windows<U>> {
        let weights = collected(self.weights.len(), self.weights.into_iter().map(weight))?;
        Ok(Windows { spans: self.spans, weights })
    }

    /// Number of outputs.
    pub(crate) fn len(&self) -> usize {
        self.spans.len()
    }

    /// The first input and the weights of each output.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, &[T])> {
        self.spans
            .iter()
            .scan(0, |start, &(first, end)| Some((first, &self.weights[std::mem::replace(start, end)..end])))
    }
}

/// One pass along one dimension: a window for each output, all with the same number of fractional bits.
#[derive(Clone, Debug)]
pub(crate) struct WindowPass {
    /// Fixed-point weights for each output.
    pub(crate) windows: Windows<i32>,
    /// Fractional bits of the weights.
    pub(crate) precision: u32,
}

impl WindowPass {
    /// The pass that takes `inputs` pixels to `outputs`.
    pub(crate) fn new(inputs: usize, outputs: usize, filter: Filter, arithmetic: Arithmetic) -> Result<Self> {
        if arithmetic == Arithmetic::Torch {
            filter.check_torch()?;
        }
        let exact = exact_windows(inputs, outputs, filter)?;
        let precision = match arithmetic {
            Arithmetic::Pillow => 22,
            Arithmetic::Torch => torch_precision(&exact.weights),
        };
        let one = f64::from(1u32 << precision);
        let fixed = |weight: f64| (weight * one + if weight < 0.0 { -0.5 } else { 0.5 }) as i32;
        Ok(Self { windows: exact.map(fixed)?, precision })
    }
}

/// The most bits, below 22, with which the largest weight stays within an int16.
fn torch_precision(weights: &[f64]) -> u32 {
    let largest = weights.iter().fold(0.0, |largest: f64, &weight| largest.max(weight));
    let fits = |precision: u32| ((0.5 + largest * f64::from(1u32 << precision)) as i64) < 1 << 15;
    (0..22).find(|&precision| !fits(precision + 1)).unwrap_or(22)
}

/// The windows in float64; the weights of each add up to 1.
fn exact_windows(inputs: usize, outputs: usize, filter: Filter) -> Result<Windows<f64>> {
    let scale = inputs as f64 / outputs as f64;
    let stretch = scale.max(1.0);
    let (support, shrink) = (filter.support() * stretch, 1.0 / stretch);
    let mut windows = Windows::new(outputs)?;
    for output in 0..outputs {
        let center = (output as f64 + 0.5) * scale;
        let first = (center - support + 0.5).max(0.0) as usize;
        let end = ((center + support + 0.5) as usize).min(inputs);
        let weights = windows.push(first..end, |input| filter.at((input as f64 - center + 0.5) * shrink))?;
        let sum: f64 = weights.iter().sum();
        if sum != 0.0 {
            weights.iter_mut().for_each(|weight| *weight /= sum);
        }
    }
    Ok(windows)
}

/// Which pass comes first; the rounding between them makes it visible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PassOrder {
    /// Horizontal, then vertical.
    WidthFirst,
    /// Vertical, then horizontal.
    HeightFirst,
}

impl PassOrder {
    /// torch always takes the width first; Pillow (13 and later) takes the height first where it loses more than
    /// twice as many rows as the width loses columns.
    pub(crate) fn of(from: (usize, usize), to: (usize, usize), arithmetic: Arithmetic) -> Self {
        let lost_rows = from.0 as i64 - to.0 as i64;
        let lost_columns = from.1 as i64 - to.1 as i64;
        if arithmetic == Arithmetic::Pillow && lost_rows > 0 && lost_rows > 2 * lost_columns {
            Self::HeightFirst
        } else {
            Self::WidthFirst
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    fn windows(inputs: usize, outputs: usize, code: u8, arithmetic: Arithmetic) -> WindowPass {
        WindowPass::new(inputs, outputs, Filter::from_code(code).expect("a filter"), arithmetic).expect("defined")
    }

    /// What Pillow 12 and torch 2.9 give for pictures with one bright pixel, in fixed point.
    #[test]
    fn weights_are_those_of_the_references() {
        let pillow: [(usize, usize, u8, [&[i32]; 2]); 5] = [
            (
                10,
                4,
                1,
                [
                    &[1510157, 1756068, 1087313, 167795, -254566, -148864, 30820, 43493, 2088],
                    &[-236639, 155979, 1010745, 1632407, 1403812, 558321, -117907, -224610, -39520, 51716],
                ],
            ),
            (10, 4, 2, [&[1334551, 1715852, 953251, 190650], &[0, 167772, 838861, 1509949, 1174405, 503316]]),
            (3, 5, 3, [&[4510855, -316551], &[2723168, 1658941, -187805]]),
            (10, 4, 4, [&[1398101, 1398101, 1398101], &[0, 0, 0, 2097152, 2097152]]),
            (10, 4, 5, [&[1450067, 2004266, 716616, 23355], &[0, 22258, 682949, 1910105, 1381943, 197049]]),
        ];
        for (inputs, outputs, code, expected) in pillow {
            // Pillow shows its weights as float32, which do not determine the last bit.
            check(&windows(inputs, outputs, code, Arithmetic::Pillow), 22, expected, 1);
        }
        let torch = windows(10, 4, 2, Arithmetic::Torch);
        check(&torch, 16, [&[20852, 26810, 14895, 2979], &[0, 2621, 13107, 23593, 18350, 7864]], 0);
        check(&windows(3, 5, 3, Arithmetic::Torch), 14, [&[17621, -1237], &[10637, 6480, -734]], 0);
    }

    fn check(pass: &WindowPass, precision: u32, expected: [&[i32]; 2], tolerance: u32) {
        assert_eq!(pass.precision, precision);
        for ((first, weights), expected) in pass.windows.iter().zip(expected) {
            // Weights of zero at the edges may belong to the window or not.
            let mut dense = vec![0; first];
            dense.extend(weights);
            let length = dense.len().max(expected.len());
            let at = |weights: &[i32], input: usize| weights.get(input).copied().unwrap_or(0);
            let close = |input| at(&dense, input).abs_diff(at(expected, input)) <= tolerance;
            assert!((0..length).all(close), "{dense:?} {expected:?}");
        }
    }

    #[test]
    fn torch_lacks_box_and_hamming() {
        for code in 0..6 {
            let filter = Filter::from_code(code).expect("a filter");
            let torch = WindowPass::new(8, 3, filter, Arithmetic::Torch).map(|_| ());
            assert_eq!(torch.is_err(), code > 3, "{filter:?}");
        }
        let unknown = Filter::from_code(6).map(|_| ()).map_err(|error| error.to_string());
        let all = "0 (nearest), 1 (Lanczos), 2 (bilinear), 3 (bicubic), 4 (box), 5 (Hamming)";
        assert_eq!(unknown, Err(format!("resample must be one of {all}, got 6")));
    }

    #[test]
    fn too_many_inputs_or_outputs_are_an_error() {
        let filter = Filter::from_code(2).expect("bilinear");
        for arithmetic in [Arithmetic::Pillow, Arithmetic::Torch] {
            for (inputs, outputs) in [(3, usize::MAX / 64), (usize::MAX / 64, 3), (usize::MAX, usize::MAX)] {
                let refused = WindowPass::new(inputs, outputs, filter, arithmetic).map(|_| ());
                assert_eq!(refused.map_err(|error| error.kind()), Err(ErrorKind::Memory), "{inputs} to {outputs}");
            }
        }
    }

    #[test]
    fn pillow_takes_the_height_first_where_it_shrinks_far_more() {
        let order = |from, to| PassOrder::of(from, to, Arithmetic::Pillow);
        assert_eq!(order((100, 100), (10, 60)), PassOrder::HeightFirst);
        assert_eq!(order((100, 100), (20, 60)), PassOrder::WidthFirst);
        assert_eq!(order((100, 100), (10, 120)), PassOrder::HeightFirst);
        assert_eq!(order((10, 100), (100, 300)), PassOrder::WidthFirst);
        assert_eq!(PassOrder::of((100, 100), (10, 60), Arithmetic::Torch), PassOrder::WidthFirst);
    }
}
