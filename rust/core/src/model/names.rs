//! Names and shapes of the tensors of a checkpoint, as Transformers writes them: for the loaders, and for those who make
//! checkpoints of random weights.
use super::config::{ModelConfig, TextConfig, VisionConfig};
use crate::error::Result;

/// Name and shape of a tensor.
pub(crate) type Spec = (String, Vec<usize>);

fn spec(name: String, shape: &[usize]) -> Spec {
    (name, shape.to_vec())
}

/// A matrix and its bias, or weight and bias of a norm.
pub(crate) struct Affine {
    /// The weight.
    pub(crate) weight: Spec,
    /// The bias, as long as the first dimension of the weight.
    pub(crate) bias: Spec,
}

fn affine(name: &str, shape: &[usize]) -> Affine {
    Affine { weight: spec(format!("{name}.weight"), shape), bias: spec(format!("{name}.bias"), &shape[..1]) }
}

/// Tensors of a layer of the vision tower.
#[allow(missing_docs)] // the names say it
pub(crate) struct VisionLayer {
    pub(crate) norm1: Affine,
    pub(crate) q: Affine,
    pub(crate) k: Affine,
    pub(crate) v: Affine,
    pub(crate) out: Affine,
    pub(crate) norm2: Affine,
    pub(crate) fc1: Affine,
    pub(crate) fc2: Affine,
}

const TOWER: &str = "model.vision_model";

/// Tensors of layer `index` of the vision tower.
pub(crate) fn vision_layer(v: &VisionConfig, index: usize) -> VisionLayer {
    let (h, m) = (v.hidden_size, v.intermediate_size);
    let part = |part: &str, shape: &[usize]| affine(&format!("{TOWER}.encoder.layers.{index}.{part}"), shape);
    VisionLayer {
        norm1: part("layer_norm1", &[h]),
        q: part("self_attn.q_proj", &[h, h]),
        k: part("self_attn.k_proj", &[h, h]),
        v: part("self_attn.v_proj", &[h, h]),
        out: part("self_attn.out_proj", &[h, h]),
        norm2: part("layer_norm2", &[h]),
        fc1: part("mlp.fc1", &[m, h]),
        fc2: part("mlp.fc2", &[h, m]),
    }
}

/// The convolution over patches.
pub(crate) fn patch_embedding(v: &VisionConfig) -> Affine {
    let shape = [v.hidden_size, v.num_channels, v.patch_size, v.patch_size];
    affine(&format!("{TOWER}.embeddings.patch_embedding"), &shape)
}

/// The position embeddings of the vision tower.
pub(crate) fn position_embedding(v: &VisionConfig) -> Spec {
    spec(format!("{TOWER}.embeddings.position_embedding.weight"), &[v.grid() * v.grid(), v.hidden_size])
}

/// The norm behind the vision tower.
pub(crate) fn post_norm(v: &VisionConfig) -> Affine {
    affine(&format!("{TOWER}.post_layernorm"), &[v.hidden_size])
}

/// The projection of the connector.
pub(crate) fn connector(c: &ModelConfig) -> Spec {
    let inputs = c.vision.hidden_size * c.scale_factor * c.scale_factor;
    spec("model.connector.modality_projection.proj.weight".into(), &[c.text.hidden_size, inputs])
}

/// Tensors of a layer of the text stack.
#[allow(missing_docs)] // the names say it
pub(crate) struct TextLayer {
    pub(crate) input_norm: Spec,
    pub(crate) q: Spec,
    pub(crate) k: Spec,
    pub(crate) v: Spec,
    pub(crate) o: Spec,
    pub(crate) post_norm: Spec,
    pub(crate) gate: Spec,
    pub(crate) up: Spec,
    pub(crate) down: Spec,
}

/// Tensors of layer `index` of the text stack.
pub(crate) fn text_layer(t: &TextConfig, index: usize) -> TextLayer {
    let (h, m) = (t.hidden_size, t.intermediate_size);
    let (q, kv) = (t.num_attention_heads * t.head_dim, t.num_key_value_heads * t.head_dim);
    let part = |part: &str, shape: &[usize]| spec(format!("model.text_model.layers.{index}.{part}.weight"), shape);
    TextLayer {
        input_norm: part("input_layernorm", &[h]),
        q: part("self_attn.q_proj", &[q, h]),
        k: part("self_attn.k_proj", &[kv, h]),
        v: part("self_attn.v_proj", &[kv, h]),
        o: part("self_attn.o_proj", &[h, q]),
        post_norm: part("post_attention_layernorm", &[h]),
        gate: part("mlp.gate_proj", &[m, h]),
        up: part("mlp.up_proj", &[m, h]),
        down: part("mlp.down_proj", &[h, m]),
    }
}

/// The embedding table.
pub(crate) fn embedding(t: &TextConfig) -> Spec {
    spec("model.text_model.embed_tokens.weight".into(), &[t.vocab_size, t.hidden_size])
}

/// The head, which may be the embedding table.
pub(crate) fn head(t: &TextConfig) -> Spec {
    if t.tie_word_embeddings {
        return embedding(t);
    }
    spec("lm_head.weight".into(), &[t.vocab_size, t.hidden_size])
}

/// The norm before the head.
pub(crate) fn text_norm(t: &TextConfig) -> Spec {
    spec("model.text_model.norm.weight".into(), &[t.hidden_size])
}

impl ModelConfig {
    /// Names and shapes of all tensors of a checkpoint; an error for sizes that the engine refuses.
    pub fn tensors(&self) -> Result<Vec<Spec>> {
        self.validate()?;
        Ok(tensors(self))
    }
}

/// All tensors of a checkpoint, for sizes that were checked.
pub fn tensors(c: &ModelConfig) -> Vec<Spec> {
    let (v, t) = (&c.vision, &c.text);
    let mut all = Vec::new();
    let mut pairs = vec![patch_embedding(v), post_norm(v)];
    for index in 0..v.num_hidden_layers {
        let VisionLayer { norm1, q, k, v, out, norm2, fc1, fc2 } = vision_layer(v, index);
        pairs.extend([norm1, q, k, v, out, norm2, fc1, fc2]);
    }
    all.extend(pairs.into_iter().flat_map(|pair| [pair.weight, pair.bias]));
    all.extend([position_embedding(v), connector(c), embedding(t)]);
    for index in 0..t.num_hidden_layers {
        let TextLayer { input_norm, q, k, v, o, post_norm, gate, up, down } = text_layer(t, index);
        all.extend([input_norm, q, k, v, o, post_norm, gate, up, down]);
    }
    all.push(text_norm(t));
    if !t.tie_word_embeddings {
        all.push(head(t));
    }
    all
}
