//! Every kernel of every instruction set against the scalar definition, and the definition against float64.
use super::*;

/// Numbers in [-1, 1) from a fixed sequence.
pub(crate) struct Random(pub u64);

impl Random {
    pub fn unit(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
    pub fn vec(&mut self, n: usize, scale: f32) -> Vec<f32> {
        (0..n).map(|_| self.unit() * scale).collect()
    }
}

const LENGTHS: [usize; 9] = [1, 2, 7, 8, 9, 63, 64, 123, 257];
static FUSED: Kernels = scalar::kernels::<true>("scalar, fused");

fn fast_sets() -> Vec<&'static Kernels> {
    available()
        .into_iter()
        .filter(|k| k.name != "scalar")
        .collect()
}

fn random_panels(random: &mut Random, dtype: Dtype, k: usize, panels: usize) -> Vec<u8> {
    let n = panels * k.next_multiple_of(2) * PANEL;
    match dtype {
        Dtype::Float32 => random
            .vec(n, 1.0)
            .iter()
            .flat_map(|x| x.to_le_bytes())
            .collect(),
        Dtype::Bfloat16 => random
            .vec(n, 1.0)
            .iter()
            .flat_map(|x| ((x.to_bits() >> 16) as u16).to_le_bytes())
            .collect(),
        Dtype::Int8 => (0..panels)
            .flat_map(|_| 0..k.div_ceil(GROUP))
            .flat_map(|group| {
                let mut bytes: Vec<u8> = random
                    .vec(PANEL, 0.01)
                    .iter()
                    .flat_map(|x| x.to_le_bytes())
                    .collect();
                let steps = (k - group * GROUP).min(GROUP).next_multiple_of(4);
                bytes.extend(
                    random
                        .vec(steps * PANEL, 127.9)
                        .iter()
                        .map(|&x| x as i8 as u8),
                );
                bytes
            })
            .collect(),
    }
}

fn run(
    kernels: &Kernels,
    dtype: Dtype,
    (rows, k, panels): (usize, usize, usize),
    accumulate: bool,
) -> (Vec<f32>, Vec<f64>) {
    let mut random = Random(0x9e37_79b9 + (rows * 31 + k * 7 + panels) as u64);
    let (a_stride, out_stride) = (k + 3, panels * PANEL + 5);
    let a = random.vec(rows * a_stride, 1.0);
    let w = random_panels(&mut random, dtype, k, panels);
    let mut out = random.vec(rows * out_stride, 1.0);
    let w_stride = dtype.panel_bytes(k);
    let mut exact: Vec<f64> = out.iter().map(|&x| f64::from(x)).collect();
    for r in 0..rows {
        for c in 0..panels * PANEL {
            let start = if accumulate {
                exact[r * out_stride + c]
            } else {
                0.0
            };
            exact[r * out_stride + c] = start
                + (0..k)
                    .map(|i| {
                        let w = scalar::weight(&w[c / PANEL * w_stride..], dtype, i, c % PANEL);
                        f64::from(a[r * a_stride + i]) * f64::from(w)
                    })
                    .sum::<f64>();
        }
    }
    let mut scratch = vec![f32::NAN; RUN * PANEL];
    (kernels.product)(Product {
        a: &a,
        a_stride,
        rows,
        k,
        w: &w,
        w_stride,
        dtype,
        panels,
        out: &mut out,
        out_stride,
        accumulate,
        scratch: &mut scratch,
    });
    (out, exact)
}

