"""Values in error messages: bounded, without addresses and payloads."""

from __future__ import annotations

from collections import UserDict
from pathlib import Path

import numpy as np
import pytest
from faster_smolvlm.quoting import quoted, shown, type_name
from PIL import Image

LONG = "A" * 100_000


def nested(depth: int) -> object:
    value: object = LONG
    for _ in range(depth):
        value = [value, {"key": value}]
    return value


@pytest.mark.parametrize(
    "value",
    [
        LONG, LONG.encode(), [LONG] * 9, {LONG: LONG}, {LONG}, (LONG,), nested(6), 10**100_000, -(10**5000), 1.5,
        Image.new("RGB", (8, 8)), np.zeros((200, 200)), object(), object, UserDict({LONG: LONG}), iter(LONG),
        type(LONG, (), {}), type(LONG, (), {})(), [object()], {"a": Image.new("L", (8, 8))}, Path(LONG), None,
        list(range(10**6)), "\x1b[31m" * 1000, "\udcff" * 1000,
    ],
    ids=lambda value: type(value).__name__[:10],
)  # fmt: skip
def test_any_value_is_short_and_has_no_address(value: object) -> None:
    text = shown(value)
    assert len(text) < 1300
    assert " at 0x" not in text
    assert text.isprintable()
    assert len(type_name(value)) < 300


def test_small_values_look_as_in_code() -> None:
    for value in ("it's", 3, -2.5, None, True, [1, "a"], (1, 2), {"a": [None]}, b""):
        assert shown(value) == (repr(value) if value != b"" else "0 bytes")
    assert shown(np.float32(0.5)) == "0.5"
    assert shown(np.zeros((2, 3))) == "<ndarray of shape (2, 3)>"
    assert shown([[[1, 2]]]) == "[[list of 2]]"


def test_the_payload_of_a_data_uri_is_not_shown() -> None:
    for scheme in ("data", "DATA", "Data"):
        text = quoted(f"{scheme}:image/png;base64,{'iVBOR' * 3}")
        assert "iVBOR" not in text
        assert text == f"'{scheme}:image/png;base64,… (15 characters)'"
    assert len(quoted("data:" + "x" * 100_000)) < 220
