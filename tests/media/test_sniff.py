"""Whether a file is a picture or a clip is told by its content."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from faster_smolvlm.media.sniff import is_clip, kind_of, names_clip
from faster_smolvlm.media.source import Source

from tests.helpers.picture_files import FILES
from tests.helpers.video_clips import pictures, write_clip

CONTAINERS = {
    "mp4": "libx264", "mov": "libx264", "3gp": "libx264", "matroska": "libx264", "webm": "libvpx", "avi": "mpeg4",
    "flv": "libx264", "ogg": "libtheora", "mpegts": "libx264", "mpeg": "mpeg2video", "asf": "mpeg4", "ivf": "libvpx",
    "h264": "libx264", "hevc": "libx265", "m4v": "mpeg4", "nut": "mpeg4", "mxf": "mpeg2video",
    "yuv4mpegpipe": "rawvideo", "mpeg2video": "mpeg2video",
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_pictures(name: str) -> None:
    assert kind_of(FILES[name]()[:4096]) == "picture"
    assert not is_clip(Source("x", data=FILES[name]()), "named.mp4")


@pytest.mark.parametrize("container", CONTAINERS)
def test_clips(container: str, tmp_path: Path) -> None:
    codec = CONTAINERS[container]
    if codec not in av.codecs_available:
        pytest.skip(f"no encoder {codec}")
    path = tmp_path / "clip"
    with av.open(str(path), "w", format=container) as out:
        stream = out.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        if container == "3gp":
            stream.codec_tag = "avc1"
        for picture in pictures(12, 48, 64):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode())
    data = path.read_bytes()
    assert kind_of(data[:4096]) == "clip"
    assert is_clip(Source("x", str(path)), "named.png")


def test_a_transport_stream_that_begins_in_a_packet(tmp_path: Path) -> None:
    data = write_clip(tmp_path / "clip.ts").read_bytes()
    assert kind_of(data[100:4196]) == "clip"
    timed = b"".join(b"\0\0\0\0" + data[at : at + 188] for at in range(0, len(data), 188))
    assert kind_of(timed[:4096]) == "clip"


def test_real_files(data_dir: Path) -> None:
    for folder, kind in (("images", "picture"), ("videos", "clip")):
        for path in (data_dir / folder).iterdir():
            if path.suffix not in (".md", ".gif"):
                assert kind_of(path.read_bytes()[:4096]) == kind, path.name


@pytest.mark.parametrize(
    ("name", "clip"),
    [
        ("a.MP4", True), ("a.ts", True), ("a.3gp", True), ("a.png", False), ("mp4", False), ("a.mp4.png", False),
        ("https://host/a.mkv?x=1.png", True), ("https://host/a.png#a.mp4", False), ("DATA:video/mp4;base64,AA", True),
        ("data:image/png;base64,a.mp4", False), ("", False), ("what?.mp4", True),
    ],
)  # fmt: skip
def test_the_name_counts_if_the_content_does_not_tell(name: str, clip: bool) -> None:
    assert names_clip(name) is clip
    assert is_clip(Source("x", data=b"no mark"), name) is clip
    assert kind_of(b"no mark") is None
    assert kind_of(b"") is None


def test_noise_is_rarely_taken_for_anything() -> None:
    rng = np.random.default_rng(0)
    found = [kind_of(rng.integers(0, 256, 4096, np.uint8).tobytes()) for _ in range(300)]
    assert sum(kind is not None for kind in found) < 5
