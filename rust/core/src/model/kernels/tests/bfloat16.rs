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
        let w_stride = panel_bytes(FloatFormat::Bfloat16, k) + 64;
        let mut a = vec![0; rows * a_stride];
        definition::round(&random.vec(rows * a_stride, 1.0), &mut a);
        let mut w: Vec<u8> = (0..panels)
            .flat_map(|_| {
                let mut panel = random_floats(&mut random, FloatFormat::Bfloat16, k, 1);
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
            let definition = run(definition::bfloat16_product, 0, rows);
            let mut sizes = vec![0.0; definition.len()];
            for (i, limit) in sizes.iter_mut().enumerate() {
                let (row, column) = (i / out_stride, i % out_stride);
                if column >= panels * PANEL {
                    continue;
                }
                let value = |bits: u16| f64::from(f32::from_bits(u32::from(bits) << 16));
                let terms = (0..k).map(|step| {
                    let panel = &w[column / PANEL * w_stride..];
                    let weight = definition::weight(panel, FloatFormat::Bfloat16, step, column % PANEL);
                    value(a[row * a_stride + step]) * f64::from(weight)
                });
                let start = match begin {
                    Start::Zero => 0.0,
                    Start::Row(bias) => f64::from(bias[column]),
                    Start::Out => f64::from(before[i]),
                };
                let (exact, size) = terms.fold((start, start.abs()), |(e, s), t| (e + t, s + t.abs()));
                *limit = size;
                let error = (f64::from(definition[i]) - exact).abs();
                assert!(error <= (k + 2) as f64 * 2_f64.powi(-24) * size, "{rows} {k} {panels}");
            }
            for (name, product) in bfloat16_sets() {
                let given = run(product, 0, rows);
                for ((x, d), size) in given.iter().zip(&definition).zip(&sizes) {
                    // Half a unit for each sum, on both sides.
                    let limit = (k + 2) as f64 * 2_f64.powi(-23) * size;
                    assert!((f64::from(*x) - f64::from(*d)).abs() <= limit, "{name} {rows} {k} {panels}: {x} {d}");
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
