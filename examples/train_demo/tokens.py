"""The tokenizer: a small byte-level BPE with the special tokens of the SmolVLM family in the family's roles."""

from __future__ import annotations

import random

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from .clips import draw_clip
from .prompts import WORDS, video_intro
from .questions import ask_clip, ask_scene
from .scenes import FORMATS, draw_scene

VOCABULARY = 512
BOS, EOS, PAD, UNKNOWN = "<|im_start|>", "<end_of_utterance>", "<|im_end|>", "<|endoftext|>"
IMAGE, FAKE, GLOBAL = "<image>", "<fake_token_around_image>", "<global-img>"
TILES = [f"<row_{r}_col_{c}>" for r in range(1, 7) for c in range(1, 7)]
ADDED = [GLOBAL, *TILES, FAKE, IMAGE, EOS]


def corpus(seed: int = 0, size: int = 400) -> list[str]:
    """Return the texts the merges are learned from: conversations, and the words of the video prompt."""
    rng = random.Random(seed)
    talks = [ask_scene(rng, draw_scene(rng, rng.choice(list(FORMATS)))) for _ in range(size)]
    talks += [ask_clip(rng, draw_clip(rng, rng.randint(2, 8))) for _ in range(size)]
    texts = [f"User:{q.text}\nAssistant: {q.answer}" for talk in talks for q in talk]
    intros = [video_intro(n, 10 * n) + f"\nFrame from 00:0{n}:\n\n" for n in WORDS for _ in range(size // 8)]
    return texts + intros + ["\n\n"] * size


def train_tokenizer() -> Tokenizer:
    """Return the trained tokenizer; the added tokens come last, as in the family's own."""
    tokenizer = Tokenizer(models.BPE())
    splits = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(splits)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(ADDED),
        special_tokens=[UNKNOWN, BOS, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in ADDED])
    if tokenizer.get_vocab_size() != VOCABULARY:
        raise ValueError(f"the corpus gave {tokenizer.get_vocab_size()} tokens, expected {VOCABULARY}")
    return tokenizer
