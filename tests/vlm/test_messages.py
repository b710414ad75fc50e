"""What the common clients send is understood; everything else is refused with the message, the part and the type."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pydantic
import pytest
from faster_smolvlm import MediaPolicy, MediaRefusedError, SmolVLM
from faster_smolvlm.vlm.messages import read_messages
from faster_smolvlm.vlm.parts import MessageError
from PIL import Image

from tests.helpers.video_clips import write_clip

PICTURE = Image.fromarray((np.arange(40 * 60 * 3) % 251).astype(np.uint8).reshape(40, 60, 3))
BUFFER = io.BytesIO()
PICTURE.save(BUFFER, "PNG")
DATA = BUFFER.getvalue()
B64 = base64.b64encode(DATA).decode()
URI = f"data:image/png;base64,{B64}"
TEXT = {"type": "text", "text": "What?"}
EXTRA = {"cache_control": {"type": "ephemeral"}, "id": "lc_1", "index": 0, "annotations": []}


class Url(pydantic.BaseModel):
    url: str
    detail: str | None = None


class Part(pydantic.BaseModel):
    type: str
    text: str | None = None
    image_url: Url | None = None


class Role(str, Enum):
    USER = "user"


class Message(pydantic.BaseModel):
    role: Role
    content: list[Part]
    tool_calls: list[str] | None = None


@dataclass
class Plain:
    role: str = "user"
    content: list[Any] = field(default_factory=lambda: [{"type": "image", "image": PICTURE}, TEXT])


class Version1:
    """As a model of pydantic 1."""

    def dict(self) -> dict[str, Any]:
        return {"role": "user", "content": [{"type": "image", "url": URI}, TEXT]}


IMAGES: dict[str, dict[str, Any]] = {
    "image": {"type": "image", "image": PICTURE},
    "filled by Arrow": {"type": "image", "image": PICTURE, "url": None, "path": None, "text": None},
    "empty texts": {"type": "image", "image": PICTURE, "url": "", "text": ""},
    "image_url": {"type": "image_url", "image_url": URI},
    "image_url object": {"type": "image_url", "image_url": {"url": URI, "detail": "high"}},
    "DATA URI": {"type": "image_url", "image_url": {"url": "DATA:" + URI[5:]}},
    "input_image": {"type": "input_image", "image_url": URI, "detail": "auto", "file_id": None},
    "input_image object": {"type": "input_image", "image_url": {"url": URI}},
    "LangChain base64": {"type": "image", "source_type": "base64", "data": B64, "mime_type": "image/png"},
    "LangChain url": {"type": "image", "source_type": "url", "url": URI},
    "LangChain 1 base64": {"type": "image", "base64": B64, "mime_type": "image/png"},
    "LangChain 1 url": {"type": "image", "url": URI, "extras": {"a": 1}},
    "base64 as bytes": {"type": "image", "base64": B64.encode()},
    "bytes": {"type": "image", "data": DATA},
    "Anthropic": {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": B64}},
    "Anthropic url": {"type": "image", "source": {"type": "url", "url": URI}},
    "row": {"type": "image", "image": {"bytes": DATA, "path": "a.png"}},
    "flat row": {"type": "image", "bytes": DATA, "path": "a.png"},
    "file": {"type": "file", "file": {"file_data": URI, "filename": "a.png"}},
    "input_file": {"type": "input_file", "file_data": URI, "filename": "a.png"},
    "file of LangChain": {"type": "file", "base64": B64, "mime_type": "image/png"},
}
QUESTIONS: dict[str, Any] = {
    "text": TEXT,
    "input_text": {"type": "input_text", "text": "What?", **EXTRA},
    "string": "What?",
    "pydantic": Part(type="text", text="What?"),
    "object": SimpleNamespace(type="text", text="What?"),
}


@pytest.fixture(scope="module")
def vlm() -> SmolVLM:
    return SmolVLM.from_pretrained("demo", device="cpu")


@pytest.fixture(scope="module")
def expected(vlm: SmolVLM) -> Any:
    return vlm.generate("What?", images=[PICTURE], max_new_tokens=3)


def check(given: Any, expected: Any) -> None:
    assert (given.usage.prompt_tokens, given.token_ids) == (expected.usage.prompt_tokens, expected.token_ids)


@pytest.mark.parametrize("name", IMAGES)
def test_pictures(name: str, vlm: SmolVLM, expected: Any) -> None:
    messages = [{"role": "user", "content": [{**EXTRA, **IMAGES[name]}, TEXT]}]
    check(vlm.chat(messages, max_new_tokens=3), expected)
    with vlm.stream(messages, max_new_tokens=3) as stream:
        assert "".join(stream) == expected.text


@pytest.mark.parametrize("name", QUESTIONS)
def test_texts(name: str, vlm: SmolVLM, expected: Any) -> None:
    check(vlm.chat([{"role": "user", "content": [IMAGES["image"], QUESTIONS[name]]}], max_new_tokens=3), expected)


@pytest.mark.parametrize(
    "message",
    [
        Message(
            role=Role.USER,
            content=[Part(type="image_url", image_url=Url(url=URI)), Part(type="text", text="What?")],
        ),
        Plain(),
        Version1(),
        {"type": "human", "content": [IMAGES["image"], TEXT], "additional_kwargs": {}, "example": False, "name": None},
        {"type": "message", "role": "user", "content": [IMAGES["input_image"], QUESTIONS["input_text"]], "status": "x"},
        SimpleNamespace(role="user", content=[IMAGES["image"], TEXT]),
        {"role": "user", "content": (IMAGES["image"], TEXT), "tool_calls": [], "function_call": None},
        {"role": "User", "content": np.array([IMAGES["image"], TEXT], dtype=object)},
    ],
    ids=lambda message: type(message).__name__,
)  # fmt: skip
def test_messages(message: Any, vlm: SmolVLM, expected: Any) -> None:
    check(vlm.chat([message], max_new_tokens=3), expected)


def test_roles(vlm: SmolVLM) -> None:
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    for role in ("developer", "System"):
        check(vlm.chat([{**turns[0], "role": role}, turns[1]], max_new_tokens=2), vlm.chat(turns, max_new_tokens=2))


def test_clips(vlm: SmolVLM, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", frames=8, fps=4)
    b64 = base64.b64encode(path.read_bytes()).decode()
    expected = vlm.generate("What?", videos=[path], max_new_tokens=3)
    for part in (
        {"type": "video", "path": str(path)},
        {"type": "video_url", "video_url": {"url": str(path)}},
        {"type": "input_video", "video_url": str(path)},
        {"type": "video", "source_type": "base64", "data": b64, "mime_type": "video/mp4"},
        {"type": "video", "base64": b64, "mime_type": "video/mp4"},
        {"type": "file", "file": {"file_data": f"data:video/mp4;base64,{b64}"}},
        {"type": "video", "video": {"bytes": path.read_bytes(), "path": None}},
    ):
        check(vlm.chat([{"role": "user", "content": [part, TEXT]}], max_new_tokens=3), expected)


REFUSED: list[tuple[Any, str]] = [
    ([{"type": "input_audio", "input_audio": {"data": "AAAA"}}], "message 0, part 0.*'input_audio'.*known"),
    ([TEXT, {"type": "tool_use", "name": "x"}], "message 0, part 1.*'tool_use'"),
    ([{"type": "document", "source": {"type": "text", "data": "x"}}], "'document'"),
    ([{"type": "image_url"}, TEXT], "message 0, part 0 of type 'image_url' has no source"),
    ([{"type": "image", "image": None, "url": None}], "no source"),
    ([{"type": "image", "image": PICTURE, "url": URI}], "2 sources .image, url."),
    ([{"type": "input_image", "file_id": "file-1"}], "file_id"),
    ([{"type": "image", "source": {"type": "file", "file_id": "f"}}], "'source'.*'file'"),
    ([{"type": "image", "source_type": "id", "id": "x", "url": URI}], "'source_type' 'id'"),
    ([{"type": "image", "source_type": "url", "data": B64}], "'source_type' 'url'"),
    ([{"type": "image", "base64": B64, "mime_type": "application/pdf"}], "application/pdf"),
    ([{"type": "input_file", "file_data": "data:application/pdf;base64,AAAA"}], "application/pdf"),
    ([{"type": "file", "file": {"file_id": "f"}}], "file_id"),
    ([{"type": "file", "file": {"filename": "a.txt"}}], "'file'"),
    ([{"type": "video", "video": ["a", "b"], "fps": 2.0}], "message 0, part 0 of type 'video' has the field 'fps'"),
    ([{"type": "image", "image": PICTURE, "max_pixels": 5}], "max_pixels"),
    ([{"type": "text", "text": "a", "image": PICTURE}], "'image'"),
    ([{"type": "text"}], "'text' has to be a text, got None"),
    ([{"type": "text", "text": 5}], "got 5"),
    ([{"type": "image_url", "image_url": {"uri": URI}}], "'uri'"),
    ([{"type": 5}], "type 5"),
    ([{"text": "What?"}], "no 'type'"),
    ([{}], "message 0, part 0 has no 'type'"),
    ([[]], "message 0, part 0 has to be"),
    ([None], "got None"),
    ([PICTURE], "got <Image>"),
    ([], "message 0 has no content: 'content' is an empty list"),
    (None, "message 0 has no content: 'content' is None"),
    (5, "'content' has to be a text or a list of parts, got 5"),
    ({"type": "text", "text": "x"}, "'content' has to be"),
    (PICTURE, "'content' has to be.*<Image>"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "message"), REFUSED)
def test_refused_parts(content: Any, message: str, vlm: SmolVLM) -> None:
    for call in (vlm.chat, vlm.stream):
        with pytest.raises(MessageError, match=message) as found:
            call([{"role": "user", "content": content}], max_new_tokens=1)
        assert isinstance(found.value, ValueError)
        assert B64[:20] not in str(found.value)


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([{"role": "user"}], "message 0 has no content: 'content' is missing"),
        ([{"role": "user", "content": "a"}, {}], "message 1 has no 'role'"),
        ([{"role": None, "content": "a"}], "no 'role'"),
        ([{"role": "tool", "content": "5", "tool_call_id": "x"}], "message 0 has the role 'tool'.*known roles"),
        ([{"role": 5, "content": "5"}], "role 5"),
        ([{"role": "assistant", "content": None, "tool_calls": [{"id": "x"}]}], "message 0.*'tool_calls'"),
        ([{"role": "user", "content": "a", "weight": 2}], "'weight'"),
        ([{"type": "function_call_output", "call_id": "x", "output": "y"}], "'function_call_output'"),
        ([{"type": "reasoning", "summary": []}], "'reasoning'"),
        ([5], "message 0 has to be an object"),
        (["hello"], "message 0 has to be an object"),
        ([[{"role": "user", "content": "a"}]], "one conversation"),
        ({"role": "user", "content": "a"}, "one conversation"),
        ("hello", "one conversation"),
        (None, "one conversation"),
        (5, "one conversation"),
        ([], "empty"),
    ],
)
def test_refused_messages(messages: Any, message: str, vlm: SmolVLM) -> None:
    with pytest.raises(MessageError, match=message):
        vlm.chat(messages, max_new_tokens=1)


def test_base64_is_never_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("AAAA").write_bytes(DATA)
    for part in ({"type": "image", "data": "AAAA"}, {"type": "image", "source": {"type": "base64", "data": "AAAA"}}):
        _, (source,), _ = read_messages([{"role": "user", "content": [part]}])
        assert str(source).startswith("data:image/")


def test_pictures_beside_messages_are_not_dropped(vlm: SmolVLM) -> None:
    with pytest.raises(MessageError, match="go with a prompt"):
        vlm.stream([{"role": "user", "content": "What?"}], images=[PICTURE])


def test_the_policy_counts_for_every_form(vlm: SmolVLM) -> None:
    strict = SmolVLM(vlm.model, vlm.processor, policy=MediaPolicy.strict())
    for part in (
        {"type": "image_url", "image_url": "/etc/hostname"},
        {"type": "image", "image": {"path": "/etc/hostname"}},
    ):
        with pytest.raises(MediaRefusedError):
            strict.chat([{"role": "user", "content": [part, TEXT]}])


@pytest.mark.parametrize(
    ("ask", "where"),
    [
        (lambda vlm, bad: vlm.generate(bad), "prompt"),
        (lambda vlm, bad: vlm.stream(bad), "prompt"),
        (lambda vlm, bad: vlm.generate(["a", bad]), "prompt 2 of 2: prompt"),
        (lambda vlm, bad: vlm.chat([{"role": "user", "content": bad}]), "message 0: 'content'"),
        (
            lambda vlm, bad: vlm.chat([{"role": "user", "content": [{"type": "text", "text": bad}]}]),
            "message 0, part 0",
        ),
        (lambda vlm, bad: vlm.chat([{"role": "user", "content": [bad]}]), "message 0, part 0"),
        (lambda vlm, bad: vlm.generate("a", stop_strings=["b", bad]), "stop_strings"),
        (lambda vlm, bad: vlm.processor.tokenizer(bad), "the text"),
        (lambda vlm, bad: vlm.processor.tokenizer(["a", bad]), "text 1"),
        (lambda vlm, bad: vlm.processor.tokenizer.encode(bad), "the text"),
        (lambda vlm, bad: vlm.processor.tokenizer.tokenize(bad), "the text"),
        (lambda vlm, bad: vlm.processor(text=[bad]), "the text"),
        (lambda vlm, bad: vlm.processor(text=["<image>", bad], images=[[PICTURE], []]), "text 1"),
    ],
)
@pytest.mark.parametrize("bad", ["a\ud83d", "\udce9", "x" * 100_000 + "\udfff"])
def test_half_an_emoji(ask: Any, where: str, bad: str, vlm: SmolVLM) -> None:
    with pytest.raises(ValueError, match="surrogate") as error:
        ask(vlm, bad)
    assert where in str(error.value)
    assert len(str(error.value)) < 500
