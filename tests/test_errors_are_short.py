"""A value of 100,000 characters at every public entrance: the error is short, holds no address and no payload."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from faster_smolvlm import (
    AutoImageProcessor,
    AutoProcessor,
    BatchFeature,
    FrameSampling,
    MediaPolicy,
    SmolVLM,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMProcessor,
    load_image,
    load_video,
)
from faster_smolvlm.cli import main
from faster_smolvlm.text.tokenization_smolvlm import SmolVLMTokenizer
from PIL import Image

PICTURE = Image.new("RGB", (16, 16))
LONG = "A!" * 50_000
Call = Callable[[SmolVLM, Any], object]


def user(content: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": content}]


def name_of(bad: object) -> str:
    return bad if isinstance(bad, str) else LONG


CALLS: dict[str, Call] = {
    "chat": lambda vlm, bad: vlm.chat([bad]),
    "messages": lambda vlm, bad: vlm.chat(bad),
    "role": lambda vlm, bad: vlm.chat([{"role": bad, "content": "a"}]),
    "field": lambda vlm, bad: vlm.chat([{"role": "user", "content": "a", name_of(bad): bad}]),
    "type": lambda vlm, bad: vlm.chat(user([{"type": bad}])),
    "text": lambda vlm, bad: vlm.chat(user([{"type": "text", "text": [bad]}])),
    "part": lambda vlm, bad: vlm.chat(user([[bad]])),
    "picture": lambda vlm, bad: vlm.chat(user([{"type": "image", "image": {"url": [bad]}}])),
    "data URI": lambda vlm, bad: vlm.chat(user([{"type": "image_url", "image_url": f"DATA:image/png;base64,{bad}"}])),
    "base64": lambda vlm, bad: vlm.chat(user([{"type": "image", "base64": f"{bad}"}])),
    "mime": lambda vlm, bad: vlm.chat(user([{"type": "image", "base64": "AAAA", "mime_type": bad}])),
    "prompt": lambda vlm, bad: vlm.generate([[bad]]),
    "stream": lambda vlm, bad: vlm.stream([bad]),
    "images": lambda vlm, bad: vlm.generate("a", images=[[bad]]),
    "image": lambda vlm, bad: vlm.generate("a", images=[bad]),
    "videos": lambda vlm, bad: vlm.generate("a", videos=[bad]),
    "images of a batch": lambda vlm, bad: vlm.generate(["a", "b"], images={0: bad}),
    "on_error": lambda vlm, bad: vlm.generate("a", on_error=bad),
    "unknown": lambda vlm, bad: vlm.generate("a", **{name_of(bad): 1}),
    "max_new_tokens": lambda vlm, bad: vlm.generate("a", max_new_tokens=bad),
    "stop_strings": lambda vlm, bad: vlm.generate("a", stop_strings=[[bad]]),
    "top_k": lambda vlm, bad: vlm.generate("a", top_k=bad),
    "temperature": lambda vlm, bad: vlm.generate("a", temperature=bad),
    "from_pretrained": lambda vlm, bad: SmolVLM.from_pretrained(bad, local_files_only=True),
    "quantization": lambda vlm, bad: SmolVLM.from_pretrained("demo", device="cpu", quantization=bad),
    "dtype": lambda vlm, bad: SmolVLM.from_pretrained("demo", device="cpu", dtype=bad),
    "torch dtype": lambda vlm, bad: SmolVLMForConditionalGeneration.from_pretrained("demo", dtype=bad),
    "processor": lambda vlm, bad: AutoProcessor.from_pretrained(bad, local_files_only=True),
    "backend": lambda vlm, bad: AutoImageProcessor.from_pretrained("demo", backend=bad),
    "processor option": lambda vlm, bad: SmolVLMProcessor.from_pretrained("demo", **{name_of(bad): 1}),
    "call option": lambda vlm, bad: vlm.processor(text="a", **{name_of(bad): 1}),
    "call text": lambda vlm, bad: vlm.processor(text=[[bad]]),
    "conversation": lambda vlm, bad: vlm.processor.apply_chat_template([bad]),
    "item": lambda vlm, bad: vlm.processor.apply_chat_template(user([bad]), tokenize=True),
    "size": lambda vlm, bad: vlm.processor.image_processor(PICTURE, size={"longest_edge": bad}),
    "resample": lambda vlm, bad: vlm.processor.image_processor(PICTURE, resample=bad),
    "padding": lambda vlm, bad: vlm.processor.tokenizer("a", padding=bad),
    "truncation": lambda vlm, bad: vlm.processor.tokenizer("a", truncation=bad),
    "padding_side": lambda vlm, bad: vlm.processor.tokenizer(["a", "bc"], padding=True, padding_side=bad),
    "max_length": lambda vlm, bad: vlm.processor.tokenizer("a", max_length=bad),
    "token": lambda vlm, bad: vlm.processor.tokenizer.get_token_id(name_of(bad)),
    "special token": lambda vlm, bad: vlm.processor.tokenizer.add_special_tokens({name_of(bad): bad}),
    "tokenizer": lambda vlm, bad: SmolVLMTokenizer.from_pretrained("demo", padding_side=bad),
    "tensors": lambda vlm, bad: BatchFeature({name_of(bad): [[1], [1, 2]]}, tensor_type="np"),
    "to": lambda vlm, bad: BatchFeature({"a": np.zeros(2)}).to(bad),
    "load_image": lambda vlm, bad: load_image(bad),
    "load_video": lambda vlm, bad: load_video(bad),
    "row": lambda vlm, bad: load_image({"bytes": None, "path": [bad]}),
    "policy": lambda vlm, bad: MediaPolicy(max_bytes=bad),
    "sampling": lambda vlm, bad: FrameSampling.rate(bad),
    "config": lambda vlm, bad: SmolVLMConfig(scale_factor=bad),
}  # fmt: skip


@pytest.fixture(scope="module")
def vlm() -> SmolVLM:
    return SmolVLM.from_pretrained("demo", device="cpu")


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("bad", [LONG, [LONG] * 3, PICTURE], ids=["text", "list", "picture"])
def test_errors_are_short(name: str, bad: Any, vlm: SmolVLM) -> None:
    if isinstance(bad, Image.Image) and name in ("image", "load_image", "videos"):
        pytest.skip("a picture is right there")
    try:
        CALLS[name](vlm, bad)
    except Exception as error:
        text = str(error)
    else:
        return
    assert len(text) < 2000, f"an error of {len(text)} characters"
    assert not re.search(r"\bat 0x[0-9a-fA-F]+", text)
    assert "A!" * 300 not in text


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    for picture in (LONG, f"data:image/png;base64,{LONG}", f"DATA:image/png;base64,{LONG}"):
        assert main(["describe", "--model", "demo", picture]) == 1
        assert len(capsys.readouterr().err) < 1000
    with pytest.raises(SystemExit):
        main(["describe", "--model", "demo", "--prompt", "caf\udcc3\udca9", "a.png"])
    assert "surrogate" in (err := capsys.readouterr().err)
    assert "--prompt" in err
