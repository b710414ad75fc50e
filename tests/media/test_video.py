"""Reading videos: the frames are those of PyAV's plain loop, and nothing from outside hangs, floods or leaks."""

from __future__ import annotations

import base64
import io
import os
import re
import threading
import time
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
from faster_smolvlm.media import MediaDecodeError, MediaError, MediaLimitError, MediaPolicy
from faster_smolvlm.media.packets import PacketTable
from faster_smolvlm.media.video import VideoReader, load_video
from faster_smolvlm.media.video_stream import VideoStream
from transformers.video_utils import load_video as their_load_video

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
    "h264_10bits.mp4",
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


def at(indices: Any) -> Any:
    return lambda metadata, **unused: np.asarray(indices)


def few(metadata: Any, **unused: Any) -> np.ndarray:
    return np.unique(np.linspace(0, metadata.total_num_frames - 1, 6).astype(int))


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
        ("ten-bit.mp4", {"pix_fmt": "yuv420p10le"}),
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


def _checked_message(error: MediaError) -> str:
    message = str(error)
    assert not re.search(r"0x[0-9a-f]{6,}|Invalid data|libav|Errno", message), message
    return message


def test_bad_videos(data_dir: Path) -> None:
    """Each file gives an answer or a typed error that names it, within 5 s."""
    answers = 0
    for path in sorted((data_dir / "bad_videos").iterdir()):
        if path.suffix == ".md":
            continue
        start = time.monotonic()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                frames, metadata = load_video(path, sample_indices_fn=few)
                assert len(frames) == len(metadata.frames_indices) > 0
                answers += 1
            except MediaError as error:
                message = _checked_message(error)
                if path.name not in message:
                    pytest.fail(f"{path.name} is not named: {message}")
        assert time.monotonic() - start < 5, path.name
    assert answers >= 4


def test_a_header_that_promises_too_much(data_dir: Path) -> None:
    path = data_dir / "bad_videos" / "corrupted.mp4"
    with pytest.warns(UserWarning, match="49 of 50 frames can be decoded"):
        frames, metadata = load_video(path, sample_indices_fn=few)
    assert metadata.total_num_frames == 49
    assert metadata.frames_indices[-1] == 48
    assert len(frames) == 6