#[test]
fn product_equals_the_definition_bit_for_bit() {
    let shapes = [
        (1, 1, 1),
        (1, 64, 3),
        (1, 577, 4),
        (1, 31, 7),
        (1, 300, 15),
        (2, 65, 3),
        (2, 140, 6),
        (3, 64, 4),
        (3, 129, 3),
        (4, 100, 2),
        (5, 3, 1),
        (6, 64, 4),
    ];
    let large = [
        (7, 257, 2),
        (8, 130, 2),
        (11, 200, 3),
        (12, 600, 3),
        (13, 200, 3),
        (48, 72, 5),
        (49, 513, 1),
        (0, 8, 2),
        (3, 0, 1),
    ];
    for shape in shapes.into_iter().chain(large) {
        for dtype in [Dtype::Float32, Dtype::Bfloat16] {
            for accumulate in [false, true] {
                let (fused, exact) = run(&FUSED, dtype, shape, accumulate);
                let scale = exact.iter().fold(1.0, |m: f64, x| m.max(x.abs()));
                for (x, e) in fused.iter().zip(&exact) {
                    assert!(
                        (f64::from(*x) - e).abs() <= 2e-6 * scale,
                        "{dtype:?} {shape:?}: {x} {e}"
                    );
                }
                let (portable, _) = run(&scalar::KERNELS, dtype, shape, accumulate);
                for (x, e) in portable.iter().zip(&exact) {
                    assert!(
                        (f64::from(*x) - e).abs() <= 2e-6 * scale,
                        "{dtype:?} {shape:?}: {x} {e}"
                    );
                }
                for set in fast_sets() {
                    assert_eq!(
                        run(set, dtype, shape, accumulate).0,
                        fused,
                        "{} {dtype:?} {shape:?}",
                        set.name
                    );
                }
            }
        }
    }
}

#[test]
fn a_row_does_not_depend_on_its_neighbours() {
    for set in available() {
        for dtype in [Dtype::Float32, Dtype::Bfloat16] {
            let (k, panels) = (321, 5);
            let mut random = Random(7);
            let a = random.vec(13 * k, 1.0);
            let w = random_panels(&mut random, dtype, k, panels);
            let product = |a: &[f32], rows: usize| {
                let mut out = vec![0.0; rows * panels * PANEL];
                (set.product)(Product {
                    a,
                    a_stride: k,
                    rows,
                    k,
                    w: &w,
                    w_stride: dtype.panel_bytes(k),
                    dtype,
                    panels,
                    out: &mut out,
                    out_stride: panels * PANEL,
                    accumulate: false,
                    scratch: &mut vec![0.0; RUN * PANEL],
                });
                out
            };
            let all = product(&a, 13);
            for rows in [1, 2, 3, 4, 5, 8] {
                assert_eq!(
                    product(&a[5 * k..], rows),
                    all[5 * panels * PANEL..(5 + rows) * panels * PANEL],
                    "{}",
                    set.name
                );
            }
        }
    }
}

/// Sets that multiply in bfloat16.
fn bfloat16_sets() -> impl Iterator<Item = (&'static str, fn(Bfloat16Product<'_>))> {
    fast_sets()
        .into_iter()
        .filter_map(|k| k.bfloat16_product.map(|product| (k.name, product)))
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
    scalar::round(&x, &mut expected);
    for (x, bits) in x.iter().zip(&expected) {
        let rounded = f32::from_bits(u32::from(*bits) << 16);
        if x.is_nan() {
            assert!(rounded.is_nan());
        } else if x.abs() > 3e38 {
            assert!(rounded.is_infinite() && rounded.signum() == x.signum());
        } else {
            let error = (rounded - x).abs();
            assert!(
                error <= x.abs() / 256.0 + f32::MIN_POSITIVE && rounded.to_bits() & 0xffff == 0
            );
        }
    }
    assert_eq!(
        expected[301 + 2..301 + 4],
        [0x3f80, 0x3f82],
        "ties go to even"
    );
    for set in fast_sets() {
        for n in LENGTHS.into_iter().chain([x.len()]) {
            let from = x.len() - n;
            let mut out = vec![1; n];
            (set.round)(&x[from..], &mut out);
            assert_eq!(out, expected[from..], "{} at length {n}", set.name);
        }
    }
}

