"""BatchFeature beside Transformers' own."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from faster_smolvlm import BatchFeature

pytestmark = pytest.mark.parity


@pytest.mark.parametrize("tensor_type", ["pt", "np", None])
def test_conversion(tensor_type: str | None) -> None:
    data: dict[str, Any] = {
        "ids": [[1, 2], [3, 4]],
        "pixels": [np.zeros((2, 3), np.float32), np.ones((2, 3), np.float32)],
    }
    ours, theirs = BatchFeature(dict(data), tensor_type), transformers.BatchFeature(dict(data), tensor_type)
    assert list(ours) == list(theirs)
    for key in data:
        assert type(ours[key]) is type(theirs[key])
        if tensor_type:
            assert ours[key].dtype == theirs[key].dtype
            np.testing.assert_array_equal(ours[key], theirs[key])


def test_ragged_is_a_value_error_for_torch() -> None:
    for kind in (BatchFeature, transformers.BatchFeature):
        with pytest.raises(ValueError, match="Unable to"):
            kind({"a": [[1, 2], [3]]}, "pt")


def test_ragged_is_an_object_array_for_numpy() -> None:
    for kind in (BatchFeature, transformers.BatchFeature):
        array = kind({"a": [[1, 2], [3]]}, "np")["a"]
        assert array.dtype == object
        assert [item.tolist() for item in array] == [[1, 2], [3]]


def test_unknown_tensor_type() -> None:
    with pytest.raises(ValueError, match="tf is not a valid TensorType"):
        BatchFeature({"a": [1]}, "tf")


def test_access() -> None:
    batch = BatchFeature({"a": torch.zeros(2), "note": ["x"]})
    assert batch.a is batch["a"]
    assert dict(**batch).keys() == {"a", "note"}
    with pytest.raises(AttributeError):
        _ = batch.b
    for copied in (pickle.loads(pickle.dumps(batch)), copy.deepcopy(batch)):
        assert torch.equal(copied.a, batch.a)


def test_to_casts_floats_only() -> None:
    batch = BatchFeature({"pixels": torch.zeros(2), "ids": torch.zeros(2, dtype=torch.int64), "rows": [[1]]})
    moved = batch.to("cpu", torch.bfloat16)
    assert moved.pixels.dtype == torch.bfloat16
    assert moved.ids.dtype == torch.int64
    assert moved["rows"] == [[1]]
    with pytest.raises(TypeError):
        batch.to(devise="cpu")
