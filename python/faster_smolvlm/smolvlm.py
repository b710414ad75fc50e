"""`SmolVLM`: pictures and a question in, an answer out."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, overload

from .generation.stopping import FinishReason
from .generation.text import IncrementalText, TokenBytes
from .media import MediaError, MediaPolicy, load_image

if TYPE_CHECKING:
    from .generation.loop import Decoding
    from .generation.torch_engine import TorchEngine
    from .modeling_smolvlm import SmolVLMForConditionalGeneration
    from .processing_smolvlm import SmolVLMProcessor

_DRAWING = ("temperature", "top_k", "top_p", "min_p")


@dataclass(frozen=True)
class Usage:
    """Numbers of tokens: of the prompt, pictures included, and of the answer, its end included."""

    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class Timings:
    """Seconds that each part took. Prompts of one batch share them, but for `tokens`.

    `load` is what `from_pretrained` took; `prefill` ends with the first token, `decode` covers the others.
    """

    load: float = 0.0
    image_decode: float = 0.0
    preprocessing: float = 0.0
    vision: float = 0.0
    prefill: float = 0.0
    decode: float = 0.0
    tokens: int = 0

    @property
    def per_token(self) -> float:
        """Mean seconds of a token after the first one; 0 where there was none."""
        return self.decode / (self.tokens - 1) if self.tokens > 1 else 0.0


@dataclass(frozen=True)
class Result:
    """An answer. `token_ids` are all its tokens; `text` is what they say, without leading spaces.

    `finish_reason` is "stop" (the model ended, or a stop string came), "length" (`max_new_tokens`), or "cancelled".
    """

    text: str
    token_ids: list[int]
    finish_reason: FinishReason
    usage: Usage
    timings: Timings


class Stream(Iterator[str]):
    """The pieces of one answer as they come. `close()`, or leaving the `with` block, ends the call, freeing its memory.

    `result` holds the answer so far.
    """

    def __init__(self, call: _Call, tokens: TokenBytes, skip_special_tokens: bool) -> None:
        self._call = call
        self._text = IncrementalText(tokens, skip_special_tokens=skip_special_tokens)
        self._started = False
        self._pieces = self._run()

    @property
    def result(self) -> Result:
        """The answer so far; complete once the iteration ended."""
        return self._call.results()[0]

    def _run(self) -> Iterator[str]:
        for column in self._call:
            yield self._text.feed(column.tolist())
        yield self._text.finish()

    def __next__(self) -> str:
        while True:
            piece = next(self._pieces)
            piece = piece if self._started else piece.lstrip()
            if piece:
                self._started = True
                return piece

    def close(self) -> None:
        """End the call and free what it held."""
        self._call.close()
        self._pieces = iter(())

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class SmolVLM:
    """A model with its processor, for questions about pictures.

    >>> vlm = SmolVLM.from_pretrained("HuggingFaceTB/SmolVLM2-256M-Video-Instruct")  # doctest: +SKIP
    >>> print(vlm.generate("What is in the picture?", images=["cat.jpg"]).text)  # doctest: +SKIP

    `policy` limits the pictures that are read; see `MediaPolicy`.
    """

    def __init__(
        self,
        model: SmolVLMForConditionalGeneration,
        processor: SmolVLMProcessor,
        *,
        policy: MediaPolicy | None = None,
        load_seconds: float = 0.0,
    ) -> None:
        self.model = model
        self.processor = processor
        self.policy = policy or MediaPolicy()
        self.load_seconds = load_seconds
        self._tokens = TokenBytes(processor.tokenizer)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        device: str = "auto",
        dtype: Any = "auto",
        quantization: str | None = None,
        policy: MediaPolicy | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
    ) -> SmolVLM:
        """Load a directory, a hub id or "demo", the small checkpoint that ships with the package.

        `device` "auto" is the first GPU where there is one, else the CPU; `dtype` "auto" is bfloat16 on a GPU and
        float32 on a CPU. Raises OSError for missing or broken files, ValueError for a `quantization` that is not there.
        """
        if quantization is not None:
            raise ValueError(
                f"quantization={quantization!r} is not available; leave it None for the weights as stored."
            )
        start = time.perf_counter()
        from .modeling_smolvlm import SmolVLMForConditionalGeneration
        from .processing_smolvlm import SmolVLMProcessor

        files: dict[str, Any] = {
            "revision": revision,
            "token": token,
            "cache_dir": cache_dir,
            "local_files_only": local_files_only,
        }
        device, dtype = _place(device, dtype)
        processor = SmolVLMProcessor.from_pretrained(pretrained_model_name_or_path, **files)
        model = SmolVLMForConditionalGeneration.from_pretrained(
            pretrained_model_name_or_path, dtype=dtype, device=device, **files
        )
        return cls(model, processor, policy=policy, load_seconds=time.perf_counter() - start)

    @overload
    def generate(self, prompt: str, **options: Any) -> Result: ...
    @overload
    def generate(self, prompt: Sequence[str], **options: Any) -> list[Result]: ...
    def generate(
        self,
        prompt: str | Sequence[str],
        *,
        images: Sequence[Any] = (),
        videos: Sequence[Any] = (),
        max_new_tokens: int = 128,
        min_new_tokens: int = 0,
        do_image_splitting: bool | None = None,
        skip_special_tokens: bool = True,
        reuse: bool = True,
        **sampling: Any,
    ) -> Result | list[Result]:
        """Answer a prompt about pictures, or a list of prompts in one batch.

        `images` are paths, URLs, data URIs, PIL images or arrays, in the order in which the prompt sees them; for a
        list of prompts, one such list for each. `do_image_splitting=False` shows each picture as one tile: less detail,
        several times faster; None is the checkpoint's setting. `skip_special_tokens=False` keeps them in `text`.
        `sampling` are settings of `GenerationConfig`, `seed`, `logits_processor` or `stopping_criteria`; without
        `do_sample`, a temperature above 0, `top_k`, `top_p` or `min_p` asks for it. `reuse=False` promises that nothing
        kept from earlier calls is used; at present nothing is kept.

        Raises `MediaError` (a ValueError) that names a picture which cannot be used, ValueError for other arguments.
        """
        single = isinstance(prompt, str)
        prompts: list[Any] = list(prompt) if isinstance(prompt, (list, tuple)) else [prompt]
        pictures = [images] if single else list(images) or [()] * len(prompts)
        if not prompts or not all(isinstance(text, str) for text in prompts):
            raise ValueError(f"prompt has to be a string or a non-empty list of strings, got {prompt!r:.200}")
        if len(pictures) != len(prompts):
            raise ValueError(f"{len(prompts)} prompts need as many lists of images, got {len(pictures)}")
        _refuse_videos(videos)
        conversations = [_conversation(text, shown) for text, shown in zip(prompts, pictures, strict=True)]
        sampling |= {"max_new_tokens": max_new_tokens, "min_new_tokens": min_new_tokens}
        results = self._start(conversations, do_image_splitting, skip_special_tokens, sampling).run()
        return results[0] if single else results

    def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        max_new_tokens: int = 128,
        min_new_tokens: int = 0,
        do_image_splitting: bool | None = None,
        skip_special_tokens: bool = True,
        reuse: bool = True,
        **sampling: Any,
    ) -> Result:
        """Answer the last of `messages`: dicts with a `role` and a `content`, text or a list of items.

        Items are `{"type": "text", "text": …}` and `{"type": "image", "image": …}` (or `url`, `path`, `base64`). The
        other arguments are those of `generate`.
        """
        sampling |= {"max_new_tokens": max_new_tokens, "min_new_tokens": min_new_tokens}
        return self._start([messages], do_image_splitting, skip_special_tokens, sampling).run()[0]

    def stream(
        self,
        prompt: str | Sequence[Mapping[str, Any]],
        *,
        images: Sequence[Any] = (),
        videos: Sequence[Any] = (),
        max_new_tokens: int = 128,
        min_new_tokens: int = 0,
        do_image_splitting: bool | None = None,
        skip_special_tokens: bool = True,
        reuse: bool = True,
        **sampling: Any,
    ) -> Stream:
        """As `generate` for a prompt, or `chat` for messages, giving the text in pieces as it comes.

        Pictures are read before this returns; each piece is made when it is asked for.
        """
        _refuse_videos(videos)
        messages = _conversation(prompt, images) if isinstance(prompt, str) else prompt
        sampling |= {"max_new_tokens": max_new_tokens, "min_new_tokens": min_new_tokens}
        call = self._start([messages], do_image_splitting, skip_special_tokens, sampling)
        return Stream(call, self._tokens, skip_special_tokens)

    def _start(
        self,
        conversations: Sequence[Sequence[Mapping[str, Any]]],
        do_image_splitting: bool | None,
        skip_special_tokens: bool,
        sampling: dict[str, Any],
    ) -> _Call:
        """Read the pictures, make the inputs of the model, and begin a call."""
        start = time.perf_counter()
        loaded = [self._load(messages) for messages in conversations]
        decoded = time.perf_counter()
        pictures = [shown for _, shown in loaded]
        arguments: dict[str, Any] = {} if do_image_splitting is None else {"do_image_splitting": do_image_splitting}
        inputs = self.processor(
            text=[self.processor.apply_chat_template(messages, add_generation_prompt=True) for messages, _ in loaded],
            images=pictures if any(pictures) else None,
            return_tensors="pt",
            padding=True,
            padding_side="left",
            add_special_tokens=False,
            **arguments,
        )
        prepared = time.perf_counter()
        if sampling.get("temperature") == 0:
            sampling |= {"do_sample": False, "temperature": None}
        sampling.setdefault("do_sample", any(sampling.get(name) is not None for name in _DRAWING))
        if sampling.get("num_return_sequences", 1) != 1:
            raise ValueError("num_return_sequences is for model.generate(); repeat the prompt in a list instead.")
        decoding = self.model.start_generation(**inputs, tokenizer=self.processor.tokenizer, **sampling)
        timings = Timings(load=self.load_seconds, image_decode=decoded - start, preprocessing=prepared - decoded)
        lengths = inputs["attention_mask"].sum(1).tolist()
        return _Call(decoding, self.processor, lengths, timings, skip_special_tokens)

    def _load(self, messages: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], list[Any]]:
        """Return the messages in the form of the template, and the pictures in them, decoded."""
        from . import conversation

        (normal,), batched = conversation.normalize(list(messages))
        if batched:
            raise TypeError("messages has to be one conversation: a list of dicts")
        for message in normal:
            if isinstance(message.get("content"), str):  # the family's chat template reads lists only
                message["content"] = [{"type": "text", "text": message["content"]}]
        sources, videos = conversation.media(normal)
        _refuse_videos(videos)
        return normal, [self._picture(source, number, len(sources)) for number, source in enumerate(sources, 1)]

    def _picture(self, source: Any, number: int, total: int) -> Any:
        try:
            return load_image(source, self.policy)
        except MediaError as error:
            if total == 1:
                raise
            raise type(error)(f"picture {number}: {error}") from None


class _Call:
    """One call in progress: iterate for the new tokens of all rows; then `results`."""

    def __init__(
        self,
        decoding: Decoding[TorchEngine],
        processor: SmolVLMProcessor,
        prompt_lengths: list[int],
        timings: Timings,
        skip_special_tokens: bool,
    ) -> None:
        self._decoding = decoding
        self._processor = processor
        self._prompt_lengths = prompt_lengths
        self._timings = timings
        self._skip_special_tokens = skip_special_tokens

    def __iter__(self) -> Iterator[Any]:
        start = time.perf_counter()
        for column in self._decoding:
            now = time.perf_counter()
            if not self._timings.prefill:
                vision = self._decoding.engine.vision_seconds
                self._timings = replace(self._timings, vision=vision, prefill=now - start - vision)
            else:
                self._timings = replace(self._timings, decode=self._timings.decode + now - start)
            yield column
            start = time.perf_counter()  # what the consumer of a stream does in between does not count

    def run(self) -> list[Result]:
        with self._decoding:
            for _ in self:
                pass
        return self.results()

    def close(self) -> None:
        self._decoding.close()

    def results(self) -> list[Result]:
        rows = self._decoding.ids[:, self._decoding.prompt_length :].tolist()
        results = []
        for row, length, reason, prompt_length in zip(
            rows, self._decoding.lengths, self._decoding.finish_reasons, self._prompt_lengths, strict=True
        ):
            ids = row[:length]
            text = self._processor.decode(ids, skip_special_tokens=self._skip_special_tokens)
            usage = Usage(prompt_tokens=prompt_length, completion_tokens=length)
            results.append(Result(text.lstrip(), ids, reason, usage, replace(self._timings, tokens=length)))
        return results


def _place(device: str, dtype: Any) -> tuple[str, Any]:
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if dtype == "auto":
        dtype = torch.float32 if torch.device(device).type == "cpu" else torch.bfloat16
    return device, dtype


def _conversation(prompt: str, images: Sequence[Any]) -> list[dict[str, Any]]:
    if isinstance(images, (str, bytes, os.PathLike)) or not isinstance(images, Sequence):
        images = [images]
    content: list[dict[str, Any]] = [{"type": "image", "image": image} for image in images]
    return [{"role": "user", "content": [*content, {"type": "text", "text": prompt}]}]


def _refuse_videos(videos: Sequence[Any]) -> None:
    if len(videos) > 0:
        raise NotImplementedError("SmolVLM does not take videos yet: pass frames of the video as images.")
