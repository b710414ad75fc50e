//! Layers of every storage against float64, and every epilogue against what it says.
use super::*;
use crate::machine::shared::Share;
use crate::machine::team::Team;
use crate::model::checkpoint::{Checkpoint, MemoryTensor, TensorType};
use crate::model::kernels::{GROUP_BYTES, IntegerLayout, SCALE_BYTES, available, definition, int8_panel_bytes};

/// Numbers in ±1 that look random.
fn numbers(seed: usize, count: usize) -> Vec<f32> {
    let mixed = |i: usize| (i + 104_729 * seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    (0..count).map(|i| mixed(i) as f32 / (1 << 23) as f32 - 1.0).collect()
}

/// Matrices of `inputs` columns.
fn checkpoint(matrices: &[&[f32]], inputs: usize) -> Checkpoint {
    let tensor = |(index, values): (usize, &&[f32])| MemoryTensor {
        name: format!("w{index}"),
        dtype: TensorType::Float32,
        shape: vec![values.len() / inputs, inputs],
        bytes: Box::new(values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>()),
    };
    Checkpoint::from_memory(matrices.iter().enumerate().map(tensor).collect()).expect("consistent")
}

fn layer(matrices: &[&[f32]], inputs: usize, order: Order, bias: &[f32], pack: (&'static Kernels, Storage)) -> Linear {
    let checkpoint = checkpoint(matrices, inputs);
    let tensor = |(index, values): (usize, &&[f32])| {
        checkpoint.tensor(&format!("w{index}"), &[values.len() / inputs, inputs]).expect("there")
    };
    let tensors: Vec<_> = matrices.iter().enumerate().map(tensor).collect();
    Linear::pack(&tensors, order, bias.to_vec(), pack, &mut Team::new(2).expect("threads")).expect("finite")
}

/// What a phase reads and writes.
struct Activity<'a> {
    input: Activations<'a>,
    quantized: QuantizedRows<'a>,
    out: Rows<'a>,
    next: Activations<'a>,
    largest: Largest<'a>,
}

impl Share for Activity<'_> {
    unsafe fn handle(&self) -> Self {
        // SAFETY: the caller promises the same.
        unsafe {
            Self {
                input: self.input.handle(),
                quantized: self.quantized.handle(),
                out: self.out.handle(),
                next: self.next.handle(),
                largest: self.largest.handle(),
            }
        }
    }
}

/// Results of a layer applied to rows, as the epilogue left them: the float32 rows, the activations, the best columns.
struct Results {
    out: Vec<f32>,
    next: Vec<f32>,
    best: Vec<usize>,
}

/// Which epilogue, made for each thread.
type Make = for<'e, 'a> fn(&'e mut Rows<'a>, &'e mut Activations<'a>, &'e mut Largest<'a>) -> Epilogue<'e, 'a>;

fn apply(layer: &mut Linear, x: &[f32], threads: usize, make: Make) -> Results {
    let (inputs, columns, kernels) = (layer.inputs, layer.outputs, layer.kernels);
    let rows = x.len() / inputs;
    let tasks = layer.fix_task_panels(2);
    let mut input = Activations::buffer(rows, inputs).expect("memory");
    let mut quantized = Quantized::new(&[(rows, inputs)]).expect("memory");
    let mut out: Vec<f32> = (0..rows * columns).map(|i| i as f32 / 64.0).collect();
    let mut next = Activations::buffer(rows, columns).expect("memory");
    let mut largest = LargestMemory::new(rows, tasks).expect("memory");
    let mut shared = Activity {
        input: Activations::new(&mut input, inputs, layer.input(), kernels),
        quantized: quantized.rows(),
        out: Rows::new(&mut out, columns),
        next: Activations::new(&mut next, columns, InputFormat::Float32, kernels),
        largest: largest.rows(),
    };
    let layer = &*layer;
    let mut team = Team::new(threads).expect("threads");
    team.run_shared(&mut shared, |worker, a| {
        let (mut scratch, mut row) = (LinearScratch::new(inputs).expect("memory"), Vec::new());
        worker.for_each_part(rows, 3, |part| {
            for index in part.rows() {
                let x = &x[index * inputs..(index + 1) * inputs];
                a.input.write_with(part, index, 0..inputs, &mut row, |to| to.copy_from_slice(x));
            }
        });
        let input = Input::made(&a.input, rows, &mut a.quantized);
        layer.phase(worker, &mut scratch, input, make(&mut a.out, &mut a.next, &mut a.largest));
    })
    .expect("no panic");
    let stride = next.len() / rows.max(1);
    let next = next.chunks_exact(stride).flat_map(|row| row[..columns].to_vec()).collect();
    Results { out, next, best: (0..rows).map(|row| largest.column(row)).collect() }
}

