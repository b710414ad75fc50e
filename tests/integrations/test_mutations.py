"""Damaged files give pixels or an error with a type, soon, at every entrance.

`benches/mutate_media.py` tries thousands.
"""

from __future__ import annotations

import base64
import json
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from faster_smolvlm import cli
from faster_smolvlm.integrations.transformers import accelerate
from faster_smolvlm.media import MediaError

from tests.helpers.mutations import mutated
from tests.helpers.picture_files import FILES
from tests.helpers.video_clips import write_clip

pytestmark = pytest.mark.parity
EACH = 8


def outcome(read: Any, source: str) -> str:
    start = time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert np.asarray(read(source)).ndim in (3, 4)
        message = ""
    except MediaError as error:
        message = str(error)
    assert "0x" not in message
    assert len(message) < 800
    assert time.perf_counter() - start < 10
    return "error" if message else "pixels"


def uri(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def test_pictures(tmp_path: Path) -> None:
    readers = [accelerate(transformers.SmolVLMImageProcessor()), accelerate(transformers.SmolVLMImageProcessorPil())]
    outcomes = []
    for seed, (name, make) in enumerate(FILES.items()):
        rng = np.random.default_rng(seed)
        for number in range(EACH // 2):
            data = mutated(make(), rng)
            path = tmp_path / "picture"
            path.write_bytes(data)
            for reader in readers:
                both = [outcome(reader.fetch_images, source) for source in (str(path), uri(data))]
                assert len(set(both)) == 1, (name, number)
                outcomes += both
    assert outcomes.count("pixels") > 80
    assert outcomes.count("error") > 150


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.avi"])
def test_clips(name: str, tmp_path: Path) -> None:
    processor = accelerate(transformers.SmolVLMVideoProcessor())

    def read(source: str) -> Any:
        return processor.fetch_videos(source, sample_indices_fn=lambda metadata, **_: [0])[0]

    path = write_clip(tmp_path / name, frames=6)
    outcomes = []
    good, rng = path.read_bytes(), np.random.default_rng(7)
    for data in (mutated(good, rng) for _ in range(3 * EACH)):
        path.write_bytes(data)
        outcomes += [outcome(read, source) for source in (str(path), uri(data))]
    assert {"pixels", "error"} == set(outcomes)


def test_describe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = {"a.jpg": FILES["JPEG 4:2:0"](), "a.png": FILES["PNG, RGBA"](), "a.gif": FILES["GIF, several"]()}
    made["a.mp4"] = write_clip(tmp_path / "a.mp4", frames=4).read_bytes()
    paths, rng = [], np.random.default_rng(3)
    for name, data in made.items():
        for index in range(EACH):
            paths.append(tmp_path / f"{index}{name}")
            paths[-1].write_bytes(mutated(data, rng))
    status = cli.main(["describe", "--model", "demo", "--json", "--max-new-tokens", "1", *map(str, paths)])
    out, err = capsys.readouterr()
    assert status == 1
    assert "Traceback" not in err
    records = [json.loads(line) for line in out.splitlines()]
    assert [record["picture"] for record in records] == [str(path) for path in paths]
    errors = [record["error"] for record in records if "error" in record]
    assert 0 < len(errors) < len(records)
    assert not any("0x" in error for error in errors)
