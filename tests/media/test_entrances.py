"""Every kind of source at every entrance: the same pixels, for pictures and for clips."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faster_smolvlm import (
    SmolVLM,
    SmolVLMImageProcessor,
    SmolVLMImageProcessorPil,
    SmolVLMProcessor,
    SmolVLMVideoProcessor,
    cli,
)
from faster_smolvlm.media import load_image
from faster_smolvlm.media.video import load_video
from PIL import Image

from tests.helpers.media_sources import CLIPS, ENCODED, PICTURES, TEXT, served
from tests.helpers.video_clips import every_frame, pictures, write_clip

SHORT: dict[str, Any] = {"max_new_tokens": 1}
NUMPY: dict[str, Any] = {"return_tensors": "np"}
EVERY_FRAME = {"do_sample_frames": False}

Enter = Callable[["Entrances", Any], Any]


class Entrances:
    """Passes a source to one entrance after the other; returns the pixels that come out of it."""

    def __init__(self) -> None:
        self.vlm = SmolVLM.from_pretrained("demo", device="cpu", num_threads=1)
        self.processor = self.vlm.processor
        self.seen: list[np.ndarray] = []

    def of_answer(self, ask: Callable[[], Any]) -> np.ndarray:
        """The pixels that processors made while something was asked."""
        self.seen.clear()
        ask()
        return np.concatenate(self.seen)

    def watched(self, source: Any, every: float) -> np.ndarray:
        return self.of_answer(lambda: list(self.vlm.watch(source, prompt="What?", every=every, **SHORT)))

    def chat_template(self, kind: str, source: Any, **options: Any) -> Any:
        found = self.processor.apply_chat_template(
            [message(kind, source)], tokenize=True, return_dict=True, return_tensors="np", processor_kwargs=options
        )
        return found["pixel_values"]


def message(kind: str, source: Any) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": kind, kind: source}, {"type": "text", "text": "What?"}]}


PICTURE_ENTRANCES: dict[str, Enter] = {
    "image processor": lambda _, source: SmolVLMImageProcessor()(source, **NUMPY)["pixel_values"],
    "image processor, list": lambda _, source: SmolVLMImageProcessor()([[source]], **NUMPY)["pixel_values"],
    "image processor, Pillow": lambda _, source: SmolVLMImageProcessorPil()(source, **NUMPY)["pixel_values"],
    "processor": lambda at, source: at.processor(source, text="<image>", **NUMPY)["pixel_values"],
    "processor, list": lambda at, source: at.processor([[source]], text="<image>", **NUMPY)["pixel_values"],
    "chat template": lambda at, source: at.chat_template("image", source),
    "generate": lambda at, source: at.of_answer(lambda: at.vlm.generate("What?", images=[source], **SHORT)),
    "generate, alone": lambda at, source: at.of_answer(lambda: at.vlm.generate("What?", images=source, **SHORT)),
    "chat": lambda at, source: at.of_answer(lambda: at.vlm.chat([message("image", source)], **SHORT)),
    "stream": lambda at, source: at.of_answer(lambda: list(at.vlm.stream("What?", images=[source], **SHORT))),
    "watch, frame": lambda at, source: at.watched([source], 1e-9),
}

CLIP_ENTRANCES: dict[str, Enter] = {
    "video processor": lambda _, source: SmolVLMVideoProcessor()(source, **NUMPY)["pixel_values"],
    "video processor, list": lambda _, source: SmolVLMVideoProcessor()([source], **NUMPY)["pixel_values"],
    "processor": lambda at, source: at.processor(videos=source, **EVERY_FRAME, **NUMPY)["pixel_values"],
    "chat template": lambda at, source: at.chat_template("video", source, **EVERY_FRAME),
    "generate": lambda at, source: at.of_answer(lambda: at.vlm.generate("What?", videos=[source], **SHORT)),
    "chat": lambda at, source: at.of_answer(lambda: at.vlm.chat([message("video", source)], **SHORT)),
    "stream": lambda at, source: at.of_answer(lambda: list(at.vlm.stream("What?", videos=[source], **SHORT))),
}


@pytest.fixture(scope="module")
def at() -> Iterator[Entrances]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("FASTER_SMOLVLM_ENGINE", raising=False)
        entrances = Entrances()
        for kind in (SmolVLMProcessor, SmolVLMVideoProcessor):
            patch.setattr(kind, "__call__", _remembering(kind.__call__, entrances.seen))
        yield entrances


def _remembering(call: Any, seen: list[np.ndarray]) -> Any:
    def remembering(self: Any, *args: Any, **kwargs: Any) -> Any:
        found = call(self, *args, **kwargs)
        if isinstance(self, SmolVLMProcessor):
            seen.clear()  # what its parts made is in what it returns
        seen.append(np.asarray(found["pixel_values"]))
        return found

    return remembering


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture, and a clip of four frames at one a second, of which the model's own rule takes every frame."""
    folder = tmp_path_factory.mktemp("sources")
    Image.fromarray(pictures(1, 70, 90)[0]).save(folder / "picture.png")
    write_clip(folder / "clip.mp4", frames=4, fps=1)
    return folder


