"""Pictures from outside pass our gate in accelerated processors, with the pixels of Transformers' own reader."""

from __future__ import annotations

import base64
import copy
import io
import json
import logging
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from faster_smolvlm.integrations.transformers import accelerate, disable, enable, notes, reading, videos
from faster_smolvlm.media import MediaDecodeError, MediaError, MediaLimitError, MediaPolicy, MediaRefusedError
from faster_smolvlm.media.video import load_video
from PIL import Image
from transformers.image_utils import load_image, load_image_as_tensor

from tests.helpers import picture_files
from tests.helpers.media_sources import served
from tests.helpers.picture_files import FILES
from tests.helpers.video_clips import write_clip

pytestmark = pytest.mark.parity

CORRUPT = """
import base64, sys
import transformers
from faster_smolvlm.integrations.transformers import accelerate
from faster_smolvlm.media import MediaDecodeError
processor = transformers.AutoProcessor.from_pretrained(sys.argv[1])
accelerate(processor)
for path in sys.argv[2:]:
    uri = "data:image/png;base64," + base64.b64encode(open(path, "rb").read()).decode()
    for part in ({"path": path}, {"url": uri}, {"base64": uri.partition(",")[2]}):
        message = {"role": "user", "content": [{"type": "image", **part}]}
        try:
            processor.apply_chat_template([message], tokenize=True, return_dict=True, return_tensors="pt")
        except MediaDecodeError as error:
            print("refused", "0x" in str(error), len(str(error)) < 400)
"""


@pytest.fixture(autouse=True)
def _said_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notes, "_logged", set())


@pytest.fixture(scope="module")
def tensors() -> Any:
    return accelerate(transformers.SmolVLMImageProcessor())


@pytest.fixture(scope="module")
def pillow() -> Any:
    return accelerate(transformers.SmolVLMImageProcessorPil())


def test_a_broken_png_is_an_error_and_not_the_end_of_the_process(data_dir: Path, tmp_path: Path) -> None:
    yy, xx = np.mgrid[0:48, 0:64]
    buffer = io.BytesIO()
    Image.fromarray(np.stack([xx * 4, yy * 5, (xx + yy) * 2], -1).astype("uint8")).save(buffer, "PNG", compress_level=6)
    changed = bytearray(buffer.getvalue())
    changed[120] ^= 0xFF
    (tmp_path / "changed.png").write_bytes(changed)
    bad = [data_dir / "bad_images" / name for name in ("pillow_broken_data_stream.png", "pngsuite_xcsn0g01.png")]
    command = [sys.executable, "-c", CORRUPT, data_dir / "smolvlm2-256m-config", tmp_path / "changed.png", *bad]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr[-500:]
    assert done.stdout.splitlines() == ["refused False True"] * 9


@pytest.mark.parametrize("name", FILES)
def test_pixels_are_those_of_transformers(name: str, tmp_path: Path, tensors: Any, pillow: Any) -> None:
    path = tmp_path / "picture"
    path.write_bytes(FILES[name]())
    _equal(path, tensors, pillow)


def test_pixels_of_files_are_those_of_transformers(data_dir: Path, tensors: Any, pillow: Any) -> None:
    files = [path for path in sorted((data_dir / "images").iterdir()) if path.suffix != ".md"]
    assert len(files) > 40
    for path in files:
        _equal(path, tensors, pillow)


def _equal(path: Path, tensors: Any, pillow: Any) -> None:
    uri = f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
    try:
        expected = load_image_as_tensor(str(path)).numpy()
    except RuntimeError:  # a format that it does not know; ours does
        assert tensors.fetch_images(str(path)).shape[0] == 3
    else:
        for found in (tensors.fetch_images(str(path)), tensors.fetch_images([uri])[0]):
            assert found.numpy().dtype == expected.dtype
            np.testing.assert_array_equal(found.numpy(), expected, err_msg=path.name)
    for found in (pillow.fetch_images(str(path)), pillow.fetch_images(uri)):
        np.testing.assert_array_equal(np.asarray(found), np.asarray(load_image(str(path))), err_msg=path.name)


