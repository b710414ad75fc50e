//! One step as its threads see it: every layer, then the head.
use super::plan::Plan;
use super::{Layer, TextModel, TextScratch};
use crate::machine::shared::{Part, Share};
use crate::machine::team::Worker;
use crate::model::kv::Pages;
use crate::model::linear::{Activations, Epilogue, Input, InputRows, Largest, Linear, OWN_ROWS, QuantizedRows, Rows};

/// Rows of one task in the norms.
const NORM_ROWS: usize = 8;

/// What the threads only read.
pub(super) struct Forward<'m> {
    pub(crate) model: &'m TextModel,
    pub(crate) plan: Plan<'m>,
    /// Rows that the head is applied to.
    pub(crate) selected: &'m [usize],
}

/// What the threads write, phase by phase.
pub(super) struct Activity<'a> {
    pub(crate) residual: Residual<'a>,
    /// Queries, keys and values.
    pub(crate) qkv: Rows<'a>,
    /// States and outputs of blocks of keys on their way to the merge.
    pub(crate) partial: Rows<'a>,
    pub(crate) attended: Activations<'a>,
    pub(crate) mlp: Activations<'a>,
    pub(crate) largest: Largest<'a>,
    pub(crate) pages: Pages<'a>,
    /// Receives the head's rows, if they are asked for.
    pub(crate) logits: Option<Rows<'a>>,
}

/// The residual stream, and its rows as the layers that read it take them.
pub(super) struct Residual<'a> {
    pub(crate) hidden: Rows<'a>,
    pub(crate) normed: Activations<'a>,
    pub(crate) quantized: QuantizedRows<'a>,
}

impl Share for Activity<'_> {
    unsafe fn handle(&self) -> Self {
        // SAFETY: the caller promises the same.
        unsafe {
            Self {
                residual: Residual {
                    hidden: self.residual.hidden.handle(),
                    normed: self.residual.normed.handle(),
                    quantized: self.residual.quantized.handle(),
                },
                qkv: self.qkv.handle(),
                partial: self.partial.handle(),
                attended: self.attended.handle(),
                mlp: self.mlp.handle(),
                largest: self.largest.handle(),
                pages: self.pages.handle(),
                logits: self.logits.handle(),
            }
        }
    }
}

/// A layer that takes normed rows of the residual stream.
struct Normed<'l> {
    norm: &'l [f32],
    layer: &'l Linear,
    /// Number of rows.
    rows: usize,
    /// Which rows they are, if not the first ones.
    selected: Option<&'l [usize]>,
}

impl Forward<'_> {
    /// What each thread of the job does.
    pub(super) fn run(&self, worker: &mut Worker<'_>, a: &mut Activity<'_>, s: &mut TextScratch) {
        for (index, layer) in self.model.layers.iter().enumerate() {
            self.layer(worker, a, s, (index, layer));
        }
        let head = Normed {
            norm: &self.model.norm,
            layer: &self.model.head,
            rows: self.selected.len(),
            selected: Some(self.selected),
        };
        let epilogue = match &mut a.logits {
            Some(logits) => Epilogue::Write(logits),
            None => Epilogue::Argmax(&mut a.largest),
        };
        self.normed(worker, &mut a.residual, s, &head, epilogue);
    }

    fn layer(&self, worker: &mut Worker<'_>, a: &mut Activity<'_>, s: &mut TextScratch, (index, l): (usize, &Layer)) {
        let rows = self.plan.rows;
        let attention = Normed { norm: &l.input_norm, layer: &l.qkv, rows, selected: None };
        let mlp = Normed { norm: &l.post_norm, layer: &l.gate_up, rows, selected: None };

        self.normed(worker, &mut a.residual, s, &attention, Epilogue::Write(&mut a.qkv));
        self.store(worker, index, a, &mut s.attention);
        self.attend(worker, index, a, s);
        let Residual { hidden, quantized, .. } = &mut a.residual;
        let attended = Input::made(&a.attended, rows, quantized);
        l.o.phase(worker, &mut s.linear, attended, Epilogue::Add(hidden));

        self.normed(worker, &mut a.residual, s, &mlp, Epilogue::SiluMul(&mut a.mlp));
        let Residual { hidden, quantized, .. } = &mut a.residual;
        let gated = Input::made(&a.mlp, rows, quantized);
        l.down.phase(worker, &mut s.linear, gated, Epilogue::Add(hidden));
    }

    /// Norms rows of the residual stream and applies a layer to them. Many rows are normed in a phase of their own; few
    /// by each thread for itself.
    fn normed(
        &self,
        worker: &mut Worker<'_>,
        residual: &mut Residual<'_>,
        s: &mut TextScratch,
        n: &Normed<'_>,
        epilogue: Epilogue<'_, '_>,
    ) {
        let (kernels, eps, width) = (self.model.kernels, self.model.config.rms_norm_eps, n.norm.len());
        let Residual { hidden, normed, quantized } = residual;
        let TextScratch { linear, row: scratch, normed: few, .. } = s;
        let mut norm = |part: &Part<'_>, row: usize, to: &mut Activations<'_>| {
            let x = hidden.row(part.task(), n.selected.map_or(row, |selected| selected[row]));
            to.write_with(part, row, 0..width, scratch, |out| (kernels.rms_norm)(x, n.norm, eps, out));
        };
        let rows = n.rows;
        if rows <= OWN_ROWS {
            let mut few = Activations::new(few, width, n.layer.input(), kernels);
            let mut make = |part: &Part<'_>, to: &mut Activations<'_>| (0..rows).for_each(|row| norm(part, row, to));
            let values = InputRows::PerThread(&mut few, &mut make);
            let input = Input { values, rows, quantized: quantized.reborrow() };
            n.layer.phase(worker, linear, input, epilogue);
        } else {
            worker.for_each_part(rows, NORM_ROWS, |part| part.rows().for_each(|row| norm(part, row, normed)));
            n.layer.phase(worker, linear, Input::made(normed, rows, quantized), epilogue);
        }
    }
}