#[test]
fn bfloat16_product_equals_the_definition_but_for_the_order_of_the_sums() {
    let shapes: [(usize, usize, usize); 19] = [
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
    for (rows, k, panels) in shapes {
        let mut random = Random(0xb16 + (rows * 31 + k * 7 + panels) as u64);
        let (a_stride, out_stride) = (k.next_multiple_of(2) + 4, panels * PANEL + 5);
        let w_stride = Dtype::Bfloat16.panel_bytes(k) + 64;
        let mut a = vec![0; rows * a_stride];
        scalar::round(&random.vec(rows * a_stride, 1.0), &mut a);
        let mut w: Vec<u8> = (0..panels)
            .flat_map(|_| {
                let mut panel = random_panels(&mut random, Dtype::Bfloat16, k, 1);
                // What lies behind a panel is nothing that the product may read.
                panel.extend([0xff; 64]);
                panel
            })
            .collect();
        if k % 2 == 1 {
            for row in a.chunks_exact_mut(a_stride) {
                row[k] = 0;
            }
        }
        // Nor is what lies behind a row.
        for row in a.chunks_exact_mut(a_stride) {
            row[k.next_multiple_of(2)..].fill(0x7fc0);
        }
        w.truncate((panels * w_stride).saturating_sub(64));
        let before = random.vec(rows * out_stride, 1.0);
        let bias = random.vec(panels * PANEL, 1.0);
        for begin in [Start::Zero, Start::Row(&bias), Start::Out] {
            let run = |product: fn(Bfloat16Product<'_>), first: usize, rows: usize| {
                let mut out = before[first * out_stride..].to_vec();
                product(Bfloat16Product {
                    a: &a[first * a_stride..],
                    a_stride,
                    rows,
                    k,
                    w: &w,
                    w_stride,
                    panels,
                    out: &mut out,
                    out_stride,
                    start: begin,
                });
                out
            };
            let definition = run(scalar::bfloat16_product, 0, rows);
            let mut sizes = vec![0.0; definition.len()];
            for (i, most) in sizes.iter_mut().enumerate() {
                let (row, column) = (i / out_stride, i % out_stride);
                if column >= panels * PANEL {
                    continue;
                }
                let value = |bits: u16| f64::from(f32::from_bits(u32::from(bits) << 16));
                let terms = (0..k).map(|step| {
                    let panel = &w[column / PANEL * w_stride..];
                    let weight = scalar::weight(panel, Dtype::Bfloat16, step, column % PANEL);
                    value(a[row * a_stride + step]) * f64::from(weight)
                });
                let start = match begin {
                    Start::Zero => 0.0,
                    Start::Row(bias) => f64::from(bias[column]),
                    Start::Out => f64::from(before[i]),
                };
                let (exact, size) =
                    terms.fold((start, start.abs()), |(e, s), t| (e + t, s + t.abs()));
                *most = size;
                let error = (f64::from(definition[i]) - exact).abs();
                assert!(
                    error <= (k + 2) as f64 * 2_f64.powi(-24) * size,
                    "{rows} {k} {panels}"
                );
            }
            for (name, product) in bfloat16_sets() {
                let given = run(product, 0, rows);
                for ((x, d), size) in given.iter().zip(&definition).zip(&sizes) {
                    // Half a unit for each sum, on both sides.
                    let most = (k + 2) as f64 * 2_f64.powi(-23) * size;
                    assert!(
                        (f64::from(*x) - f64::from(*d)).abs() <= most,
                        "{name} {rows} {k} {panels}: {x} {d}"
                    );
                }
                // A row does not depend on its neighbours.
                for first in 0..rows.min(34) {
                    for count in [1, 2, 7, 16, 18, 33] {
                        if first + count <= rows {
                            let part = run(product, first, count);
                            let range = first * out_stride..(first + count) * out_stride;
                            assert_eq!(part[..count * out_stride], given[range], "{name}");
                        }
                    }
                }
            }
        }
    }
}

/// Quantized rows of a matrix, row-major, and their scales.
fn quantized(kernels: &Kernels, a: &[f32], k: usize) -> (Vec<i16>, Vec<f32>) {
    let (width, groups) = (k.next_multiple_of(2), k.div_ceil(GROUP));
    let rows = a.len() / k;
    let (mut values, mut scales) = (vec![-1; rows * width], vec![-1.0; rows * groups]);
    for row in 0..rows {
        (kernels.quantize)(
            &a[row * k..(row + 1) * k],
            &mut values[row * width..(row + 1) * width],
            &mut scales[row * groups..(row + 1) * groups],
        );
    }
    (values, scales)
}

/// The product of rows that `quantized` gave.
fn integer(
    kernels: &Kernels,
    rows: &[i16],
    a_scale: &[f32],
    w: &[u8],
    k: usize,
    panels: usize,
) -> Vec<f32> {
    let width = k.next_multiple_of(2);
    let count = rows.len() / width;
    let (block, len) = (kernels.integers.row_block(), kernels.integers.block_len(k));
    let mut a = vec![0x55aa; count.div_ceil(block) * len];
    for (i, row) in rows.chunks_exact(width).enumerate() {
        (kernels.place)(
            row,
            i % block,
            &mut a[i / block * len..(i / block + 1) * len],
        );
    }
    let mut w = w.to_vec();
    for panel in w.chunks_exact_mut(Dtype::Int8.panel_bytes(k)) {
        for group in panel.chunks_mut(GROUP_BYTES) {
            let before = group.to_vec();
            for i in 0..group.len() - SCALE_BYTES {
                let (step, column) = (i / PANEL, i % PANEL);
                group[SCALE_BYTES + kernels.integers.weight_index(step, column)] =
                    before[SCALE_BYTES + Integers::Pairs.weight_index(step, column)];
            }
        }
    }
    w.resize(w.len() + kernels.integers.slack(), 0x7f);
    let mut out = vec![f32::NAN; count * panels * PANEL];
    (kernels.integer_product)(IntegerProduct {
        a: &a,
        a_scale,
        rows: count,
        k,
        w: &w,
        panels,
        out: &mut out,
        scratch: &mut [0; GROUP * PANEL],
    });
    out
}

#[test]
fn integer_product_equals_the_definition_bit_for_bit() {
    let shapes = [
        (1, 1, 1),
        (1, 576, 4),
        (1, 577, 3),
        (1, 130, 15),
        (2, 129, 3),
        (2, 260, 6),
        (3, 140, 3),
        (3, 64, 4),
        (4, 255, 2),
        (5, 3, 1),
    ];
    for (rows, k, panels) in shapes.into_iter().chain([
        (6, 640, 2),
        (8, 33, 2),
        (11, 257, 2),
        (12, 128, 1),
        (13, 300, 3),
        (50, 128, 1),
    ]) {
        let mut random = Random(0x1357 + (rows * 31 + k * 7 + panels) as u64);
        let a = random.vec(rows * k, 3.0);
        let w = random_panels(&mut random, Dtype::Int8, k, panels);
        let (values, scales) = quantized(&FUSED, &a, k);
        let fused = integer(&FUSED, &values, &scales, &w, k, panels);
        for (i, got) in fused.iter().enumerate() {
            let (row, column) = (i / (panels * PANEL), i % (panels * PANEL));
            let panel = &w[column / PANEL * Dtype::Int8.panel_bytes(k)..];
            let terms = (0..k).map(|k_| {
                let scale = scalar::group_scale(panel, k_ / GROUP, column % PANEL);
                let weight = scalar::weight(panel, Dtype::Int8, k_, column % PANEL);
                f64::from(a[row * k + k_]) * f64::from(weight) * f64::from(scale)
            });
            let (exact, size) = terms.fold((0.0, 0.0), |(e, s), t| (e + t, s + t.abs()));
            // Half a step of 3 / 16383 for an activation of 1.5 on average, and the roundings of the sums.
            let error = (f64::from(*got) - exact).abs();
            assert!(error <= 3e-4 * size, "{rows} {k} {panels}: {got} {exact}");
        }
        for set in fast_sets() {
            assert_eq!(
                quantized(set, &a, k),
                (values.clone(), scales.clone()),
                "{}",
                set.name
            );
            let given = integer(set, &values, &scales, &w, k, panels);
            assert_eq!(given, fused, "{} {rows} {k} {panels}", set.name);
        }
        let portable = integer(&scalar::KERNELS, &values, &scales, &w, k, panels);
        let size = fused.iter().fold(0.0_f32, |m, x| m.max(x.abs()));
        for (x, f) in portable.iter().zip(&fused) {
            assert!((x - f).abs() <= 1e-6 * size, "{x} {f}");
        }
        // A row does not depend on its neighbours.
        let (width, groups) = (k.next_multiple_of(2), k.div_ceil(GROUP));
        for set in available() {
            let last = integer(
                set,
                &values[(rows - 1) * width..],
                &scales[(rows - 1) * groups..],
                &w,
                k,
                panels,
            );
            let all = integer(set, &values, &scales, &w, k, panels);
            assert_eq!(last, all[(rows - 1) * panels * PANEL..], "{}", set.name);
        }
    }
}

#[test]
fn widened_weights_are_the_nearest_bfloat16() {
    for k in [1, 2, 31, 128, 130, 300] {
        let mut random = Random(0x51de + k as u64);
        let panel = random_panels(&mut random, Dtype::Int8, k, 1);
        let inputs: Vec<f32> = (0..k).map(|i| [1.0, 0.5, 0.25][i % 3]).collect();
        let mut expected = vec![0; Dtype::Bfloat16.panel_bytes(k)];
        scalar::widen(&panel, &inputs, &mut expected);
        for (step, column) in (0..k).flat_map(|s| (0..PANEL).map(move |c| (s, c))) {
            let weight = scalar::weight(&panel, Dtype::Int8, step, column)
                * scalar::group_scale(&panel, step / GROUP, column)
                * inputs[step];
            let given = scalar::weight(&expected, Dtype::Bfloat16, step, column);
            assert!(
                (given - weight).abs() <= weight.abs() / 256.0,
                "{step} {column} of {k}"
            );
        }
        for set in fast_sets() {
            let mut out = vec![0xff; expected.len()];
            (set.widen)(&panel, &inputs, &mut out);
            // What lies behind an odd `k` is multiplied by a zero.
            for (i, (got, want)) in out.iter().zip(&expected).enumerate() {
                let step = i / (4 * PANEL) * 2 + i % 4 / 2;
                assert!(step >= k || got == want, "{} {k}: byte {i}", set.name);
            }
        }
    }
}

#[test]
fn the_largest_integer_sums_do_not_overflow() {
    let mut w = vec![0; Dtype::Int8.panel_bytes(GROUP)];
    for (i, scale) in w[..SCALE_BYTES].chunks_exact_mut(4).enumerate() {
        scale.copy_from_slice(&(i as f32).to_le_bytes());
    }
    w[SCALE_BYTES..].fill(-127_i8 as u8);
    for rows in [1, 6] {
        let a = vec![-QUANTIZED_MAX; rows * GROUP];
        for set in available() {
            let given = integer(set, &a, &vec![1.0; rows], &w, GROUP, 1);
            let sum = (GROUP as i32 * 127 * i32::from(QUANTIZED_MAX)) as f32;
            for (i, x) in given.iter().enumerate() {
                assert_eq!(*x, sum * (i % PANEL) as f32, "{}", set.name);
            }
        }
    }
}

#[test]
fn quantization_keeps_zeros_and_shows_what_is_not_finite() {
    for set in available() {
        let mut a = vec![0.25; 3 * GROUP + 1];
        a[..GROUP].fill(0.0);
        a[GROUP + 3] = f32::NAN;
        a[2 * GROUP + 3] = f32::NEG_INFINITY;
        a[3 * GROUP] = -7.0;
        let (values, scales) = quantized(set, &a, a.len());
        assert!(
            scales[0] == 0.0 && scales[1].is_nan() && scales[2].is_nan(),
            "{}",
            set.name
        );
        assert!(values[..3 * GROUP].iter().all(|&v| v == 0), "{}", set.name);
        assert_eq!(values[3 * GROUP..], [-QUANTIZED_MAX, 0], "{}", set.name);
        assert_eq!(scales[3], 7.0 / f32::from(QUANTIZED_MAX));
    }
}

/// Runs a row kernel in the definition and in each set: bits equal where multiply-adds are fused; returns the definition's.
fn row(
    len: usize,
    seed: u64,
    scale: f32,
    kernel: impl Fn(&Kernels, &mut [f32], &[f32], &[f32], &[f32]),
) -> [Vec<f32>; 4] {
    let mut random = Random(0x1234_5678 + seed);
    let inputs: [Vec<f32>; 4] = std::array::from_fn(|_| random.vec(len, scale));
    let apply = |k: &Kernels| {
        let mut out = inputs[0].clone();
        kernel(k, &mut out, &inputs[1], &inputs[2], &inputs[3]);
        out
    };
    let fused = apply(&FUSED);
    for set in fast_sets() {
        assert_eq!(apply(set), fused, "{} at length {len}", set.name);
    }
    let size = fused.iter().fold(1.0_f32, |m, x| m.max(x.abs()));
    for (x, f) in apply(&scalar::KERNELS).iter().zip(&fused) {
        assert!(
            (x - f).abs() <= 1e-6 * size,
            "two roundings at length {len}: {x} {f}"
        );
    }
    let [x, a, b, c] = inputs;
    drop(x);
    [fused, a, b, c]
}

fn close(got: &[f32], expected: impl Iterator<Item = f64>, tolerance: f64) {
    for (i, (g, e)) in got.iter().zip(expected).enumerate() {
        assert!(
            (f64::from(*g) - e).abs() <= tolerance * e.abs().max(1.0),
            "element {i}: {g}, expected {e}"
        );
    }
}

#[test]
fn elementwise_kernels() {
    for n in LENGTHS {
        let d = |x: f32| f64::from(x);
        let [out, a, b, _] = row(n, 1, 30.0, |k, x, a, b, _| (k.silu_mul)(a, b, x));
        close(
            &out,
            a.iter()
                .zip(&b)
                .map(|(&g, &u)| d(g) / (1.0 + (-d(g)).exp()) * d(u)),
            1e-6,
        );
        let [out, a, ..] = row(n, 2, 6.0, |k, x, a, _, _| {
            x.copy_from_slice(a);
            (k.gelu)(x);
        });
        let gelu = |x: f64| {
            0.5 * x
                * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)).tanh())
        };
        close(&out, a.iter().map(|&x| gelu(d(x))), 1e-6);
        let [out, a, b, _] = row(n, 4, 2.0, |k, x, a, b, _| {
            x.copy_from_slice(a);
            (k.add)(x, b);
        });
        close(&out, a.iter().zip(&b).map(|(&x, &y)| d(x) + d(y)), 1e-6);
    }
}