def test_several_pictures_of_a_gif(tmp_path: Path, tensors: Any, caplog: pytest.LogCaptureFixture) -> None:
    """All of them if the processor gets the file alone, as with Transformers; the first as a picture of a prompt."""
    path = tmp_path / "several.gif"
    path.write_bytes(FILES["GIF, several"]())
    plain = transformers.SmolVLMImageProcessor()
    expected = plain(str(path), return_tensors="np")["pixel_values"]
    np.testing.assert_array_equal(tensors(str(path), return_tensors="np")["pixel_values"], expected)
    with pytest.raises(ValueError, match="too many values"):
        plain([[str(path)]], return_tensors="np")
    with caplog.at_level(logging.WARNING):
        alone = tensors([[str(path)]], return_tensors="np")["pixel_values"]
    each = plain(np.asarray(load_image_as_tensor(str(path)))[0], return_tensors="np")["pixel_values"]
    np.testing.assert_array_equal(alone, each)
    assert "its first is used" in caplog.text


def test_what_transformers_does_with_16_bits_and_with_transparency_is_said_once(
    tmp_path: Path, tensors: Any, caplog: pytest.LogCaptureFixture
) -> None:
    deep, clear = tmp_path / "deep.png", tmp_path / "clear.png"
    deep.write_bytes(FILES["PNG 16, RGB"]())
    clear.write_bytes(FILES["PNG, RGBA"]())
    expected = transformers.SmolVLMImageProcessor()(str(deep), return_tensors="np")["pixel_values"]
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            found = tensors(str(deep), return_tensors="np")["pixel_values"]
            tensors(str(clear), return_tensors="np")
    np.testing.assert_array_equal(found, expected)
    assert found.max() > 100
    assert caplog.text.count("16 bits a sample") == 1
    assert caplog.text.count("transparency") == 1


