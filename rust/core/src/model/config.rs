//! The numbers of a model's configuration that the engine needs, and their limits.
use crate::error::{Error, Result};
use crate::model::kv::QUERY_ROWS;

/// Sizes of the vision tower.
#[derive(Debug, Clone)]
pub struct VisionConfig {
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Number of attention heads.
    pub num_attention_heads: usize,
    /// Channels of a picture.
    pub num_channels: usize,
    /// Height and width for which there are position embeddings.
    pub image_size: usize,
    /// Height and width of a patch.
    pub patch_size: usize,
    /// Added to the variance in layer norms.
    pub layer_norm_eps: f32,
}

/// Sizes of the text stack (Llama).
#[derive(Debug, Clone)]
pub struct TextConfig {
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Number of query heads.
    pub num_attention_heads: usize,
    /// Number of key and value heads.
    pub num_key_value_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Rows of the embedding and of the head.
    pub vocab_size: usize,
    /// Longest sequence.
    pub max_position_embeddings: usize,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Added to the mean square in RMS norms.
    pub rms_norm_eps: f32,
    /// The head is the embedding.
    pub tie_word_embeddings: bool,
}

/// Sizes of the whole model.
#[derive(Debug, Clone)]
pub struct ModelConfig {
    /// The vision tower.
    pub vision: VisionConfig,
    /// The text stack.
    pub text: TextConfig,
    /// Side of the square of patches that the connector folds into one token.
    pub scale_factor: usize,
}

impl VisionConfig {
    /// Width of a head.
    pub fn head_dim(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }

    /// Patches along one side for which there are position embeddings.
    pub(crate) fn grid(&self) -> usize {
        self.image_size / self.patch_size
    }
}

impl TextConfig {
    /// Query heads per key and value head.
    pub(crate) fn group(&self) -> usize {
        self.num_attention_heads / self.num_key_value_heads
    }

    /// Queries, keys and values of a token.
    pub(crate) fn qkv_width(&self) -> usize {
        (self.num_attention_heads + 2 * self.num_key_value_heads) * self.head_dim
    }
}

impl ModelConfig {
    /// Refuses what contradicts itself, and sizes whose products could overflow.
    pub(crate) fn validate(&self) -> Result<()> {
        let (v, t) = (&self.vision, &self.text);
        let sizes = [
            ("vision_config.hidden_size", v.hidden_size, 1 << 16),
            ("vision_config.intermediate_size", v.intermediate_size, 1 << 18),
            ("vision_config.num_hidden_layers", v.num_hidden_layers, 1 << 10),
            ("vision_config.num_attention_heads", v.num_attention_heads, 1 << 10),
            ("vision_config.num_channels", v.num_channels, 1 << 4),
            ("vision_config.image_size", v.image_size, 1 << 13),
            ("vision_config.patch_size", v.patch_size, 1 << 10),
            ("text_config.hidden_size", t.hidden_size, 1 << 16),
            ("text_config.intermediate_size", t.intermediate_size, 1 << 18),
            ("text_config.num_hidden_layers", t.num_hidden_layers, 1 << 10),
            ("text_config.num_attention_heads", t.num_attention_heads, 1 << 10),
            ("text_config.num_key_value_heads", t.num_key_value_heads, 1 << 10),
            ("text_config.head_dim", t.head_dim, 1 << 10),
            ("text_config.vocab_size", t.vocab_size, 1 << 22),
            ("text_config.max_position_embeddings", t.max_position_embeddings, 1 << 20),
            ("scale_factor", self.scale_factor, 1 << 6),
        ];
        for (name, given, most) in sizes {
            if given == 0 || given > most {
                return Err(Error::config(format!("{name} is {given}, expected 1 to {most}")));
            }
        }
        let demand = |holds: bool, reason: String| {
            if holds { Ok(()) } else { Err(Error::config(reason)) }
        };
        demand(
            v.hidden_size % v.num_attention_heads == 0,
            format!("vision hidden_size {} is no multiple of its {} heads", v.hidden_size, v.num_attention_heads),
        )?;
        demand(
            v.image_size >= v.patch_size,
            format!("image_size {} is smaller than patch_size {}", v.image_size, v.patch_size),
        )?;
        demand(
            t.num_attention_heads % t.num_key_value_heads == 0,
            format!("{} query heads are no multiple of {} key heads", t.num_attention_heads, t.num_key_value_heads),
        )?;
        let group = t.num_attention_heads / t.num_key_value_heads;
        demand(group <= QUERY_ROWS, format!("{group} query heads per key head, at most {QUERY_ROWS} are supported"))?;
        demand(t.head_dim % 2 == 0, format!("head_dim {} is odd; rotary embedding needs pairs", t.head_dim))?;
        demand(t.rope_theta.is_finite() && t.rope_theta > 0.0, format!("rope_theta is {}", t.rope_theta))?;
        for (name, eps) in [("layer_norm_eps", v.layer_norm_eps), ("rms_norm_eps", t.rms_norm_eps)] {
            demand(eps.is_finite() && eps >= 0.0, format!("{name} is {eps}"))?;
        }
        Ok(())
    }
}
