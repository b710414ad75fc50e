"""Reading and writing the files of a processor."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import ClassVar, Protocol

from ..checkpoint.hub import HUB_NAMES, Checkpoint, checkpoint, split_hub_options
from ..checkpoint.json_files import JsonObject, json_text, naming_file, read_optional_json, read_text
from ..integers import count_of
from ..pixels.backends import image_processor_class
from ..pixels.call_settings import Settings
from ..pixels.protocols import VideoProcessor
from ..pixels.settings import IGNORED, Reader, names
from ..quoting import shown
from ..text.tokenization_smolvlm import SmolVLMTokenizer
from ..text.tokenizer_config import MAX_TEMPLATE, chat_template_of
from ..unknown_names import check_names

_TOKENIZER = frozenset(
    {"padding_side", "truncation_side", "model_max_length", "bos_token", "eos_token", "pad_token", "unk_token"}
)
_OWN = ("image_seq_len", "chat_template")

MAX_SEQ_LEN = 1 << 16
"""How many image tokens a file may ask for each frame; a text is written with all of them."""


ChatTemplates = str | dict[str, str] | None
"""One template, or several by name."""


class ProcessorClass(Protocol):
    """What reading the files needs to know of a processor's class."""

    image_processors: ClassVar[Mapping[str, str]]

    @classmethod
    def get_attributes(cls) -> list[str]:
        """The names of the parts."""


class Savable(Protocol):
    """A processor whose files are written."""

    tokenizer: SmolVLMTokenizer
    chat_template: ChatTemplates

    def to_dict(self) -> JsonObject:
        """Return what processor_config.json holds."""


def read_processor(
    kind: type[ProcessorClass], name_or_dir: str | os.PathLike[str], kwargs: Mapping[str, object]
) -> Settings:
    """Return the arguments of a processor of class `kind` that the files of a checkpoint, and `kwargs`, ask for.

    Raises TypeError for a keyword argument that nobody reads, OSError for a missing or broken file.
    """
    hub_options, rest = split_hub_options({key: value for key, value in kwargs.items() if key not in IGNORED})
    has_video = "video_processor" in kind.get_attributes()
    picture_names, clip_names = names(Reader.PICTURES), names(Reader.CLIPS) if has_video else ()
    check_names(rest, {*picture_names, *clip_names, *_TOKENIZER, *_OWN, "backend"}, also_named=HUB_NAMES)
    source = checkpoint(name_or_dir, **hub_options)
    own_file = source.find("processor_config.json")
    settings = read_optional_json(own_file)
    with naming_file(own_file):
        own_template = chat_template_of(settings)
        if count_of("image_seq_len", settings.get("image_seq_len", 1), 1) > MAX_SEQ_LEN:
            raise ValueError(f"image_seq_len must be at most {MAX_SEQ_LEN}, got {shown(settings['image_seq_len'])}")
    use_fast = None if kwargs.get("use_fast") is None else bool(kwargs["use_fast"])
    image_class = image_processor_class(kind.image_processors, rest.get("backend"), use_fast)
    images, videos = _only(rest, picture_names), _only(rest, clip_names)
    return {
        "image_processor": image_class.from_pretrained(name_or_dir, **hub_options, **images),
        "tokenizer": SmolVLMTokenizer.from_pretrained(source, **_only(rest, _TOKENIZER)),
        **({"video_processor": _video_processor(name_or_dir, {**hub_options, **videos})} if has_video else {}),
        "chat_template": own_template or _chat_template(source),
        **_only(settings, ("image_seq_len",)),
        **_only(rest, _OWN),
    }


def _only(values: Settings, known: Collection[str]) -> Settings:
    return {name: value for name, value in values.items() if name in known}


def _video_processor(name_or_dir: str | os.PathLike[str], kwargs: Settings) -> VideoProcessor | None:
    try:
        from ..pixels.video_processing_smolvlm import SmolVLMVideoProcessor
    except ModuleNotFoundError:
        return None
    found: VideoProcessor = SmolVLMVideoProcessor.from_pretrained(name_or_dir, **kwargs)
    return found


def _chat_template(source: Checkpoint) -> ChatTemplates:
    """Return the template of chat_template.json or chat_template.jinja, with those of additional_chat_templates/."""
    legacy = source.find("chat_template.json")
    folder = None if source.directory is None else source.directory / "additional_chat_templates"
    more = {path.stem: path for path in sorted(folder.glob("*.jinja"))} if folder is not None else {}
    if legacy is not None:
        if more:
            raise ValueError(
                f"{shown(source.name)} has both a legacy chat_template.json and additional_chat_templates/*.jinja; "
                "replace the former by a chat_template.jinja."
            )
        template = read_optional_json(legacy).get("chat_template")
        if not isinstance(template, str):
            raise OSError(f"{legacy} holds no 'chat_template'")
        return template
    single = source.find("chat_template.jinja")
    if single is not None:
        more["default"] = single
    templates = {name: read_text(path, MAX_TEMPLATE) for name, path in more.items()}
    return templates["default"] if list(templates) == ["default"] else templates or None


def write_processor(processor: Savable, save_directory: str | os.PathLike[str]) -> list[str]:
    """Write processor_config.json, the tokenizer's files and the chat templates; return the first's path."""
    folder = Path(save_directory)
    folder.mkdir(parents=True, exist_ok=True)
    processor.tokenizer.save_pretrained(folder)
    _write_chat_templates(folder, processor.chat_template)
    path = folder / "processor_config.json"
    path.write_text(json_text(processor.to_dict()), encoding="utf-8")
    return [str(path)]


def _write_chat_templates(folder: Path, template: ChatTemplates) -> None:
    templates = {"default": template} if isinstance(template, str) else template or {}
    for name, text in templates.items():
        if name == "default":
            path = folder / "chat_template.jinja"
        else:
            if not name or name in (".", "..") or any(char in name for char in "/\\\0"):
                raise ValueError(f"Invalid chat template name: {shown(name)}")
            path = folder / "additional_chat_templates" / f"{name}.jinja"
            path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
