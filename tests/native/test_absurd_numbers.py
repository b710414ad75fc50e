"""No number that Python passes to the Rust half ends the process, or is a panic."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from faster_smolvlm import MediaPolicy, SmolVLMVideoProcessor, _rust

from tests.helpers import absurd_numbers


@pytest.mark.parametrize("group", ["frames", "arrays", "pictures", "engine"])
def test_absurd_numbers_are_exceptions(group: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", absurd_numbers.__name__, group],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert ended.stdout.startswith("calls "), ended.stdout[:2000]


def test_everything_of_the_rust_half_is_called() -> None:
    source = Path(absurd_numbers.__file__).read_text()
    names = {name for name in dir(_rust) if not name.startswith("_") and callable(getattr(_rust, name))}
    assert [name for name in sorted(names) if name not in source] == []


@pytest.mark.parametrize("number", [2**23, 2**40, 2**62])
def test_a_number_of_frames_beyond_all_reason_is_refused_before_memory_is_taken(number: int) -> None:
    with pytest.raises(ValueError, match="at most 4194304"):
        _rust.uniform_frames(number, number)


def test_public_numbers_of_frames_are_refused() -> None:
    metadata = [{"total_num_frames": 2**41, "fps": 1.0, "duration": float(2**41), "frames_indices": None}]
    clip = np.zeros((2, 32, 32, 3), np.uint8)
    for sampling in ({"num_frames": 2**40, "fps": 1}, {"num_frames": 2**62, "fps": 2**40}):
        with pytest.raises((ValueError, IndexError)) as refused:
            SmolVLMVideoProcessor()(
                [clip], video_metadata=metadata, do_sample_frames=True, media_policy=MediaPolicy(), **sampling
            )
        assert len(str(refused.value)) < 500
