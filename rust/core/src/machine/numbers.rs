//! 16-bit floating point to and from float32, and float32 to integers.

/// 1.5 * 2^23: adding it rounds a small number to an integer, to nearest even, and leaves that in the low bits.
/// (`f32::round` would be a call for each number.)
pub(crate) const ROUND: f32 = 12_582_912.0;

/// Widens a bfloat16, given as its bits; exact.
#[inline(always)]
pub(crate) fn from_bfloat16(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// The bits of the bfloat16 nearest to a finite number, ties to even. Numbers too small for a normal float32 keep their
/// upper half.
#[inline(always)]
pub(crate) fn finite_to_bfloat16(value: f32) -> u16 {
    let bits = value.to_bits();
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

/// The same as the instructions of AVX-512 do it: what is too small for a normal float32 becomes zero, and NaN stays one.
#[inline(always)]
pub(crate) fn to_bfloat16(value: f32) -> u16 {
    let bits = value.to_bits();
    if value.is_nan() {
        (bits >> 16) as u16 | 0x40
    } else if bits & 0x7f80_0000 == 0 {
        (bits >> 16) as u16 & 0x8000
    } else {
        finite_to_bfloat16(value)
    }
}

/// Widens an IEEE half, given as its bits; exact.
#[inline(always)]
pub(crate) fn from_float16(bits: u16) -> f32 {
    let (sign, magnitude) = (u32::from(bits & 0x8000) << 16, u32::from(bits & 0x7fff));
    let scaled = f32::from_bits(magnitude << 13) * f32::from_bits((254 - 15) << 23);
    let value = if magnitude >= 0x7c00 { f32::from_bits(magnitude << 13 | 0x7f80_0000) } else { scaled };
    f32::from_bits(value.to_bits() | sign)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves() {
        let cases = [(0x3c00, 1.0), (0xc000, -2.0), (0x0001, 5.960_464_5e-8), (0x7bff, 65504.0), (0x8000, -0.0)];
        for (half, single) in cases {
            assert_eq!(from_float16(half).to_bits(), f32::to_bits(single), "{half:#06x}");
        }
        assert_eq!(from_float16(0x7c00), f32::INFINITY);
        assert!(from_float16(0x7e01).is_nan());
    }

    #[test]
    fn bfloat16_rounds_to_nearest_even() {
        // The tie goes to the even neighbour, down and up; a carry reaches the exponent.
        let cases = [(0x3f80_8000, 0x3f80), (0x3f81_8000, 0x3f82), (0x3f80_8001, 0x3f81), (0x3fff_ffff, 0x4000)];
        for (bits, expected) in cases {
            assert_eq!(finite_to_bfloat16(f32::from_bits(bits)), expected, "{bits:#x}");
            assert_eq!(to_bfloat16(f32::from_bits(bits)), expected, "{bits:#x}");
        }
        let tiny = f32::from_bits(0x8001_0000);
        assert_eq!((finite_to_bfloat16(tiny), to_bfloat16(tiny)), (0x8001, 0x8000));
        assert!(from_bfloat16(to_bfloat16(f32::from_bits(0x7f80_0001))).is_nan());
        assert_eq!(to_bfloat16(f32::INFINITY), 0x7f80);
    }
}
