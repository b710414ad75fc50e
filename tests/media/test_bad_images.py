"""Every broken picture gives frames or a typed error that names it; nothing else, and soon."""

from __future__ import annotations

import re
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from faster_smolvlm import SmolVLMImageProcessor, SmolVLMImageProcessorPil
from faster_smolvlm.media import MediaError

SMALL = {"size": {"longest_edge": 128}, "max_image_size": {"longest_edge": 64}}


@pytest.mark.parametrize("kind", [SmolVLMImageProcessor, SmolVLMImageProcessorPil])
def test_bad_images(data_dir: Path, kind: type) -> None:
    processor = kind(**SMALL)
    files = sorted(path for path in (data_dir / "bad_images").iterdir() if path.suffix != ".md")
    assert len(files) > 60
    outcomes = {"frames": 0, "error": 0}
    for path in files:
        for source in (str(path), path, path.read_bytes()):
            start = time.perf_counter()
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    frames = processor([[source]], return_tensors="np")["pixel_values"]
                assert np.isfinite(frames).all(), path.name
                outcomes["frames"] += 1
            except MediaError as error:
                message = str(error)
                assert isinstance(source, bytes) or path.name in message
                assert not re.search(r"0x[0-9a-f]{6,}", message), path.name
                assert len(message) < 600
                outcomes["error"] += 1
            assert time.perf_counter() - start < 20, path.name
    assert outcomes["frames"] > 20
    assert outcomes["error"] > 40
