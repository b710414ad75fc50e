"""The predicted peak of reading a picture is kept, for every format and kind of source, and is no empty promise."""

from __future__ import annotations

import base64
import io
import json
import mmap
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from faster_smolvlm.media import MediaLimitError, MediaPolicy, load_image
from faster_smolvlm.media import decode as decoding
from PIL import Image

from benches import worst_pictures as worst
from tests.helpers.media_sources import served

SIDE = 2500
FLAT = partial(worst.grey, SIDE)
TURNED = Image.Exif()
TURNED[0x0112] = 6


def saved(kind: str, mode: str = "RGB", **options: Any) -> bytes:
    return worst.saved(FLAT(mode), kind, **options)


PICTURES: dict[str, Callable[[], bytes]] = {
    "JPEG": partial(saved, "JPEG"),
    "JPEG, grey": partial(saved, "JPEG", "L"),
    "JPEG, CMYK": partial(saved, "JPEG", "CMYK"),
    "JPEG, turned": partial(saved, "JPEG", exif=TURNED),
    "JPEG, progressive": partial(worst.progressive, SIDE),
    "JPEG, progressive CMYK": partial(worst.progressive, SIDE, "CMYK"),
    "PNG": partial(saved, "PNG"),
    "PNG, noise": lambda: worst.saved(worst.noise(1600, 1600), "PNG", compress_level=1),
    "PNG, palette": partial(saved, "PNG", "P"),
    "PNG, alpha": partial(saved, "PNG", "RGBA"),
    "PNG, turned": partial(saved, "PNG", "RGBA", exif=TURNED),
    "PNG, 16 bits grey": lambda: worst.png(SIDE, 16, 0, worst.flat_rows(SIDE, SIDE * 2)),
    "PNG, 16 bits RGBA": lambda: worst.png(SIDE, 16, 6, worst.flat_rows(SIDE, SIDE * 8)),
    "PNG, interlaced": lambda: worst.saved_interlaced(SIDE),
    "GIF": partial(saved, "GIF", "P"),
    "GIF, frames on a canvas": lambda: worst.gif_of_frames(5000),
    "BMP": partial(saved, "BMP"),
    "BMP, runs": lambda: worst.bmp_of_runs(3_000_000),
    "WEBP": partial(saved, "WEBP", method=0),
    "WEBP, lossless alpha": partial(saved, "WEBP", "RGBA", lossless=True, method=0),
    "WEBP, noise": lambda: worst.saved(worst.noise(1600, 1600), "WEBP", lossless=True, method=0, quality=0),
    "AVIF": partial(saved, "AVIF", speed=10),
    "AVIF, alpha": partial(saved, "AVIF", "RGBA", speed=10, subsampling="4:4:4"),
    "JPEG2000": lambda: worst.saved(worst.grey(1200, "RGBA"), "JPEG2000"),
    "TIFF": partial(saved, "TIFF"),
    "TIFF, LZW": partial(saved, "TIFF", compression="tiff_lzw"),
    "TIFF, LZW, one strip": partial(saved, "TIFF", compression="tiff_lzw", tiffinfo={278: SIDE}),
    "TIFF, JPEG": partial(saved, "TIFF", compression="jpeg"),
    "TIFF, 16 bits": lambda: worst.saved(Image.new("I;16", (SIDE, SIDE)), "TIFF", compression="tiff_lzw"),
    "ICO": lambda: icon(saved("PNG", "RGBA")),
    "PPM": partial(saved, "PPM"),
    "PPM, text": lambda: b"P3 600 600 255\n" + b"7 8 9 " * 600 * 600,
    "PGM, text of 16 bits": lambda: b"P2 900 900 65535\n" + b"789 " * 900 * 900,
    "QOI": lambda: worst.saved(worst.grey(1500, "RGBA"), "QOI"),
    "SGI": partial(saved, "SGI"),
    "TGA": partial(saved, "TGA", compression="tga_rle"),
    "PCX": partial(saved, "PCX"),
}


