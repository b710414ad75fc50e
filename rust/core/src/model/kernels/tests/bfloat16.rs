//! Arithmetic in bfloat16: rounding, and products against the definition.
use super::*;

/// Sets that multiply in bfloat16.
fn bfloat16_sets() -> impl Iterator<Item = (&'static str, fn(Bfloat16Product<'_>))> {
    fast_sets().into_iter().filter_map(|k| k.bfloat16_product.map(|product| (k.name, product)))
}

#[test]
fn rounding_to_bfloat16() {
    let mut random = Random(11);
    let mut x = random.vec(301, 3.0);
    let special = [
        0.0,
        -0.0,
        1.0 + 1.0 / 256.0,
        1.0 + 3.0 / 256.0,
        -1.0 - 1.0 / 256.0,
        f32::MAX,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::MIN_POSITIVE,
        -f32::MIN_POSITIVE / 3.0,
        f32::from_bits(1),
        f32::from_bits(0x7f80_0001),
        f32::NAN,
        -f32::NAN,
    ];
    x.extend(special);
    let mut expected = vec![0; x.len()];
    definition::round(&x, &mut expected);
    for (x, bits) in x.iter().zip(&expected) {
        let rounded = f32::from_bits(u32::from(*bits) << 16);
        if x.is_nan() {
            assert!(rounded.is_nan());
        } else if x.abs() > 3e38 {
            assert!(rounded.is_infinite() && rounded.signum() == x.signum());
        } else {
            let error = (rounded - x).abs();
            assert!(error <= x.abs() / 256.0 + f32::MIN_POSITIVE && rounded.to_bits() & 0xffff == 0);
        }
    }
    assert_eq!(expected[301 + 2..301 + 4], [0x3f80, 0x3f82], "ties go to even");
    for set in fast_sets() {
        for n in LENGTHS.into_iter().chain([x.len()]) {
            let from = x.len() - n;
            let mut out = vec![1; n];
            (set.round)(&x[from..], &mut out);
            assert_eq!(out, expected[from..], "{} at length {n}", set.name);
        }
    }
}

const SHAPES: [(usize, usize, usize); 19] = [
    (1, 1, 1),
    (1, 32, 1),
    (1, 576, 6),
    (1, 577, 7),
    (2, 64, 3),
    (3, 31, 2),
    (5, 33, 5),
    (6, 588, 4),
    (13, 72, 3),
    (16, 64, 4),
    (17, 96, 5),
    (31, 40, 1),
    (32, 768, 2),
    (33, 64, 3),
    (48, 3, 4),
    (64, 130, 12),
    (65, 32, 2),
    (0, 8, 2),
    (3, 0, 1),
];

/// Operands of a product, with what it may not read behind rows and panels.
struct Operands {
    k: usize,
    panels: usize,
    a: Vec<u16>,
    a_stride: usize,
    w: Vec<u8>,
    w_stride: usize,
    before: Vec<f32>,
    out_stride: usize,
}

impl Operands {
    fn new(random: &mut Random, (rows, k, panels): (usize, usize, usize)) -> Self {
        let (a_stride, out_stride) = (k.next_multiple_of(2) + 4, panels * PANEL + 5);
        let w_stride = panel_bytes(FloatFormat::Bfloat16, k) + 64;
        let mut a = vec![0; rows * a_stride];
        definition::round(&random.vec(rows * a_stride, 1.0), &mut a);
        let mut w = Vec::new();
        for _ in 0..panels {
            w.extend(random_floats(random, FloatFormat::Bfloat16, k, 1));
            w.extend([0xff; 64]);
        }
        for row in a.chunks_exact_mut(a_stride) {
            row[k..k.next_multiple_of(2)].fill(0);
            row[k.next_multiple_of(2)..].fill(0x7fc0);
        }
        w.truncate((panels * w_stride).saturating_sub(64));
        Self { k, panels, a, a_stride, w, w_stride, before: random.vec(rows * out_stride, 1.0), out_stride }
    }

    /// Some rows by a product.
    fn run(&self, product: fn(Bfloat16Product<'_>), first: usize, rows: usize, start: Start<'_>) -> Vec<f32> {
        let mut out = self.before[first * self.out_stride..].to_vec();
        product(Bfloat16Product {
            a: &self.a[first * self.a_stride..],
            a_stride: self.a_stride,
            rows,
            k: self.k,
            w: &self.w,
            w_stride: self.w_stride,
            panels: self.panels,
            out: &mut out,
            out_stride: self.out_stride,
            start,
        });
        out
    }

    /// Element `i` of the result, exact, and the sum of the magnitudes of its terms.
    fn exact(&self, i: usize, start: Start<'_>) -> (f64, f64) {
        let (row, column) = (i / self.out_stride, i % self.out_stride);
        let value = |bits: u16| f64::from(f32::from_bits(u32::from(bits) << 16));
        let terms = (0..self.k).map(|step| {
            let panel = &self.w[column / PANEL * self.w_stride..];
            let weight = definition::weight(panel, FloatFormat::Bfloat16, step, column % PANEL);
            value(self.a[row * self.a_stride + step]) * f64::from(weight)
        });
        let start = match start {
            Start::Zero => 0.0,
            Start::Row(bias) => f64::from(bias[column]),
            Start::Out => f64::from(self.before[i]),
        };
        terms.fold((start, start.abs()), |(exact, size), t| (exact + t, size + t.abs()))
    }
}

#[test]
fn bfloat16_product_equals_the_definition_but_for_the_order_of_the_sums() {
    for (rows, k, panels) in SHAPES {
        let mut random = Random(0xb16 + (rows * 31 + k * 7 + panels) as u64);
        let operands = Operands::new(&mut random, (rows, k, panels));
        let bias = random.vec(panels * PANEL, 1.0);
        let out_stride = operands.out_stride;
        for start in [Start::Zero, Start::Row(&bias), Start::Out] {
            let definition = operands.run(definition::bfloat16_product, 0, rows, start);
            let mut sizes = vec![0.0; definition.len()];
            for (i, to) in sizes.iter_mut().enumerate().filter(|(i, _)| i % out_stride < panels * PANEL) {
                let (exact, size) = operands.exact(i, start);
                *to = size;
                let error = (f64::from(definition[i]) - exact).abs();
                assert!(error <= (k + 2) as f64 * 2_f64.powi(-24) * size, "{rows} {k} {panels}");
            }
            for (name, product) in bfloat16_sets() {
                let given = operands.run(product, 0, rows, start);
                for ((x, d), size) in given.iter().zip(&definition).zip(&sizes) {
                    // Half a unit for each sum, on both sides.
                    let limit = (k + 2) as f64 * 2_f64.powi(-23) * size;
                    assert!((f64::from(*x) - f64::from(*d)).abs() <= limit, "{name} {rows} {k} {panels}: {x} {d}");
                }
                // A row does not depend on its neighbours.
                for (first, count) in (0..rows.min(34)).flat_map(|f| [1, 2, 7, 16, 18, 33].map(|count| (f, count))) {
                    if first + count <= rows {
                        let part = operands.run(product, first, count, start);
                        let range = first * out_stride..(first + count) * out_stride;
                        assert_eq!(part[..count * out_stride], given[range], "{name}");
                    }
                }
            }
        }
    }
}
