//! A whole model, small and with odd sizes, through every path that shares memory among threads.
use super::*;
use crate::machine::cpu::Isa;

const HIDDEN: usize = 40;
const VOCABULARY: usize = 83;
const SIDE: usize = 32;

fn config() -> ModelConfig {
    ModelConfig {
        scale_factor: 2,
        vision: VisionConfig {
            hidden_size: 36,
            intermediate_size: 50,
            num_hidden_layers: 2,
            num_attention_heads: 3,
            num_channels: 3,
            image_size: SIDE,
            patch_size: 4,
            layer_norm_eps: 1e-6,
        },
        text: TextConfig {
            hidden_size: HIDDEN,
            intermediate_size: 70,
            num_hidden_layers: 2,
            num_attention_heads: 6,
            num_key_value_heads: 2,
            head_dim: 12,
            vocab_size: VOCABULARY,
            max_position_embeddings: 640,
            rope_theta: 10_000.0,
            rms_norm_eps: 1e-5,
            tie_word_embeddings: true,
        },
    }
}

/// Numbers in ±0.5 that look random.
fn numbers(seed: usize) -> impl Iterator<Item = f32> {
    (0_usize..).map(move |i| {
        let mixed = (i + 7919 * seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        mixed as f32 / (1 << 24) as f32 - 0.5
    })
}

fn checkpoint() -> Checkpoint {
    let shapes = names::tensors(&config());
    let tensors = shapes.into_iter().enumerate().map(|(seed, (name, shape))| {
        let count = shape.iter().product();
        let bytes: Vec<u8> = numbers(seed).take(count).flat_map(f32::to_le_bytes).collect();
        MemoryTensor { name, dtype: TensorType::Float32, shape, bytes: Box::new(bytes) }
    });
    Checkpoint::from_memory(tensors.collect()).expect("consistent")
}

/// Takes the tokens of some sequences through the model; gives the scores after each.
fn step(engine: &mut Engine, sequences: &[(u64, &[i64])], features: &[f32]) -> Vec<f32> {
    let (ids, lengths): (Vec<_>, Vec<_>) = sequences.iter().map(|(id, t)| (*id, t.len())).unzip();
    let tokens = sequences.iter().flat_map(|(_, t)| t.iter().copied());
    // Negative tokens stand for the rows of `features`.
    let rows: Vec<_> = tokens.clone().map(|t| (-t).max(0) - 1).collect();
    let tokens: Vec<_> = tokens.map(|t| t.max(0)).collect();
    let outputs: Vec<_> = (0..tokens.len()).collect();
    let input = StepInput {
        sequences: &ids,
        lengths: &lengths,
        ids: &tokens,
        features,
        feature_rows: &rows,
        outputs: &outputs,
    };
    let mut logits = vec![0.0; tokens.len() * VOCABULARY];
    engine.step(&input, Output::Logits(&mut logits)).expect("a step");
    logits
}

/// A picture, a prompt longer than a block of keys in two pieces, a fork of it, and three sequences side by side.
fn answers(dtype: WeightFormat, threads: usize) -> Vec<f32> {
    let options = LoadOptions {
        isa: Isa::of_environment().expect("a set that this machine has"),
        dtype,
        kv_dtype: KvFormat::named(dtype.name()).unwrap_or(KvFormat::Bfloat16),
        threads,
        cache_positions: 1280,
        packed_cache: None,
    };
    let mut engine = Engine::new(|| Ok(checkpoint()), config(), &options).expect("it fits");
    let pixels: Vec<f32> = numbers(1000).take(3 * SIDE * SIDE).collect();
    let mut visible = vec![true; 64];
    visible[50..].fill(false);
    let tokens = engine.image_tokens(SIDE, SIDE).expect("a good size");
    let mut features = vec![0.0; tokens * HIDDEN];
    let frame = Frame { pixels: &pixels, height: SIDE, width: SIDE, patch_mask: &visible };
    engine.encode(&frame, &mut features).expect("encodes");
    let mut all = features.clone();

    let prompt: Vec<i64> =
        (1..=tokens as i64).map(|row| -row).chain((0..300).map(|i| i * 31 % VOCABULARY as i64)).collect();
    let first = engine.cache().open();
    let cut = 131;
    all.extend(step(&mut engine, &[(first, &prompt[..cut])], &features));
    all.extend(step(&mut engine, &[(first, &prompt[cut..])], &features));
    let second = engine.cache().fork(first, 277).expect("long enough");
    let third = engine.cache().open();
    let sides: [(u64, &[i64]); 3] = [(first, &[5]), (second, &[6, 7, 8]), (third, &prompt[20..60])];
    all.extend(step(&mut engine, &sides, &features));
    engine.cache().close(first).expect("open");
    engine.cache().truncate(second, 100).expect("long enough");
    all.extend(step(&mut engine, &[(third, &[9]), (second, &[9])], &[]));
    all
}

#[test]
fn a_small_model_gives_the_same_on_one_thread_and_on_three() {
    for dtype in WeightFormat::ALL {
        let alone = answers(dtype, 1);
        assert!(alone.iter().all(|x| x.is_finite()));
        assert!(alone.iter().any(|x| x.abs() > 0.1));
        assert!(alone == answers(dtype, 3), "{dtype:?}");
    }
}