@pytest.mark.parametrize("make", [transformers.SmolVLMImageProcessor, transformers.SmolVLMImageProcessorPil])
def test_the_policy_is_an_attribute_that_is_not_saved(make: Callable[[], Any], tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(FILES["PNG, RGBA"]())
    processor = accelerate(make())
    processor.media_policy = MediaPolicy.strict()
    for kept in (processor, copy.deepcopy(processor), pickle.loads(pickle.dumps(processor))):
        with pytest.raises(MediaRefusedError, match=r"image 1.*allow_files"):
            kept([Image.new("RGB", (8, 8)), str(path)])
        kept(base64.b64encode(path.read_bytes()).decode(), return_tensors="np")
    processor.save_pretrained(tmp_path)
    assert "policy" not in json.dumps(json.loads((tmp_path / "preprocessor_config.json").read_text()))
    assert processor.to_dict() == {**make().to_dict()}
    processor.media_policy = MediaPolicy(max_pixels=100)
    with pytest.raises(MediaLimitError, match="max_pixels"):
        processor(str(path))


def test_a_gif_has_limits(tmp_path: Path, tensors: Any) -> None:
    path = tmp_path / "several.gif"
    path.write_bytes(FILES["GIF, several"]())
    few = copy.deepcopy(tensors)
    for policy in (MediaPolicy(max_frames=2), MediaPolicy(max_output_bytes=900)):
        few.media_policy = policy
        with pytest.raises(MediaLimitError, match=r"MediaPolicy\.max_"):
            few.fetch_images(str(path))


@pytest.mark.parametrize("cut", [3, 12, 14, 40, -2])
def test_a_gif_that_is_cut(cut: int, tmp_path: Path, tensors: Any) -> None:
    path = tmp_path / "cut.gif"
    path.write_bytes(picture_files.gif([picture_files.GifPicture()])[:cut])
    with pytest.raises(MediaDecodeError, match=r"cut\.gif"):
        tensors.fetch_images(str(path))


@pytest.fixture
def decoder(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """A decoder of Transformers that notes what it is given, and breaks on clips of more than 12 frames."""
    seen: list[bytes] = []

    def fetch_videos(_: object, source: str, sample_indices_fn: object = None) -> Any:
        seen.append(Path(source).read_bytes())
        frames, metadata = load_video(source)
        if len(frames) > 12:
            raise RuntimeError("at 0x7f0000000000")
        return frames, metadata

    monkeypatch.setattr(videos, "_has_decoder", lambda: True)
    monkeypatch.setattr(transformers.SmolVLMVideoProcessor, "fetch_videos", fetch_videos)
    return seen


@pytest.mark.parametrize("theirs", [True, False])
def test_clips_pass_the_gate_before_any_decoder(
    theirs: bool, data_dir: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    seen: list[bytes] = request.getfixturevalue("decoder") if theirs else []
    processor = accelerate(transformers.SmolVLMVideoProcessor())
    path = write_clip(tmp_path / "clip.mp4", frames=8)
    uri = f"data:video/mp4;base64,{base64.b64encode(path.read_bytes()).decode()}"
    expected = load_video(path)[0]
    with served(tmp_path) as url:
        for source in (str(path), uri, f"{url}/clip.mp4"):
            np.testing.assert_array_equal(processor.fetch_videos(source)[0], expected)
            np.testing.assert_array_equal(processor.fetch_videos([source])[0][0], expected)
    assert seen == [path.read_bytes()] * 6 * theirs
    for bad in ("text_as.mp4", "empty.mp4", "cut_half.mp4"):
        with pytest.raises(MediaError, match=rf"video 1: .*{bad}"):
            processor.fetch_videos([str(path), str(data_dir / "bad_videos" / bad)])
    with pytest.raises(MediaError, match="data URI"):
        processor.fetch_videos("data:video/mp4;base64,AAAA")
    processor.media_policy = MediaPolicy.strict()
    with pytest.raises(MediaRefusedError, match="allow_files"):
        processor.fetch_videos(str(path))
    processor.media_policy = MediaPolicy(max_pixels=100)
    with pytest.raises(MediaLimitError, match="max_pixels"):
        processor.fetch_videos(uri)


def test_what_a_decoder_of_transformers_says_is_not_shown(decoder: list[bytes], tmp_path: Path) -> None:
    processor = accelerate(transformers.SmolVLMVideoProcessor())
    path = write_clip(tmp_path / "clip.mp4", frames=20)
    with pytest.raises(MediaDecodeError, match=r"clip\.mp4' is a clip") as caught:
        processor.fetch_videos(str(path))
    assert "0x" not in str(caught.value)
    assert decoder


def test_frames_of_a_clip_by_path(tmp_path: Path) -> None:
    """A clip of a prompt may be a list of pictures; those pass the gate as pictures do."""
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    good.write_bytes(FILES["PNG, RGBA"]())
    bad.write_bytes(good.read_bytes()[:200])
    ours, plain = accelerate(transformers.SmolVLMVideoProcessor()), transformers.SmolVLMVideoProcessor()
    frames = [[[str(good), str(good)]]]
    expected = plain(frames, return_tensors="pt", do_sample_frames=False)["pixel_values"]
    np.testing.assert_array_equal(ours(frames, return_tensors="pt", do_sample_frames=False)["pixel_values"], expected)
    with pytest.raises(MediaDecodeError, match=r"bad\.png"):
        ours([[[str(good), str(bad)]]], return_tensors="pt", do_sample_frames=False)


def test_pictures_that_a_pipeline_reads_itself(tmp_path: Path, data_dir: Path) -> None:
    """They pass the gate if the processor is accelerated; the inputs of the model are those without it."""
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    good.write_bytes(FILES["PNG, RGBA"]())
    bad.write_bytes(good.read_bytes()[:200])
    pipe = object.__new__(transformers.ImageTextToTextPipeline)
    pipe.processor = transformers.AutoProcessor.from_pretrained(data_dir / "smolvlm2-256m-config")
    pipe.model = SimpleNamespace(dtype=torch.float32)
    plain = pipe.preprocess({"images": str(good), "text": "<image>What?"})
    accelerate(pipe.processor)
    fast = pipe.preprocess({"images": [str(good)], "text": "<image>What?"})
    torch.testing.assert_close(fast["pixel_values"], plain["pixel_values"], rtol=0, atol=1e-6)
    torch.testing.assert_close(fast["input_ids"], plain["input_ids"], rtol=0, atol=0)
    with pytest.raises(MediaDecodeError, match=r"image 1: .*bad\.png"):
        pipe.preprocess({"images": [str(good), str(bad)], "text": "<image><image>What?"})
    accelerate(pipe.processor, policy=MediaPolicy.strict())
    with pytest.raises(MediaRefusedError):
        pipe.preprocess({"images": str(good), "text": "<image>What?"})
    # A processor of Transformers itself keeps its own reader.
    pipe.processor = transformers.AutoProcessor.from_pretrained(data_dir / "smolvlm2-256m-config")
    again = pipe.preprocess({"images": str(good), "text": "<image>What?"})
    torch.testing.assert_close(again["pixel_values"], plain["pixel_values"], rtol=0, atol=0)


def test_a_policy_for_all_that_is_read(tmp_path: Path, data_dir: Path) -> None:
    """By a path, a data URI and a URL; pictures and clips; of one processor, and of all that are loaded."""
    picture, clip = tmp_path / "picture.png", tmp_path / "clip.mp4"
    picture.write_bytes(FILES["PNG, RGBA"]())
    write_clip(clip)
    strict, checkpoint = MediaPolicy.strict(), data_dir / "smolvlm2-256m-config"
    ours = accelerate(transformers.AutoProcessor.from_pretrained(checkpoint), policy=strict)
    enable(policy=strict)
    try:
        loaded = transformers.AutoProcessor.from_pretrained(checkpoint)
        enable()
        later = transformers.AutoProcessor.from_pretrained(checkpoint)
    finally:
        disable()
    for processor in (ours, loaded):
        for source in (str(picture), "http://127.0.0.1:9/picture.png"):
            with pytest.raises(MediaRefusedError):
                processor.image_processor(source)
            with pytest.raises(MediaRefusedError):
                processor.video_processor(source)
        processor.image_processor(f"data:image/png;base64,{base64.b64encode(picture.read_bytes()).decode()}")
        with pytest.raises(MediaRefusedError):
            processor.video_processor(str(clip))
    assert later.image_processor.media_policy == later.video_processor.media_policy == MediaPolicy()
    accelerate(ours)  # changes nothing
    assert ours.image_processor.media_policy is ours.video_processor.media_policy is strict
    for call in (lambda: accelerate(ours, policy="strict"), lambda: enable(policy="strict")):
        with pytest.raises(TypeError, match="policy has to be a MediaPolicy or None, got 'strict'"):
            call()


def test_torchcodec_reads_what_the_gate_could_decode(
    tmp_path: Path, tensors: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is what Transformers uses if it is installed; its animations and its 16 bits are its own."""
    seen: list[bytes] = []

    def decode(encoded: torch.Tensor) -> torch.Tensor:
        seen.append(encoded.numpy().tobytes())
        if len(seen) > 3:
            raise RuntimeError("at 0x7f0000000000")
        return torch.zeros(2, 3, 4, 5, dtype=torch.uint8)

    monkeypatch.setattr(reading, "_torchcodec", lambda: decode)
    path = tmp_path / "picture"
    for name in ("GIF, several", "WebP animated", "PNG 16, LA"):
        path.write_bytes(FILES[name]()[:60])
        with pytest.raises(MediaDecodeError):
            tensors.fetch_images(str(path))
        assert len(seen) < 3
        path.write_bytes(FILES[name]())
        assert tensors.fetch_images(str(path)).shape == (2, 3, 4, 5)
        assert seen[-1] == FILES[name]()
    with pytest.raises(MediaDecodeError, match="torchcodec") as caught:
        tensors.fetch_images(str(path))
    assert "0x" not in str(caught.value)
    path.write_bytes(FILES["JPEG 4:2:0"]())
    np.testing.assert_array_equal(tensors.fetch_images(str(path)), load_image_as_tensor(str(path)))
