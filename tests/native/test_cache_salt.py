"""Calls with different salts share nothing of what is kept between calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from faster_smolvlm import SmolVLM
from faster_smolvlm.native import NativeEngine, NativeSmolVLM, start_generation

from tests.helpers.native_models import Saved, prompt

SALTS: list[Any] = [None, "", "alice", "bob", b"\xff", "\ud800", "alice" * 100_000]


def test_the_engine_shares_within_a_salt_only(random_model: Callable[[str], Saved]) -> None:
    saved = random_model("odd")
    native = NativeSmolVLM.from_pretrained(saved.directory, prefix_cache_bytes=1 << 30)
    inputs = prompt(saved.model.config, 2, 40, seed=5)

    def ask(salt: Any) -> tuple[int, int, np.ndarray]:
        engine = NativeEngine(native, inputs["input_ids"], pixel_values=inputs["pixel_values"], cache_salt=salt)
        logits = engine.prefill()
        engine.free()
        return engine.usages[0].prompt_tokens_reused, engine.usages[0].frames_reused, logits

    first = [ask(salt) for salt in SALTS]
    again = [ask(salt) for salt in SALTS]
    known = inputs["input_ids"].shape[1] - 1
    assert [usage[:2] for usage in first] == [(0, 0)] * len(SALTS)
    assert [usage[:2] for usage in again] == [(known, 2)] * len(SALTS)
    for _, _, logits in (*first, *again):
        np.testing.assert_array_equal(logits, first[0][2])
    assert ask(b"alice")[0] == known, "bytes are the UTF-8 of a text"
    with pytest.raises(TypeError, match="cache_salt has to be a str, bytes or None, got int"):
        ask(3)


def test_pictures_alone_are_not_shared(random_model: Callable[[str], Saved]) -> None:
    """Also where no beginning of a prompt is kept."""
    saved = random_model("odd")
    native = NativeSmolVLM.from_pretrained(saved.directory, prefix_cache_bytes=0)
    inputs = prompt(saved.model.config, 2, 40, seed=5)

    def reused(salt: str | None) -> int:
        with start_generation(native, **inputs, max_new_tokens=2, cache_salt=salt) as decoding:
            list(decoding)
        return decoding.engine.usages[0].frames_reused

    assert [reused(salt) for salt in ("a", "b", None, "b", "a", None)] == [0, 0, 0, 2, 2, 2]


@pytest.mark.parametrize("way", ["generate", "chat", "stream"])
def test_every_way_to_ask_takes_a_salt(way: str) -> None:
    vlm = SmolVLM.from_pretrained("demo", device="cpu")
    picture = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)

    def reused(salt: object) -> tuple[int, int]:
        options: dict[str, Any] = {"max_new_tokens": 2, "cache_salt": salt}
        content = [{"type": "image", "image": picture}, {"type": "text", "text": "What is it?"}]
        if way == "generate":
            result = vlm.generate("What is it?", images=[picture], **options)
        elif way == "chat":
            result = vlm.chat([{"role": "user", "content": content}], **options)
        else:
            with vlm.stream("What is it?", images=[picture], **options) as stream:
                list(stream)
                result = stream.result
        return result.usage.prompt_tokens_reused, result.usage.frames_reused

    assert [reused(salt) for salt in ("a", "b", None)] == [(0, 0)] * 3
    assert all(tokens > 0 and frames > 0 for tokens, frames in map(reused, ("a", "b", None)))
    with pytest.raises(TypeError, match="cache_salt"):
        reused(["a"])


def test_torch_takes_it_and_shares_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTER_SMOLVLM_ENGINE", "torch")
    result = SmolVLM.from_pretrained("demo", device="cpu").generate("Hello", max_new_tokens=1, cache_salt="a")
    assert result.usage.prompt_tokens_reused == 0
