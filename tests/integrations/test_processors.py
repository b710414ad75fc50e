"""Transformers' own objects, accelerated: the same pixels, ids, files and errors as without."""

from __future__ import annotations

import copy
import logging
import pickle
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faster_smolvlm.integrations.transformers as integration
import numpy as np
import pytest
import torch
import transformers
from faster_smolvlm.integrations.transformers import accelerate, disable, enable, is_enabled, notes, pixels, versions
from PIL import Image
from transformers.image_utils import SizeDict

pytestmark = pytest.mark.parity

RNG = np.random.default_rng(0)
PICTURES = {
    "RGB": Image.fromarray(RNG.integers(0, 256, (60, 150, 3), np.uint8)),
    "RGBA": Image.fromarray(RNG.integers(0, 256, (40, 30, 4), np.uint8), "RGBA"),
    "LA": Image.fromarray(RNG.integers(0, 256, (40, 30, 2), np.uint8), "LA"),
    "L": Image.fromarray(RNG.integers(0, 256, (33, 41), np.uint8)),
    "P": Image.fromarray(RNG.integers(0, 256, (33, 41, 3), np.uint8)).convert("P"),
    "array HWC": RNG.integers(0, 256, (50, 20, 3), np.uint8),
    "array CHW": RNG.integers(0, 256, (3, 50, 20), np.uint8),
    "array 3x3": RNG.integers(0, 256, (3, 3, 3), np.uint8),
    "grey array": RNG.integers(0, 256, (50, 20, 1), np.uint8),
    "RGBA array": RNG.integers(0, 256, (50, 20, 4), np.uint8),
    "tensor": torch.from_numpy(RNG.integers(0, 256, (3, 21, 70), np.uint8)),
    "float array": RNG.random((50, 20, 3), np.float32),
}
# Until 5.3 a Pillow class did all in one method; with it the core serves RGB pictures that are asked for as tensors.
ONE_METHOD = not hasattr(transformers.SmolVLMImageProcessor, "_preprocess_image_like_inputs")
CLASSES = [
    name
    for name in (
        "SmolVLMImageProcessor",
        "SmolVLMImageProcessorPil",
        "Idefics3ImageProcessor",
        "Idefics3ImageProcessorPil",
    )
    if hasattr(transformers, name)
]


def same(ours: Any, theirs: Any) -> None:
    """Equal types, keys and order, shapes, dtypes and values; pixels to one unit of rounding."""
    assert type(ours) is type(theirs)
    assert list(ours) == list(theirs)
    for name in theirs:
        a, b = ours[name], theirs[name]
        assert type(a) is type(b), name
        if isinstance(b, (np.ndarray, torch.Tensor)):
            assert a.dtype == b.dtype, name
            np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=0, atol=1e-6, err_msg=name)
        else:
            assert repr(a) == repr(b), name


@pytest.fixture
def pair(small_checkpoint: Path) -> tuple[Any, Any]:
    """The processor of Transformers, and another one accelerated."""
    load = transformers.AutoProcessor.from_pretrained
    return load(small_checkpoint), accelerate(load(small_checkpoint))


@pytest.fixture
def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notes, "_logged", set())


@pytest.mark.parametrize("kind", PICTURES)
def test_every_kind_of_picture(kind: str, pair: tuple[Any, Any], served: list[int]) -> None:
    theirs, ours = pair
    call = {"images": [PICTURES[kind]], "text": ["<image>what is this?"], "return_tensors": "pt"}
    try:
        expected = theirs(**call)
    except Exception as error:
        assert ONE_METHOD, "only the old classes refuse pictures"
        with pytest.raises(type(error), match=re.escape(str(error))):
            ours(**call)
        return
    assert not served, "the processor that was not accelerated used the Rust core"
    same(ours(**call), expected)
    rgb = kind in ("RGB", "array HWC", "array CHW", "array 3x3", "tensor")
    assert bool(served) == (rgb if ONE_METHOD else kind != "float array")


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"do_image_splitting": False},
        {"do_resize": False},
        {"do_rescale": False},
        {"do_normalize": False, "resample": 2},
        {"do_pad": False},
        {"size": {"height": 40, "width": 70}, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.6, 0.7]},
    ],
    ids=str,
)
@pytest.mark.parametrize("tensors", ["pt", "np", None])
def test_every_class_and_setting(name: str, settings: dict[str, Any], tensors: str | None, served: list[int]) -> None:
    made = {"max_image_size": {"longest_edge": 32}, "size": {"longest_edge": 128}, **settings}
    theirs, ours = getattr(transformers, name)(**made), getattr(integration, name)(**made)
    assert isinstance(ours, getattr(transformers, name))
    call = {"return_tensors": tensors, "return_row_col_info": True}
    picture = PICTURES["RGB"]
    expected = theirs([[picture], [picture]], **call)
    same(ours([[picture], [picture]], **call), expected)
    assert bool(served) == (not ONE_METHOD or tensors is not None)
    same(theirs(picture, do_image_splitting=False), ours(picture, do_image_splitting=False))


