"""Paths from outside: what is no file, what may not be read, and policies under which the disk is not asked."""

from __future__ import annotations

import base64
import builtins
import io
import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faster_smolvlm import SmolVLM, SmolVLMImageProcessor, SmolVLMVideoProcessor
from faster_smolvlm.media import (
    MediaDecodeError,
    MediaError,
    MediaLimitError,
    MediaNotFoundError,
    MediaPolicy,
    MediaRefusedError,
    MediaTypeError,
    load_image,
    read_source,
)
from faster_smolvlm.media.video import load_video
from faster_smolvlm.quoting import quoted
from PIL import Image

STRICT = MediaPolicy.strict()
UNIX = pytest.mark.skipif(sys.platform == "win32", reason="of Unix systems")


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "a.png"
    Image.new("RGB", (8, 6), (10, 20, 30)).save(path)
    return path


def both(source: Any, policy: MediaPolicy | None = None) -> tuple[MediaError, MediaError]:
    """The errors of a picture and of a clip."""
    found = []
    for read in (load_image, load_video):
        with pytest.raises(MediaError) as error:
            read(source, policy=policy)
        found.append(error.value)
    return found[0], found[1]


@UNIX
@pytest.mark.parametrize("kind", ["pipe", "socket", "device", "directory", "loop of symbolic links"])
def test_what_is_no_regular_file(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "thing.png"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        socket.socket(socket.AF_UNIX).bind(str(path))
    elif kind == "device":
        path = Path("/dev/zero")
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to(path)
    for source in (path, str(path)):
        for error in both(source):
            assert isinstance(error, MediaNotFoundError)
            assert f"is a {kind}" in str(error)
            assert path.name in str(error)


@pytest.mark.parametrize(
    "path", ["nul\0byte.png", "half \ud83d.png", "x" * 300 + ".png", "a/" * 5000 + "b.png", "y." * 400_000, "a.png/b"]
)
def test_paths_that_cannot_be(path: str, picture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(picture.parent)
    os_path: Any = type("P", (), {"__fspath__": lambda self: path})
    for source in (path, os_path()):
        for error in both(source):
            assert isinstance(error, MediaNotFoundError)
            assert len(str(error)) < 500
    image, clip = both(path)
    assert "Incorrect image source" in str(image)
    assert "Incorrect video source" in str(clip)


def test_path_objects_of_others() -> None:
    for value in (5, None, ValueError("0x7f00")):
        broken: Any = type("P", (), {"__fspath__": lambda self, value=value: value})
        with pytest.raises(MediaTypeError, match="gives no path as text"):
            read_source(broken(), MediaPolicy())


def test_no_permission(picture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the file, of its folder, and of a disk that fails; the rights of the user who runs the tests do not matter."""

    def failing(error: type[OSError], number: int = 13) -> Callable[..., Any]:
        def fail(*arguments: Any, **keywords: Any) -> Any:
            raise error(number, "what the system says", str(picture))

        return fail

    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda *arguments: False)
        for error in both(picture):
            assert isinstance(error, MediaRefusedError)
            assert isinstance(error, PermissionError)
            assert "may not be read" in str(error)
    for name in ("stat", "open"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, failing(PermissionError))
            with pytest.raises(MediaRefusedError, match=r"a\.png' may not be read"):
                load_image(picture)
        with monkeypatch.context() as patch:
            patch.setattr(os, name, failing(OSError, 5))
            with pytest.raises(MediaDecodeError, match=r"a\.png' cannot be read \(EIO\)"):
                load_image(picture)


@UNIX
def test_a_file_that_became_a_pipe(picture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def swap(path: Any, mode: int) -> bool:
        os.unlink(path)
        os.mkfifo(path)
        return True

    monkeypatch.setattr(os, "access", swap)
    with pytest.raises(MediaNotFoundError, match="no regular file any more"):
        load_image(picture)


@UNIX
def test_a_file_that_is_cut_while_it_is_read(tmp_path: Path) -> None:
    """Pillow maps a grey picture into memory if it opens it by its path; a cut then ended the process by SIGBUS."""
    path = tmp_path / "grey.pgm"
    path.write_bytes(b"P5 3000 3000 255\n" + bytes(9_000_000))
    code = """
        import os, sys
        from PIL import ImageFile
        from faster_smolvlm.media import load_image
        load = ImageFile.ImageFile.load
        def cut(self):
            loaded = load(self)
            os.truncate(sys.argv[1], 10)
            return loaded
        ImageFile.ImageFile.load = cut
        assert load_image(sys.argv[1]).size == (3000, 3000)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code), str(path)], check=True, timeout=30)


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs /proc")
def test_files_without_a_size() -> None:
    with pytest.raises(MediaDecodeError, match="not a picture"):
        load_image("/proc/self/status")
    with pytest.raises(MediaLimitError, match="max_bytes"):
        load_image("/proc/self/status", MediaPolicy(max_bytes=100))


