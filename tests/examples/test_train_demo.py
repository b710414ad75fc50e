"""The training script: what it packs is what the processor makes, and a stopped run goes on where it was."""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import faster_smolvlm
import numpy as np
import pytest
import torch
import torch.distributed as dist
from faster_smolvlm import AutoProcessor
from tokenizers import Tokenizer

from examples.train_demo import train
from examples.train_demo.batches import Batcher, load_processors
from examples.train_demo.clips import draw_clip
from examples.train_demo.dense import dense_labels
from examples.train_demo.export import settings
from examples.train_demo.heldout import Item, encode
from examples.train_demo.packing import Packer
from examples.train_demo.probe import Probe
from examples.train_demo.questions import ask_clip, ask_scene, describe
from examples.train_demo.scenes import COLOURS, FORMATS, SHAPES, Shape, draw_scene
from examples.train_demo.train import Trainer

DEMO = Path(faster_smolvlm.__file__).parent / "demo"


@pytest.fixture(scope="module")
def packer() -> Packer:
    return Packer(Tokenizer.from_file(str(DEMO / "tokenizer.json")))


@pytest.mark.parametrize("grid", FORMATS)
def test_packed_pictures_are_what_the_processor_makes(packer: Packer, grid: tuple[int, int]) -> None:
    batcher = Batcher(packer, *load_processors())
    batch = batcher.scenes(random.Random(1), 6, grid, 0.0, {})
    rng, processor = random.Random(1), AutoProcessor.from_pretrained("demo")
    scenes = [draw_scene(rng, grid) for _ in range(6)]
    for i, scene in enumerate(scenes):
        for block, question in enumerate(ask_scene(rng, scene), 1):
            assert question == batch.questions[i][block - 1]
            inputs = encode(processor, [Item(question, scene.image)])
            prompt = inputs["input_ids"][0]
            seen = (batch.packed.blocks[i] == 0) | (batch.packed.blocks[i] == block)
            assert torch.equal(batch.packed.ids[i][seen][: len(prompt)], prompt)
            assert torch.equal(batch.packed.positions[i][seen], torch.arange(int(seen.sum())))
            torch.testing.assert_close(inputs["pixel_values"][0], batch.pixels[i], rtol=0, atol=1e-6)


def test_packed_clips_are_what_the_processor_makes(packer: Packer) -> None:
    batcher = Batcher(packer, *load_processors())
    batch = batcher.clips(random.Random(2), 6, 5, {})
    rng, processor = random.Random(2), AutoProcessor.from_pretrained("demo")
    for i, clip in enumerate([draw_clip(rng, 5) for _ in range(6)]):
        frames = np.stack([np.asarray(frame) for frame in clip.frames])
        for block, question in enumerate(ask_clip(rng, clip), 1):
            inputs = encode(processor, [Item(question, frames, tuple(clip.seconds), clip.duration)])
            prompt = inputs["input_ids"][0]
            seen = (batch.packed.blocks[i] == 0) | (batch.packed.blocks[i] == block)
            assert torch.equal(batch.packed.ids[i][seen][: len(prompt)], prompt)
            torch.testing.assert_close(inputs["pixel_values"][0], batch.pixels[i], rtol=0, atol=1e-6)


def test_questions_see_the_picture_and_themselves_only(packer: Packer) -> None:
    packed = Batcher(packer, *load_processors()).scenes(random.Random(3), 2, (1, 2), 0.0, {}).packed
    mask, blocks = packed.mask()[0, 0], packed.blocks[0]
    for row, column in torch.cartesian_prod(torch.arange(len(blocks)), torch.arange(len(blocks))).tolist():
        same = blocks[column] == 0 or blocks[column] == blocks[row]
        assert bool(mask[row, column]) == (column <= row and bool(same))


def test_dense_labels_name_what_lies_under_a_token() -> None:
    shape = Shape("star", "blue", 96, 32, 22)
    labels = dense_labels((shape,), (128, 128), (2, 2))
    assert labels.shape == (5, 16, 3)
    star = [1 + SHAPES.index("star"), 1 + list(COLOURS).index("blue"), 2]
    assert labels[1].reshape(4, 4, 3)[1, 1].tolist() == star
    assert labels[4].reshape(4, 4, 3)[0, 3].tolist() == star
    assert not labels[0].any()
    assert not labels[2:4].any()


def test_descriptions() -> None:
    left, right, low = (
        Shape("star", "red", 30, 40, 12),
        Shape("cross", "orange", 90, 50, 12),
        Shape("square", "blue", 60, 100, 12),
    )
    assert describe((left,)) == "A red star."
    assert describe((right, left)) == "A red star left of an orange cross."
    assert describe((low, left)) == "A red star above a blue square."
    assert describe((low, right, left)) == "A red star, a blue square and an orange cross."
    assert describe((low, right, left), tall=True) == "A red star, an orange cross and a blue square."


def test_settings_are_those_of_the_checkpoint(packer: Packer) -> None:
    for name, content in settings(packer.tokenizer).items():
        assert json.loads((DEMO / name).read_text()) == content
    assert sum(file.stat().st_size for file in DEMO.iterdir()) <= 8_000_000


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'meeting'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("alone")
def test_training_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "Probe", partial(Probe, scenes=2, clips=1))
    (tmp_path / "tokenizer.json").write_bytes((DEMO / "tokenizer.json").read_bytes())
    options = argparse.Namespace(
        out=tmp_path, minutes=0.02, rate=1e-3, clips=0.2, curriculum=0.2, eyes=0.0, weights="{}", every=1e9, seed=0
    )
    torch.set_num_threads(1)
    first = Trainer(options, 0)
    first.run()
    again = Trainer(options, 0)
    assert first.step == again.step > 0
    assert again.spent == pytest.approx(first.spent)
    assert again.history == first.history
    expected = first.model.state_dict()
    for name, weight in again.model.state_dict().items():
        assert torch.equal(weight, expected[name])
    for ours, theirs in zip(again.optimisers, first.optimisers, strict=True):
        assert len(ours.state) == len(theirs.state) > 0
    again.options.minutes = again.spent / 60 + 0.01
    again.run()
    assert again.step > first.step