IN_EVERY_FORM = {"JPEG", "PNG", "PNG, noise", "GIF", "BMP", "WEBP", "WEBP, noise", "TIFF, LZW", "JPEG2000", "AVIF"}


def icon(png: bytes) -> bytes:
    return b"\0\0\1\0\1\0" + b"\0\0\0\0\1\0\x20\0" + len(png).to_bytes(4, "little") + b"\x16\0\0\0" + png


MEASURE = """
import ctypes, gc, json, sys
from pathlib import Path
from PIL import Image
from faster_smolvlm.media import decode, load_image
from faster_smolvlm.media.inline import PEAK
trim = ctypes.CDLL(None).malloc_trim
def status(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))
def read(kind, source):
    given = {"bytes": lambda: Path(source).read_bytes(), "file object": lambda: open(source, "rb")}.get(kind)
    source = given() if given else source
    if kind == "data URI":
        source = Path(source).read_text()
    predicted = []
    decode._check_memory = lambda needed, job: predicted.append(needed)
    gc.collect()
    trim(0)  # memory that is free but kept would not be seen to be taken again
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    load_image(source)
    if kind == "data URI":
        predicted.append(PEAK * len(source))
    return max(predicted), status("VmHWM") - before
work = json.loads(sys.stdin.read())
for _, _, source in work[:5]:
    load_image(source if source[0] == "h" else work[0][2])  # what is imported is not part of it
decode.LONGEST_CALL = 1e9
print(json.dumps([[name, kind, *read(kind, source)] for name, kind, source in work]))
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for number, make in enumerate(PICTURES.values()):
        data = make()
        (folder / f"{number}").write_bytes(data)
        (folder / f"{number}.uri").write_text("data:image/x;base64," + base64.b64encode(data).decode())
    return folder


def sources(folder: Path, url: str) -> Iterator[tuple[str, str, str]]:
    for number, name in enumerate(PICTURES):
        path = str(folder / f"{number}")
        yield name, "bytes", path
        if name not in IN_EVERY_FORM:
            continue
        yield name, "path", path
        yield name, "data URI", f"{path}.uri"
        yield name, "file object", path
        yield name, "URL", f"{url}/{number}"


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_the_peak_is_predicted(files: Path) -> None:
    with served(files) as url:
        work = json.dumps(list(sources(files, url)))
        done = subprocess.run([sys.executable, "-c", MEASURE], input=work, capture_output=True, text=True, timeout=300)
    assert not done.returncode, done.stderr[-2000:]
    rows = json.loads(done.stdout)
    assert len(rows) == len(PICTURES) + 4 * len(IN_EVERY_FORM)
    # The kernel adds up the pages of a thread 64 at a time.
    above = [row for row in rows if row[3] > row[2] + 64 * mmap.PAGESIZE]
    assert not above
    # A prediction of ten times what is taken would refuse good pictures.
    far = [row for row in rows if row[1] == "bytes" and row[2] > 4.5 * row[3]]
    assert not far


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_refused_by_its_prediction(name: str, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = (files / f"{list(PICTURES).index(name)}").read_bytes()
    needed: list[int] = []
    with monkeypatch.context() as patched:
        patched.setattr(decoding, "_check_memory", lambda peak, job: needed.append(peak))
        load_image(data)
    assert load_image(data, MediaPolicy(max_decode_bytes=max(needed)))
    with pytest.raises(MediaLimitError, match=rf"may take {max(needed)} bytes .* raise MediaPolicy.max_decode_bytes"):
        load_image(io.BytesIO(data), MediaPolicy(max_decode_bytes=max(needed) - 1))


def test_a_base64_text_is_refused_before_it_is_decoded() -> None:
    text = base64.b64encode(bytes(30_000)).decode()
    for source in (text, f"data:image/png;base64,{text}"):
        with pytest.raises(MediaLimitError, match=r"may take 200000 bytes of memory to read.*max_decode_bytes"):
            load_image(source, MediaPolicy(max_decode_bytes=199_999))
