"""Variants of one small checkpoint: Transformers, the torch classes, an accelerated model and `SmolVLM` answer alike.

Each variant is a change of the weights and of the JSON files. What Transformers loads whole is answered by all fronts
with its ids; what it would fill up with random weights, or refuses, is refused by both loaders in the same words.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from faster_smolvlm import AutoModelForImageTextToText, SmolVLM
from faster_smolvlm.integrations.transformers import accelerate
from safetensors.torch import load_file, save_file

from tests.helpers.native_models import DEMO_DIRECTORY as DEMO

pytestmark = [pytest.mark.parity, pytest.mark.usefixtures("one_thread")]

State = dict[str, torch.Tensor]
Json = dict[str, Any]
HEAD, EMBEDDING, NORM = "lm_head.weight", "model.text_model.embed_tokens.weight", "model.text_model.norm.weight"
QUESTION, NEW = "Describe the image.", 6
IMAGE = np.full((64, 64, 3), (200, 40, 90), np.uint8)


@dataclass(frozen=True)
class Variant:
    """Changes of a checkpoint; `refused` is a pattern of the error, None for what has to be answered.

    `text` and `top` are entries of config.json, None for one that is taken out; `settings` is generation_config.json.
    """

    weights: Callable[[State], State] = dict
    top: Json = field(default_factory=dict)
    text: Json = field(default_factory=dict)
    settings: Json | None = None
    call: Json = field(default_factory=dict)
    sharded: bool = False
    refused: str | None = None


def rename(old: str, new: str) -> Callable[[State], State]:
    """Replace the start of every name."""
    return lambda state: {new + n.removeprefix(old) if n.startswith(old) else n: t for n, t in state.items()}


def without(name: str, **others: torch.Tensor) -> Callable[[State], State]:
    return lambda state: {n: t for n, t in {**state, **others}.items() if n != name}


def with_head(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[State], State]:
    return lambda state: {**state, HEAD: change(state[EMBEDDING]).clone()}


def cast(dtype: torch.dtype) -> Callable[[State], State]:
    return lambda state: {name: tensor.to(dtype) for name, tensor in state.items()}


def buffers(state: State) -> State:
    return {
        **state,
        "model.text_model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4),
        "model.vision_model.embeddings.position_ids": torch.arange(64)[None],
        "ema.step": torch.tensor(3),
    }


def flipped(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.flip(0)


SAID = -1
"""Stands for a token of the answer of the unchanged checkpoint, so that as an id to end with it ends the answer."""
UNTIED = {"tie_word_embeddings": False}
MISSING = "missing: "
VARIANTS = {
    "plain": Variant(),
    "sharded": Variant(sharded=True),
    "sharded, renamed, own head": Variant(
        lambda state: rename("model.", "")(with_head(flipped)(state)), sharded=True, top={"use_cache": False}
    ),
    "bfloat16": Variant(cast(torch.bfloat16), top={"dtype": "bfloat16"}),
    "float16 with float32 in the config": Variant(cast(torch.float16)),
    "float64": Variant(cast(torch.float64)),
    "names without model.": Variant(rename("model.", "")),
    "names with model. twice": Variant(rename("model.", "model.model.")),
    "a head with model.": Variant(lambda state: {**state, "model.lm_head.weight": state[EMBEDDING].flip(0).clone()}),
    "old buffers": Variant(buffers),
    "another head, tied": Variant(with_head(flipped)),
    "another head, untied": Variant(with_head(flipped), top=UNTIED),
    "another head, tied by the text config alone": Variant(
        with_head(flipped), top={"tie_word_embeddings": None}, text={"tie_word_embeddings": True}
    ),
    "an equal head, tied": Variant(with_head(torch.clone)),
    "an equal head of another dtype": Variant(with_head(torch.Tensor.double)),
    "another head of another dtype": Variant(with_head(lambda tensor: tensor.flip(0).half())),
    "a head and no embeddings, tied": Variant(rename(EMBEDDING, HEAD)),
    "a head and no embeddings, tied, short names": Variant(
        lambda state: rename("model.", "")(rename(EMBEDDING, HEAD)(state))
    ),
    "idefics3": Variant(top={"model_type": "idefics3", "vision_config.model_type": "idefics3"}),
    "idefics3, another head, end in the config": Variant(
        with_head(flipped), top={"model_type": "idefics3", "eos_token_id": 7}
    ),
    "no use of a cache": Variant(top={"use_cache": False}, text={"use_cache": False}),
    "no use of a cache in the text config": Variant(text={"use_cache": False}),
    "end in the top level": Variant(top={"eos_token_id": SAID}, text={"eos_token_id": None}),
    "end in the top level, a list": Variant(top={"eos_token_id": [3, SAID]}),
    "end in the text config": Variant(text={"eos_token_id": SAID}),
    "end in the text config, a list": Variant(text={"eos_token_id": [SAID, 5]}),
    "another end in the top level": Variant(top={"eos_token_id": 3}, text={"eos_token_id": SAID}),
    "no end": Variant(text={"eos_token_id": None}),
    "ends out of range": Variant(text={"eos_token_id": 100000}, top={"pad_token_id": 100000}),
    "end in the settings": Variant(settings={"eos_token_id": SAID}),
    "end in the settings, a list": Variant(settings={"eos_token_id": [SAID]}, top={"eos_token_id": 3}),
    "empty settings": Variant(settings={}, text={"eos_token_id": SAID}),
    "no end in the settings": Variant(settings={"eos_token_id": None, "bos_token_id": 1}, text={"eos_token_id": SAID}),
    "negative end in the settings": Variant(settings={"eos_token_id": -1}),
    "suppressed": Variant(settings={"suppress_tokens": [SAID, 510, 9999]}),
    "suppressed at the start": Variant(settings={"begin_suppress_tokens": [SAID, 510]}),
    "bad words": Variant(settings={"bad_words_ids": [[510], [SAID], [SAID, 7]], "eos_token_id": 3}),
    "bad words with the end": Variant(settings={"bad_words_ids": [[SAID], [4]], "eos_token_id": [SAID]}),
    "suppressed, turned off": Variant(settings={"suppress_tokens": [SAID]}, call={"suppress_tokens": None}),
    "end in the config, turned off": Variant(text={"eos_token_id": SAID}, call={"eos_token_id": None}),
    "suppressed by the call": Variant(call={"suppress_tokens": [SAID], "bad_words_ids": [[5, 6], [8]]}),
    "a kind of cache": Variant(settings={"cache_implementation": "hybrid", "typical_p": 0.5}),
    "penalties": Variant(settings={"repetition_penalty": 1.3, "no_repeat_ngram_size": 2, "suppress_tokens": [SAID]}),
    "no head, untied": Variant(top=UNTIED, refused=MISSING + "lm_head"),
    "no head, tying not said": Variant(top={"tie_word_embeddings": None}, refused=MISSING + "lm_head"),
    "a head of another shape": Variant(with_head(lambda tensor: tensor[:-1]), refused="lm_head.weight is "),
    "neither head nor embeddings": Variant(without(EMBEDDING), refused=MISSING + EMBEDDING),
    "a norm is missing": Variant(without(NORM), refused=MISSING + NORM),
    "a norm is missing, sharded": Variant(without(NORM), sharded=True, refused=MISSING + NORM),
    "a norm of another shape": Variant(lambda s: {**s, NORM: torch.ones(3)}, refused=f"{NORM} is "),
    "compiled": Variant(rename("", "_orig_mod."), refused=MISSING),
    "distributed": Variant(rename("", "module."), refused=MISSING),
    "adapted": Variant(rename("", "base_model.model."), refused=MISSING),
    "another name of the text": Variant(rename("model.text_model.", "model.language_model."), refused=MISSING),
    "another name of the vision": Variant(rename("model.vision_model.", "model.vision_tower."), refused=MISSING),
    "another name of the connector": Variant(rename("model.connector.", "model.projector."), refused=MISSING),
}  # fmt: skip


@dataclass(frozen=True)
class Small:
    """The unchanged checkpoint, the inputs of the question, and a token of the answer."""

    config: Json
    state: State
    inputs: dict[str, torch.Tensor]
    said: int


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    config = json.loads((DEMO / "config.json").read_text())
    for part, layers in (("vision", 1), ("text", 2)):
        config[f"{part}_config"]["num_hidden_layers"] = layers
    kept = re.compile(r"(?!.*vision_model.*layers\.[1-9])(?!.*text_model\.layers\.[2-9])")
    state = {name: tensor for name, tensor in load_file(DEMO / "model.safetensors").items() if kept.match(name)}
    folder = tmp_path_factory.mktemp("small")
    plain = write(folder, Small(config, state, {}, 0), Variant())
    vlm = SmolVLM.from_pretrained(plain)
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]}]
    text = vlm.processor.apply_chat_template(messages, add_generation_prompt=True)
    inputs = dict(vlm.processor(text=text, images=[IMAGE], return_tensors="pt"))
    said = theirs(plain, inputs)[0]
    assert len(set(said[:4])) > 2, "the answer has to say more than one thing"
    return Small(config, state, inputs, said[3])


def write(folder: Path, small: Small, variant: Variant) -> Path:
    def filled(values: Any) -> Any:
        if isinstance(values, dict):
            return {name: filled(value) for name, value in values.items()}
        return (
            [filled(value) for value in values]
            if isinstance(values, list)
            else small.said
            if values == SAID
            else values
        )

    config = json.loads(json.dumps(small.config))
    for part, changes in ((config, variant.top), (config["text_config"], variant.text)):
        for name, value in changes.items():
            inner, _, last = name.rpartition(".")
            target = part[inner] if inner else part
            target[last] = filled(value)
            if value is None and last == "tie_word_embeddings":
                del target[last]
    for path in DEMO.iterdir():
        if path.suffix == ".json" and path.name not in ("config.json", "generation_config.json"):
            (folder / path.name).write_bytes(path.read_bytes())
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").unlink(missing_ok=True)
    if variant.settings is not None:
        (folder / "generation_config.json").write_text(json.dumps(filled(variant.settings)))
    state = {name: tensor.clone() for name, tensor in variant.weights(small.state).items()}
    (folder / "model.safetensors").unlink(missing_ok=True)
    if not variant.sharded:
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
        return folder
    names = sorted(state)
    files = {name: f"model-0000{1 + index % 2}-of-00002.safetensors" for index, name in enumerate(names)}
    for file in set(files.values()):
        save_file({n: state[n] for n in names if files[n] == file}, folder / file, metadata={"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))
    return folder


def answer(model: Any, inputs: dict[str, torch.Tensor], call: Json) -> list[int]:
    ids = model.generate(**inputs, max_new_tokens=NEW, do_sample=False, **call)
    return ids[0, inputs["input_ids"].shape[1] :].tolist()


def theirs(folder: Path, inputs: dict[str, torch.Tensor], call: Json | None = None) -> tuple[list[int], list[int], Any]:
    """Answers of Transformers without and with the engines, and what it says about the weights."""
    model, report = transformers.AutoModelForImageTextToText.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    alone = answer(model.eval(), inputs, call or {})
    fast = accelerate(model)
    return alone, answer(fast, inputs, call or {}), (report, fast.generation_engine)


@pytest.mark.parametrize("name", VARIANTS)
def test_all_fronts_answer_alike(name: str, small: Small, tmp_path: Path) -> None:
    variant = VARIANTS[name]
    folder = write(tmp_path, small, variant)
    call = {k: [small.said] if v == [SAID] else v for k, v in variant.call.items()}
    if variant.refused is not None:
        refuse(folder, variant.refused)
        return
    alone, fast, (report, engine) = theirs(folder, small.inputs, call)
    assert not report["missing_keys"]
    assert (fast, engine.name, engine.reason) == (alone, "native", "")
    ours = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    assert answer(ours, small.inputs, {**call, "engine": "torch"}) == alone
    assert answer(ours, small.inputs, call) == alone
    assert (ours.generation_engine.name, ours.generation_engine.reason) == ("native", "")
    short = SmolVLM.from_pretrained(folder, dtype="float32")
    assert short.engine == "native"
    result = short.generate(QUESTION, images=[IMAGE], max_new_tokens=NEW, **call)
    assert list(result.token_ids) == alone


def refuse(folder: Path, words: str) -> None:
    """Check that both loaders refuse in the same words what Transformers does not load whole."""
    said = []
    for load in (AutoModelForImageTextToText, SmolVLM):
        with pytest.raises(RuntimeError) as found:
            load.from_pretrained(folder)
        said.append(str(found.value))
    assert words in said[0]
    assert said[0] == said[1]
    try:
        _, report = transformers.AutoModelForImageTextToText.from_pretrained(folder, output_loading_info=True)
    except RuntimeError:
        return
    assert report["missing_keys"]
