//! From a byte to the value that the model takes: rescaling and normalisation.

use crate::machine::numbers::finite_to_bfloat16;

/// A value of the output.
pub trait Value: Copy + Default + Send + Sync {
    /// The value of one byte.
    fn of(byte: u8, conversion: &Conversion) -> Self;
}

impl Value for f32 {
    fn of(byte: u8, conversion: &Conversion) -> Self {
        conversion.table[usize::from(byte)]
    }
}

/// bfloat16, as its bits.
impl Value for u16 {
    fn of(byte: u8, conversion: &Conversion) -> Self {
        finite_to_bfloat16(conversion.table[usize::from(byte)])
    }
}

/// The byte itself, neither rescaled nor normalised.
impl Value for u8 {
    fn of(byte: u8, _: &Conversion) -> Self {
        byte
    }
}

/// What a byte of one channel becomes.
#[derive(Clone, Debug)]
pub struct Conversion {
    /// The value of each byte; this is the definition.
    pub(crate) table: [f32; 256],
    /// Arithmetic that gives the same values, where such is known.
    #[allow(dead_code, reason = "for sets that have loops of their own")]
    pub(crate) formula: Option<Formula>,
}

/// `(x · scale − mean) / std` in float32 without a division: a product with the inverse, corrected by its remainder.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Formula {
    /// The scale, rounded to float32.
    pub(crate) high: f32,
    /// What the rounding took away from the scale.
    pub(crate) low: f32,
    /// Subtracted.
    pub(crate) mean: f32,
    /// Divided by.
    pub(crate) std: f32,
    /// 1 / std.
    pub(crate) inverse: f32,
}

impl Formula {
    /// A formula for `(x · scale − mean) / std`.
    pub fn new(scale: f64, mean: f32, std: f32) -> Self {
        let high = scale as f32;
        Self { high, low: (scale - f64::from(high)) as f32, mean, std, inverse: 1.0 / std }
    }

    /// Whether the scale is another than 1.
    #[allow(dead_code, reason = "for sets that have loops of their own")]
    pub(crate) fn scales(&self) -> bool {
        (self.high, self.low) != (1.0, 0.0)
    }

    /// The value of a byte.
    pub fn at(&self, byte: u8) -> f32 {
        let x = f32::from(byte);
        let centred = x.mul_add(self.high, x * self.low) - self.mean;
        let quotient = centred * self.inverse;
        let rest = (-quotient).mul_add(self.std, centred);
        rest.mul_add(self.inverse, quotient)
    }
}

impl Conversion {
    /// A table, with the proposed formula where that gives the same bits for all 256 bytes.
    pub fn new(table: [f32; 256], proposed: Option<Formula>) -> Self {
        let agrees =
            |formula: &Formula| (0..=255u8).all(|x| formula.at(x).to_bits() == table[usize::from(x)].to_bits());
        Self { table, formula: proposed.filter(agrees) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(value: impl Fn(f32) -> f32) -> [f32; 256] {
        std::array::from_fn(|x| value(x as f32))
    }

    #[test]
    fn formulas_of_both_arithmetics_hold() {
        let torch = Conversion::new(table(|x| (x - 127.5) / 127.5), Some(Formula::new(1.0, 127.5, 127.5)));
        assert!(torch.formula.is_some());
        let scale = 1.0 / 255.0;
        let pillow = table(|x| ((f64::from(x) * scale) as f32 - 0.5) / 0.5);
        assert!(Conversion::new(pillow, Some(Formula::new(scale, 0.5, 0.5))).formula.is_some());
    }

    #[test]
    fn a_wrong_formula_is_dropped() {
        let conversion = Conversion::new(table(|x| x / 255.0), Some(Formula::new(1.0, 127.5, 127.5)));
        assert!(conversion.formula.is_none());
    }
}
