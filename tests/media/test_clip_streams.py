"""Which stream of a file is the clip, which containers there are, when frames are shown, and clips that change."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from faster_smolvlm import FrameSampling, SmolVLM, SmolVLMVideoProcessor
from faster_smolvlm.media import MediaDecodeError, MediaError, MediaPolicy, MediaRefusedError
from faster_smolvlm.media.video import VideoReader, load_video
from faster_smolvlm.vlm.watch import frames_of_file

from tests.helpers.odd_clips import box, boxes, encoded, jpeg, with_cover
from tests.helpers.video_clips import every_frame

SIZES = {"size": {"longest_edge": 512}, "max_image_size": {"longest_edge": 64}}


def test_a_cover_is_not_the_clip() -> None:
    whole = encoded("mp4")
    frames, metadata = load_video(with_cover(whole))
    assert (frames.shape, metadata.fps) == ((20, 48, 64, 3), 10.0)
    np.testing.assert_array_equal(frames, load_video(whole)[0])
    # A clip of one frame scores as much as its cover with FFmpeg, whose bytes are more.
    assert load_video(with_cover(encoded("mp4", frames=1)))[0].shape == (1, 48, 64, 3)


def test_only_a_cover() -> None:
    with pytest.raises(MediaDecodeError, match="only attached pictures"):
        load_video(with_cover(encoded("mp4"), keep_video=False))


def _two_streams(first: dict[str, Any], second: dict[str, Any]) -> bytes:
    """A Matroska of two clips of 64×48 and of 96×64 pixels; `frames` for each, the first may be `still`."""
    out = io.BytesIO()
    with av.open(out, "w", format="matroska") as opened:
        streams = []
        for number, (width, height) in enumerate(((64, 48), (96, 64))):
            stream: Any = opened.add_stream("mjpeg" if number == 0 and first.get("still") else "libx264", rate=10)
            stream.width, stream.height = width, height
            stream.pix_fmt = "yuvj420p" if stream.codec_context.name == "mjpeg" else "yuv420p"
            streams.append(stream)
        for stream, given in zip(streams, (first, second), strict=True):
            for index in range(given.get("frames", 20)):
                picture = np.full((stream.height, stream.width, 3), index * 9, np.uint8)
                opened.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            opened.mux(stream.encode())
    return out.getvalue()


@pytest.mark.parametrize(
    ("first", "second", "width"),
    [({"frames": 1, "still": True}, {}, 96), ({}, {"frames": 1}, 64)],
)
def test_several_streams(first: dict[str, Any], second: dict[str, Any], width: int) -> None:
    data = _two_streams(first, second)
    with av.open(io.BytesIO(data)) as opened:
        best: Any = opened.streams.best("video")
        assert best.width == width
    assert load_video(data, num_frames=1)[0].shape[2] == width


def test_the_best_of_two_real_streams(data_dir: Path) -> None:
    """The reader of Transformers with torchcodec takes the fourth stream of this file, too: 390 frames of 480×270."""
    frames, metadata = load_video(data_dir / "videos" / "nasa_13013.mp4", num_frames=2)
    assert (metadata.total_num_frames, frames.shape) == (390, (2, 270, 480, 3))


CONTAINERS = {
    "yuv4mpegpipe": {"codec": "rawvideo"},
    "nut": {"codec": "mpeg4"},
    "mxf": {"codec": "mpeg2video", "rate": 25},
    "mjpeg": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "swf": {"codec": "flv1"},
}


@pytest.mark.parametrize("container", CONTAINERS)
def test_containers_that_are_not_allowed(container: str) -> None:
    data = encoded(container, **CONTAINERS[container])  # type: ignore[arg-type]
    with pytest.raises(MediaRefusedError, match=f"container that is not allowed: '{container}'.*MediaPolicy"):
        load_video(data)
    allowed = MediaPolicy(containers=(*MediaPolicy().containers, container))
    assert load_video(data, policy=allowed)[0].shape[1:] == (48, 64, 3)
    with pytest.raises(MediaRefusedError, match="'mov,mp4"):
        load_video(encoded("mp4"), policy=MediaPolicy(containers=("avi",)))


@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile /etc/hostname\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5000 RTP/AVP 96\n",
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"></MPD>',
    ],
)
def test_what_names_other_files_is_never_opened(text: str) -> None:
    with pytest.raises(MediaRefusedError, match="names other files"):
        load_video(text.encode())
    with pytest.raises(ValueError, match="containers cannot hold"):
        MediaPolicy(containers=("mov", "concat"))


def _without_key_frame(mp4: bytes) -> bytes:
    """The edit list begins after the first frame, which is the only key frame."""
    at = mp4.index(b"elst") + 4
    assert mp4[at : at + 8] == b"\0\0\0\0\0\0\0\1"
    start = int.from_bytes(mp4[at + 12 : at + 16], "big")
    return mp4[: at + 12] + (start + 4096).to_bytes(4, "big") + mp4[at + 16 :]


DAMAGES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "nothing": (lambda _: b"", "is empty"),
    "cut in its header": (lambda mp4: mp4[: mp4.index(b"stsz") + 20], r"cut off in its header \(moov\)"),
    "cut in its data": (lambda mp4: mp4[: mp4.index(b"mdat") + 50], r"cut off in its data, and its header"),
    "never finished": (
        lambda mp4: b"".join(whole for kind, whole in boxes(mp4) if kind != b"moov"),
        r"header \(moov\) is missing",
    ),
    "an empty header": (lambda mp4: mp4[:32] + box(b"moov", b""), "MP4|no video stream"),
    "a picture": (lambda _: jpeg(), "still picture"),
    "a text": (lambda _: b"hello world", "not a video that can be read"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_a_damaged_file_is_called(damage: str) -> None:
    change, words = DAMAGES[damage]
    with pytest.raises(MediaDecodeError, match=words):
        load_video(change(encoded("mp4")))


def test_an_edit_list_that_hides_the_key_frame() -> None:
    reader = VideoReader(_without_key_frame(encoded("mp4", options={"bf": "0"})))
    with pytest.raises(MediaDecodeError, match="edit list hides"):
        reader.sample(FrameSampling.key_frames())


RAW: dict[str, dict[str, Any]] = {
    "h264": {},
    "hevc": {"codec": "libx265", "options": {"x265-params": "log-level=none"}},
    "m4v": {"codec": "mpeg4", "rate": 25},
    "mpeg2video": {"codec": "mpeg2video", "rate": 25},
    "obu": {"codec": "libsvtav1", "options": {"preset": "12", "svtav1-params": "lp=1"}},
}


@pytest.mark.parametrize("container", RAW)
def test_times_of_raw_streams(container: str) -> None:
    """Raw streams have no time stamps, or none that is true; the frame rate tells when frames are shown."""
    settings = RAW[container]
    if settings.get("codec", "libx264") not in av.codecs_available:
        pytest.skip(f"this PyAV cannot write {settings['codec']}")
    reader = VideoReader(encoded(container, frames=100, **settings))
    rate = reader.metadata.fps
    assert rate is not None
    assert rate >= 10
    total = reader.metadata.total_num_frames
    assert total >= 99
    np.testing.assert_allclose(reader.times, np.arange(total) / rate, atol=0.5 / rate)
    assert len(reader.sample(FrameSampling.rate(1))) == np.ceil(total / rate)
    assert reader.metadata.duration == pytest.approx(total / rate)


@pytest.mark.parametrize("stamps", ["all equal", "far apart", "negative"])
def test_times_that_cannot_be_true(stamps: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = VideoReader(encoded("mp4"))
    true = reader.table.pts
    ticks = int(1 / reader._seconds)
    changed = {
        "all equal": np.full_like(true, 7),
        "far apart": np.where(reader.table.order > 10, true + (1 << 33), true),
        "negative": true - 100 * ticks,
    }[stamps]
    object.__setattr__(reader.table, "pts", changed)
    np.testing.assert_allclose(reader.times, np.arange(20) / 10)


def test_neither_time_stamps_nor_a_rate() -> None:
    reader = VideoReader(encoded("h264"))
    reader.metadata.fps = None
    with pytest.raises(MediaDecodeError, match="neither time stamps nor a frame rate"):
        reader.sample(FrameSampling.rate(1))
    assert reader.sample(FrameSampling.uniform(2)).tolist() == [0, 10]


def test_watching_a_raw_stream() -> None:
    assert [round(seconds) for seconds, _ in frames_of_file(encoded("h264", frames=100), 1.0)] == [0, 1, 2, 3]


CHANGING = {
    "raw": lambda: encoded("h264", 64, 48, 60) + encoded("h264", 128, 96, 60),
    "smaller": lambda: encoded("h264", 128, 96, 10) + encoded("h264", 64, 48, 10),
    "turned": lambda: encoded("h264", 64, 48, 10) + encoded("h264", 48, 64, 10),
    "MPEG-2": lambda: (
        encoded("mpeg2video", 64, 48, 10, codec="mpeg2video", rate=25)
        + encoded("mpeg2video", 128, 96, 10, codec="mpeg2video", rate=25)
    ),
}

ENTRANCES: dict[str, Callable[[bytes], object]] = {
    "load_video": load_video,
    "load_video, rotate": lambda clip: load_video(clip, rotate=True),
    "processor": SmolVLMVideoProcessor(**SIZES),
    "processor, own sizes": SmolVLMVideoProcessor(do_resize=False),
    "watch": lambda clip: list(frames_of_file(clip, 0.1)),
    "SmolVLM": lambda clip: SmolVLM.from_pretrained("demo").generate("What?", videos=[clip], max_new_tokens=1),
}


@pytest.mark.parametrize("kind", CHANGING)
@pytest.mark.parametrize("entrance", ENTRANCES)
def test_clips_that_change_their_size(kind: str, entrance: str) -> None:
    if entrance == "SmolVLM" and kind != "raw":
        pytest.skip("one is enough of what takes a model")
    clip = CHANGING[kind]()
    with pytest.raises(MediaDecodeError, match=f"{len(clip)} bytes changes its picture size"):
        ENTRANCES[entrance](clip)
    frames, _ = load_video(clip, sampling=FrameSampling.at([0, 1, 2]))
    assert len(frames) == 3


def test_metadata_that_is_no_text(tmp_path: Path) -> None:
    """A title in Latin-1 is no reason not to read a clip."""
    path = tmp_path / "clip.mkv"
    with av.open(str(path), "w") as out:
        out.metadata["title"] = "Grenzuebergang"
        stream: Any = out.add_stream("mpeg4", rate=10)
        stream.width, stream.height = 64, 48
        out.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")))
        out.mux(stream.encode())
    path.write_bytes(path.read_bytes().replace(b"Grenzuebergang", b"Grenz\xfcbergang\xff"))
    assert load_video(path)[0].shape == (1, 48, 64, 3)


def _with_short_config(data: bytes, kind: bytes, size: int) -> bytes:
    """The description of the decoder cut to `size` bytes, the rest hidden in a box of its own."""
    at = data.index(kind)
    whole = int.from_bytes(data[at - 4 : at], "big")
    rest = whole - 8 - size
    assert rest >= 8
    cut = (size + 8).to_bytes(4, "big") + data[at : at + 4 + size]
    return data[: at - 4] + cut + box(b"free", bytes(rest - 8)) + data[at - 4 + whole :]


@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 10, 21, 22])
@pytest.mark.parametrize("kind", ["hvcC", "avcC"])
def test_short_descriptions_of_a_decoder(kind: str, size: int) -> None:
    hevc = {"codec": "libx265", "options": {"x265-params": "log-level=none"}}
    data = encoded("mp4", **(hevc if kind == "hvcC" else {}))  # type: ignore[arg-type]
    try:
        clip = _with_short_config(data, kind.encode(), size)
    except AssertionError:
        pytest.skip("the description is shorter")
    with pytest.raises(MediaError, match="bytes"):
        load_video(clip)


def test_every_frame_means_the_best_stream(tmp_path: Path) -> None:
    path = tmp_path / "two.mkv"
    path.write_bytes(_two_streams({"frames": 1, "still": True}, {}))
    np.testing.assert_array_equal(load_video(path)[0], np.stack(every_frame(path)))
