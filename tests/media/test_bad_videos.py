"""Clips from outside: nothing hangs, floods or leaks, and errors name the clip."""

from __future__ import annotations

import base64
import os
import re
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from faster_smolvlm import SmolVLMVideoProcessor, _rust
from faster_smolvlm.media import MediaDecodeError, MediaError, MediaLimitError, MediaNotFoundError, MediaPolicy
from faster_smolvlm.media.video import VideoReader, load_video

from tests.helpers.clip_indices import at, few
from tests.helpers.video_clips import every_frame, write_clip

SIZES = {"size": {"longest_edge": 512}, "max_image_size": {"longest_edge": 128}}


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
    with pytest.raises(MediaError, match=r"clip\.mp4"):
        reader.read(few, lambda _, frame: frame)
    with pytest.raises(MediaNotFoundError, match=r"there is no file .*clip\.mp4' any more"):
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
    reader = VideoReader(path, policy=MediaPolicy(max_decode_seconds=0.3))

    time.sleep(0.4)  # before it is read, the caller may take their time
    reader.read(few, lambda _, frame: frame)
    with pytest.raises(MediaLimitError, match="max_decode_seconds"):
        VideoReader(path, policy=MediaPolicy(max_decode_seconds=1e-9))


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
