//! Instruction sets: which there are, what they are called, and which of them this machine has.
//!
//! A *proof*, such as [`Avx2`], is a value without a size that only detection makes. A table of kernels is given only in
//! exchange for the proof of its instruction set, so code that holds the table is on a machine that can run it.
use std::ffi::OsString;
use std::sync::OnceLock;

use crate::error::{Error, Result};

/// Environment variable that names the instruction set of the model.
pub(crate) const MODEL_VARIABLE: &str = "FASTER_SMOLVLM_ISA";
/// Environment variable that names the inner loops of pictures.
pub(crate) const PICTURE_VARIABLE: &str = "FASTER_SMOLVLM_IMAGE_KERNELS";

/// Whether every machine that this code is compiled for multiplies and adds with one rounding. Where it is false the
/// plain code rounds twice: without the instruction each multiply-add would be a call of a library.
pub(crate) const FUSED: bool = cfg!(any(target_arch = "aarch64", target_feature = "fma"));

/// Defines [`Isa`] and the proofs from a table of instruction sets, the most capable first. A row is the name of both, the
/// name in the environment, and how the set is detected. Elsewhere than on x86-64 no proof has a value.
macro_rules! instruction_sets {
    ($($(#[$doc:meta])* $name:ident $text:literal: $detected:expr;)*) => {
        /// An instruction set.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Isa {
            $($(#[$doc])* $name,)*
            /// Plain Rust, which runs everywhere.
            Portable,
        }

        impl Isa {
            /// All, the most capable first.
            pub(crate) const ALL: [Self; [$($text),*].len() + 1] = [$(Self::$name,)* Self::Portable];

            /// Its name as the environment gives it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                    Self::Portable => "scalar",
                }
            }

            /// Whether this machine has it.
            pub(crate) fn available(self) -> bool {
                match self {
                    $(Self::$name => $name::detect().is_some(),)*
                    Self::Portable => true,
                }
            }
        }

        $(
            #[doc = concat!("This machine has the instructions of [`Isa::", stringify!($name), "`].")]
            #[derive(Clone, Copy)]
            pub(crate) struct $name(
                #[cfg(target_arch = "x86_64")] (),
                #[cfg(not(target_arch = "x86_64"))] std::convert::Infallible,
            );

            impl $name {
                /// The proof, if this machine has the instructions.
                pub(crate) fn detect() -> Option<Self> {
                    #[cfg(target_arch = "x86_64")]
                    return $detected.then_some(Self(()));
                    #[cfg(not(target_arch = "x86_64"))]
                    None
                }
            }
        )*
    };
}

instruction_sets! {
    /// AMX with bfloat16 and 8-bit integers, and all of [`Isa::Avx512Bf16`]; the system must let this process use it.
    /// Detecting it has a side effect: it requests the permission, for the whole process.
    Amx "amx": amx::detected();
    /// AVX-512 BF16, and all of [`Isa::Avx512Vnni`].
    Avx512Bf16 "avx512bf16": Avx512Vnni::detect().is_some() && is_x86_feature_detected!("avx512bf16");
    /// AVX-512 VNNI, and all of [`Isa::Avx512`].
    Avx512Vnni "avx512vnni": Avx512::detect().is_some() && is_x86_feature_detected!("avx512vnni");
    /// AVX-512 F, BW, DQ and VL.
    Avx512 "avx512": is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    /// AVX2 with FMA.
    Avx2 "avx2": is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
}

/// Items for x86-64 alone.
macro_rules! x86_64 {
    ($($item:item)*) => { $(#[cfg(target_arch = "x86_64")] $item)* };
}

/// Declares the tables of kernels of one kind. A row is the module of some instruction sets, and for each of them the
/// function that gives its table for a proof of the set; the preferred come first. `portable` is the table of plain code.
macro_rules! tables {
    ($table:ty, portable: $portable:expr, x86_64: { $(mod $module:ident { $($isa:ident: $kernels:ident),+ })+ }) => {
        $crate::machine::cpu::x86_64! { $(mod $module;)+ }

        /// The instruction sets that have kernels, those that this machine may lack included; the preferred come first.
        pub(crate) const SETS: &[$crate::machine::cpu::Isa] =
            &[$($($crate::machine::cpu::Isa::$isa,)+)+ $crate::machine::cpu::Isa::Portable];

        /// The kernels for an instruction set, if there are such and this machine has it.
        pub(crate) fn for_isa(isa: $crate::machine::cpu::Isa) -> Option<&'static $table> {
            $($(
                #[cfg(target_arch = "x86_64")]
                if isa == $crate::machine::cpu::Isa::$isa {
                    return $crate::machine::cpu::$isa::detect().map($module::$kernels);
                }
            )+)+
            (isa == $crate::machine::cpu::Isa::Portable).then_some($portable)
        }
    };
}
pub(crate) use {tables, x86_64};

impl Isa {
    /// The instruction set of this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|isa| isa.name() == name)
    }

    /// The one that [`MODEL_VARIABLE`] names, if any. A name that is unknown, or of a set that this machine lacks, is an
    /// error.
    pub fn of_environment() -> Result<Option<Self>> {
        let Some(name) = read(MODEL_VARIABLE) else { return Ok(None) };
        let named = name.to_str().and_then(Self::named).filter(|isa| isa.available());
        named.map(Some).ok_or_else(|| {
            let known: Vec<_> = Self::ALL.into_iter().filter(|isa| isa.available()).map(Self::name).collect();
            unknown(MODEL_VARIABLE, &name.to_string_lossy(), &known)
        })
    }
}

/// What [`PICTURE_VARIABLE`] held when it was first looked at: pictures are prepared all the time, so it is read once.
pub(crate) fn picture_kernels() -> Option<&'static str> {
    static NAME: OnceLock<Option<String>> = OnceLock::new();
    NAME.get_or_init(|| read(PICTURE_VARIABLE).map(|name| name.to_string_lossy().into_owned())).as_deref()
}