#[test]
fn norms() {
    for n in LENGTHS {
        let d = |x: f32| f64::from(x);
        let [out, a, b, c] = row(n, 5, 3.0, |k, x, a, b, c| (k.layer_norm)(a, b, c, 1e-6, x));
        let mean = a.iter().map(|&x| d(x)).sum::<f64>() / n as f64;
        let var = a.iter().map(|&x| (d(x) - mean).powi(2)).sum::<f64>() / n as f64;
        let norm = |i: usize| (d(a[i]) - mean) / (var + 1e-6).sqrt() * d(b[i]) + d(c[i]);
        close(&out, (0..n).map(norm), 3e-6);
        let [out, a, b, _] = row(n, 6, 3.0, |k, x, a, b, _| (k.rms_norm)(a, b, 1e-5, x));
        let square = a.iter().map(|&x| d(x) * d(x)).sum::<f64>() / n as f64;
        close(
            &out,
            (0..n).map(|i| d(a[i]) / (square + 1e-5).sqrt() * d(b[i])),
            2e-6,
        );
    }
}

#[test]
fn rotary_embedding() {
    for half in [1, 4, 12, 32, 36] {
        let [out, a, b, c] = row(2 * half, 7, 1.0, |k, x, a, b, c| {
            (k.rotary)(a, &b[..half], &c[..half], 0.25, x)
        });
        let d = |x: f32| f64::from(x);
        let rotated = |i: usize| match i < half {
            true => 0.25 * (d(a[i]) * d(b[i]) - d(a[i + half]) * d(c[i])),
            false => 0.25 * (d(a[i]) * d(b[i - half]) + d(a[i - half]) * d(c[i - half])),
        };
        close(&out, (0..2 * half).map(rotated), 1e-6);
    }
}

