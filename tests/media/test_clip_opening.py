"""Clips that take FFmpeg much memory or time to open: a child process tries, and is ended at the policy's limits."""

from __future__ import annotations

import resource
import struct
import sys
import time

import numpy as np
import pytest
from faster_smolvlm.media import MediaError, MediaPolicy, clip_probe, clip_scan
from faster_smolvlm.media.video import load_video

from tests.helpers.odd_clips import encoded

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="the child reads its memory from /proc")


def _units_of_chance(size: int, unit: int = 16) -> bytes:
    """Units of filler that cannot be compressed."""
    table = np.random.default_rng(0).integers(1, 256, (size // unit, unit), np.uint8)
    table[:, :4] = (0, 0, 1, 0x0C)
    return encoded("h264", frames=2) + table.tobytes()


def _hidden_units(size: int) -> bytes:
    """Empty units, but for pieces of chance at 32 equal distances."""
    data = bytearray(encoded("h264", frames=2) + b"\0\0\1\x0c" * (size // 4))
    rng = np.random.default_rng(0)
    for number in range(1, 32):
        at = (len(data) - 1024) * number // 31
        data[at : at + 1024] = rng.integers(1, 256, 1024, np.uint8).tobytes()
    return bytes(data)


UNITS = {
    "of chance": lambda: _units_of_chance(20_900_000),
    "hidden": lambda: _hidden_units(20_900_000),
}


@linux_only
@pytest.mark.parametrize("kind", UNITS)
def test_units_take_their_memory_from_a_child(kind: str) -> None:
    """On the parent they would take gigabytes; it keeps out of the file."""
    data = UNITS[kind]()
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(MediaError, match=r"max_clip_bytes|max_decode_seconds|more than its pixels"):
        load_video(data, policy=MediaPolicy.strict())
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KB
    assert time.process_time() - start < 1


def _claiming(kind: bytes, at: int, number: int) -> bytes:
    """A clip of which a table claims so many entries, `at` bytes behind its name."""
    data = bytearray(encoded("mp4"))
    where = data.index(kind) + at
    data[where : where + 4] = struct.pack(">I", number)
    if kind == b"stsz":
        data[where - 4 : where] = struct.pack(">I", 1)
    return bytes(data)


def _claims(data: bytes) -> bool:
    return clip_scan._claims_much([data])


def test_claims_of_a_small_mp4() -> None:
    good = encoded("mp4")
    assert not _claims(good)
    assert _claims(_claiming(b"stsz", 12, 50_000_000))
    assert _claims(_claiming(b"elst", 8, 500_000))
    assert _claims(good + struct.pack(">I4sII", 16, b"trun", 0, 200_000_000))
    assert _claims(good + struct.pack(">I4sI", 12, b"cmvd", 9))


@linux_only
def test_samples_that_a_small_mp4_claims_are_counted_in_a_child() -> None:
    data = _claiming(b"stsz", 12, 50_000_000)
    stts, stsc = data.index(b"stts") + 12, data.index(b"stsc") + 16
    data = data[:stts] + struct.pack(">I", 50_000_000) + data[stts + 4 :]
    data = data[:stsc] + struct.pack(">I", 50_000_000) + data[stsc + 4 :]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(MediaError):
        load_video(data, policy=MediaPolicy.strict())
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KB


@pytest.mark.parametrize("container", ["mp4", "matroska"])
def test_units_with_lengths_of_less_than_four_bytes(container: str) -> None:
    """Their lengths cannot be counted, so that a child tries the file."""
    data = encoded(container)
    assert not clip_scan._has_short_lengths(data)
    sign = b"avcC" if container == "mp4" else b"\x63\xa2"
    at = data.index(b"\xff\xe1", data.index(sign))
    for size in (1, 2, 3):
        assert clip_scan._has_short_lengths(data[:at] + bytes([0xFC | size - 1]) + data[at + 1 :]) is True


def test_a_good_clip_that_is_suspected_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    good = encoded("mp4")
    expected = load_video(good)[0]
    monkeypatch.setattr(clip_probe, "is_suspicious", lambda _: True)
    np.testing.assert_array_equal(load_video(good)[0], expected)
    np.testing.assert_array_equal(load_video(good, policy=MediaPolicy.strict(max_decode_seconds=20))[0], expected)