def test_empty_sources(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    for source in (tmp_path / "a.png", b"", bytearray(), "data:image/png;base64,", "data:,", {"bytes": b""}):
        for error in both(source):
            assert isinstance(error, (MediaDecodeError, MediaNotFoundError))
    with pytest.raises(MediaDecodeError, match="the source is empty"):
        load_image(tmp_path / "a.png")


def watched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the disk is asked from now on."""
    seen: list[str] = []

    def watch(module: Any, name: str) -> None:
        real = getattr(module, name)

        def call(*arguments: Any, **keywords: Any) -> Any:
            seen.append(f"{name}{arguments}")
            return real(*arguments, **keywords)

        monkeypatch.setattr(module, name, call)

    for name in ("stat", "lstat", "open", "access", "scandir", "listdir", "readlink"):
        watch(os, name)
    watch(io, "open")
    watch(builtins, "open")
    return seen


ENTRANCES: dict[str, Callable[[SmolVLM, Any], Any]] = {
    "load_image": lambda _, source: load_image(source, STRICT),
    "load_video": lambda _, source: load_video(source, policy=STRICT),
    "frames": lambda _, source: load_video([[[source, source]]], policy=STRICT),
    "row of a data set": lambda _, source: load_image({"bytes": None, "path": source}, STRICT),
    "image processor": lambda _, source: SmolVLMImageProcessor()(source, media_policy=STRICT),
    "video processor": lambda _, source: SmolVLMVideoProcessor()(source, media_policy=STRICT),
    "generate, images": lambda vlm, source: vlm.generate("What?", images=source),
    "generate, videos": lambda vlm, source: vlm.generate("What?", videos=source),
    "chat, path": lambda vlm, source: vlm.chat([{"role": "user", "content": [{"type": "image", "path": source}]}]),
    "chat, url": lambda vlm, source: vlm.chat([{"role": "user", "content": [{"type": "image", "url": source}]}]),
    "chat, video": lambda vlm, source: vlm.chat([{"role": "user", "content": [{"type": "video", "path": source}]}]),
    "stream": lambda vlm, source: list(vlm.stream("What?", images=[source])),
    "watch": lambda vlm, source: list(vlm.watch(source, prompt="What?", every=1)),
}


@pytest.fixture(scope="module")
def vlm() -> SmolVLM:
    return SmolVLM.from_pretrained("demo", device="cpu", num_threads=1, policy=STRICT)


@pytest.mark.parametrize("entrance", ENTRANCES)
def test_strict_does_not_touch_the_disk(
    vlm: SmolVLM, picture: Path, monkeypatch: pytest.MonkeyPatch, entrance: str
) -> None:
    """One error for what is there, what is not, and what may not be read."""
    picture.with_name("folder.d").mkdir()
    names = [picture, picture.with_name("folder.d"), picture.with_name("nothing.png"), picture / "under.png"]
    sources = [*map(str, names), f"file://{picture}", "/dev/zero.png", "/etc/shadow.bak", str(picture) + "x" * 5000]

    def error_of(source: str) -> str:
        with pytest.raises(MediaRefusedError) as error:
            ENTRANCES[entrance](vlm, source)
        shown = quoted(source)
        assert shown in str(error.value)
        return str(error.value).replace(shown, "?")

    error_of("first.png")  # what is imported at the first call
    seen = watched(monkeypatch)
    errors = {error_of(source) for source in sources}
    asked = [entry for entry in seen if any(part in entry for part in (str(picture.parent), "/etc/", "/dev/"))]
    monkeypatch.undo()
    assert not asked
    assert len(errors) == 1
    assert "allow_files" in errors.pop()


def test_a_path_that_is_base64_too(picture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under strict it is base64, whether there is such a file or not."""
    monkeypatch.chdir(picture.parent)
    Path("abcd").write_bytes(picture.read_bytes())
    assert load_image("abcd").size == (8, 6)
    assert [str(error) for error in both("abcd", STRICT)] == [str(error) for error in both("abce", STRICT)]
    text = base64.b64encode(picture.read_bytes()).decode()
    np.testing.assert_array_equal(np.asarray(load_image(text, STRICT)), np.asarray(Image.open(picture)))


def test_path_objects_under_strict(picture: Path) -> None:
    errors = set()
    for name in ("a.png", "b.png"):
        errors |= {str(error).replace(name, "?") for error in both(picture.with_name(name), STRICT)}
    assert len(errors) == 1
    assert "allow_files" in errors.pop()