#[test]
fn softmax_and_merge() {
    for n in [1, 5, 8, 100, 255, 256] {
        let [out, a, ..] = row(n, 8, 40.0, |k, x, a, _, _| {
            x.copy_from_slice(a);
            let (max, sum) = (k.softmax)(x);
            assert_eq!(max, a.iter().copied().fold(f32::MIN, f32::max));
            assert!((sum - x.iter().sum::<f32>()).abs() <= 1e-6 * sum);
        });
        let max = a.iter().fold(f64::MIN, |m, &x| m.max(f64::from(x)));
        close(&out, a.iter().map(|&s| (f64::from(s) - max).exp2()), 2e-7);
        let [out, a, b, _] = row(n, 9, 2.0, |k, x, a, b, _| {
            let mut state = (f32::NEG_INFINITY, 0.0);
            (k.merge)(&mut state, x, (1.5, 2.0), a);
            (k.merge)(&mut state, x, (-0.5, 3.0), b);
            assert!((state.0 - 1.5).abs() < 1e-7 && (state.1 - 2.75).abs() < 1e-6);
        });
        close(
            &out,
            a.iter()
                .zip(&b)
                .map(|(&x, &y)| f64::from(x) + 0.25 * f64::from(y)),
            1e-6,
        );
    }
}

