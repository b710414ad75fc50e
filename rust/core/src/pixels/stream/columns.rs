//! A pass over columns in pieces that the first cache holds.

use crate::error::Result;
use crate::pixels::taps::{LANES, Taps};

/// A pass over columns, cut into pieces of whole strips of outputs; the inputs of a piece are few enough for the first
/// cache where the scale allows.
pub(crate) struct Columns {
    /// From left to right.
    pub(crate) pieces: Vec<Piece>,
    /// Outputs of all pieces.
    pub outputs: usize,
}

/// Some neighbouring outputs of a pass over columns.
pub(crate) struct Piece {
    /// The first input of the piece.
    pub(crate) first: usize,
    /// Inputs of the piece.
    pub(crate) inputs: usize,
    /// The weights, their inputs counted from the first of the piece.
    pub(crate) taps: Taps,
}

/// Inputs of a piece, more only where one strip of outputs needs more.
const PIECE_INPUTS: usize = 272;

impl Columns {
    /// Cut a pass.
    pub(crate) fn new(taps: &Taps) -> Result<Self> {
        let (mut pieces, mut start) = (Vec::new(), 0);
        let outputs = taps.outputs();
        while start < outputs {
            let base = taps.first(start);
            let mut end = (start + LANES).min(outputs);
            while end < outputs && taps.end((end + LANES).min(outputs) - 1) - base <= PIECE_INPUTS {
                end = (end + LANES).min(outputs);
            }
            pieces.push(Piece { first: base, inputs: taps.end(end - 1) - base, taps: taps.part(start..end, base)? });
            start = end;
        }
        Ok(Self { pieces, outputs })
    }
}
