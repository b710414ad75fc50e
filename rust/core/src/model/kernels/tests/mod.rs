//! Every kernel of every instruction set against the scalar definition, and the definition against float64.
use super::*;

mod bfloat16;
mod integer;
x86_64! { mod float; }

/// Numbers in [-1, 1) from a fixed sequence.
pub(crate) struct Random(pub u64);

impl Random {
    pub(super) fn unit(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
    pub(super) fn vec(&mut self, n: usize, scale: f32) -> Vec<f32> {
        (0..n).map(|_| self.unit() * scale).collect()
    }
}

const LENGTHS: [usize; 9] = [1, 2, 7, 8, 9, 63, 64, 123, 257];
const FUSED: &Kernels = &definition::kernels::<true>("scalar, fused");

fn fast_sets() -> Vec<&'static Kernels> {
    available().into_iter().filter(|k| k.name != "scalar").collect()
}

fn random_floats(random: &mut Random, format: FloatFormat, k: usize, panels: usize) -> Vec<u8> {
    let numbers = random.vec(panels * k.next_multiple_of(2) * PANEL, 1.0);
    match format {
        FloatFormat::Float32 => numbers.iter().flat_map(|x| x.to_le_bytes()).collect(),
        FloatFormat::Bfloat16 => numbers.iter().flat_map(|x| ((x.to_bits() >> 16) as u16).to_le_bytes()).collect(),
    }
}

fn random_integers(random: &mut Random, k: usize, panels: usize) -> Vec<u8> {
    let groups = (0..panels).flat_map(|_| 0..k.div_ceil(GROUP));
    let group = |group: usize| {
        let mut bytes: Vec<u8> = random.vec(PANEL, 0.01).iter().flat_map(|x| x.to_le_bytes()).collect();
        let steps = (k - group * GROUP).min(GROUP).next_multiple_of(4);
        bytes.extend(random.vec(steps * PANEL, 127.9).iter().map(|&x| x as i8 as u8));
        bytes
    };
    groups.flat_map(group).collect()
}

fn panel_bytes(format: FloatFormat, k: usize) -> usize {
    format.panel_bytes(k).expect("a small number")
}

const FORMATS: [FloatFormat; 2] = [FloatFormat::Float32, FloatFormat::Bfloat16];

fn run(
    kernels: &Kernels,
    format: FloatFormat,
    (rows, k, panels): (usize, usize, usize),
    accumulate: bool,
) -> (Vec<f32>, Vec<f64>) {
    let mut random = Random(0x9e37_79b9 + (rows * 31 + k * 7 + panels) as u64);
    let (a_stride, out_stride) = (k + 3, panels * PANEL + 5);
    let a = random.vec(rows * a_stride, 1.0);
    let w = random_floats(&mut random, format, k, panels);
    let mut out = random.vec(rows * out_stride, 1.0);
    let w_stride = panel_bytes(format, k);
    let mut exact: Vec<f64> = out.iter().map(|&x| f64::from(x)).collect();
    for r in 0..rows {
        for c in 0..panels * PANEL {
            let start = if accumulate { exact[r * out_stride + c] } else { 0.0 };
            exact[r * out_stride + c] = start
                + (0..k)
                    .map(|i| {
                        let w = definition::weight(&w[c / PANEL * w_stride..], format, i, c % PANEL);
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
        format,
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
        for format in FORMATS {
            for accumulate in [false, true] {
                let (fused, exact) = run(FUSED, format, shape, accumulate);
                let scale = exact.iter().fold(1.0, |m: f64, x| m.max(x.abs()));
                for (x, e) in fused.iter().zip(&exact) {
                    assert!((f64::from(*x) - e).abs() <= 2e-6 * scale, "{format:?} {shape:?}: {x} {e}");
                }
                let (portable, _) = run(definition::KERNELS, format, shape, accumulate);
                for (x, e) in portable.iter().zip(&exact) {
                    assert!((f64::from(*x) - e).abs() <= 2e-6 * scale, "{format:?} {shape:?}: {x} {e}");
                }
                for set in fast_sets() {
                    assert_eq!(run(set, format, shape, accumulate).0, fused, "{} {format:?} {shape:?}", set.name);
                }
            }
        }
    }
}

#[test]
fn a_row_does_not_depend_on_its_neighbours() {
    for set in available() {
        for format in FORMATS {
            let (k, panels) = (321, 5);
            let mut random = Random(7);
            let a = random.vec(13 * k, 1.0);
            let w = random_floats(&mut random, format, k, panels);
            let product = |a: &[f32], rows: usize| {
                let mut out = vec![0.0; rows * panels * PANEL];
                (set.product)(Product {
                    a,
                    a_stride: k,
                    rows,
                    k,
                    w: &w,
                    w_stride: panel_bytes(format, k),
                    format,
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
    let fused = apply(FUSED);
    for set in fast_sets() {
        assert_eq!(apply(set), fused, "{} at length {len}", set.name);
    }
    let size = fused.iter().fold(1.0_f32, |m, x| m.max(x.abs()));
    for (x, f) in apply(definition::KERNELS).iter().zip(&fused) {
        assert!((x - f).abs() <= 1e-6 * size, "two roundings at length {len}: {x} {f}");
    }
    let [x, a, b, c] = inputs;
    drop(x);
    [fused, a, b, c]
}

fn close(got: &[f32], expected: impl Iterator<Item = f64>, tolerance: f64) {
    for (i, (g, e)) in got.iter().zip(expected).enumerate() {
        assert!((f64::from(*g) - e).abs() <= tolerance * e.abs().max(1.0), "element {i}: {g}, expected {e}");
    }
}

#[test]
fn elementwise_kernels() {
    for n in LENGTHS {
        let d = |x: f32| f64::from(x);
        let [out, a, b, _] = row(n, 1, 30.0, |k, x, a, b, _| (k.silu_mul)(a, b, x));
        close(&out, a.iter().zip(&b).map(|(&g, &u)| d(g) / (1.0 + (-d(g)).exp()) * d(u)), 1e-6);
        let [out, a, ..] = row(n, 2, 6.0, |k, x, a, _, _| {
            x.copy_from_slice(a);
            (k.gelu)(x);
        });
        let gelu = |x: f64| 0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)).tanh());
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
        close(&out, (0..n).map(|i| d(a[i]) / (square + 1e-5).sqrt() * d(b[i])), 2e-6);
    }
}

#[test]
fn rotary_embedding() {
    for half in [1, 4, 12, 32, 36] {
        let [out, a, b, c] = row(2 * half, 7, 1.0, |k, x, a, b, c| (k.rotary)(a, &b[..half], &c[..half], 0.25, x));
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
        close(&out, a.iter().zip(&b).map(|(&x, &y)| f64::from(x) + 0.25 * f64::from(y)), 1e-6);
    }
}

#[test]
fn exp2_over_its_range() {
    let mut x = -130.0_f32;
    while x < 127.0 {
        let got = f64::from(definition::exp2::<true>(x));
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
fn sets_are_chosen_by_instruction_set() {
    assert_eq!(select(Some(Isa::Portable)).expect("always there").name, "scalar");
    assert_eq!(select(None).expect("always there").name, available()[0].name);
    for isa in Isa::ALL {
        assert_eq!(select(Some(isa)).is_ok_and(|set| set.name == isa.name()), isa.available(), "{isa:?}");
    }
}