def test_settings_changed_after_loading_count_at_the_next_call(pair: tuple[Any, Any]) -> None:
    changes: list[tuple[str, Any]] = [
        ("size", {"longest_edge": 64}),
        ("size", {"height": 64, "width": 32} if ONE_METHOD else SizeDict(height=64, width=32)),
        ("do_image_splitting", False),
        ("do_resize", False),
        ("image_mean", (0.1, 0.2, 0.3)),
    ]
    call = {"images": PICTURES["RGB"], "text": "<image>", "return_tensors": "pt"}
    previous = pair[1](**call)
    for name, value in changes:
        for processor in pair:
            setattr(processor.image_processor, name, value)
        changed = pair[1](**call)
        same(changed, pair[0](**call))
        if name != "do_resize":
            same_shape = changed.pixel_values.shape == previous.pixel_values.shape
            assert not same_shape or not torch.equal(changed.pixel_values, previous.pixel_values), name
        previous = changed
    for processor in pair:
        processor.tokenizer.padding_side = "left"
    batch = {"text": ["<image>a", "<image>a longer prompt"], "images": [[PICTURES["RGB"]], [PICTURES["P"]]]}
    same(pair[1](**batch, padding=True, return_tensors="pt"), pair[0](**batch, padding=True, return_tensors="pt"))


def test_the_object_stays_what_it_was(pair: tuple[Any, Any]) -> None:
    theirs, ours = pair
    assert type(ours) is type(theirs)
    image_processor = ours.image_processor
    assert isinstance(image_processor, type(theirs.image_processor))
    assert vars(image_processor).keys() == vars(theirs.image_processor).keys()
    assert accelerate(ours) is ours
    assert ours.image_processor is image_processor
    alone = transformers.SmolVLMImageProcessor()
    assert accelerate(alone) is alone


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda processor: pickle.loads(pickle.dumps(processor))])
def test_copies_stay_accelerated(copied: Any, pair: tuple[Any, Any], served: list[int]) -> None:
    twin = copied(pair[1])
    call = {"images": PICTURES["RGB"], "text": "<image>", "return_tensors": "pt"}
    same(twin(**call), pair[0](**call))
    assert served


def test_files_are_those_of_transformers(pair: tuple[Any, Any], tmp_path: Path) -> None:
    theirs, ours = pair
    theirs.save_pretrained(tmp_path / "theirs")
    ours.save_pretrained(tmp_path / "ours")
    names = sorted(path.name for path in (tmp_path / "theirs").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "ours").iterdir())
    for name in names:
        assert (tmp_path / "ours" / name).read_bytes() == (tmp_path / "theirs" / name).read_bytes(), name
    for part in ("image_processor", "video_processor"):
        getattr(theirs, part).save_pretrained(tmp_path / f"their {part}")
        getattr(ours, part).save_pretrained(tmp_path / f"our {part}")
        (file,) = (tmp_path / f"their {part}").iterdir()
        assert (tmp_path / f"our {part}" / file.name).read_bytes() == file.read_bytes()
    back = transformers.AutoProcessor.from_pretrained(tmp_path / "ours")
    assert type(back.image_processor) is type(theirs.image_processor)
    loaded = integration.SmolVLMProcessor.from_pretrained(tmp_path / "theirs")
    assert isinstance(loaded, transformers.SmolVLMProcessor)
    assert type(loaded.image_processor) is type(ours.image_processor)
    assert pickle.loads(pickle.dumps(loaded)).image_seq_len == loaded.image_seq_len


