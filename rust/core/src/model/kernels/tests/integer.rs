//! Integers: quantized activations, their products, and weights that become bfloat16.
use super::*;

fn int8_bytes(k: usize) -> usize {
    int8_panel_bytes(k).expect("a small number")
}

fn integer_weight(panel: &[u8], k: usize, column: usize) -> f32 {
    definition::integer_weight(panel, IntegerLayout::Pairs, k, column) as f32
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
fn integer(kernels: &Kernels, rows: &[i16], a_scale: &[f32], w: &[u8], k: usize, panels: usize) -> Vec<f32> {
    let width = k.next_multiple_of(2);
    let count = rows.len() / width;
    let (block, len) = (kernels.integer_layout.row_block(), kernels.integer_layout.block_len(k));
    let mut a = vec![0x55aa; count.div_ceil(block) * len];
    for (i, row) in rows.chunks_exact(width).enumerate() {
        (kernels.scatter)(row, i % block, &mut a[i / block * len..(i / block + 1) * len]);
    }
    let mut w = w.to_vec();
    for panel in w.chunks_exact_mut(int8_bytes(k)) {
        for group in panel.chunks_mut(GROUP_BYTES) {
            let before = group.to_vec();
            for i in 0..group.len() - SCALE_BYTES {
                let (step, column) = (i / PANEL, i % PANEL);
                group[SCALE_BYTES + kernels.integer_layout.weight_index(step, column)] =
                    before[SCALE_BYTES + IntegerLayout::Pairs.weight_index(step, column)];
            }
        }
    }
    w.resize(w.len() + kernels.integer_layout.tail_bytes(), 0x7f);
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
    for (rows, k, panels) in
        shapes.into_iter().chain([(6, 640, 2), (8, 33, 2), (11, 257, 2), (12, 128, 1), (13, 300, 3), (50, 128, 1)])
    {
        let mut random = Random(0x1357 + (rows * 31 + k * 7 + panels) as u64);
        let a = random.vec(rows * k, 3.0);
        let w = random_integers(&mut random, k, panels);
        let (values, scales) = quantized(FUSED, &a, k);
        let fused = integer(FUSED, &values, &scales, &w, k, panels);
        for (i, got) in fused.iter().enumerate() {
            let (row, column) = (i / (panels * PANEL), i % (panels * PANEL));
            let panel = &w[column / PANEL * int8_bytes(k)..];
            let terms = (0..k).map(|k_| {
                let scale = definition::group_scale(panel, k_ / GROUP, column % PANEL);
                let weight = integer_weight(panel, k_, column % PANEL);
                f64::from(a[row * k + k_]) * f64::from(weight) * f64::from(scale)
            });
            let (exact, size) = terms.fold((0.0, 0.0), |(e, s), t| (e + t, s + t.abs()));
            // Half a step of 3 / 16383 for an activation of 1.5 on average, and the roundings of the sums.
            let error = (f64::from(*got) - exact).abs();
            assert!(error <= 3e-4 * size, "{rows} {k} {panels}: {got} {exact}");
        }
        for set in fast_sets() {
            assert_eq!(quantized(set, &a, k), (values.clone(), scales.clone()), "{}", set.name);
            let given = integer(set, &values, &scales, &w, k, panels);
            assert_eq!(given, fused, "{} {rows} {k} {panels}", set.name);
        }
        let portable = integer(definition::KERNELS, &values, &scales, &w, k, panels);
        let size = fused.iter().fold(0.0_f32, |m, x| m.max(x.abs()));
        for (x, f) in portable.iter().zip(&fused) {
            assert!((x - f).abs() <= 1e-6 * size, "{x} {f}");
        }
        // A row does not depend on its neighbours.
        let (width, groups) = (k.next_multiple_of(2), k.div_ceil(GROUP));
        for set in available() {
            let last = integer(set, &values[(rows - 1) * width..], &scales[(rows - 1) * groups..], &w, k, panels);
            let all = integer(set, &values, &scales, &w, k, panels);
            assert_eq!(last, all[(rows - 1) * panels * PANEL..], "{}", set.name);
        }
    }
}

#[test]
fn widened_weights_are_the_nearest_bfloat16() {
    for k in [1, 2, 31, 128, 130, 300] {
        let mut random = Random(0x51de + k as u64);
        let panel = random_integers(&mut random, k, 1);
        let inputs: Vec<f32> = (0..k).map(|i| [1.0, 0.5, 0.25][i % 3]).collect();
        let mut expected = vec![0; panel_bytes(FloatFormat::Bfloat16, k)];
        definition::widen(&panel, &inputs, &mut expected);
        for (step, column) in (0..k).flat_map(|s| (0..PANEL).map(move |c| (s, c))) {
            let weight = integer_weight(&panel, step, column)
                * definition::group_scale(&panel, step / GROUP, column)
                * inputs[step];
            let given = definition::weight(&expected, FloatFormat::Bfloat16, step, column);
            assert!((given - weight).abs() <= weight.abs() / 256.0, "{step} {column} of {k}");
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
    let mut w = vec![0; int8_bytes(GROUP)];
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
        assert!(scales[0] == 0.0 && scales[1].is_nan() && scales[2].is_nan(), "{}", set.name);
        assert!(values[..3 * GROUP].iter().all(|&v| v == 0), "{}", set.name);
        assert_eq!(values[3 * GROUP..], [-QUANTIZED_MAX, 0], "{}", set.name);
        assert_eq!(scales[3], 7.0 / f32::from(QUANTIZED_MAX));
    }
}
