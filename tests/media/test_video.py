"""Reading videos: the frames are those of PyAV's plain loop and the pixels those of Transformers."""

from __future__ import annotations

import base64
import io
import warnings
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
import transformers
from faster_smolvlm import SmolVLMVideoProcessor, _rust
from faster_smolvlm.media.packets import PacketTable
from faster_smolvlm.media.video import VideoReader, load_video
from faster_smolvlm.media.video_stream import VideoStream
from transformers.video_utils import load_video as their_load_video

from tests.helpers.clip_indices import at
from tests.helpers.video_clips import every_frame, write_clip

pytestmark = pytest.mark.parity


CLIPS = [
    "av1_video.mkv",
    "bbb_vp9_opus_1s.webm",
    "bframes_reordered.mov",
    "bikes.mp4",
    "carphone_distorted.mp4",
    "cockatoo.mp4",
    "generated_vfr_h264.mp4",
    "h265_video.mp4",
    "nasa_13013.mp4",
    "newtonscradle_vfr.gif",
    "one_frame_av1.mp4",
    "one_frame_mpeg4.mp4",
    "rot0.mov",
    "rot180.mov",
    "rot90.mov",
    "sample_10s.mp4",
    "white_300f.mp4",
]


LONG = "long_586s_14064f.mp4"


SIZES = {"size": {"longest_edge": 512}, "max_image_size": {"longest_edge": 128}}


