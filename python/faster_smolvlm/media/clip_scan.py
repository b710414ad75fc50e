"""Whether a clip may take much time or memory when FFmpeg opens it, by a look at its bytes.

FFmpeg keeps some 4 KB for each unit of a packet of H.264 or HEVC, and some 40 bytes for each sample that an MP4 claims
to have, although a table of a few bytes can claim billions. A suspicion is no refusal: a child process tries.
"""

from __future__ import annotations

import os
import random
import re
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from .video_file import VideoFile

_PIECE = 32 << 20  # bytes at the start and at the end of a file that are looked at: all of a usual upload
_MOST_BOXES = 1000  # outermost ones of an MP4 that are gone through
_HARMLESS = 256 << 10  # bytes that cannot hold enough units
_START_CODES = 40_000  # units behind start codes: 160 MB; a clip of 20 MB with slices of 500 bytes has as many
_SHORT_LENGTHS = 65_536  # units with lengths of four bytes, below 256
_SAMPLES = 1_000_000  # that the tables of an MP4 may claim: 40 MB
_EDITS = 1_000_000  # samples that its edit lists may copy
_FEW_EDITS = 16  # more than usual files have
_WINDOWS, _WINDOW = 32, 1024
_RATIO = 0.85  # a window is suspicious if it can be compressed to less
_MOST = 10  # windows that may be so in a usual file: its tables, a stretch in which nothing moves
_DENSE = 1 << 20  # bytes that cannot hold enough units of other codecs, which take less memory
_NEAR = 600  # bytes between the name of a codec and its description in Matroska
_FOUR_BYTES = re.compile(rb"\x63\xa2.{1,8}?\x01...(?:.{17})?[\x03\xff\x0f\x07\x0b]", re.DOTALL)


def is_suspicious(file: VideoFile) -> bool:
    """Whether opening a clip may take more than a usual one; takes some ms for 20 MB, microseconds for small clips."""
    with file.open() as opened:
        size = opened.seek(0, os.SEEK_END)
        if file.data is not None and size <= 2 * _PIECE:
            pieces = [(0, file.data)]
        else:
            pieces = []
            for start in (0, max(_PIECE, size - _PIECE)):
                opened.seek(start)
                pieces.append((start, opened.read(_PIECE)))
        headers = _without_data(opened, size, pieces)
    if _claims_much(headers):
        return True
    if size < _HARMLESS:
        return False
    found = [piece for _, piece in pieces]
    # Each of the two holds a pair of zeros: one look is enough for usual clips.
    if sum(piece.count(b"\0\0") for piece in found) > min(_START_CODES, _SHORT_LENGTHS):
        if sum(piece.count(b"\0\0\1") for piece in found) > _START_CODES:
            return True
        if sum(piece.count(b"\0\0\0") for piece in found) > _SHORT_LENGTHS:
            return True
    return any(map(_has_short_lengths, headers)) or (size >= _DENSE and _can_be_compressed(found))


def _without_data(opened: BinaryIO, size: int, pieces: list[tuple[int, bytes]]) -> list[bytes]:
    """Return the pieces of an MP4, each with its start, without the data of its pictures, which FFmpeg leaves out too.

    Of what is not as usual, and of other files, all is returned.
    """
    at = 0
    kept: list[tuple[int, int]] = []
    if pieces[0][1][4:8] == b"ftyp":
        for _ in range(_MOST_BOXES):
            opened.seek(at)
            head = opened.read(8)
            length = _number(head, 0)
            if len(head) < 8 or length < 8:
                break
            if head[4:] != b"mdat":
                kept.append((at, at + length))
            at += length
    kept.append((at, size))
    return [
        b"".join(piece[max(begin - start, 0) : max(end - start, 0)] for begin, end in kept) for start, piece in pieces
    ]


def _claims_much(pieces: list[bytes]) -> bool:
    """Whether tables of MP4 claim many samples, or are compressed, so that nobody can tell."""
    samples = edits = 0
    for piece in pieces:
        if piece.find(b"cmvd") >= 0:
            return True
        for kind in (b"stsz", b"stz2"):
            samples += sum(_number(piece, at + 12) for at in _boxes(piece, kind))
        samples += sum(_number(piece, at + 8) for at in _boxes(piece, b"trun"))
        edits += sum(_number(piece, at + 8) for at in _boxes(piece, b"elst"))
    return samples > _SAMPLES or (edits > _FEW_EDITS and samples * edits > _EDITS)


def _boxes(piece: bytes, kind: bytes) -> Iterator[int]:
    """Yield where boxes of a kind may begin, behind their sizes: FFmpeg reads them at any depth."""
    at = piece.find(kind)
    while at >= 0:
        if at >= 4:
            yield at
        at = piece.find(kind, at + 4)


def _number(piece: bytes, at: int) -> int:
    return int.from_bytes(piece[at : at + 4], "big")


def _has_short_lengths(piece: bytes) -> bool:
    """Whether units of H.264 or HEVC may have lengths of less than four bytes, which usual files do not have."""
    for kind, at_size in ((b"avcC", 8), (b"\x17\0\0\0\0\x01", 9), (b"hvcC", 25)):
        if any(piece[at + at_size : at + at_size + 1] and piece[at + at_size] & 3 != 3 for at in _boxes(piece, kind)):
            return True
    for kind in (b"V_MPEG4/ISO/AVC", b"V_MPEGH/ISO/HEVC"):
        for at in _boxes(piece, kind):
            if not _FOUR_BYTES.search(piece, max(0, at - _NEAR), at + _NEAR):
                return True
    return False


def _can_be_compressed(pieces: list[bytes]) -> bool:
    """Whether much of a file can be compressed, as packets of millions of equal units can.

    Where it is tried is a matter of chance, so that nobody can write a file that looks well just there.
    """
    found, chance = 0, random.SystemRandom()
    for _ in range(_WINDOWS):
        piece = chance.choices(pieces, [len(piece) for piece in pieces])[0]
        at = chance.randrange(max(1, len(piece) - _WINDOW))
        found += len(zlib.compress(piece[at : at + _WINDOW], 1)) < _RATIO * _WINDOW
    return found > _MOST
