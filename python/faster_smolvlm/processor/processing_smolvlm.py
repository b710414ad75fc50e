"""`SmolVLMProcessor`: pictures, clips and text in, what the model takes out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from ..batch_feature import BatchFeature
from ..checkpoint.json_files import JsonObject
from ..media import MediaPolicy
from ..media.nesting import count_videos, nest_images
from ..pixels.call_settings import Settings, check_value
from ..pixels.protocols import ImageProcessor, VideoProcessor
from ..quoting import shown
from ..text.chat_template import VIDEO_CHAT_TEMPLATE
from ..text.control_tokens import without_marked
from ..text.expansion import PromptEncoder, PromptPart, prompt_parts
from ..text.placeholders import Clip, Grid, MediaTokens
from ..text.tokenization_smolvlm import SmolVLMTokenizer
from ..unknown_names import nearest_name, parameters_of
from .arguments import TEXT, CallArguments, sort_arguments
from .chat import ChatProcessor
from .counts import as_texts, check_counts
from .files import ChatTemplates, read_processor, write_processor
from .media import clip_features, count_frames_by_prompt, picture_features
from .merge_frames import merge_frames


class SmolVLMProcessor(ChatProcessor):
    """A tokenizer, an image processor and a video processor behind one call.

    `video_processor` may be None: then clips are refused. `image_seq_len` is how many image tokens the model makes of
    one tile. `media_policy`, if it is given, is set on both media processors. Attributes, of the parts too, can be
    changed at any time and count from the next call on.

    Raises TypeError for parts of another kind and for an unknown argument, ValueError if the tokenizer has no image
    token.
    """

    model_type: ClassVar[str] = "smolvlm"
    # Backend to the image processor's class, in a module of pixels/.
    image_processors: ClassVar[Mapping[str, str]] = {
        "torchvision": "image_processing_smolvlm.SmolVLMImageProcessor",
        "pil": "image_processing_pil_smolvlm.SmolVLMImageProcessorPil",
    }
    unused_input_names: ClassVar[tuple[str, ...]] = ("rows", "cols", "video_metadata")

    def __init__(
        self,
        image_processor: ImageProcessor,
        tokenizer: SmolVLMTokenizer,
        video_processor: VideoProcessor | None = None,
        image_seq_len: int = 169,
        chat_template: ChatTemplates = None,
        *,
        media_policy: MediaPolicy | None = None,
        **kwargs: object,
    ) -> None:
        if kwargs:
            unknown = next(iter(kwargs))
            nearest = nearest_name(unknown, parameters_of(SmolVLMProcessor))
            raise TypeError(
                f"Unexpected keyword argument {shown(unknown)[1:-1]}. The nearest known one is {shown(nearest)}."
            )
        _check_part("image_processor", image_processor)
        if video_processor is not None:
            _check_part("video_processor", video_processor)
        if not isinstance(tokenizer, SmolVLMTokenizer):
            raise TypeError(
                f"Received a {type(tokenizer).__name__} for argument tokenizer, but a SmolVLMTokenizer was expected."
            )
        self.image_processor = image_processor
        self.tokenizer = tokenizer
        self.video_processor = video_processor
        self.image_seq_len = image_seq_len
        self.chat_template = chat_template
        self.image_token: str = getattr(tokenizer, "image_token", "<image>")
        self.fake_image_token: str = getattr(tokenizer, "fake_image_token", "<fake_token_around_image>")
        self.global_image_token: str = getattr(tokenizer, "global_image_token", "<global-img>")
        self.end_of_utterance_token: str = getattr(tokenizer, "end_of_utterance_token", "<end_of_utterance>")
        self.video_token: str = getattr(tokenizer, "video_token", "<video>")
        self.image_token_id = tokenizer.get_token_id(self.image_token)
        if media_policy is not None:
            self.media_policy = media_policy

    @property
    def media_policy(self) -> MediaPolicy:
        """What pictures and clips from outside may be; setting it sets that of both parts."""
        return self.image_processor.media_policy

    @media_policy.setter
    def media_policy(self, policy: MediaPolicy) -> None:
        check_value("media_policy", policy)
        self.image_processor.media_policy = policy
        if self.video_processor is not None:
            self.video_processor.media_policy = policy

    # Files

    @classmethod
    def get_attributes(cls) -> list[str]:
        """The names of the parts."""
        return ["image_processor", "tokenizer", "video_processor"]

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: object
    ) -> SmolVLMProcessor:
        """Read the processor of a directory, a hub repository or the bundled "demo".

        `revision`, `token`, `cache_dir` and `local_files_only` locate the files; `backend` ("torchvision" or "pil")
        chooses the image processor; other names go to each part that reads them (`size=…`, `media_policy=…`,
        `padding_side="left"`, `image_seq_len=…`). Raises OSError for a missing or broken file, TypeError for a name
        that nobody reads.
        """
        return cls(**read_processor(cls, pretrained_model_name_or_path, kwargs))

    def save_pretrained(self, save_directory: str | os.PathLike[str]) -> list[str]:
        """Write the files that `from_pretrained`, here and in Transformers, reads."""
        return write_processor(self, save_directory)

    def to_dict(self) -> JsonObject:
        """Return what processor_config.json holds."""
        parts = {"image_processor": self.image_processor, "video_processor": self.video_processor}
        settings = {name: part.to_dict() for name, part in parts.items() if part is not None}
        return {**settings, "image_seq_len": self.image_seq_len, "processor_class": type(self).__name__}

    def __repr__(self) -> str:
        parts = "\n".join(f"- {name}: {getattr(self, name)!r}" for name in self.get_attributes())
        return f"{type(self).__name__}:\n{parts}\n- image_seq_len: {self.image_seq_len}"

    @property
    def model_input_names(self) -> list[str]:
        """The names of what a call returns for the model."""
        parts = (self.image_processor, self.tokenizer, self.video_processor)
        names = [name for part in parts if part is not None for name in part.model_input_names]
        return [name for name in names if name not in self.unused_input_names]

    def require_video_processor(self) -> VideoProcessor:
        """Return the video processor; raises NotImplementedError if there is none."""
        if self.video_processor is None:
            raise NotImplementedError("this processor has no video processor: it takes pictures and text only")
        return self.video_processor

    # The call

    def __call__(
        self,
        images: object = None,
        text: str | Sequence[str] | None = None,
        videos: object = None,
        audio: object = None,
        **kwargs: object,
    ) -> BatchFeature:
        """Prepare pictures, clips and text for the model.

        Returns `input_ids` and `attention_mask` (batch, length), `mm_token_type_ids` if they are asked for,
        `pixel_values` float32 (batch, frames, 3, height, width) and `pixel_attention_mask` int64 (batch, frames,
        height, width). For clips without pictures the batch of the pixels counts clips; if one call holds both, each
        prompt has one row of pixels, with its frames in the order of its placeholders. `kwargs` are settings of the
        three parts, flat or grouped as `text_kwargs`, `images_kwargs`, `videos_kwargs` and `common_kwargs`.

        The text says of every clip how many frames the longest clip of the call has, as in Transformers. With
        `clips_per_prompt`, one number for each text, it says that of the clips of the same text, so that a text reads
        as in a call of its own.

        Raises ValueError if the placeholders of the text and the media do not agree, before anything is opened, and if
        truncation would cut image tokens; TypeError for a setting that nobody reads.
        """
        if audio is not None:
            raise ValueError("SmolVLM takes no audio")
        texts = None if text is None else as_texts(text)
        nested = None if images is None else self._nest(images, texts)
        arguments = self._arguments(kwargs)
        sanitize = bool(arguments.own.get("sanitize_control_tokens"))
        self._check_counts(list(map(without_marked, texts)) if texts and sanitize else texts, nested, videos)
        video_processor = None if videos is None else self.require_video_processor()

        pictures, grids = picture_features(self.image_processor, nested, arguments.images)
        clips_pixels, clips = clip_features(video_processor, videos, arguments.videos) if video_processor else ({}, [])
        data: Settings = {}
        if texts is not None:
            options = {**arguments.text, **arguments.own}
            clips = count_frames_by_prompt(clips, options.pop("clips_per_prompt", None))
            parts = prompt_parts(texts, self._media_tokens, grids, clips, sanitize)
            data.update(self._encode(texts, parts, options))
            if pictures and clips_pixels:
                pictures, clips_pixels = merge_frames(parts, pictures, clips_pixels), {}
        data.update(pictures)
        data.update(clips_pixels)
        return BatchFeature(
            data,
            tensor_type=arguments.text.get("return_tensors"),
            skip=("text_replacement_offsets", "offset_mapping"),
        )

    def encode_text(
        self, texts: Sequence[str], *, grids: Sequence[Grid] = (), clips: Sequence[Clip] = (), **options: object
    ) -> dict[str, Any]:
        """Return the ids of texts whose pictures and clips are known by their size only, and what `options` ask for.

        `grids` (rows, cols) and `clips` stand behind the placeholders of the texts, in order; `options` are the text
        arguments of a call. Nothing is padded or converted to tensors unless they say so.
        """
        sanitize = bool(options.get("sanitize_control_tokens"))
        return self._encode(list(texts), prompt_parts(texts, self._media_tokens, grids, clips, sanitize), options)

    def _nest(self, images: object, texts: list[str] | None) -> list[list[object]]:
        """Return the pictures of each prompt."""
        return nest_images(images)

    def _encode(self, texts: list[str], parts: list[list[PromptPart]], options: Settings) -> dict[str, Any]:
        """Return the ids of the texts, and what else `options` ask for."""
        encoder = PromptEncoder(self.tokenizer, self._media_tokens, self.image_token_id, self.image_seq_len)
        return encoder.encode(texts, parts, **options)

    def _arguments(self, kwargs: Settings) -> CallArguments:
        settings = self.tokenizer.init_kwargs
        defaults = {key: getattr(self.tokenizer, key, settings[key]) for key in TEXT if key in settings}
        return sort_arguments(kwargs, defaults, clips=self.video_processor is not None)

    def _check_counts(self, texts: list[str] | None, images: list[list[object]] | None, videos: object) -> None:
        if texts is None:
            if images is None and videos is None:
                raise ValueError(f"You need to provide at least one input to call {type(self).__name__}")
            if images is not None and videos is not None:
                raise ValueError("You must specify exactly one of `images` or `videos`")
            return
        images_per_text = None if images is None else list(map(len, images))
        check_counts(texts, self._media_tokens, images_per_text, None if videos is None else count_videos(videos))

    def control_tokens(self) -> frozenset[str]:
        """Return what stands for something else than its letters in a prompt: no user may write it unless asked to.

        That are the special tokens, the tokens of pictures and clips, and the added ones that a chat template writes.
        """
        own = self.chat_template
        templates = [VIDEO_CHAT_TEMPLATE, *(own.values() if isinstance(own, Mapping) else [own or ""])]
        found = self.tokenizer.control_tokens("\n".join(templates))
        return frozenset({*found, *self._media_tokens} - {""})

    @property
    def _media_tokens(self) -> MediaTokens:
        return MediaTokens(self.image_token, self.video_token, self.fake_image_token, self.global_image_token)


def _check_part(name: str, part: object) -> None:
    if not callable(part) or not hasattr(part, "model_input_names") or hasattr(part, "convert_tokens_to_ids"):
        raise TypeError(f"Received a {type(part).__name__} for argument {name}, but an {name} was expected.")