def test_the_names_do_not_depend_on_what_was_imported_before() -> None:
    code = (
        f"from {integration.__name__} import enable; from {integration.__name__} import accelerate; print(accelerate)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("<function accelerate")


class _OwnSteps(transformers.SmolVLMImageProcessor):
    def _preprocess(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError("a step of its own")


def test_a_subclass_of_a_processor_keeps_its_class(pair: tuple[Any, Any]) -> None:
    class ColProcessor(transformers.SmolVLMProcessor):
        prefix = "a"

    theirs = pair[0]
    own = ColProcessor(theirs.image_processor, theirs.tokenizer, theirs.video_processor, image_seq_len=4)
    accelerate(own)
    assert type(own) is ColProcessor
    assert type(own.image_processor) is integration.SmolVLMImageProcessor


@pytest.mark.usefixtures("forgotten")
def test_what_cannot_be_accelerated_stays_right_and_is_said_once(
    pair: tuple[Any, Any], caplog: pytest.LogCaptureFixture
) -> None:
    own = _OwnSteps()
    with caplog.at_level(logging.WARNING, "faster_smolvlm"):
        assert type(accelerate(own)) is _OwnSteps
        accelerate(own)
        for _ in range(2):
            pair[1](images=PICTURES["float array"], text="<image>", do_rescale=False, return_tensors="pt")
    assert [record.message.split(": ")[-1].split(",")[0] for record in caplog.records] == [
        f"{__name__}._OwnSteps may have steps of its own and stays as it is; only the classes of Transformers "
        "themselves are accelerated",
        "a picture holds float32 values in 3 channels",
    ]
    with pytest.raises(TypeError, match="accelerate\\(\\) takes an object of Transformers' SmolVLMProcessor"):
        accelerate("a string")


def test_a_setting_that_is_not_known_is_not_ignored() -> None:
    kwargs = {"resample": 1, "size": {"longest_edge": 8}, "do_something_new": True}
    assert (
        pixels.settings_for(kwargs, lanczos_is_bicubic=False)[1] == "the setting 'do_something_new' is not known here"
    )
    kwargs = {"resample": 1, "device": "cuda:0"}
    assert "device='cuda:0'" in pixels.settings_for(kwargs, lanczos_is_bicubic=False)[1]


@pytest.mark.parametrize("bad", [{"do_resize": "yes"}, {"no_such_setting": 1}, {"size": {"shortest_edge": 3}}])
def test_errors_about_settings_are_those_of_transformers(bad: dict[str, Any]) -> None:
    theirs, ours = transformers.SmolVLMImageProcessor(), integration.SmolVLMImageProcessor()
    try:
        expected = theirs(PICTURES["RGB"], return_tensors="pt", **bad)
    except Exception as error:
        with pytest.raises(type(error)):
            ours(PICTURES["RGB"], return_tensors="pt", **bad)
    else:
        assert ONE_METHOD, "newer versions check types"
        same(ours(PICTURES["RGB"], return_tensors="pt", **bad), expected)


def test_large_batches_have_no_limit() -> None:
    ours = integration.SmolVLMImageProcessor(size={"longest_edge": 128}, max_image_size={"longest_edge": 32})
    assert pixels.OPEN_POLICY.max_output_bytes == sys.maxsize
    assert ours(Image.new("RGB", (9000, 9000)), return_tensors="pt").pixel_values.shape == (1, 17, 3, 32, 32)


@pytest.mark.parametrize("layout", ["THWC", "TCHW", "pictures"])
def test_videos(layout: str, pair: tuple[Any, Any], served: list[int]) -> None:
    frames: Any = RNG.integers(0, 256, (5, 20, 34, 3), np.uint8)
    if layout == "TCHW":
        frames = torch.from_numpy(frames.transpose(0, 3, 1, 2))
    elif layout == "pictures":
        frames = [Image.fromarray(frame) for frame in frames]
    expected = pair[0].video_processor(frames, return_tensors="pt")
    assert not served
    same(pair[1].video_processor(frames, return_tensors="pt"), expected)
    assert served


def test_videos_in_a_conversation(pair: tuple[Any, Any]) -> None:
    frames = RNG.integers(0, 256, (6, 20, 34, 3), np.uint8)
    conversation = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "what happens?"}]}]
    text = pair[0].apply_chat_template(conversation, add_generation_prompt=True)
    metadata = {"total_num_frames": 6, "fps": 2.0, "duration": 3.0, "frames_indices": list(range(6))}
    call = {
        "text": text,
        "videos": [[frames]] if ONE_METHOD else [frames],
        "video_metadata": [metadata],
        "return_tensors": "pt",
    }
    same(pair[1](**copy.deepcopy(call)), pair[0](**copy.deepcopy(call)))