@pytest.fixture(scope="module")
def picture(folder: Path) -> np.ndarray:
    return np.asarray(Image.open(folder / "picture.png"))


@pytest.fixture(scope="module")
def clip(folder: Path) -> np.ndarray:
    return np.stack(every_frame(folder / "clip.mp4"))


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    with served(folder) as url:
        yield url


@pytest.mark.parametrize("name", [*ENCODED, "URL", *PICTURES])
def test_pictures(at: Entrances, folder: Path, url: str, picture: np.ndarray, name: str) -> None:
    def source() -> Any:
        if name == "URL":
            return f"{url}/picture.png"
        return ENCODED[name](folder / "picture.png") if name in ENCODED else PICTURES[name](picture)

    np.testing.assert_array_equal(load_image(source()), picture)
    for entrance, enter in PICTURE_ENTRANCES.items():
        np.testing.assert_array_equal(enter(at, source()), enter(at, picture), err_msg=entrance)


@pytest.mark.parametrize("name", [*ENCODED, "URL", *CLIPS])
def test_clips(at: Entrances, folder: Path, url: str, clip: np.ndarray, name: str) -> None:
    def source() -> Any:
        if name == "URL":
            return f"{url}/clip.mp4"
        return ENCODED[name](folder / "clip.mp4") if name in ENCODED else CLIPS[name](clip)

    loaded, metadata = load_video(source())
    np.testing.assert_array_equal(loaded, clip)
    np.testing.assert_array_equal(metadata.frames_indices, [0, 1, 2, 3])
    for entrance, enter in CLIP_ENTRANCES.items():
        np.testing.assert_array_equal(enter(at, source()), enter(at, clip), err_msg=entrance)
    # A file tells when its frames are shown; a list of frames is timed by their arrival.
    every = 1e-9 if name in CLIPS else 1.0
    np.testing.assert_array_equal(at.watched(source(), every), at.watched(clip, 1e-9))


@pytest.mark.parametrize("form", ["str", "PathLike", "bytes", "open file"])
def test_the_frames_of_a_clip_one_by_one(at: Entrances, clip: np.ndarray, tmp_path: Path, form: str) -> None:
    for number, frame in enumerate(clip):
        Image.fromarray(frame).save(tmp_path / f"{number}.png")

    def source() -> Any:
        return [ENCODED[form](tmp_path / f"{number}.png") for number in range(len(clip))]

    np.testing.assert_array_equal(load_video([[source()]])[0], clip)
    for entrance, enter in CLIP_ENTRANCES.items():
        given = [[source()]] if "processor" in entrance else source()  # three lists deep, else these are clips
        np.testing.assert_array_equal(enter(at, given), enter(at, clip), err_msg=entrance)
    np.testing.assert_array_equal(at.watched(source(), 1e-9), at.watched(clip, 1e-9))


@pytest.mark.parametrize("kind", ["picture.png", "clip.mp4"])
def test_the_command(at: Entrances, folder: Path, url: str, kind: str) -> None:
    path = folder / kind
    expected = np.asarray(Image.open(path)) if kind == "picture.png" else path
    asked = {"images" if kind == "picture.png" else "videos": [expected]}
    pixels = at.of_answer(lambda: at.vlm.generate("What?", **asked, **SHORT))
    sources = [f"{url}/{kind}", *(TEXT[name](path) for name in ("str", "data URI"))]
    sources += [TEXT["base64"](path)] if kind == "picture.png" else []  # of a clip, a command cannot know it
    for source in sources:
        arguments = ["describe", source, "--model", "demo", "--max-new-tokens", "1"]
        np.testing.assert_array_equal(at.of_answer(lambda arguments=arguments: cli.main(arguments)), pixels)
