"""The parts of a message as the common clients send them: texts, pictures and clips; all others are refused by name.

Understood are the parts of Transformers, of OpenAI's chat and Responses interfaces, of LangChain and of Anthropic.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from typing import NamedTuple

from ..media.kinds import is_picture, is_record
from ..quoting import quoted, shown
from ..text.well_formed import check_text

Fields = Mapping[str, object]

TEXTS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}
"""Types of parts that are text, and the field that holds it."""

MEDIA = {
    "image": "image",
    "image_url": "image",
    "input_image": "image",
    "video": "video",
    "video_url": "video",
    "input_video": "video",
}
"""Types of parts that are pictures or clips."""

FILES = ("file", "input_file")
"""Types of parts that are a picture or a clip if their data say so."""

_KNOWN = ", ".join((*TEXTS, *MEDIA, *FILES))
# What says nothing that the model could show, and what is read beside the source.
_WITHOUT_EFFECT = frozenset({
    "type", "id", "index", "cache_control", "detail", "annotations", "citations", "logprobs", "status", "phase",
    "extras", "metadata", "uuid", "filename", "file_name", "name", "title", "source_type", "mime_type",
    "media_type",
})  # fmt: skip
_MIME = re.compile(r"[\w.+-]+/[\w.+-]+")
_URL_HOLDERS = frozenset({"url", "detail"})


class MessageError(ValueError, TypeError):
    """Messages, or a part of one, that are not understood; the text says which message and field it is."""


class Part(NamedTuple):
    """One part: `kind` is "text", "image" or "video", `value` the text or the source."""

    kind: str
    value: object


def fields_of(value: object) -> Fields | None:
    """Return the fields of a mapping, a pydantic model, a dataclass or a plain object; None for anything else."""
    if isinstance(value, Mapping):
        return value
    if isinstance(value, type) or is_picture(value):
        return None
    for name in ("model_dump", "dict"):  # pydantic 2 and 1
        dump = getattr(value, name, None)
        found: object = dump() if callable(dump) else None
        if isinstance(found, Mapping):
            return found
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    attributes = getattr(value, "__dict__", {})
    return attributes if {"role", "type"} & attributes.keys() else None


def is_absent(value: object) -> bool:
    """Whether a field says nothing: None, as tables fill it in, or an empty text, list or mapping."""
    return value is None or (isinstance(value, (str, bytes, list, tuple, dict)) and not value)


def read_part(value: object, where: str) -> Part:
    """Read a part; `where` names it in errors. Raises MessageError for one that is not understood."""
    if isinstance(value, str):
        check_text(value, where)
        return Part("text", value)
    fields = fields_of(value)
    if fields is None:
        raise MessageError(f"{where} has to be a text or an object with a 'type', got {shown(value)}")
    kind = fields.get("type")
    if is_absent(kind):
        raise MessageError(f"{where} has no 'type'; known types are {_KNOWN}")
    if isinstance(kind, str) and kind in TEXTS:
        return Part("text", _text(fields, TEXTS[kind], f"{where} of type {shown(kind)}"))
    if isinstance(kind, str) and kind in MEDIA:
        return Part(MEDIA[kind], _source(fields, MEDIA[kind], f"{where} of type {shown(kind)}"))
    if isinstance(kind, str) and kind in FILES:
        return _file(fields, f"{where} of type {shown(kind)}")
    raise MessageError(f"{where} is of the type {shown(kind)}, which is not understood; known types are {_KNOWN}")


def refuse_unknown(fields: Fields, known: frozenset[str], where: str) -> None:
    """Raise MessageError for a field that says something and that nothing here reads."""
    for name, value in fields.items():
        if name not in known and not is_absent(value):
            raise MessageError(f"{where} has the field {shown(name)}, which nothing here reads; leave it out")


def _text(fields: Fields, name: str, where: str) -> str:
    refuse_unknown(fields, _WITHOUT_EFFECT | {name}, where)
    text = fields.get(name)
    if not isinstance(text, str):
        raise MessageError(f"{where}: {shown(name)} has to be a text, got {shown(text)}")
    check_text(text, where)
    return text


def _source(fields: Fields, kind: str, where: str) -> object:
    """Return the one source of a picture or a clip."""
    names = (kind, f"{kind}_url", "url", "path", "base64", "data", "bytes", "source")
    if not is_absent(fields.get("file_id")):
        raise MessageError(f"{where}: a 'file_id' names a file of another service; send its content, or a URL of it")
    refuse_unknown(fields, _WITHOUT_EFFECT.union(names, ["file_id"]), where)
    given = [name for name in names if not is_absent(fields.get(name))]
    if given == ["path", "bytes"]:  # a row of a data set, its bytes count
        given = ["bytes"]
    if len(given) != 1:
        what = f"{len(given)} sources ({', '.join(given)})" if given else "no source"
        raise MessageError(f"{where} has {what}; it has to have one of {', '.join(names)}")
    _check_method(fields, given[0], where)
    mime = _mime(fields, kind, where)
    (name,) = given
    value = fields[name]
    if name == "source":
        return _nested(value, kind, where)
    if name in ("base64", "data"):
        return _data_uri(value, mime, f"{where}: {shown(name)}")
    if name.endswith("url"):
        return _url(value, f"{where}: {shown(name)}")
    if isinstance(value, Mapping) and not is_record(value):
        return _url(value, f"{where}: {shown(name)}")
    return value


def _check_method(fields: Fields, given: str, where: str) -> None:
    """Refuse a `source_type` that is not understood, or that is not the one of the source."""
    method = fields.get("source_type")
    if is_absent(method):
        return
    if method not in ("base64", "url"):
        raise MessageError(f"{where}: the 'source_type' {shown(method)} is not understood; known are base64 and url")
    if (method == "url") != (given == "url"):
        raise MessageError(f"{where} is of the 'source_type' {shown(method)}, but its source is in {shown(given)}")


def _mime(fields: Fields, kind: str, where: str) -> str:
    """Return the media type that is stated, else one that leaves it open; refuses one of another kind."""
    for name in ("mime_type", "media_type"):
        stated = fields.get(name)
        if is_absent(stated):
            continue
        if not isinstance(stated, str) or not _MIME.fullmatch(stated):
            raise MessageError(f"{where}: {shown(name)} has to be of the form '{kind}/…', got {shown(stated)}")
        if not stated.lower().startswith((f"{kind}/", "application/octet-stream")):
            raise MessageError(f"{where} states the media type {quoted(stated)}; it has to be of the form '{kind}/…'")
        return stated
    return f"{kind}/unknown"


def _nested(value: object, kind: str, where: str) -> object:
    """Read a `source` of Anthropic: `{"type": "base64", "media_type": …, "data": …}` or `{"type": "url", "url": …}`."""
    fields = fields_of(value)
    method = None if fields is None else fields.get("type")
    if fields is None or method not in ("base64", "url"):
        got = shown(value if fields is None else method)
        raise MessageError(f"{where}: 'source' has to be an object of the type 'base64' or 'url', got {got}")
    name = "data" if method == "base64" else "url"
    refuse_unknown(fields, frozenset({"type", "media_type", name}), f"{where}: 'source'")
    mime = _mime(fields, kind, where)
    at = f"{where}: {shown(name)} of its 'source'"
    return _data_uri(fields.get(name), mime, at) if method == "base64" else _url(fields.get(name), at)


def _url(value: object, where: str) -> object:
    fields = None if isinstance(value, (str, os.PathLike)) else fields_of(value)
    if fields is not None:
        refuse_unknown(fields, _URL_HOLDERS, where)
        value = fields.get("url")
    if type(value).__module__.partition(".")[0] == "pydantic":  # its type of URLs is no text
        value = str(value)
    if not isinstance(value, (str, os.PathLike)) or not value:
        raise MessageError(f"{where} has to be a URL or an object with a 'url', got {shown(value)}")
    return value


def _data_uri(value: object, mime: str, where: str) -> object:
    """Return base64 text as a data URI, so that it is never taken for a path; bytes that are no such text stay."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        data = bytes(value)
        if not data.isascii():
            return data
        value = data.decode("ascii")
    if not isinstance(value, str) or not value:
        raise MessageError(f"{where} has to be base64 text, got {shown(value)}")
    return value if value[:5].lower() == "data:" else f"data:{mime};base64,{value}"