/// Every set of kernels of this machine, and one that multiplies tiles and bfloat16 as the definition does.
fn sets() -> Vec<&'static Kernels> {
    available().into_iter().chain([definition::TILES]).collect()
}

/// All storages that a set chooses.
fn storages(kernels: &Kernels) -> Vec<Storage> {
    let chosen = |format| [false, true].map(|many_rows| kernels.storage(format, many_rows));
    let mut all: Vec<_> = WeightFormat::ALL.into_iter().flat_map(chosen).collect();
    all.dedup();
    all
}

#[test]
fn every_storage_is_chosen_by_a_set_and_says_what_its_input_is() {
    let sets = [definition::KERNELS, definition::TILES];
    let chosen: Vec<_> = sets.into_iter().flat_map(storages).collect();
    for storage in Storage::ALL {
        assert!(chosen.contains(storage), "{storage:?}");
        let quantized = storage.input() == InputFormat::Quantized;
        assert_eq!(storage.kind().quantized_input().is_some(), quantized, "{storage:?}");
    }
}

#[test]
fn formats_are_found_by_name() {
    for format in WeightFormat::ALL {
        assert_eq!(WeightFormat::named(format.name()), Some(format));
    }
    assert_eq!(WeightFormat::named("int7"), None);
}

#[test]
fn every_storage_multiplies_as_float64_does() {
    const OUTPUTS: usize = 88;
    for kernels in sets() {
        for storage in storages(kernels) {
            for (inputs, rows) in [(1, 1), (75, 3), (200, 4), (129, 5), (130, 37), (260, 70)] {
                let (w, bias) = (numbers(inputs, OUTPUTS * inputs), numbers(7, OUTPUTS));
                let x = numbers(rows, rows * inputs);
                let mut layer = layer(&[&w], inputs, Order::Concatenated, &bias, (kernels, storage));
                let given = apply(&mut layer, &x, 2, |out, _, _| Epilogue::Write(out)).out;
                let what = format!("{} {storage:?}, {rows} x {inputs}", kernels.name);
                for (i, given) in given.iter().enumerate() {
                    let (row, column) = (i / OUTPUTS, i % OUTPUTS);
                    let terms = x[row * inputs..].iter().zip(&w[column * inputs..]).take(inputs);
                    let terms = terms.map(|(x, w)| f64::from(*x) * f64::from(*w));
                    let (sum, size) = terms.fold((0.0, 1.0), |(sum, size), t| (sum + t, size + t.abs()));
                    let error = (f64::from(*given) - sum - f64::from(bias[column])).abs();
                    assert!(error <= storage.kind().tolerance() * size, "{what}: {given} at {row}, {column}");
                }
                // A row depends neither on the threads nor on the rows beside it.
                for (threads, count) in [(1, rows), (3, rows), (2, 1), (2, rows.min(4))] {
                    let part = apply(&mut layer, &x[..count * inputs], threads, |out, _, _| Epilogue::Write(out));
                    assert_eq!(part.out, given[..count * OUTPUTS], "{what}: {count} rows, {threads} threads");
                }
            }
        }
    }
}

#[test]
fn every_epilogue_does_what_it_says() {
    const OUTPUTS: usize = 40;
    const TABLE: &[f32; 3 * OUTPUTS] = &[0.5; 3 * OUTPUTS];
    const INDEX: &[usize; 9] = &[0, 2, 1, 1, 2, 0, 1, 2, 0];
    let (kernels, inputs) = (available()[0], 70);
    for rows in [1, 9] {
        let (w, x) = (numbers(1, OUTPUTS * inputs), numbers(2, rows * inputs));
        let mut layer = layer(&[&w], inputs, Order::Concatenated, &[], (kernels, Storage::Float32));
        let mut run = |make: Make| apply(&mut layer, &x, 2, make);
        let plain = run(|out, _, _| Epilogue::Write(out)).out;
        let with = |change: &dyn Fn(usize, f32) -> f32| -> Vec<f32> {
            plain.iter().enumerate().map(|(i, &x)| change(i, x)).collect()
        };
        assert_eq!(run(|out, _, _| Epilogue::Add(out)).out, with(&|i, x| i as f32 / 64.0 + x));
        let tabled = run(|out, _, _| Epilogue::AddTable { to: out, table: TABLE, index: &INDEX[..] });
        assert_eq!(tabled.out, with(&|_, x| x + 0.5));
        let scaled = run(|_, next, _| Epilogue::Scale { to: next, columns: 17, scale: 4.0 });
        assert_eq!(scaled.next, with(&|i, x| if i % OUTPUTS < 17 { 4.0 * x } else { x }));
        let mut gelu = plain.clone();
        gelu.chunks_exact_mut(OUTPUTS).for_each(|row| (kernels.gelu)(row));
        assert_eq!(run(|_, next, _| Epilogue::Gelu(next)).next, gelu);
        let best = plain.chunks_exact(OUTPUTS).map(|row| (kernels.argmax)(row).0).collect::<Vec<_>>();
        assert_eq!(run(|_, _, largest| Epilogue::Argmax(largest)).best, best);
    }
}

