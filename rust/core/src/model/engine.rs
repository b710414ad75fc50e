//! The engine as its users see it: load a checkpoint, encode frames, step sequences.
use std::path::PathBuf;

use crate::error::{Error, ErrorKind, Result};
use crate::machine::cpu::Isa;
use crate::machine::team::Team;
use crate::model::checkpoint::Checkpoint;
use crate::model::config::ModelConfig;
use crate::model::kernels::{Kernels, select};
use crate::model::kv::{KvCache, KvFormat, PAGE, PageLayout};
use crate::model::linear::WeightFormat;
use crate::model::linear::packed_file::{self, Origin, Outcome, Packer};
use crate::model::names;
use crate::model::text::{Output, STEP_ROWS, Segment, TextBuffers, TextModel};
use crate::model::vision::{Frame, VisionBuffers, VisionModel};

/// How to load a model.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// Storage of the weights.
    pub dtype: WeightFormat,
    /// Storage of keys and values.
    pub kv_dtype: KvFormat,
    /// Instruction set; `None` for the best that the machine has.
    pub isa: Option<Isa>,
    /// Number of threads.
    pub threads: usize,
    /// Positions that the key/value cache holds, all sequences together.
    pub cache_positions: usize,
    /// Folder in which packed weights are kept for later loads, if any.
    pub packed_cache: Option<PathBuf>,
}

/// Tokens of one step: `lengths[i]` tokens go on with sequence `sequences[i]`.
pub struct StepInput<'a> {
    /// Handles, each at most once.
    pub sequences: &'a [u64],
    /// Tokens per sequence.
    pub lengths: &'a [usize],
    /// All token ids, sequence after sequence.
    pub ids: &'a [i64],
    /// Rows that replace embeddings, `hidden_size` wide.
    pub features: &'a [f32],
    /// For each token the row of `features` that replaces its embedding, or a negative number.
    pub feature_rows: &'a [i64],
    /// Tokens (indices into `ids`) whose output the step gives.
    pub outputs: &'a [usize],
}

/// The weights of a model, and what became of the file in which they are kept packed.
type Loaded = (VisionModel, TextModel, Outcome);

/// Reads the weights from the file in which they were kept packed, or packs them.
fn load_weights(
    config: &ModelConfig,
    checkpoint: &Checkpoint,
    options: &LoadOptions,
    kernels: &'static Kernels,
    team: &mut Team,
) -> Result<Loaded> {
    let [vision, text] = [true, false].map(|many_rows| kernels.storage(options.dtype, many_rows));
    let load = |mut packer: Packer<'_>| -> Result<Loaded> {
        let vision = VisionModel::load(config, checkpoint, &mut packer, (kernels, vision))?;
        let text = TextModel::load(&config.text, checkpoint, &mut packer, (kernels, text))?;
        Ok((vision, text, packer.finish()?))
    };
    let Some(folder) = &options.packed_cache else {
        return load(Packer::new(kernels, team));
    };
    let identity =
        checkpoint.identity().ok_or_else(|| Error::config("packed weights are kept for checkpoints in files only"))?;
    let key = packed_file::key(&identity, &names::tensors(config), [vision, text]);
    let path = folder.join(format!("{key:016x}.packed"));
    let origin = Origin { key, stamp: checkpoint.stamp(), content: &|| checkpoint.content() };
    let found = Packer::reading(kernels, team, &path, &origin).and_then(|packer| packer.map(load).transpose());
    match found {
        Ok(Some(loaded)) => Ok(loaded),
        Ok(None) => load(Packer::writing(kernels, team, &path, &origin)),
        Err(error) if error.kind() == ErrorKind::Packed => {
            let (vision, text, outcome) = load(Packer::writing(kernels, team, &path, &origin))?;
            let outcome = match outcome {
                Outcome::Written => Outcome::Replaced(error.to_string()),
                other => other,
            };
            Ok((vision, text, outcome))
        }
        Err(e) => Err(e),
    }
}

/// A loaded model with its sequences.
pub struct Engine {
    config: ModelConfig,
    kernels: &'static Kernels,
    checkpoint: Checkpoint,
    kv_dtype: KvFormat,
    vision: VisionModel,
    text: TextModel,
    packed: Outcome,
    cache: KvCache,
    text_buffers: TextBuffers,
    vision_buffers: Option<VisionBuffers>,
    team: Team,
}

impl Engine {
    /// Reads, checks and packs the safetensors files of a checkpoint.
    pub fn load(paths: &[String], config: ModelConfig, options: &LoadOptions) -> Result<Self> {
        Self::new(|| Checkpoint::open(paths), config, options)
    }

    /// Checks and packs the tensors that `open` gives; it is called once everything else holds.
    pub fn new(open: impl FnOnce() -> Result<Checkpoint>, config: ModelConfig, options: &LoadOptions) -> Result<Self> {
        config.validate()?;
        let kernels = select(options.isa)?;
        let mut team = Team::new(options.threads)?;
        let checkpoint = open()?;
        let t = &config.text;
        let layout = PageLayout::new(options.kv_dtype, t.num_hidden_layers, t.num_key_value_heads, t.head_dim);
        let cache = KvCache::new(layout, options.cache_positions, t.max_position_embeddings)?;
        let (name, shape) = names::embedding(t);
        checkpoint.tensor(&name, &shape)?;
        let (vision, text, packed) = load_weights(&config, &checkpoint, options, kernels, &mut team)?;
        let text_buffers = TextBuffers::new(&text, cache.layout(), options.threads)?;
        let kv_dtype = options.kv_dtype;
        Ok(Self {
            config,
            kernels,
            checkpoint,
            kv_dtype,
            vision,
            text,
            packed,
            cache,
            text_buffers,
            vision_buffers: None,
            team,
        })
    }