#[test]
fn exp2_over_its_range() {
    let mut x = -130.0_f32;
    while x < 127.0 {
        let got = f64::from(scalar::exp2::<true>(x));
        let exact = f64::from(x.max(-126.0)).exp2();
        assert!((got / exact - 1.0).abs() < 2e-7, "2^{x}: {got} {exact}");
        x += 0.037;
    }
}

#[test]
fn argmax_takes_the_first_and_no_nan() {
    for set in available() {
        assert_eq!((set.argmax)(&[1.0, f32::NAN, 3.0, 3.0, -1.0]), (2, 3.0));
        assert_eq!((set.argmax)(&[]).0, 0);
    }
}

#[test]
fn sets_are_chosen_by_name() {
    assert_eq!(select(Some("scalar")).expect("always there").name, "scalar");
    assert_eq!(
        select(None).expect("always there").name,
        available()[0].name
    );
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512bw") {
        let names: Vec<_> = available().iter().map(|set| set.name).collect();
        let expected = [
            ("amx", amx::available()),
            ("avx512bf16", is_x86_feature_detected!("avx512bf16")),
            ("avx512vnni", is_x86_feature_detected!("avx512vnni")),
            ("avx512", true),
            ("avx2", true),
            ("scalar", true),
        ];
        let expected: Vec<_> = expected
            .iter()
            .filter(|(_, there)| *there)
            .map(|(name, _)| *name)
            .collect();
        assert_eq!(names, expected);
    }
    assert!(select(Some("abacus")).is_err());
}