def _file(fields: Fields, where: str) -> Part:
    """Read a file whose media type says that it is a picture or a clip."""
    inner = fields.get("file")
    if not is_absent(inner):
        refuse_unknown(fields, _WITHOUT_EFFECT | {"file"}, where)
        found = fields_of(inner)
        if found is None:
            raise MessageError(f"{where}: 'file' has to be an object, got {shown(inner)}")
        fields = found
    data = fields.get("file_data")
    if not isinstance(data, str) or data[:5].lower() != "data:":
        stated = fields.get("mime_type")
        return _stated(fields, stated, where)
    refuse_unknown(fields, _WITHOUT_EFFECT | {"file_data"}, where)
    return Part(_kind(data[5:].partition(",")[0].partition(";")[0], where), data)


def _stated(fields: Fields, stated: object, where: str) -> Part:
    if not isinstance(stated, str):
        what = "a 'file_id'" if not is_absent(fields.get("file_id")) else "no data URI"
        raise MessageError(
            f"{where} has {what}: send pictures and clips as parts of type image or video, or as a data URI of the "
            "form 'data:image/…;base64,…' in 'file_data'; no other files are understood"
        )
    kind = _kind(stated, where)
    return Part(kind, _source(fields, kind, where))


def _kind(mime: str, where: str) -> str:
    kind = mime.lower().partition("/")[0]
    if kind not in ("image", "video"):
        raise MessageError(f"{where} is of the media type {quoted(mime)}; only pictures and clips are understood")
    return kind
