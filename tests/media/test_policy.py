"""The fields of a policy: types, values, and what messages say of them."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from faster_smolvlm.media import MediaPolicy
from faster_smolvlm.media.policy_fields import _CHECKS

FIELDS = {field.name: str(field.type) for field in fields(MediaPolicy)}
WRONG: dict[str, list[Any]] = {
    "int": ["20", 1.5, True, None, [1], b"1", float("inf")],
    "float": ["20", False, None, [1.0], 1j],
    "bool": ["false", 0, 1, None],
    "tuple[str, ...]": ["PNG", None, 5, (1,), b"PNG"],
    "tuple[int, ...] | range": ["80", 80, ("80",), (1.5,), b"P"],
}


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_refuses_other_types(name: str) -> None:
    declared = FIELDS[name].removesuffix(" | None")
    assert declared in _CHECKS
    for value in WRONG[declared]:
        if value is None and declared != FIELDS[name]:
            continue
        with pytest.raises(TypeError, match=rf"MediaPolicy\.{name} must be .*got ") as error:
            MediaPolicy(**{name: value})
        assert len(str(error.value)) < 200
    with pytest.raises(TypeError, match=name) as error:
        MediaPolicy.strict(**{name: [object()] if "tuple" in declared else object()})
    assert "0x" not in str(error.value)


@pytest.mark.parametrize(
    "name", [name for name, declared in FIELDS.items() if declared in ("int", "int | None", "float")]
)
def test_numbers_make_sense(name: str) -> None:
    for value in (-1, -5.0) if name == "max_redirects" else (0, -1, -5.0):
        with pytest.raises(ValueError, match=rf"MediaPolicy\.{name} must be (positive|not negative)"):
            MediaPolicy(**{name: value})
    good: list[Any] = [np.int64(7), 7.0] if "int" in FIELDS[name] else [np.float32(7), 7, float("inf")]
    for value in good:
        assert getattr(MediaPolicy(**{name: value}), name) == value


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"allowed_domains": ("https://example.com",)}, "names or addresses of hosts"),
        ({"allowed_domains": ("example.com:80",)}, "names or addresses of hosts"),
        ({"allowed_domains": ("*.example.com",)}, "names or addresses of hosts"),
        ({"allowed_domains": ("1::2::3",)}, "names or addresses of hosts"),
        ({"allowed_domains": ("",)}, "names or addresses of hosts"),
        ({"allowed_ports": (0,)}, "positive"),
        ({"allowed_ports": (80, 65536)}, "at most 65535"),
        ({"allowed_ports": range(1, 70000)}, "at most 65535"),
        ({"allowed_ports": range(9, 0, -1)}, None),
        ({"total_timeout": float("nan")}, "positive"),
    ],
)
def test_values_without_sense(changes: dict[str, Any], message: str | None) -> None:
    if message is None:
        assert MediaPolicy(**changes)
        return
    with pytest.raises(ValueError, match=message):
        MediaPolicy(**changes)


def test_lists_become_tuples() -> None:
    policy = MediaPolicy(formats=["PNG"], allowed_domains=["example.com", "::1", "[::1]"], allowed_ports=[8080])  # type: ignore[arg-type]
    assert (policy.formats, policy.allowed_ports) == (("PNG",), (8080,))
    assert policy.allowed_domains == ("example.com", "::1", "[::1]")
    assert hash(policy) is not None