@pytest.fixture
def quiet() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.parametrize("name", CLIPS)
def test_frames_equal_those_of_the_plain_loop(data_dir: Path, name: str, quiet: None) -> None:
    path = data_dir / "videos" / name
    expected = every_frame(path)
    total = len(expected)
    rng = np.random.default_rng(0)
    choices = [np.arange(0, total, max(1, total // 15)), np.array([total - 1, 0, total // 2])]
    choices.append(np.sort(rng.choice(total, min(total, 2), replace=False)))
    for indices in choices:
        frames, metadata = load_video(path, sample_indices_fn=at(indices))
        assert metadata.total_num_frames == total
        assert metadata.frames_indices.tolist() == indices.tolist()
        for index, frame in zip(indices, frames, strict=True):
            np.testing.assert_array_equal(frame, expected[index])


@pytest.mark.parametrize("threads", [1, 3])
def test_the_number_of_threads_changes_nothing(data_dir: Path, threads: int) -> None:
    path = data_dir / "videos" / "bikes.mp4"
    indices = np.arange(0, 250, 9)
    frames, _ = load_video(path, sample_indices_fn=at(indices), threads=threads)
    np.testing.assert_array_equal(frames, np.stack(every_frame(path))[indices])


def test_a_long_clip(data_dir: Path, quiet: None) -> None:
    path = str(data_dir / "videos" / LONG)
    indices = [0, 100, 101, 5000, 14063]
    frames, metadata = load_video(path, sample_indices_fn=at(indices))
    assert metadata.total_num_frames == 14064
    with av.open(path) as container:
        container.streams.video[0].thread_type = "AUTO"
        wanted = set(indices)
        expected = [f.to_ndarray(format="rgb24") for i, f in enumerate(container.decode(video=0)) if i in wanted]
    np.testing.assert_array_equal(frames, np.stack(expected))


@pytest.mark.parametrize("name", [*CLIPS, LONG])
def test_pixels_equal_those_of_transformers(data_dir: Path, name: str) -> None:
    """Read from the path, 0 bytes differ from Transformers fed the same frames and metadata."""
    path = data_dir / "videos" / name
    ask = {"do_sample_frames": True, "num_frames": 4, "fps": 1, "return_metadata": True, "return_tensors": "pt"}
    raw = {"do_rescale": False, "do_normalize": False}
    torch.set_num_threads(1)
    got = SmolVLMVideoProcessor(**SIZES)(str(path), **ask, **raw)
    metadata = got["video_metadata"][0]
    frames, _ = load_video(path, sample_indices_fn=at(metadata.frames_indices), rotate=True)
    theirs = transformers.SmolVLMVideoProcessor(**SIZES)
    sampled = theirs.sample_frames(transformers.video_utils.VideoMetadata(**dict(metadata)), num_frames=4, fps=1)
    assert metadata.frames_indices.tolist() == sampled.tolist()
    expected = theirs(frames, return_tensors="pt", **raw)
    assert got["pixel_values"].dtype == torch.uint8
    assert torch.equal(got["pixel_values"], expected["pixel_values"])
    assert torch.equal(got["pixel_attention_mask"], expected["pixel_attention_mask"])


@pytest.mark.parametrize("ask", [{}, {"num_frames": 7}, {"fps": 3}])
def test_v14_load_video(tmp_path: Path, ask: dict[str, Any]) -> None:
    path = str(write_clip(tmp_path / "clip.mp4", frames=60, codec="mpeg4"))
    frames, metadata = load_video(path, **ask)
    expected, theirs = their_load_video(path, backend="pyav", **ask)
    np.testing.assert_array_equal(frames, expected)
    np.testing.assert_array_equal(metadata.frames_indices, theirs.frames_indices)
    mine, other = dict(metadata), dict(theirs)
    del mine["frames_indices"], other["frames_indices"]
    assert mine == other


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("b-frames.mp4", {"options": {"bf": "3", "g": "25", "b_strategy": "0"}}),
        ("pyramid.mp4", {"options": {"bf": "3", "g": "30", "b-pyramid": "normal"}}),
        ("open-gop.mp4", {"options": {"bf": "2", "g": "8", "x264-params": "open-gop=1:scenecut=0"}}),
        ("intra-refresh.mp4", {"options": {"x264-params": "intra-refresh=1:keyint=12"}}),
        ("no-b.mp4", {"options": {"bf": "0", "g": "10"}}),
        ("annex-b.ts", {"options": {"bf": "2", "g": "12"}}),
        ("sound.mkv", {"audio": True}),
        ("odd.mp4", {"pix_fmt": "yuv444p", "height": 47, "width": 63}),
        ("ten-bit.mp4", {"pix_fmt": "yuv444p10le"}),
        ("variable.mp4", {"times": [int(1000 * (i / 10 + (i % 3) / 50)) for i in range(60)]}),
        ("hevc.mp4", {"codec": "libx265", "options": {"x265-params": "bframes=3:keyint=16:log-level=none"}}),
        ("hevc-open.mp4", {"codec": "libx265", "options": {"x265-params": "open-gop=1:keyint=16:log-level=none"}}),
        ("vp9.webm", {"codec": "libvpx-vp9", "options": {"g": "15", "deadline": "realtime", "cpu-used": "8"}}),
        ("vp8.webm", {"codec": "libvpx", "options": {"g": "15", "auto-alt-ref": "1", "lag-in-frames": "10"}}),
        ("av1.mp4", {"codec": "libsvtav1", "options": {"preset": "12", "g": "15", "svtav1-params": "lp=1"}}),
        ("moving.apng", {"codec": "apng", "pix_fmt": "rgb24"}),
        ("moving.gif", {"codec": "gif", "pix_fmt": "rgb8"}),
        ("motion.avi", {"codec": "mjpeg", "pix_fmt": "yuvj420p"}),
        ("fragmented.mp4", {"container": {"movflags": "frag_keyframe+empty_moov"}, "options": {"g": "10"}}),
    ],
)
def test_every_way_to_encode(tmp_path: Path, name: str, settings: dict[str, Any], quiet: None) -> None:
    if settings.get("codec", "libx264") not in av.codecs_available:
        pytest.skip(f"this PyAV cannot write {settings['codec']}")
    path = write_clip(tmp_path / name, frames=60, **settings)
    expected = every_frame(path)
    assert len(expected) >= 55
    for indices in ([3, 44], [len(expected) - 1], list(range(0, len(expected), 7)), [30, 31, 32]):
        frames, metadata = load_video(path, sample_indices_fn=at(indices))
        assert metadata.total_num_frames == len(expected)
        for index, frame in zip(indices, frames, strict=True):
            np.testing.assert_array_equal(frame, expected[index])


def _packets_sent(path: Path, indices: list[int], monkeypatch: pytest.MonkeyPatch) -> int:
    """How many packets go through a decoder for these frames."""
    sent = 0
    original = VideoStream.decode_needed

    class Counting:
        def __init__(self, context: Any) -> None:
            self._context = context

        def __getattr__(self, name: str) -> Any:
            return getattr(self._context, name)

        def decode(self, packet: Any) -> Any:
            nonlocal sent
            sent += packet is not None
            return self._context.decode(packet)

    class Stream:
        def __init__(self, stream: Any) -> None:
            self.codec_context = Counting(stream.codec_context)

    def counted(self: VideoStream, table: PacketTable, wanted: list[int]) -> Any:
        real = self.stream
        self._packets = lambda: (packet for packet in self._container.demux(real) if packet.size)  # type: ignore[method-assign]
        self.stream = Stream(real)
        return original(self, table, wanted)

    with monkeypatch.context() as patch:
        patch.setattr(VideoStream, "decode_needed", counted)
        load_video(path, sample_indices_fn=at(indices), threads=1)
    return sent


def test_only_what_is_needed_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pyramidless = {"bf": "2", "g": "30", "b_strategy": "0", "b-pyramid": "none", "sc_threshold": "0"}
    path = write_clip(tmp_path / "b.mp4", frames=90, options=pyramidless)
    assert _packets_sent(path, [60], monkeypatch) <= 3  # the first packet, and the key frame
    assert _packets_sent(path, [0, 30, 60], monkeypatch) <= 6
    assert _packets_sent(path, [89], monkeypatch) <= 15  # a third of the frames of one group
    assert _packets_sent(path, list(range(90)), monkeypatch) == 90


def test_key_frames_and_times(tmp_path: Path) -> None:
    times = [0, 100, 200, 2600, 2700, 4000]
    path = write_clip(tmp_path / "v.mp4", frames=6, times=times, options={"g": "3", "bf": "0", "sc_threshold": "0"})
    reader = VideoReader(path)
    assert reader.key_frames == [0, 3]
    assert [round(1000 * seconds) for seconds in reader.times] == times
    assert _rust.frames_at_times(reader.times, 1.0) == [0, 2, 4, 5]
    assert _rust.key_frames(reader.key_frames, 1) == [0]
    assert _rust.explicit_frames(6, [-1, 2, 2]) == [2, 5]


def test_rotation(data_dir: Path) -> None:
    for name, turns in (("rot0.mov", 0), ("rot90.mov", 3), ("rot180.mov", 2)):
        path = data_dir / "videos" / name
        frames, metadata = load_video(path, rotate=True)
        np.testing.assert_array_equal(frames, np.rot90(np.stack(every_frame(path)), turns, axes=(1, 2)))
        assert (metadata.height, metadata.width) == frames.shape[1:3]


def test_pixels_that_are_not_square_stay_as_they_are_stored(tmp_path: Path) -> None:
    """Transformers' readers do not stretch them either, and the model squares every frame anyway."""
    square = write_clip(tmp_path / "square.mp4", frames=5)
    wide = write_clip(tmp_path / "wide.mp4", frames=5, sample_aspect_ratio=Fraction(3, 2))
    assert VideoReader(square).sample_aspect_ratio == 1
    reader = VideoReader(wide)
    assert reader.sample_aspect_ratio == Fraction(3, 2)
    assert (reader.metadata.width, reader.metadata.height) == (64, 48)
    frames, _ = load_video(wide)
    theirs, _ = their_load_video(str(wide), backend="pyav")
    np.testing.assert_array_equal(frames, theirs)
    ours = SmolVLMVideoProcessor(**SIZES)
    assert torch.equal(
        ours(wide, return_tensors="pt")["pixel_values"], ours(theirs, return_tensors="pt")["pixel_values"]
    )


def test_fast_frames_are_close(data_dir: Path) -> None:
    ours = SmolVLMVideoProcessor(**SIZES)
    ask = {"do_sample_frames": True, "num_frames": 4, "fps": 1, "return_tensors": "np"}
    for name in ("bikes.mp4", "nasa_13013.mp4", "rot90.mov"):
        path = str(data_dir / "videos" / name)
        exact, fast = (ours(path, fast=fast, **ask)["pixel_values"] for fast in (False, True))
        assert exact.shape == fast.shape
        assert 0 < np.abs(exact - fast).mean() < 0.03


@pytest.mark.parametrize("form", ["path", "str", "bytes", "file", "data URI"])
def test_sources(tmp_path: Path, form: str) -> None:
    path = write_clip(tmp_path / "clip.mp4", frames=12)
    data = path.read_bytes()
    source = {
        "path": path,
        "str": str(path),
        "bytes": data,
        "file": io.BytesIO(data),
        "data URI": "data:video/mp4;base64," + base64.b64encode(data).decode(),
    }[form]
    frames, _ = load_video(source, num_frames=3)
    np.testing.assert_array_equal(frames, np.stack(every_frame(path))[[0, 4, 8]])
