//! The ways in which a layer keeps its weights. All that depends on the way is in the file of its format: how large a
//! panel is, what the activations are, how a panel is packed, and which kernel multiplies it.
use std::ops::Range;

use super::schedule::Division;
use super::{Prepared, ProductBlock, ProductScratch, Weights};
use crate::model::kernels::{IntegerLayout, Kernels};

mod products;

/// Declares the formats that users ask for, each with its name, the module that has its storages, and these. A storage
/// is a type of that module, which implements [`StorageKind`]; the module's `choose` is [`Kernels::storage`].
macro_rules! formats {
    ($($(#[$asked:meta])* $name:literal $format:ident in $module:ident { $($(#[$kept:meta])* $storage:ident,)+ })+) => {
        $(mod $module;)+

        /// What the user of an engine asks for.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum WeightFormat {
            $($(#[$asked])* $format,)+
        }

        impl WeightFormat {
            /// All formats.
            pub const ALL: [Self; [$($name),+].len()] = [$(Self::$format),+];

            /// Its name as users give it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$format => $name,)+
                }
            }
        }

        impl Kernels {
            /// How these kernels keep the weights of a layer, which always has many rows if `many_rows`.
            pub fn storage(&self, format: WeightFormat, many_rows: bool) -> Storage {
                match format {
                    $(WeightFormat::$format => $module::choose(self, many_rows),)+
                }
            }
        }

        /// How the weights of a layer lie in memory and what multiplies them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Storage {
            $($($(#[$kept])* $storage,)+)+
        }

        impl Storage {
            /// All storages.
            #[cfg(test)]
            pub(crate) const ALL: &'static [Self] = &[$($(Self::$storage,)+)+];

            /// What is particular to it.
            pub(super) fn kind(self) -> &'static dyn StorageKind {
                match self {
                    $($(Self::$storage => &$module::$storage {},)+)+
                }
            }
        }
    };
}

formats! {
    /// 32-bit floating point.
    "float32" Float32 in float32 {
        /// float32, times float32 activations.
        Float32,
    }
    /// The upper half of a float32.
    "bfloat16" Bfloat16 in bfloat16 {
        /// bfloat16 that becomes float32, times float32 activations.
        Bfloat16,
        /// bfloat16, times bfloat16 activations.
        Bfloat16Dot,
    }
    /// Signed 8-bit integers with one scale per output column and group.
    "int8" Int8 in int8 {
        /// Integers of 8 bits in pairs of steps, times integers of 15 bits.
        Int8Pairs,
        /// The same in tiles.
        Int8Tiles,
        /// Integers of 8 bits that become bfloat16, times bfloat16 activations.
        Int8Widened,
    }
}

impl WeightFormat {
    /// The format of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }
}

/// What a layer takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputFormat {
    /// float32.
    Float32,
    /// bfloat16.
    Bfloat16,
    /// float32, which the layer makes integers of.
    Quantized,
}

/// What is particular to a storage.
pub(super) trait StorageKind: Sync {
    /// Name of the layout: storages of the same name pack the same bytes.
    fn layout(&self) -> &'static str;

    /// What a layer takes.
    fn input(&self) -> InputFormat;

    /// How the integers of the activations lie, if a layer takes [`InputFormat::Quantized`].
    fn quantized_input(&self) -> Option<IntegerLayout> {
        None
    }

    /// How the rows of a phase are divided.
    fn division(&self) -> Division;

    /// Whether the activations are multiplied by a scale per input, which its weights were divided by.
    fn scales_inputs(&self) -> bool {
        false
    }

    /// Steps that the rows given to [`StorageKind::pack_panel`] must be padded to a multiple of.
    fn step_multiple(&self) -> usize {
        2
    }

    /// Bytes of a panel with inner dimension `k`; `None` if that is no number.
    fn panel_bytes(&self, k: usize) -> Option<usize>;

    /// Writes `PANEL` rows (columns of the product) into a panel.
    fn pack_panel(&self, panel: &mut [u8], rows: &[f32]);

    /// Makes what [`StorageKind::multiply`] needs of some panels, once for all rows of a task.
    fn prepare(&self, _w: &Weights<'_>, _panels: &Range<usize>, _s: &mut ProductScratch) {}

    /// Some rows times some panels, which were prepared: dense rows in `s.tile`. Sums begin with the bias if
    /// [`Storage::starts_with_bias`].
    fn multiply(&self, w: &Weights<'_>, x: &Prepared<'_>, block: &ProductBlock, s: &mut ProductScratch);

    /// Largest error of a product as a share of the sum of the magnitudes of its terms.
    #[cfg(test)]
    fn tolerance(&self) -> f64;

    /// Hash of the packed matrix of the test in `packed_file.rs`.
    #[cfg(test)]
    fn golden_hash(&self) -> u64;
}

impl Storage {
    /// What a layer takes.
    pub fn input(self) -> InputFormat {
        self.kind().input()
    }

    /// Bytes behind the last panel: a float32 scale for each input, and what a product may read and ignores.
    pub(super) fn tail_bytes(self, inputs: usize) -> usize {
        let scales = if self.kind().scales_inputs() { 4 * inputs } else { 0 };
        scales + self.kind().quantized_input().map_or(0, IntegerLayout::tail_bytes)
    }

    /// Whether [`StorageKind::multiply`] begins its sums with the bias.
    pub(super) fn starts_with_bias(self) -> bool {
        self.input() == InputFormat::Bfloat16
    }
}
