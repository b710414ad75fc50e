"""The two ends of a conversation: from messages to a prompt, from ids to text."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from ..batch_feature import BatchFeature
from ..checkpoint.json_files import JsonObject
from ..pixels.call_settings import Settings
from ..pixels.protocols import VideoProcessor
from ..text import chat_template as chat_rendering
from ..text import conversation as chat
from ..text.assistant_masks import assistant_masks
from ..text.control_tokens import mark
from ..text.plain_data import plain_data
from ..text.template_sandbox import Span
from ..text.token_ids import TokenIds
from ..text.tokenization_smolvlm import SmolVLMTokenizer
from ..unknown_names import parameters_of
from .arguments import chat_call_arguments
from .files import ChatTemplates
from .media import media_of

_LOG = logging.getLogger(__name__)

IdsOrRows = TokenIds | Sequence[TokenIds] | Mapping[str, TokenIds]
"""The ids of a text, of several texts, or a batch with its `input_ids`."""


class ChatProcessor:
    """What a processor does with conversations, and with the ids of an answer."""

    tokenizer: SmolVLMTokenizer
    video_processor: VideoProcessor | None
    chat_template: ChatTemplates

    def __call__(
        self, images: object = None, text: str | Sequence[str] | None = None, videos: object = None, **kwargs: object
    ) -> BatchFeature:
        """Prepare pictures, clips and text for the model."""
        raise NotImplementedError

    # Ids to text

    def batch_decode(self, sequences: IdsOrRows, *args: Any, **kwargs: Any) -> list[str]:
        """Return the text of each row of ids; see `SmolVLMTokenizer.batch_decode`."""
        return self.tokenizer.batch_decode(sequences, *args, **kwargs)

    def decode(self, token_ids: IdsOrRows, *args: Any, **kwargs: Any) -> Any:
        """Return the text of ids; see `SmolVLMTokenizer.decode`."""
        return self.tokenizer.decode(token_ids, *args, **kwargs)

    def post_process_image_text_to_text(
        self, generated_outputs: IdsOrRows, skip_special_tokens: bool = True, **kwargs: Any
    ) -> str | list[str]:
        """Return the text of what `generate` returned."""
        return self.tokenizer.decode(generated_outputs, skip_special_tokens=skip_special_tokens, **kwargs)

    # Conversations

    def apply_chat_template(
        self,
        conversation: object,
        chat_template: str | None = None,
        tools: list[JsonObject] | None = None,
        documents: list[JsonObject] | None = None,
        add_generation_prompt: bool = False,
        continue_final_message: bool | str = False,
        return_assistant_tokens_mask: bool = False,
        tokenize: bool = False,
        return_tensors: str | None = None,
        return_dict: bool = False,
        load_audio_from_video: bool = False,
        processor_kwargs: Settings | None = None,
        sanitize_control_tokens: bool = False,
        **kwargs: object,
    ) -> Any:
        """Turn a conversation, or a list of conversations, into a prompt.

        The content of a message is a list of items: `{"type": "text", "text": …}`, `{"type": "image", …}` with its
        source under `image`, `url`, `path` or `base64` (`image_url` items too), `{"type": "video", …}` with `video` or
        the same three.

        Returns text (a list of texts for several conversations); with `tokenize` the `input_ids`, with `return_dict`
        too everything that a call returns. `processor_kwargs` go to that call; `kwargs` that the template reads go to
        the template, others to the call.
        """
        if load_audio_from_video:
            raise ValueError("SmolVLM takes no audio: load_audio_from_video must be False")
        chat_rendering.check_combination(
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
            return_assistant_tokens_mask=return_assistant_tokens_mask,
            tokenize=tokenize,
            sanitize_control_tokens=sanitize_control_tokens,
        )
        conversations, batched = chat.normalize(conversation)
        template = chat_rendering.choose_template(self.chat_template, chat_template, conversations)
        if return_assistant_tokens_mask and not chat_rendering.tracks_generation(template):
            _LOG.warning("return_assistant_tokens_mask is set, but the chat template has no {%% generation %%} block.")
        read_by_template = chat_rendering.template_variables(template)
        call, images = chat_call_arguments(
            processor_kwargs or {},
            kwargs,
            read_by_template,
            self.video_processor,
            parameters_of(ChatProcessor.apply_chat_template),
        )
        shown: list[Any] = [conversations, tools, documents, kwargs]
        if sanitize_control_tokens:
            shown = mark(plain_data(shown), self.tokenizer.control_tokens(template))
            call["sanitize_control_tokens"] = True
        prompts, spans = chat_rendering.render(
            shown[0],
            template,
            tools=shown[1],
            documents=shown[2],
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
            track_generation=return_assistant_tokens_mask,
            **{**self.tokenizer.special_tokens_map, **shown[3]},
        )
        chat_rendering.warn_of_lost_text(conversations, prompts)
        chat_rendering.warn_of_lost_parts(conversations, template)
        if not tokenize:
            return prompts if batched else prompts[0]
        media = media_of(conversations, images if batched else images and (images,))
        if return_assistant_tokens_mask:
            features = self._with_assistant_masks(prompts, spans, {**media, **call}, return_tensors)
        else:
            features = self._encode_prompts(prompts, {**media, **call, "return_tensors": return_tensors})
        return features if return_dict else features["input_ids"]

    def _encode_prompts(self, prompts: list[str], call: Settings) -> BatchFeature:
        if self.tokenizer.bos_token is not None and prompts[0].startswith(self.tokenizer.bos_token):
            call = {**call, "add_special_tokens": False}
        return self(text=prompts, **call)

    def _with_assistant_masks(
        self, prompts: list[str], spans: list[list[Span]], call: Settings, return_tensors: str | None
    ) -> BatchFeature:
        offsets = {"return_offsets_mapping": True, "return_text_replacement_offsets": True}
        features = self._encode_prompts(prompts, {**call, **offsets, "return_tensors": None})
        features["assistant_masks"] = assistant_masks(
            features.pop("offset_mapping"), spans, features.pop("text_replacement_offsets")
        )
        return features.convert_to_tensors(return_tensors)
