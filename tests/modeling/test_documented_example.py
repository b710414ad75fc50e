"""The example of the model's page in Transformers' documentation, with only the import line changed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import faster_smolvlm
import pytest
import torch
import transformers

pytestmark = pytest.mark.parity

ROOT = Path(__file__).resolve().parents[2]
DEMO = Path(faster_smolvlm.__file__).parent / "demo"


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Serve the example picture on the loopback address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(ROOT / "examples" / "media")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/scene.png"
    server.shutdown()
    server.server_close()


def _run(library: Any, url: str, dtype: torch.dtype) -> list[str]:
    processor = library.AutoProcessor.from_pretrained(DEMO)
    model = library.AutoModelForImageTextToText.from_pretrained(DEMO, dtype=dtype)
    conversation = [
        {
            "role": "user",
            "content": [
                {"type": "image", "url": url},
                {"type": "text", "text": "Describe the image."},
            ],
        }
    ]
    inputs = processor.apply_chat_template(
        conversation, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    ).to(model.device, dtype=dtype)
    output_ids = model.generate(**inputs, max_new_tokens=64, do_sample=False)
    texts: list[str] = processor.batch_decode(output_ids, skip_special_tokens=True)
    return texts


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_documented_example(url: str, dtype: torch.dtype) -> None:
    ours, theirs = (_run(library, url, dtype) for library in (faster_smolvlm, transformers))
    assert ours == theirs
    assert ours[0].startswith("User:")
    assert "Assistant: A" in ours[0]
