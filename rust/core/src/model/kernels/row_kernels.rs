//! The row kernels of an instruction set: the definition, compiled for it.

/// Defines the row kernels for these target features, and `table`, which makes a table of them and of the `product` and
/// `peak` that are at hand. The table must be given for a proof of these features only.
macro_rules! row_kernels {
    ($features:literal) => {
        const fn table(
            name: &'static str,
            integer_product: fn($crate::model::kernels::IntegerProduct<'_>),
        ) -> $crate::model::kernels::Kernels {
            $crate::model::kernels::Kernels {
                name,
                product,
                integer_product,
                integer_layout: $crate::model::kernels::IntegerLayout::Pairs,
                scatter: $crate::model::kernels::definition::scatter_pairs,
                bfloat16_product: None,
                round,
                widen,
                quantize,
                gelu,
                silu_mul,
                add,
                rms_norm,
                layer_norm,
                rotary,
                softmax,
                merge,
                argmax: $crate::model::kernels::definition::argmax,
                peak,
                bfloat16_peak: None,
            }
        }

        row_kernels! {
            $features;
            round(x: &[f32], out: &mut [u16]), $crate::model::kernels::definition::round;
            widen(panel: &[u8], input_scales: &[f32], out: &mut [u8]), $crate::model::kernels::definition::widen;
            quantize(x: &[f32], out: &mut [i16], scale: &mut [f32]), $crate::model::kernels::definition::quantize;
            gelu(x: &mut [f32]), $crate::model::kernels::definition::gelu::<true>;
            silu_mul(gate: &[f32], up: &[f32], out: &mut [f32]), $crate::model::kernels::definition::silu_mul::<true>;
            add(x: &mut [f32], y: &[f32]), $crate::model::kernels::definition::add;
            rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]), $crate::model::kernels::definition::rms_norm::<true>;
            layer_norm(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]), $crate::model::kernels::definition::layer_norm::<true>;
            rotary(x: &[f32], cos: &[f32], sin: &[f32], scale: f32, out: &mut [f32]), $crate::model::kernels::definition::rotary::<true>;
            softmax(scores: &mut [f32]) -> (f32, f32), $crate::model::kernels::definition::softmax::<true>;
            merge(state: &mut (f32, f32), out: &mut [f32], block: (f32, f32), block_out: &[f32]), $crate::model::kernels::definition::merge::<true>;
        }
    };
    ($features:literal; $($name:ident($($arg:ident: $kind:ty),*) $(-> $out:ty)?, $body:path;)*) => {$(
        fn $name($($arg: $kind),*) $(-> $out)? {
            #[target_feature(enable = $features)]
            fn compiled($($arg: $kind),*) $(-> $out)? {
                $body($($arg),*)
            }
            // SAFETY: the table that this is in is given for a proof of these features only.
            unsafe { compiled($($arg),*) }
        }
    )*};
}
pub(super) use row_kernels;