    /// Name of the instruction set in use.
    pub fn isa(&self) -> &'static str {
        self.kernels.name
    }

    /// Bytes of the key/value cache that a position takes.
    pub fn position_bytes(&self) -> usize {
        self.cache.layout().page_bytes() / PAGE
    }

    /// What became of the file of packed weights.
    pub fn packed(&self) -> &Outcome {
        &self.packed
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        self.team.threads()
    }

    /// Bytes of weights that a step of the text stack reads.
    pub fn text_bytes(&self) -> usize {
        self.text.bytes()
    }

    /// The sequences.
    pub fn cache(&mut self) -> &mut KvCache {
        &mut self.cache
    }

    /// Image tokens of a frame of this size.
    pub fn image_tokens(&self, height: usize, width: usize) -> Result<usize> {
        Ok(self.vision.frame_size(height, width)?.2)
    }

    /// Writes the image tokens of one frame to `out`.
    pub fn encode(&mut self, frame: &Frame<'_>, out: &mut [f32]) -> Result<()> {
        let (rows, columns, _) = self.vision.frame_size(frame.height, frame.width)?;
        if self.vision_buffers.as_ref().is_none_or(|b| b.patches() < rows * columns) {
            self.vision_buffers = None;
            let buffers = VisionBuffers::new(&self.config, self.kv_dtype, rows * columns, self.team.threads())?;
            self.vision_buffers = Some(buffers);
        }
        let Some(buffers) = &mut self.vision_buffers else {
            return Err(Error::defect("the vision buffers were just made"));
        };
        self.vision.encode(&mut self.team, buffers, frame, out)
    }

    /// Takes tokens through the text stack. On an error no sequence has changed.
    pub fn step(&mut self, input: &StepInput<'_>, output: Output<'_>) -> Result<()> {
        self.check(input, &output)?;
        self.cache.reserve(input.sequences, input.lengths)?;
        let hidden = self.config.text.hidden_size;
        let (name, shape) = names::embedding(&self.config.text);
        let table = self.checkpoint.tensor(&name, &shape)?;
        let rows = self.text_buffers.hidden().chunks_exact_mut(hidden);
        for ((row, &id), &feature) in rows.zip(input.ids).zip(input.feature_rows) {
            match usize::try_from(feature) {
                Ok(feature) => row.copy_from_slice(&input.features[feature * hidden..(feature + 1) * hidden]),
                Err(_) => table.read(id as usize, row),
            }
        }
        let (pages, sequences) = self.cache.view(self.kernels);
        let mut row = 0;
        let mut segments = Vec::with_capacity(input.sequences.len());
        for (id, &rows) in input.sequences.iter().zip(input.lengths).filter(|(_, rows)| **rows > 0) {
            let sequence = sequences.get(id).ok_or_else(|| Error::no_sequence(*id))?;
            segments.push(Segment { pages: sequence.pages.clone(), position: sequence.length, row, rows });
            row += rows;
        }
        let (team, buffers) = (&mut self.team, &mut self.text_buffers);
        self.text.step(team, buffers, pages, &segments, (input.outputs, output))?;
        self.cache.advance(input.sequences, input.lengths);
        Ok(())
    }

    fn check(&self, input: &StepInput<'_>, output: &Output<'_>) -> Result<()> {
        let refuse = |reason: String| Err(Error::value(reason));
        let rows = input.lengths.iter().fold(0_usize, |n, l| n.saturating_add(*l));
        if input.sequences.len() != input.lengths.len() {
            return refuse(format!("{} sequences, but {} lengths", input.sequences.len(), input.lengths.len()));
        }
        if rows != input.ids.len() || rows != input.feature_rows.len() {
            let (ids, features) = (input.ids.len(), input.feature_rows.len());
            return refuse(format!("lengths add up to {rows}, but there are {ids} ids and {features} feature rows"));
        }
        if rows == 0 || rows > STEP_ROWS {
            return refuse(format!("a step takes 1 to {STEP_ROWS} tokens, got {rows}"));
        }
        let vocab_size = self.config.text.vocab_size;
        let hidden = self.config.text.hidden_size;
        let features = input.features.len() / hidden;
        for (&id, &feature) in input.ids.iter().zip(input.feature_rows) {
            if id < 0 || id >= vocab_size as i64 {
                return Err(Error::value(format!("token id {id} is outside the vocabulary of {vocab_size} tokens")));
            }
            if feature >= features as i64 {
                return refuse(format!("feature row {feature} of {features}"));
            }
        }
        if let Some(token) = input.outputs.iter().find(|token| **token >= rows) {
            return refuse(format!("output of token {token} is wanted, the step has {rows}"));
        }
        let wanted = input.outputs.len();
        if wanted > STEP_ROWS {
            return refuse(format!("{wanted} outputs are wanted, a step has at most {STEP_ROWS}"));
        }
        let (given, expected) = match output {
            Output::Logits(logits) => (logits.len(), wanted * vocab_size),
            Output::Argmax(best) => (best.len(), wanted),
        };
        if given != expected {
            return refuse(format!("the output holds {given} elements, {expected} are wanted"));
        }
        Ok(())
    }
}