@pytest.mark.parametrize("kind", ["audio", "text", "empty", "encrypted", "cut", "picture", "playlist", "missing"])
def test_what_is_no_usable_video(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"{kind}.mp4"
    if kind == "audio":
        with av.open(str(path), "w") as out:
            sound: Any = out.add_stream("aac", rate=16000)
            block = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            block.sample_rate = 16000
            out.mux(sound.encode(block))
            out.mux(sound.encode())
    elif kind == "text":
        path.write_text("this is no video")
    elif kind == "empty":
        path.touch()
    elif kind == "encrypted":
        key = "00112233445566778899aabbccddeeff"
        write_clip(
            path,
            container={"encryption_scheme": "cenc-aes-ctr", "encryption_key": key, "encryption_kid": key},
        )
    elif kind == "cut":
        whole = write_clip(tmp_path / "whole.mp4").read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    elif kind == "picture":
        from PIL import Image

        Image.new("RGB", (64, 64)).save(path, format="PNG")
    elif kind == "playlist":  # would make the reader open what it names
        other = write_clip(tmp_path / "other.mp4")
        path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile://{other}\n#EXT-X-ENDLIST\n")
    start = time.monotonic()
    with pytest.raises(MediaError) as caught:
        load_video(path)
    assert time.monotonic() - start < 5
    assert path.name in _checked_message(caught.value)
    if kind == "encrypted":
        assert "encrypted" in str(caught.value)


def _boxes(data: bytes, kind: bytes) -> int:
    """Where the payload of a table of an MP4 begins."""
    return data.index(kind) + 4


@pytest.mark.parametrize("lie", ["all are key frames", "no key frame", "places", "sizes", "times", "order", "length"])
def test_an_index_that_lies(tmp_path: Path, lie: str) -> None:
    """Either the frames of the plain loop over the same file, or an error that names it; in no time."""
    options = {"bf": "2", "g": "12", "b_strategy": "0"}
    data = bytearray(write_clip(tmp_path / "true.mp4", frames=60, options=options).read_bytes())
    if lie == "all are key frames":  # without its table every frame counts as one
        at = _boxes(data, b"stss")
        data[at - 4 : at] = b"free"
    elif lie == "no key frame":
        at = _boxes(data, b"stss") + 8
        data[at : at + 4] = (60).to_bytes(4, "big")
    elif lie == "places":
        at = _boxes(data, b"stco") + 8
        data[at : at + 4] = (len(data) - 50).to_bytes(4, "big")
    elif lie == "sizes":
        at = _boxes(data, b"stsz") + 12
        for entry in range(5, 60, 7):
            data[at + 4 * entry : at + 4 * entry + 4] = (37).to_bytes(4, "big")
    elif lie == "times":
        at = _boxes(data, b"stts") + 8
        data[at + 4 : at + 8] = bytes(4)
    elif lie == "order":
        at = _boxes(data, b"ctts")
        data[at - 4 : at] = b"free"
    else:
        at = _boxes(data, b"mdhd") + 16
        data[at : at + 4] = b"\x7f\xff\xff\xff"
    path = tmp_path / f"{lie}.mp4"
    path.write_bytes(data)
    expected = []
    with av.open(str(path)) as container:
        for packet in container.demux(video=0):
            try:
                expected += [frame.to_ndarray(format="rgb24") for frame in packet.decode()]
            except av.FFmpegError:
                continue
    start = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            frames, metadata = load_video(path, sample_indices_fn=few)
        except MediaError as error:
            message = _checked_message(error)
            if path.name not in message or lie != "places":
                pytest.fail(message)
            return
    assert lie != "places"  # nothing is where it says
    assert time.monotonic() - start < 5
    for index, frame in zip(metadata.frames_indices, frames, strict=True):
        np.testing.assert_array_equal(frame, expected[index])


def test_a_file_that_goes_away(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", frames=8)
    reader = VideoReader(path)
    path.unlink()
    with pytest.raises(MediaDecodeError, match=r"clip\.mp4"):
        reader.read(few, lambda _, frame: frame)
    with pytest.raises(MediaDecodeError, match=r"clip\.mp4' cannot be opened"):
        reader.file.open()


def test_a_pipe(tmp_path: Path) -> None:
    data = write_clip(tmp_path / "clip.mp4", frames=8).read_bytes()
    reading, writing = os.pipe()
    threading.Thread(target=lambda: (os.write(writing, data), os.close(writing))).start()
    with open(reading, "rb") as pipe:
        frames, _ = load_video(pipe)
    np.testing.assert_array_equal(frames, np.stack(every_frame(tmp_path / "clip.mp4")))


def test_a_call_returns_no_more_than_allowed(tmp_path: Path) -> None:
    """All clips of a call count, and so does the padding of short ones."""
    clips = [write_clip(tmp_path / f"{count}.mp4", frames=count) for count in (20, 1, 1)]
    frame = 3 * 128 * 128 * 4
    for allowed, works in ((60, True), (59, False), (22, False), (21, False)):
        policy = MediaPolicy(max_output_bytes=allowed * frame)
        ours = SmolVLMVideoProcessor(**SIZES, media_policy=policy)
        if works:
            assert ours(clips, return_tensors="np")["pixel_values"].shape[:2] == (3, 20)
        else:
            with pytest.raises(MediaLimitError, match=r"MediaPolicy\.max_output_bytes"):
                ours(clips, return_tensors="np")


def test_a_cut_stream_gives_what_decodes(tmp_path: Path) -> None:
    """Matroska has no index at its end: half a file is half a clip."""
    whole = write_clip(tmp_path / "whole.mkv", frames=60, height=96, width=128)
    data = whole.read_bytes()
    frames, metadata = load_video(data[: len(data) // 2], sample_indices_fn=few)
    assert 5 < metadata.total_num_frames < 60
    expected = every_frame(whole)
    for index, frame in list(zip(metadata.frames_indices, frames, strict=True))[:-1]:
        np.testing.assert_array_equal(frame, expected[index])


@pytest.mark.parametrize(
    ("limit", "value"),
    [("max_frames", 10), ("max_duration", 2.0), ("max_decoded_frames", 20), ("max_pixels", 1000), ("max_bytes", 100)],
)
def test_limits(tmp_path: Path, limit: str, value: float) -> None:
    path = write_clip(tmp_path / "clip.mp4", frames=30)
    load_video(path, policy=MediaPolicy())
    with pytest.raises(MediaLimitError, match=f"MediaPolicy.{limit}"):
        load_video(path, policy=MediaPolicy(**{limit: value}))


def test_time_limit(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", frames=30)
    reader = VideoReader(path)
    object.__setattr__(reader.file, "deadline", time.monotonic() - 1)
    with pytest.raises(MediaLimitError, match="max_decode_seconds"):
        reader.read(few, lambda _, frame: frame)


def test_ten_thousand_frames_in_a_data_uri(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "many.mp4", frames=10_000, height=16, width=16, options={"preset": "ultrafast"})
    uri = "data:video/mp4;base64," + base64.b64encode(path.read_bytes()).decode()
    with pytest.raises(MediaLimitError, match="10000 frames"):
        load_video(uri)
    frames, metadata = load_video(uri, num_frames=8)
    assert metadata.total_num_frames == 10_000
    assert frames.shape == (8, 16, 16, 3)
    with pytest.raises(MediaError):
        load_video("data:video/jpeg;base64," + ",".join(["/9j/4AAQSkZJRg=="] * 10_000))


def test_arguments(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", frames=10)
    with pytest.raises(ValueError, match="mutually exclusive"):
        load_video(path, num_frames=2, fps=1)
    with pytest.raises(ValueError, match="num_frames=11 exceeds total_num_frames=10"):
        load_video(path, num_frames=11)
    for indices in ([10], [-1], [], [0.5]):
        with pytest.raises(ValueError, match="frame indices"):
            load_video(path, sample_indices_fn=at(indices))
    with pytest.raises(MediaDecodeError):
        load_video(b"no video at all")


def test_a_batch_names_the_clip(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", frames=4)
    bad = tmp_path / "bad.mp4"
    bad.write_text("no")
    with pytest.raises(MediaError, match=r"video 1: .*bad\.mp4"):
        SmolVLMVideoProcessor(**SIZES)([str(path), str(bad)])


def test_streams_of_unknown_length() -> None:
    stream = _rust.FrameStream(8)
    held: set[int] = set()
    for index in range(1000):
        keep, release = stream.offer(index / 25, False)
        held.update([index] if keep else [])
        held.difference_update(release)
        assert len(held) < 16
    chosen = stream.finish()
    assert len(chosen) == 8
    assert set(chosen) <= held
    assert max(np.diff(chosen)) <= 2 * 1000 / 8
    for arguments, expected in (
        ({"fps": 1.0}, [0, 25, 50, 75]),
        ({"indices": [5, 3]}, [3, 5]),
        ({"keys_only": True}, [0, 30, 60, 90]),
    ):
        stream = _rust.FrameStream(64, **arguments)
        for index in range(100):
            stream.offer(index / 25, index % 30 == 0)
        assert stream.finish() == expected
    with pytest.raises(ValueError, match="at most one"):
        _rust.FrameStream(4, fps=1.0, keys_only=True)
