"""Media inside a text: data URIs and base64 in the spellings of programs, and errors that do not repeat them."""

from __future__ import annotations

import base64
import io
import time
from urllib.parse import quote

import numpy as np
import pytest
from faster_smolvlm.media import MediaError, MediaLimitError, MediaPolicy, load_image, read_source
from faster_smolvlm.media.video import load_video
from PIL import Image

_BUFFER = io.BytesIO()
Image.fromarray(np.arange(8 * 6 * 3, dtype=np.uint8).reshape(6, 8, 3)).save(_BUFFER, "PNG")
PNG = _BUFFER.getvalue()
TEXT = base64.b64encode(PNG).decode()
LINES = "\r\n".join(TEXT[at : at + 60] for at in range(0, len(TEXT), 60))
URL_SAFE = base64.urlsafe_b64encode(PNG).decode()

SPELLINGS = [
    f"data:image/png;base64,{TEXT}",
    f"DATA:image/png;base64,{TEXT}",
    f"Data:IMAGE/PNG;BASE64,{TEXT}",
    f"data:;base64,{TEXT}",
    f"data:image/png;charset=utf-8;base64,{TEXT}",
    f'data:image/png;name="a b.png";base64,{TEXT}',
    f"data:image/png; base64,{TEXT}",
    f"data:image/png;base64 ,{TEXT}",
    f" \n data:image/png;base64, {TEXT}\n",
    f"data:image/png;base64,{LINES}",
    f"data:image/png;base64,{TEXT.rstrip('=')}",
    f"data:image/png;base64,{URL_SAFE}",
    f"data:image/png;base64,{quote(TEXT, safe='')}",
    f"data:image/png,{quote(PNG)}",
    f"data:,{quote(PNG)}",
    f"data:image/png;charset=binary,{quote(PNG)}#part",
    TEXT,
    LINES,
    URL_SAFE,
    f" {TEXT}\n",
]


@pytest.mark.parametrize("text", SPELLINGS, ids=range(len(SPELLINGS)))
@pytest.mark.parametrize("policy", [MediaPolicy(), MediaPolicy.strict()])
def test_spellings(text: str, policy: MediaPolicy) -> None:
    assert read_source(text, policy).data == PNG


SECRET = base64.b64encode(b"this is a secret and no picture" * 9).decode()


@pytest.mark.parametrize(
    "text",
    [
        f"data:image/png;base64,{SECRET}",
        f"DATA:image/png;base64,{SECRET}",
        f" data:image/png;base64,{SECRET}",
        f"data:image/png;base64,{SECRET}@",
        f"data:image/png;base64;{SECRET}",
        f"data:{SECRET}",
        f"data:image/png,{SECRET}",
        f"data:image/png;{'x' * 9000};base64,{SECRET}",
        SECRET,
    ],
)
def test_the_payload_is_not_repeated(text: str) -> None:
    for policy in (MediaPolicy(), MediaPolicy.strict()):
        for read in (load_image, load_video):
            with pytest.raises(MediaError) as error:
                read(text, policy=policy)
            assert SECRET[-44:-4] not in str(error.value)
            assert len(str(error.value)) < 400


def test_sizes_are_checked_before_decoding() -> None:
    policy = MediaPolicy(max_bytes=1000)
    start = time.thread_time()
    for text in ("A" * 50_000_000, "data:;base64," + "A" * 50_000_000, "data:," + "%41" * 10_000_000):
        with pytest.raises(MediaLimitError, match="max_bytes"):
            read_source(text, policy)
    assert time.thread_time() - start < 1
    assert read_source("data:," + "%41" * 1000, policy).data == b"A" * 1000
