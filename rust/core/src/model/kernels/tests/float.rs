//! The blocks of every set's float product, on registers that any machine has.
use super::super::avx2::Sixteen;
use super::super::avx512::ThirtyTwo;
use super::super::float_product::{self, Registers, Shapes, Weights};
use super::*;

/// Registers as arrays.
struct Arrays;

impl Registers for Arrays {
    type Panel = [f32; PANEL];
    type Factor = f32;

    unsafe fn zero() -> [f32; PANEL] {
        [0.0; PANEL]
    }

    unsafe fn load(at: *const f32) -> [f32; PANEL] {
        // SAFETY: the caller promises the memory.
        unsafe { at.cast::<[f32; PANEL]>().read_unaligned() }
    }

    unsafe fn store(at: *mut f32, x: [f32; PANEL]) {
        // SAFETY: the caller promises the memory.
        unsafe { at.cast::<[f32; PANEL]>().write_unaligned(x) }
    }

    unsafe fn add(a: [f32; PANEL], b: [f32; PANEL]) -> [f32; PANEL] {
        std::array::from_fn(|i| a[i] + b[i])
    }

    unsafe fn factor(at: *const f32) -> f32 {
        // SAFETY: the caller promises the number.
        unsafe { *at }
    }

    unsafe fn fused(x: f32, w: [f32; PANEL], sum: [f32; PANEL]) -> [f32; PANEL] {
        std::array::from_fn(|i| x.mul_add(w[i], sum[i]))
    }

    unsafe fn bfloat16_pair(at: *const u8) -> [[f32; PANEL]; 2] {
        // SAFETY: the caller promises the memory.
        let pairs = unsafe { at.cast::<[[u16; 2]; PANEL]>().read_unaligned() };
        [0, 1].map(|step| pairs.map(|pair| f32::from_bits(u32::from(pair[step]) << 16)))
    }

    unsafe fn compiled<S: Shapes, W: Weights>(p: &mut Product<'_>) {
        // SAFETY: the caller promises a checked product.
        unsafe { float_product::all_panels::<Self, S, W>(p) }
    }
}

fn on_arrays<S: Shapes>(p: Product<'_>) {
    // SAFETY: arrays need no instructions.
    unsafe { float_product::product::<Arrays, S>(p) }
}

#[test]
fn the_blocks_of_every_set_cover_all_rows_and_panels() {
    for product in [on_arrays::<Sixteen> as fn(Product<'_>), on_arrays::<ThirtyTwo>] {
        let kernels = Kernels { product, ..*FUSED };
        for rows in (1..=27).chain([50]) {
            for (k, panels) in [(1, 1), (2, 2), (33, 3), (129, 5), (4, 7), (260, 2), (0, 6)] {
                for (format, accumulate) in FORMATS.into_iter().flat_map(|f| [(f, false), (f, true)]) {
                    let shape = (rows, k, panels);
                    let given = run(&kernels, format, shape, accumulate).0;
                    assert_eq!(given, run(FUSED, format, shape, accumulate).0, "{format:?} {shape:?}");
                }
            }
        }
    }
}
