"""The table of settings: whom it names as a reader reads, and nobody else does."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from faster_smolvlm import MediaPolicy, SmolVLMImageProcessor, SmolVLMVideoProcessor
from faster_smolvlm.pixels.settings import SETTINGS, Reader, call_names, names
from faster_smolvlm.unknown_names import unknown_name

from tests.helpers.setting_values import CLIP, CLIPS, NOISE, PICTURES, SMALL
from tests.helpers.video_clips import write_clip

PROCESSORS: dict[Reader, Any] = {Reader.PICTURES: SmolVLMImageProcessor, Reader.CLIPS: SmolVLMVideoProcessor}
CASES = {Reader.PICTURES: PICTURES, Reader.CLIPS: CLIPS}
IN_CALLS = [(reader, name) for reader in CASES for name in call_names(reader)]


@pytest.fixture(scope="module")
def clip_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path: Path = write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", frames=4, height=96, width=128)
    return path.read_bytes()


def outcome(reader: Reader, clip: bytes, arguments: dict[str, Any]) -> Any:
    """What a call gives, in a form that can be compared: arrays, their kind, or the error."""
    name = "images" if reader is Reader.PICTURES else "videos"
    arguments = {name: NOISE if reader is Reader.PICTURES else CLIP, **arguments}
    if isinstance(arguments[name], str):
        arguments[name] = clip
    try:
        features = PROCESSORS[reader](**SMALL)(**arguments)
    except ValueError as error:
        return str(error)
    found = {}
    for key, value in features.items():
        if hasattr(value, "device") and str(value.device) == "meta":
            found[key] = ("meta", tuple(value.shape))
        elif isinstance(value, list):
            found[key] = str(value)
        else:
            array = np.asarray(value)
            found[key] = (type(value).__name__, array.dtype.name, array.shape, array.tobytes())
    return found


def test_every_setting_is_tried() -> None:
    for reader, cases in CASES.items():
        assert set(cases) == set(names(reader))
    assert set(PICTURES) | set(CLIPS) == set(SETTINGS)
    assert [name for name in SETTINGS if not SETTINGS[name].in_calls] == ["threads"]


@pytest.mark.parametrize(("reader", "name"), IN_CALLS, ids=str)
def test_a_reader_reads(reader: Reader, name: str, clip_bytes: bytes) -> None:
    """A setting changes what a call gives, unless the table says that it has no effect there."""
    value, needed = CASES[reader][name]
    before = outcome(reader, clip_bytes, needed)
    after = outcome(reader, clip_bytes, {**needed, name: value})
    assert (before == after) is (reader in SETTINGS[name].no_effect)


@pytest.mark.parametrize("reader", CASES)
@pytest.mark.parametrize("name", SETTINGS)
def test_nobody_else_takes_it(reader: Reader, name: str) -> None:
    kind = PROCESSORS[reader]
    value = {**PICTURES, **CLIPS}[name][0]
    media = NOISE if reader is Reader.PICTURES else CLIP
    if name not in call_names(reader):
        with pytest.raises(TypeError, match=repr(name)):
            kind(**SMALL)(media, **{name: value})
    if name in names(reader):
        kind.from_dict({}, **{name: value})
    else:
        with pytest.raises(TypeError, match=repr(name)):
            kind.from_dict({}, **{name: value})


@pytest.mark.parametrize(("reader", "name"), IN_CALLS, ids=str)
def test_values_of_another_type_are_errors(reader: Reader, name: str) -> None:
    from huggingface_hub.errors import StrictDataclassFieldValidationError

    media = NOISE if reader is Reader.PICTURES else CLIP
    with pytest.raises(StrictDataclassFieldValidationError, match=SETTINGS[name].expected[:10]):
        PROCESSORS[reader](**SMALL)(media, **{name: object()})


def test_the_nearest_known_name_is_named() -> None:
    assert "'do_resize'" in str(unknown_name("do_resise", SETTINGS))
    assert "'media_policy'" in str(unknown_name("policy", SETTINGS))
    assert "nearest" not in str(unknown_name("anything", ()))


@pytest.mark.parametrize("kind", PROCESSORS.values())
def test_the_policy_of_a_call_holds_for_it(kind: Any, tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    PIL.Image.fromarray(NOISE).save(path)
    processor = kind(**SMALL)
    media = path if kind is SmolVLMImageProcessor else [[[str(path)]]]
    processor(media)
    with pytest.raises(ValueError, match="local"):
        processor(media, media_policy=MediaPolicy.strict())
    processor(media, media_policy=None)  # its own
    processor.media_policy = MediaPolicy.strict()
    with pytest.raises(ValueError, match="local"):
        processor(media)
    processor(media, media_policy=MediaPolicy())
    with pytest.raises(ValueError, match="max_output_bytes"):
        processor(NOISE if kind is SmolVLMImageProcessor else CLIP, media_policy=MediaPolicy(max_output_bytes=100))


@pytest.mark.parametrize("kind", PROCESSORS.values())
def test_constructors_refuse_misspelt_settings(kind: Any) -> None:
    for name in ("do_resise", "media_polcy", "image_means"):
        with pytest.raises(TypeError, match=name):
            kind(**{name: True})
    assert kind(extra=[1]).extra == [1]
    with pytest.raises(Exception, match="MediaPolicy"):
        kind(media_policy="strict")


@pytest.mark.parametrize("kind", PROCESSORS.values())
def test_files_hold_no_settings_of_the_caller(kind: Any, caplog: pytest.LogCaptureFixture) -> None:
    processor = kind.from_dict(
        {"media_policy": {"allow_files": True}, "threads": 1000, "do_resise": 1, "do_pad": False}
    )
    assert processor.media_policy == MediaPolicy()
    assert getattr(processor, "threads", 1) != 1000
    assert "media_policy, threads" in caplog.text
    assert (processor.do_resise, processor.do_pad) == (1, False)  # files of later versions may hold any name
    assert processor.to_dict()["do_resise"] == 1
    assert "media_policy" not in kind(media_policy=MediaPolicy.strict()).to_dict()


def test_binary_files_under_a_policy() -> None:
    buffer = io.BytesIO()
    PIL.Image.fromarray(NOISE).save(buffer, "PNG")
    buffer.seek(0)
    frames = SmolVLMImageProcessor(**SMALL)(buffer, media_policy=MediaPolicy.strict())
    assert np.array_equal(frames["pixel_values"], SmolVLMImageProcessor(**SMALL)(NOISE)["pixel_values"])
