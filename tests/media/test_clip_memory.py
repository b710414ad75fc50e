"""Memory and time of clips: worked out from the header, kept while decoding, and refused before they are taken."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faster_smolvlm import SmolVLMVideoProcessor
from faster_smolvlm.media import MediaDecodeError, MediaError, MediaLimitError, MediaPolicy, load_image
from faster_smolvlm.media.video import VideoReader, load_video
from PIL import Image

from tests.helpers.media_sources import served
from tests.helpers.mutations import complaint, mutated, read_clip, read_picture
from tests.helpers.odd_clips import encoded, jpeg

SIZES = {"size": {"longest_edge": 512}, "max_image_size": {"longest_edge": 64}}
SLACK = 48 << 20  # libraries that are loaded on the way, and what the allocator keeps

MEASURE = """
import base64, io, resource, sys, threading
from pathlib import Path
import av, numpy, PIL.Image
from faster_smolvlm.media import MediaPolicy
from faster_smolvlm.media.video import VideoReader, load_video
kind, where = sys.argv[1:]
path = Path(where) if kind != "URL" else None
source = {
    "path": lambda: where, "bytes": lambda: path.read_bytes(), "file object": lambda: open(where, "rb"),
    "data URI": lambda: "data:video/mp4;base64," + base64.b64encode(path.read_bytes()).decode(), "URL": lambda: where,
}[kind]()
reader = VideoReader(source, threads=2)
def peak():
    return int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))) << 10
