//! The weights of one pass as Pillow and as torch round them.

use crate::Error;
use crate::machine::vectors::collected;
use crate::pixels::filters::Filter;

/// Whose rounding of the weights is reproduced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arithmetic {
    /// Pillow: 22 fractional bits.
    Pillow,
    /// torch, behind torchvision: as many bits as keep the largest weight of the pass within 15.
    Torch,
}

/// The inputs that one output pixel is made of.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    /// Index of the first input.
    pub first: usize,
    /// Fixed-point weights, one for each input from `first` on.
    pub weights: Vec<i32>,
}

/// One pass along one dimension: a window for each output, all with the same number of fractional bits.
#[derive(Clone, Debug)]
pub(crate) struct WindowPass {
    /// One for each output.
    pub windows: Vec<Window>,
    /// Fractional bits of the weights.
    pub precision: u32,
}

impl WindowPass {
    /// The pass that takes `inputs` pixels to `outputs`.
    pub(crate) fn new(inputs: usize, outputs: usize, filter: Filter, arithmetic: Arithmetic) -> Result<Self, Error> {
        if arithmetic == Arithmetic::Torch {
            filter.check_torch()?;
        }
        let exact = (0..outputs).map(|output| exact_window(output, inputs, outputs, filter));
        let exact: Vec<(usize, Vec<f64>)> = collected(outputs, exact)?;
        let precision = match arithmetic {
            Arithmetic::Pillow => 22,
            Arithmetic::Torch => torch_precision(exact.iter().flat_map(|(_, weights)| weights)),
        };
        let one = f64::from(1u32 << precision);
        let fixed = |weight: f64| (weight * one + if weight < 0.0 { -0.5 } else { 0.5 }) as i32;
        let window =
            |(first, weights): (usize, Vec<f64>)| Window { first, weights: weights.into_iter().map(fixed).collect() };
        Ok(Self { windows: collected(outputs, exact.into_iter().map(window))?, precision })
    }
}

/// The most bits, below 22, with which the largest weight stays within an int16.
fn torch_precision<'a>(weights: impl Iterator<Item = &'a f64>) -> u32 {
    let largest = weights.fold(0.0, |largest: f64, &weight| largest.max(weight));
    let fits = |precision: u32| ((0.5 + largest * f64::from(1u32 << precision)) as i64) < 1 << 15;
    (0..22).find(|&precision| !fits(precision + 1)).unwrap_or(22)
}

/// The first input and the weights of one output, in float64; they add up to 1.
fn exact_window(output: usize, inputs: usize, outputs: usize, filter: Filter) -> (usize, Vec<f64>) {
    let scale = inputs as f64 / outputs as f64;
    let stretch = scale.max(1.0);
    let support = filter.support() * stretch;
    let center = (output as f64 + 0.5) * scale;
    let first = (center - support + 0.5).max(0.0) as usize;
    let end = ((center + support + 0.5) as usize).min(inputs);
    let shrink = 1.0 / stretch;
    let mut weights: Vec<f64> = (first..end).map(|input| filter.at((input as f64 - center + 0.5) * shrink)).collect();
    let sum: f64 = weights.iter().sum();
    if sum != 0.0 {
        weights.iter_mut().for_each(|weight| *weight /= sum);
    }
    (first, weights)
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
        for (window, expected) in pass.windows.iter().zip(expected) {
            // Weights of zero at the edges may belong to the window or not.
            let mut dense = vec![0; window.first];
            dense.extend(&window.weights);
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
    fn too_many_outputs_are_an_error() {
        let filter = Filter::from_code(2).expect("bilinear");
        assert!(WindowPass::new(3, usize::MAX / 64, filter, Arithmetic::Pillow).is_err());
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