/// The refusal of a name that a variable held.
pub(crate) fn unknown(variable: &str, name: &str, known: &[&str]) -> Error {
    Error::config(format!("{variable}={name}: this machine has {}", known.join(", ")))
}

/// The value of a variable; an empty one counts as none.
fn read(variable: &str) -> Option<OsString> {
    std::env::var_os(variable).filter(|value| !value.is_empty())
}

#[cfg(target_arch = "x86_64")]
mod amx {
    use std::arch::x86_64::{__cpuid_count, _xgetbv};
    use std::sync::OnceLock;

    use super::Avx512Bf16;

    /// Whether the processor has AMX with bfloat16 and 8-bit integers, the system saves its registers, and it permits
    /// their use. The system is asked once for the process.
    pub(super) fn detected() -> bool {
        static DETECTED: OnceLock<bool> = OnceLock::new();
        *DETECTED.get_or_init(|| Avx512Bf16::detect().is_some() && has_tiles() && permitted())
    }

    fn has_tiles() -> bool {
        const AMX_BF16: u32 = 1 << 22;
        const AMX_TILE: u32 = 1 << 24;
        const AMX_INT8: u32 = 1 << 25;
        const ALL: u32 = AMX_BF16 | AMX_TILE | AMX_INT8;
        const OSXSAVE: u32 = 1 << 27;
        // XTILECFG and XTILEDATA.
        const TILES: u64 = 0b11 << 17;
        // SAFETY: every processor of this architecture has the instruction. (Newer compilers know.)
        #[allow(unused_unsafe)]
        let (features, system) = unsafe { (__cpuid_count(7, 0).edx, __cpuid_count(1, 0).ecx) };
        if features & ALL != ALL || system & OSXSAVE == 0 {
            return false;
        }
        #[target_feature(enable = "xsave")]
        fn saved() -> u64 {
            // SAFETY: the function is compiled for the instruction, which reads a register and nothing else.
            unsafe { _xgetbv(0) }
        }
        // SAFETY: OSXSAVE says that the processor has the instruction and the system uses it.
        unsafe { saved() & TILES == TILES }
    }

    /// Linux permits the tiles on request, to all threads of the process, those to come too.
    #[cfg(target_os = "linux")]
    fn permitted() -> bool {
        const REQUEST_PERMISSION: libc::c_long = 0x1023;
        const TILE_DATA: libc::c_long = 18;
        // SAFETY: the call reads its two numbers and nothing else.
        unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0 }
    }

    #[cfg(not(target_os = "linux"))]
    fn permitted() -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_and_no_other() {
        for isa in Isa::ALL {
            assert_eq!(Isa::named(isa.name()), Some(isa));
        }
        assert_eq!(Isa::named("abacus"), None);
        let refused = unknown("V", "abacus", &["avx2", "scalar"]).to_string();
        assert_eq!(refused, "configuration: V=abacus: this machine has avx2, scalar");
    }

    #[test]
    fn a_set_comes_with_those_below_it() {
        // A machine with an AVX-512 set has the smaller ones too; plain code is always there.
        let sets = [Isa::Amx, Isa::Avx512Bf16, Isa::Avx512Vnni, Isa::Avx512].map(Isa::available);
        assert!(sets.is_sorted() && Isa::Portable.available(), "{sets:?}");
        #[cfg(target_arch = "x86_64")]
        assert_eq!(Isa::Avx2.available(), is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"));
    }
}
