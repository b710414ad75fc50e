"""Colours of clips: the conversion to RGB against its definition in NumPy, and against torchcodec if there is one."""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest
from faster_smolvlm.media import MediaPolicy
from faster_smolvlm.media.color import FrameConverter
from faster_smolvlm.media.video import VideoReader, load_video

from tests.helpers.video_clips import every_frame, write_clip

Floats = npt.NDArray[np.float64]

KR_KB = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114), 7: (0.212, 0.087), 9: (0.2627, 0.0593)}
"""Weights of red and blue in luma, by the code of the matrix in H.273."""

PQ, HLG = "smpte2084", "arib-std-b67"


def planes_of(path: Path) -> list[tuple[list[Floats], av.VideoFrame]]:
    """The planes of every frame, and the frame."""
    out = []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            deep = frame.format.components[0].bits > 8
            kind = np.dtype("<u2" if deep else "u1")
            planes = [
                np.frombuffer(p, kind).reshape(p.height, -1)[:, : p.width].astype(np.float64) for p in frame.planes[:3]
            ]
            out.append((planes, frame))
    return out


def enlarged_rows(plane: Floats) -> Floats:
    """Twice the rows, samples centred between them: a cubic kernel of parameter -0.6, as libswscale's."""
    near, far = ((0.25, 1.25), (0.75, 1.75))
    a = -0.6
    inner = [(a + 2) * x**3 - (a + 3) * x**2 + 1 for x in (near[0], far[0])]
    outer = [a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a for x in (near[1], far[1])]
    padded = np.pad(plane, ((2, 2), (0, 0)), mode="edge")
    rows = len(plane)
    before2, before, here, after, after2 = (padded[k : k + rows] for k in range(5))
    out = np.empty((2 * rows, plane.shape[1]))
    out[0::2] = outer[1] * before2 + inner[1] * before + inner[0] * here + outer[0] * after
    out[1::2] = outer[0] * before + inner[0] * here + inner[1] * after + outer[1] * after2
    return out


def expected_rgb(planes: list[Floats], frame: av.VideoFrame, matrix: int = 6) -> Floats:
    """RGB in 0…255 by the definition: chroma samples repeated along rows, enlarged cubically down columns."""
    bits = frame.format.components[0].bits
    luma, *chroma = planes
    full = int(frame.color_range) == 2
    if not chroma:
        chroma = [np.full_like(luma, 1 << (bits - 1))] * 2
    chroma = [enlarged_rows(c) if c.shape[0] < luma.shape[0] else c for c in chroma]
    chroma = [np.repeat(c, 2, axis=1) if c.shape[1] < luma.shape[1] else c for c in chroma]
    step = 1 << (bits - 8)
    top = (1 << bits) - 1
    y = luma / top if full else (luma - 16 * step) / (219 * step)
    blue, red = ((c - 128 * step) / (top if full else 224 * step) for c in chroma)
    kr, kb = KR_KB[matrix]
    r, b = y + 2 * (1 - kr) * red, y + 2 * (1 - kb) * blue
    g = (y - kr * r - kb * b) / (1 - kr - kb)
    return np.clip(np.stack([r, g, b], axis=-1), 0, 1) * 255


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "options"),
    [
        ("libx264", "yuv420p10le", {}),
        ("libx264", "yuv420p10le", {"color_range": "pc"}),
        ("libx264", "yuv422p10le", {}),
        ("libx264", "yuv444p10le", {}),
        ("libx264", "yuv444p", {}),
        ("libx264", "yuvj444p", {}),
        ("libx264", "gray10le", {}),
        ("libx264", "yuv444p", {"colorspace": "bt709"}),
        ("libx264", "yuv420p10le", {"colorspace": "bt709"}),
        ("libx264", "yuv420p10le", {"colorspace": "bt2020nc"}),
        ("libx264", "yuv420p10le", {"colorspace": "bt2020c"}),
        ("libx264", "yuv420p10le", {"chroma_sample_location": "topleft"}),
        ("libx265", "yuv420p12le", {"x265-params": "log-level=none"}),
        ("ffv1", "yuv422p10le", {}),
    ],
)
def test_frames_equal_the_definition(tmp_path: Path, codec: str, pix_fmt: str, options: dict[str, str]) -> None:
    path = write_clip(tmp_path / "clip.mkv", 3, codec=codec, pix_fmt=pix_fmt, options={"crf": "1", **options})
    matrix = {"bt709": 1, "bt2020nc": 9, "bt2020c": 9}.get(options.get("colorspace", ""), 6)
    frames, _ = load_video(path)
    assert len(frames) == 3
    for rgb, (planes, frame) in zip(frames, planes_of(path), strict=True):
        difference = np.abs(rgb - expected_rgb(planes, frame, matrix))
        # libswscale cuts the last bits off where chroma is shared by two columns
        assert difference.max() < 5
        assert difference.mean() < 1.8


def test_fields_are_not_told_apart(tmp_path: Path) -> None:
    options = {"x264-params": "tff=1", "flags": "+ildct+ilme"}
    path = write_clip(tmp_path / "clip.mkv", 3, options=options)
    frames, _ = load_video(path)
    for rgb, (planes, frame) in zip(frames, planes_of(path), strict=True):
        assert frame.interlaced_frame
        stacked = np.concatenate([p.reshape(-1) for p in planes]).astype(np.uint8).reshape(-1, frame.width)
        same = av.VideoFrame.from_ndarray(stacked, format="yuv420p")
        np.testing.assert_array_equal(rgb, same.to_ndarray(format="rgb24"))


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p", "yuvj420p"])
def test_usual_formats_are_those_of_the_plain_loop(tmp_path: Path, pix_fmt: str) -> None:
    path = write_clip(tmp_path / "clip.mp4", 3, pix_fmt=pix_fmt)
    np.testing.assert_array_equal(load_video(path)[0], np.stack(every_frame(path)))