@pytest.fixture
def enabled() -> Iterator[None]:
    before = {name: vars(getattr(transformers, name)).get("from_pretrained") for name in PATCHED}
    enable()
    try:
        yield
    finally:
        disable()
    assert before == {name: vars(getattr(transformers, name)).get("from_pretrained") for name in PATCHED}
    assert not is_enabled()


PATCHED = ("AutoProcessor", "AutoImageProcessor", "AutoVideoProcessor", "SmolVLMProcessor", "Idefics3Processor")


@pytest.mark.usefixtures("enabled")
def test_enable(small_checkpoint: Path) -> None:
    enable()  # once more changes nothing
    assert is_enabled()
    processor = transformers.AutoProcessor.from_pretrained(small_checkpoint)
    assert type(processor) is transformers.SmolVLMProcessor
    assert type(processor.image_processor) is integration.SmolVLMImageProcessor
    assert type(processor.video_processor) is integration.SmolVLMVideoProcessor
    alone, unused = transformers.AutoImageProcessor.from_pretrained(
        small_checkpoint, do_image_splitting=False, return_unused_kwargs=True, other=1
    )
    assert type(alone) is integration.SmolVLMImageProcessor
    assert (alone.do_image_splitting, unused["other"]) == (False, 1)
    video = transformers.AutoVideoProcessor.from_pretrained(small_checkpoint)
    assert type(video) is integration.SmolVLMVideoProcessor

    class Own(transformers.SmolVLMProcessor):
        pass

    own = Own.from_pretrained(small_checkpoint)
    assert type(own) is Own
    assert type(own.image_processor) is integration.SmolVLMImageProcessor
    assert type(transformers.AutoTokenizer.from_pretrained(small_checkpoint)) is type(processor.tokenizer)


SCRIPT = """
    import sys
    from transformers import AutoProcessor
    print(sys.argv[1:], __name__, type(AutoProcessor.from_pretrained(sys.argv[1]).image_processor).__module__)
"""


def test_the_patch_command(small_checkpoint: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    command = [sys.executable, "-m", "faster_smolvlm.patch"]
    expected = f"['{small_checkpoint}', '--x'] __main__ {integration.__name__}"
    for target in ([str(script)], ["-m", "script"]):
        done = subprocess.run(
            [*command, *target, str(small_checkpoint), "--x"], capture_output=True, text=True, cwd=tmp_path, check=True
        )
        assert done.stdout.splitlines()[-1] == expected
    missing = subprocess.run([*command, "missing.py"], capture_output=True, text=True, check=False)
    assert missing.returncode == 2
    assert "no such file: missing.py" in missing.stderr


def test_another_api_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "version", lambda: "9.1.0")
    if ONE_METHOD:
        monkeypatch.setattr(transformers.SmolVLMImageProcessor, "preprocess", lambda self, images: images)
    else:
        monkeypatch.delattr(transformers.BaseImageProcessor, "_preprocess_image_like_inputs", raising=False)
    integration.classes.accelerated_class.cache_clear()
    try:
        processor = transformers.SmolVLMImageProcessor()
        for change in (lambda: accelerate(processor), enable):
            with pytest.raises(versions.UnsupportedTransformersError, match=r"with Transformers 4\.57, .*; 9\.1\.0 is"):
                change()
        assert type(processor) is transformers.SmolVLMImageProcessor
        assert not is_enabled()
    finally:
        integration.classes.accelerated_class.cache_clear()


def test_an_untested_version_is_held_to_its_own_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "version", lambda: "9.1.0")
    build = integration.classes.accelerated_class.__wrapped__
    assert issubclass(build("SmolVLMImageProcessor"), transformers.SmolVLMImageProcessor)
    original = pixels.settings_for
    monkeypatch.setattr(pixels, "settings_for", lambda kwargs, **more: original({**kwargs, "resample": 3}, **more))
    with pytest.raises(versions.UnsupportedTransformersError, match="makes other pixels"):
        build("SmolVLMImageProcessor")
