"""A language head in the file that differs from the embeddings is used, whatever the config says about tying."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from faster_smolvlm import AutoModelForImageTextToText
from faster_smolvlm.integrations.transformers import accelerate
from faster_smolvlm.native.model import NativeSmolVLM
from safetensors.torch import load_file, save_file

from tests.helpers.native_models import DEMO_DIRECTORY as DEMO

pytestmark = pytest.mark.parity

HEAD, EMBEDDING = "lm_head.weight", "model.text_model.embed_tokens.weight"
IDS = [1, 400, 77, 12, 300]


def write(folder: Path, *, sharded: bool = False, equal: bool = False, dtype: torch.dtype = torch.float32) -> None:
    for path in DEMO.iterdir():
        if path.is_file() and path.name != "model.safetensors":
            (folder / path.name).write_bytes(path.read_bytes())
    state = {name: tensor.to(dtype) for name, tensor in load_file(DEMO / "model.safetensors").items()}
    state[HEAD] = state[EMBEDDING].clone() if equal else state[EMBEDDING].flip(0).contiguous()
    if not sharded:
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
        return
    names = {"model-00001-of-00002.safetensors": [HEAD], "model-00002-of-00002.safetensors": [*state.keys() - {HEAD}]}
    for name, tensors in names.items():
        save_file({tensor: state[tensor] for tensor in tensors}, folder / name, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {tensor: name for name, tensors in names.items() for tensor in tensors}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(("sharded", "equal"), [(False, False), (True, False), (False, True)])
def test_the_stored_head_is_used_as_by_transformers(tmp_path: Path, sharded: bool, equal: bool) -> None:
    write(tmp_path, sharded=sharded, equal=equal)
    theirs = transformers.AutoModelForImageTextToText.from_pretrained(tmp_path).eval()
    ids = torch.tensor([IDS])
    want = theirs.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False)
    fast = accelerate(theirs)
    assert fast is not None
    assert (theirs.generate(input_ids=ids, max_new_tokens=8, do_sample=False) == want).all()
    ours = AutoModelForImageTextToText.from_pretrained(tmp_path)
    assert ours.config.tie_word_embeddings is equal
    assert (ours.generate(input_ids=ids, max_new_tokens=8) == want).all()
    ours.save_pretrained(tmp_path / "again")
    again = AutoModelForImageTextToText.from_pretrained(tmp_path / "again")
    assert (again.generate(input_ids=ids, max_new_tokens=8) == want).all()
    short = NativeSmolVLM.from_pretrained(tmp_path)
    with torch.no_grad():
        logits = ours(input_ids=ids).logits.numpy()
    np.testing.assert_allclose(short.logits(IDS).reshape(logits.shape), logits, atol=2e-3)


@pytest.mark.parametrize("options", [{"dtype": "bfloat16"}, {"quantization": "int8"}])
def test_a_small_dtype_and_the_packed_cache_use_the_stored_head(tmp_path: Path, options: dict[str, str]) -> None:
    source, packed = tmp_path / "source", tmp_path / "packed"
    source.mkdir()
    packed.mkdir(mode=0o700)
    write(source, dtype=torch.bfloat16)
    found = []
    for _ in range(2):
        short = NativeSmolVLM.from_pretrained(source, packed_cache_dir=packed, **options)
        found.append(short.logits(IDS))
    assert short.packed == "read"
    np.testing.assert_array_equal(found[0], found[1])
    theirs = transformers.AutoModelForImageTextToText.from_pretrained(source, dtype=torch.float32).eval()
    with torch.no_grad():
        want = theirs(input_ids=torch.tensor([IDS])).logits.numpy()
    assert np.corrcoef(found[0].ravel(), want.ravel())[0, 1] > 0.99
