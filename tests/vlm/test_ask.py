"""`Ask`: the options of a call, sorted, and the rules about drawing."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from faster_smolvlm import SmolVLM
from faster_smolvlm.vlm.ask import Ask


def test_options_without_a_field_are_about_sampling() -> None:
    assert Ask.of() == Ask()
    ask = Ask.of(max_new_tokens=3, reuse=False, top_k=5, seed=1)
    assert (ask.max_new_tokens, ask.reuse, ask.sampling) == (3, False, {"top_k": 5, "seed": 1})
    with pytest.raises(dataclasses.FrozenInstanceError):
        ask.reuse = True  # type: ignore[misc]


@pytest.mark.parametrize(
    ("options", "draws"),
    [
        ({}, False),
        ({"temperature": 0.7}, True),
        ({"temperature": 0}, False),
        ({"temperature": 0, "top_k": 5}, False),
        ({"top_p": 0.9}, True),
        ({"min_p": 0.1}, True),
        ({"top_k": 5, "do_sample": False}, False),
        ({"repetition_penalty": 1.2}, False),
        ({"do_sample": True}, True),
    ],
)
def test_when_tokens_are_drawn(options: dict[str, Any], draws: bool) -> None:
    settings = Ask.of(**options).settings()
    assert settings["do_sample"] is draws
    assert (settings["max_new_tokens"], settings["min_new_tokens"]) == (128, 0)
    if options.get("temperature") == 0:
        assert settings["temperature"] is None


def test_a_call_changes_nothing_of_the_caller() -> None:
    given = {"temperature": 0}
    Ask.of(**given).settings()
    assert given == {"temperature": 0}


def test_options_that_watching_cannot_use_are_named() -> None:
    vlm = SmolVLM.from_pretrained("demo", device="cpu")
    for name, value in (("do_image_splitting", False), ("reuse", True)):
        with pytest.raises(TypeError, match=name):
            vlm.watch([], prompt="?", **{name: value})