def test_ten_bits_are_decoded_as_by_the_plain_loop(data_dir: Path) -> None:
    path = data_dir / "videos" / "h264_10bits.mp4"
    convert = FrameConverter(tone_map=False).to_rgb
    with av.open(str(path)) as container:
        expected = [convert(frame) for frame in container.decode(video=0)]
    np.testing.assert_array_equal(load_video(path)[0], np.stack(expected))


def test_a_matrix_that_is_not_supported_is_said(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mkv", 2, pix_fmt="yuv444p", options={"colorspace": "ycgco"})
    with pytest.warns(UserWarning, match=r"clip\.mkv' stores its colours by matrix 8 of H\.273"):
        frames, _ = load_video(path)
    for rgb, (planes, frame) in zip(frames, planes_of(path), strict=True):
        assert np.abs(rgb - expected_rgb(planes, frame)).max() < 3


def hdr_clip(path: Path, transfer: str) -> Path:
    tags = {"color_trc": transfer, "colorspace": "bt2020nc", "color_primaries": "bt2020"}
    return write_clip(path, 2, codec="libx264", pix_fmt="yuv420p10le", options={"crf": "1", **tags})


@pytest.mark.parametrize(("transfer", "called"), [(PQ, "PQ"), (HLG, "HLG")])
def test_an_hdr_clip_is_stored_values_and_said_once(tmp_path: Path, transfer: str, called: str) -> None:
    path = hdr_clip(tmp_path / "clip.mkv", transfer)
    with pytest.warns(UserWarning, match=f"HDR clip .{called}.*tone_map=True") as said:
        frames, _ = load_video(path)
    assert len(said) == 1
    for rgb, (planes, frame) in zip(frames, planes_of(path), strict=True):
        assert np.abs(rgb - expected_rgb(planes, frame, matrix=9)).max() < 5


def test_tone_mapping_changes_hdr_clips_only(tmp_path: Path) -> None:
    policy = MediaPolicy(tone_map=True)
    plain = write_clip(tmp_path / "plain.mkv", 2, pix_fmt="yuv420p10le")
    np.testing.assert_array_equal(load_video(plain, policy=policy)[0], load_video(plain)[0])
    path = hdr_clip(tmp_path / "clip.mkv", PQ)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mapped, _ = load_video(path, policy=policy)
        assert VideoReader(path, policy=policy).metadata.total_num_frames == 2
    with pytest.warns(UserWarning, match="HDR"):
        stored, _ = load_video(path)
    assert mapped.shape == stored.shape
    assert np.abs(mapped.astype(int) - stored).mean() > 5


def grey_frame(code: Floats, transfer: int) -> av.VideoFrame:
    """One column of grey for each value in 0…1, BT.2020 of 10 bits."""
    frame = av.VideoFrame(16 * len(code), 16, "yuv444p10le")
    for index, plane in enumerate(frame.planes):
        values = np.frombuffer(plane, "<u2").reshape(16, -1)
        values[:, : frame.width] = np.repeat(np.round(64 + 876 * code), 16) if index == 0 else 512
    frame.colorspace, frame.color_range, frame.color_trc, frame.color_primaries = 9, 1, transfer, 9
    return frame


def test_tone_mapping_puts_diffuse_white_at_white() -> None:
    convert = FrameConverter(tone_map=True).to_rgb
    nits = np.array([1, 5, 10, 20, 50, 100, 203], dtype=np.float64)
    power = (nits / 10000) ** 0.1593017578125
    pq = ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375
    expected = 255 * (nits / 203) ** (1 / 2.4)  # BT.1886
    measured = convert(grey_frame(pq, 16))[8, 8::16].astype(float)
    assert np.abs(measured - expected[:, None]).max() < 4
    scene = np.array([0.05, 0.1, 0.2, 0.265])
    hlg = np.where(scene <= 1 / 12, np.sqrt(3 * scene), 0.17883277 * np.log(12 * scene - 0.28466892) + 0.55991073)
    expected = 255 * (1000 * scene**1.2 / 203) ** (1 / 2.4)
    measured = convert(grey_frame(hlg, 18))[8, 8::16].astype(float)
    assert np.abs(measured - expected[:, None]).max() < 4


@pytest.mark.parity
@pytest.mark.skipif(importlib.util.find_spec("torchcodec") is None, reason="needs torchcodec")
@pytest.mark.filterwarnings("ignore:.*:UserWarning")
@pytest.mark.parametrize("tags", [{}, {"colorspace": "bt2020nc", "color_trc": PQ}, {"chroma_sample_location": "top"}])
@pytest.mark.parametrize(
    "pix_fmt", ["yuv420p", "yuv422p", "yuv444p", "yuvj420p", "gray", "yuv420p10le", "yuv422p10le", "yuv444p10le"]
)
@pytest.mark.parametrize("width", [64, 70])
def test_frames_are_those_of_torchcodec(tmp_path: Path, pix_fmt: str, tags: dict[str, str], width: int) -> None:
    from transformers.video_utils import load_video as their_load_video

    path = write_clip(tmp_path / "clip.mkv", 3, width=width, pix_fmt=pix_fmt, options=tags)
    theirs = their_load_video(str(path), backend="torchcodec")[0].numpy()
    np.testing.assert_array_equal(load_video(path)[0], theirs.transpose(0, 2, 3, 1))