before = peak()
frames, _ = load_video(source, threads=2)
print(peak() - before, reader.peak_bytes(len(frames)), frames.nbytes)
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 frames of 1920×1080 pixels, 149 MB when they are decoded."""
    path = tmp_path_factory.mktemp("large") / "clip.mp4"
    path.write_bytes(encoded("mp4", 1920, 1080, 24, codec="mpeg4"))
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
@pytest.mark.parametrize("kind", ["path", "bytes", "file object", "data URI", "URL"])
def test_the_peak_is_predicted_from_the_header(large: Path, kind: str) -> None:
    with served(large.parent) as url:
        where = f"{url}/clip.mp4" if kind == "URL" else str(large)
        run = subprocess.run([sys.executable, "-c", MEASURE, kind, where], capture_output=True, text=True, check=True)
    measured, predicted, kept = map(int, run.stdout.split())
    assert kept == 24 * 1920 * 1080 * 3
    assert kept < predicted < 1.5 * kept
    assert measured < predicted + 3 * large.stat().st_size + SLACK


def test_a_clip_that_grows_is_refused_before_it_takes_memory() -> None:
    small = encoded("h264", 64, 48, 10)
    policy = MediaPolicy(max_pixels=100_000)
    for threads in (1, 4):
        with pytest.raises(MediaLimitError, match=r"1024×768 = 786432 pixels, allowed are 100000"):
            load_video(small + encoded("h264", 1024, 768, 4), policy=policy, threads=threads)


@pytest.mark.parametrize("frames", [2, 24])
def test_bytes_of_frames(frames: int) -> None:
    clip = encoded("mp4", 640, 480, 24, codec="mpeg4")
    allowed = MediaPolicy(max_clip_bytes=20_000_000)
    if frames == 2:
        assert len(load_video(clip, num_frames=2, policy=allowed)[0]) == 2
    else:
        with pytest.raises(MediaLimitError, match=r"640×480.*MediaPolicy\.max_clip_bytes"):
            load_video(clip, policy=allowed)
        ours = SmolVLMVideoProcessor(**SIZES, media_policy=allowed)  # keeps no frame of the clip
        assert ours(clip, return_tensors="np")["pixel_values"].shape[1] == 24
    with pytest.raises(MediaError, match="max_clip_bytes"):
        load_video(clip, num_frames=1, policy=MediaPolicy(max_clip_bytes=1_000_000))


def test_fewer_threads_take_less_memory() -> None:
    reader = VideoReader(encoded("mp4", 640, 480, 24, codec="mpeg4"), threads=8)
    assert reader.form.decoder_bytes(8) > reader.form.decoder_bytes(1)
    few = MediaPolicy(max_clip_bytes=reader.form.decoder_bytes(1))
    clip = encoded("mp4", 640, 480, 24, codec="mpeg4")
    taken, _ = VideoReader(clip, threads=8, policy=few).read(lambda metadata: np.arange(24), lambda rank, _: rank)
    assert taken == list(range(24))


@pytest.mark.parametrize("form", ["array", "pictures", "encoded pictures"])
def test_frames_that_are_given(form: str) -> None:
    policy = MediaPolicy(max_clip_bytes=10 * 48 * 64 * 3)
    png = jpeg(48)
    clips: dict[str, Any] = {
        "array": lambda n: np.zeros((n, 48, 64, 3), np.uint8),
        "pictures": lambda n: [Image.new("RGB", (64, 48))] * n,
        "encoded pictures": lambda n: [[[png] * n]],
    }
    for read in (
        lambda clip: load_video(clip, policy=policy)[0],
        lambda clip: SmolVLMVideoProcessor(**SIZES, media_policy=policy)(clip, return_tensors="np")["pixel_values"][0],
    ):
        assert len(read(clips[form](10))) == 10
        with pytest.raises(MediaLimitError, match="max_clip_bytes"):
            read(clips[form](14))


def test_strict_decodes_with_one_thread() -> None:
    assert VideoReader(encoded("mp4"), policy=MediaPolicy.strict(), threads=8).threads == 1


def test_a_packet_of_millions_of_units() -> None:
    """Each takes microseconds of a decoder that cannot be interrupted, and there is no picture in them."""
    for units, words in ((2_000_000, "more than its pixels"), (200_000, "more than 4096 units")):
        clip = encoded("h264", frames=3) + b"\0\0\1\x0c" * units
        start = time.process_time()
        with pytest.raises(MediaDecodeError, match=words):
            load_video(clip)
        assert time.process_time() - start < 2


@pytest.mark.parametrize("where", ["bytes", "path"])
def test_a_file_that_takes_long_to_open(tmp_path: Path, where: str) -> None:
    """FFmpeg decodes the first packet when it opens a file, and is not to be interrupted; a child process is.

    A machine that opens it in time sees then that the packet is too large.
    """
    clip = encoded("h264", frames=2) + b"\0\0\1\x0c" * 5_000_000
    (tmp_path / "units.h264").write_bytes(clip)
    start = time.monotonic()
    with pytest.raises(
        (MediaLimitError, MediaDecodeError), match=r"max_decode_seconds|max_clip_bytes|more than its pixels"
    ):
        load_video(clip if where == "bytes" else tmp_path / "units.h264", policy=MediaPolicy(max_decode_seconds=1.0))
    assert time.monotonic() - start < 3


def test_usual_clips_are_opened_at_once(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr("subprocess.run", refuse)
    for path in sorted((data_dir / "videos").glob("*.*")):
        if path.suffix != ".md":
            assert VideoReader(path).metadata.total_num_frames


def test_a_deadline_holds_while_several_threads_decode() -> None:
    clip = encoded("mp4", 640, 360, 120, options={"g": "10", "preset": "ultrafast"})
    start = time.monotonic()
    with pytest.raises(MediaLimitError, match="max_decode_seconds"):
        load_video(clip, threads=4, policy=MediaPolicy(max_decode_seconds=0.02))
    assert time.monotonic() - start < 3


def test_an_error_stops_the_other_threads() -> None:
    """What Ctrl-C raises in one thread ends all of them within a packet."""
    clip = encoded("mp4", 640, 360, 120, options={"g": "5", "preset": "ultrafast"})
    reader = VideoReader(clip, threads=4)
    seen: list[int] = []

    def convert(rank: int, frame: object) -> None:
        seen.append(rank)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reader.read(lambda metadata: np.arange(120), convert)
    assert len(seen) < 20


SEEDS = {"mp4": {}, "matroska": {}, "mpegts": {}, "avi": {"codec": "mpeg4"}, "h264": {}, "gif": {"codec": "gif"}}


def test_damaged_copies_of_clips() -> None:
    rng = np.random.default_rng(17)
    policy = MediaPolicy(max_decode_seconds=2.0)
    for container, settings in SEEDS.items():
        options = {"pix_fmt": "rgb8"} if container == "gif" else {}
        data = encoded(container, frames=8, **settings, **options)  # type: ignore[arg-type]
        for number in range(12):
            copy = mutated(data, rng)
            found = complaint(read_clip, copy, policy)
            if found:
                pytest.fail(f"{container} {number}: {found}")


def test_damaged_copies_of_pictures(tmp_path: Path) -> None:
    rng = np.random.default_rng(17)
    picture = Image.fromarray(rng.integers(0, 256, (48, 64, 3), np.uint8))
    for form in ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "ICO"):
        path = tmp_path / f"picture.{form}"
        picture.save(path, form)
        data = path.read_bytes()
        assert load_image(data).size
        for number in range(12):
            found = complaint(read_picture, mutated(data, rng), MediaPolicy())
            if found:
                pytest.fail(f"{form} {number}: {found}")


def test_an_error_of_a_decoder_that_has_no_type(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyAV raises anything: EOFError, MemoryError, ZeroDivisionError; each becomes an error that names the clip."""
    clip = encoded("mp4", frames=3)
    for error in (
        EOFError,
        MemoryError,
        ZeroDivisionError,
        OverflowError,
        UnicodeDecodeError("utf-8", b"x", 0, 1, "?"),
    ):

        def fail(*_: object, error: Any = error, **__: object) -> None:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr("av.open", fail)
            with pytest.raises(MediaError, match="bytes"):
                load_video(clip)