#[test]
fn scratch_that_no_memory_holds_is_an_error() {
    for inputs in [usize::MAX, usize::MAX / 16, 1 << 56] {
        let refused = LinearScratch::new(inputs).map(|_| ());
        assert_eq!(refused.map_err(|error| error.kind()), Err(crate::ErrorKind::Memory), "{inputs}");
    }
}

#[test]
fn gates_meet_the_columns_that_they_open() {
    let (kernels, inputs, outputs, rows) = (available()[0], 30, 37, 6);
    let (gate, up, x) = (numbers(1, outputs * inputs), numbers(2, outputs * inputs), numbers(3, rows * inputs));
    let pack = (kernels, Storage::Float32);
    let run = |w: &[f32]| {
        let mut layer = layer(&[w], inputs, Order::Concatenated, &[], pack);
        apply(&mut layer, &x, 1, |out, _, _| Epilogue::Write(out)).out
    };
    let (gates, ups) = (run(&gate), run(&up));
    let mut both = layer(&[&gate, &up], inputs, Order::Interleaved, &[], pack);
    let given = apply(&mut both, &x, 3, |_, next, _| Epilogue::SiluMul(next)).next;
    for row in 0..rows {
        let of = |values: &[f32]| values[row * outputs..(row + 1) * outputs].to_vec();
        let mut expected = vec![0.0; outputs];
        (kernels.silu_mul)(&of(&gates), &of(&ups), &mut expected);
        assert_eq!(given[row * both.outputs..][..outputs], expected);
    }
}

#[test]
fn an_input_that_is_large_because_its_weights_are_small_costs_no_bit() {
    const INPUTS: usize = 200;
    let small = |i: usize| (i * 37 % 101) as f32 / 64.0 - 0.8;
    let products = |factor: f32| {
        let weight = |i: usize| if i % INPUTS == 7 { small(i) / factor } else { small(i) };
        let w: Vec<f32> = (0..40 * INPUTS).map(weight).collect();
        let mut x: Vec<f32> = (0..INPUTS).map(|i| small(3 * i + 1)).collect();
        x[7] *= factor;
        let kernels = available()[0];
        let storage = kernels.storage(WeightFormat::Int8, false);
        let mut layer = layer(&[&w], INPUTS, Order::Concatenated, &[], (kernels, storage));
        apply(&mut layer, &x, 2, |out, _, _| Epilogue::Write(out)).out
    };
    let plain = products(1.0);
    assert!(plain.iter().all(|x| *x != 0.0));
    assert_eq!(products(64.0), plain);
    assert_eq!(products(1024.0), plain);
}

#[test]
fn integers_lie_where_the_kernels_look_for_them() {
    let layouts = [(Storage::Int8Pairs, IntegerLayout::Pairs), (Storage::Int8Tiles, IntegerLayout::Tiles)];
    for ((storage, layout), k) in layouts.into_iter().flat_map(|l| [4, 76, 128, 300].map(|k| (l, k))) {
        let value = |column: usize, step: usize| ((column * 89 + step * 37) % 251) as f32 - 125.0;
        let rows: Vec<_> = (0..PANEL * k).map(|i| value(i / k, i % k)).collect();
        let mut panel = vec![0; int8_panel_bytes(k).expect("a small number")];
        storage.kind().pack_panel(&mut panel, &rows);
        for (column, step) in (0..PANEL).flat_map(|c| (0..k).map(move |s| (c, s))) {
            let group = &panel[step / GROUP * GROUP_BYTES..];
            let scale: [u8; 4] = group.as_chunks().0[column];
            let at = SCALE_BYTES + layout.weight_index(step % GROUP, column);
            let stored = f32::from(group[at] as i8) * f32::from_le_bytes(scale);
            assert!((stored - value(column, step)).abs() < 0.51, "{column} {step} of {k}");
        }
    }
}
