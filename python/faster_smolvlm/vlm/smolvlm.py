"""`SmolVLM`: pictures and a question in, an answer out."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from ..batch_feature import BatchFeature
from ..generation.token_bytes import TokenBytes
from ..media import MediaPolicy, load_image
from ..native.admission import CacheFullError
from ..text.control_tokens import is_marked
from ..unknown_names import check_names, parameters_of
from .answers import Call, Observation, Result, Stream, Timings
from .ask import Ask
from .engines import AnswerEngine, Inputs, engine_of
from .loading import LOAD_NAMES, Loading
from .messages import one_message
from .parts import MessageError
from .prepare import Preparation
from .question import is_given, row_of_messages, row_of_prompt, rows_of_prompts

if TYPE_CHECKING:
    import torch
    from typing_extensions import Unpack

    from ..media.kinds import AnyArray
    from ..modeling.modeling_smolvlm import SmolVLMForConditionalGeneration
    from ..native import NativeSmolVLM
    from ..processor.processing_smolvlm import SmolVLMProcessor
    from ..text.placeholders import Clip
    from .loading import LoadOptions
    from .question import Row


class SmolVLM:
    """A model with its processor, for questions about pictures and clips.

    >>> vlm = SmolVLM.from_pretrained("HuggingFaceTB/SmolVLM2-256M-Video-Instruct")  # doctest: +SKIP
    >>> print(vlm.generate("What is in the picture?", images=["cat.jpg"]).text)  # doctest: +SKIP

    `policy` limits the pictures and clips that are read, at every entrance; see `MediaPolicy`. None is the policy of
    the processor. `engine` says what computes: "native", the Rust engine, with `model` a `NativeSmolVLM` and no torch;
    or "torch", with `model` a `SmolVLMForConditionalGeneration`.
    """

    def __init__(
        self,
        model: SmolVLMForConditionalGeneration | NativeSmolVLM,
        processor: SmolVLMProcessor,
        *,
        policy: MediaPolicy | None = None,
        load_seconds: float = 0.0,
    ) -> None:
        self.model = model
        self.engine = self._engine.name
        self.processor = processor
        self.policy = policy or processor.image_processor.media_policy
        self.load_seconds = load_seconds
        self._tokens = TokenBytes(processor.tokenizer)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        device: str | int | torch.device = "auto",
        dtype: str | torch.dtype = "auto",
        quantization: str | None = None,
        policy: MediaPolicy | None = None,
        **options: Unpack[LoadOptions],
    ) -> SmolVLM:
        """Load a directory, a hub id or "demo", the small checkpoint that ships with the package.

        `device` "auto" is the first GPU if there is one, else the CPU. On a CPU the native engine computes, without
        torch: `dtype` "auto" stores the weights as the checkpoint does, `quantization="int8"` in 8 bits. The
        environment variable FASTER_SMOLVLM_ENGINE=torch takes torch instead ("native" is the default); with torch,
        `dtype` "auto" is bfloat16 on a GPU and float32 on a CPU, there is no quantization, and `torch.set_num_threads`
        sets the threads. `options` are `num_threads`, `packed_cache_dir`, `cache_positions`, `feature_cache_bytes` and
        `prefix_cache_bytes` for the native engine, see `LoadOptions`; and those of `HubOptions`: `revision`, `token`,
        `cache_dir`, `local_files_only`. `cache_positions` bounds the tokens of all requests at a time (default: twice
        the longest sequence).
        Raises OSError for missing or broken files, RuntimeError for weights that do not fit, ValueError for a
        `quantization` that is not there.
        """
        start = time.perf_counter()
        name = pretrained_model_name_or_path
        check_names(options, LOAD_NAMES, also_named=parameters_of(cls.from_pretrained))
        loading = Loading(name, options, device, dtype, quantization)
        model, processor = loading.run()
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
        do_image_splitting: bool | None = None,
        skip_special_tokens: bool = True,
        reuse: bool = True,
        **options: Any,
    ) -> Result | list[Result]:
        """Answer a prompt about pictures, or a list of prompts in one batch.

        `images` are paths, URLs, data URIs, base64 strings, bytes, binary files, PIL images, arrays or tensors, in the
        order in which the prompt sees them; `videos`, which the prompt sees after them, come from the same sources, or
        are arrays or tensors (frames, height, width, 3) or lists of pictures. For a list of prompts, one such list for
        each. The frames of a source are sampled as the checkpoint says; of an array or a list all are taken.
        `do_image_splitting=False` shows each picture as one tile: less detail, several times faster; None is the
        checkpoint's setting. `skip_special_tokens=False` keeps them in `text`. With the native engine a picture is
        encoded once, and no beginning of a prompt is read twice (see `Usage`); `reuse=False` neither uses nor keeps
        anything between calls. Who asks can tell from `usage` and from the time it takes what was asked before: if
        several users ask, pass a secret of each as `cache_salt` (str or bytes). Calls with different salts share
        neither beginnings of prompts nor pictures; those without one (None) share among themselves.

        The prompt is data: a special token that it writes, such as `<image>`, is plain text to the model, and so it is
        in every message of `chat`, whoever wrote it. `control_tokens=True` lets texts write such tokens. With
        `on_error="return"` a prompt of a list that cannot be answered has the exception in the `error` of its result,
        and the others are answered; with "raise" the exception is raised and names the prompt, counted from 1.

        Calls wait for the key/value cache in the order in which they came, at most `wait_seconds` (None: as long as it
        takes; 0: not at all), and then raise a `CacheFullError`. A thread waits for other threads only: if it has
        streams open that take the cache up, the error comes at once. Prompts of a list for which the cache is too small
        are answered in parts, which `logits_processor` and `stopping_criteria` see one after the other.

        `options` are `progress`, `cache_salt`, `control_tokens`, `on_error`, `wait_seconds`, and settings of
        `GenerationConfig` such as `min_new_tokens`, `seed`, `logits_processor` or `stopping_criteria`. Tokens are drawn
        with `do_sample`, and without it if a temperature above 0, `top_k`, `top_p` or `min_p` is given. With the native
        engine the callables get NumPy arrays, and `progress(done, all)` is called while it works towards the first
        token, see `NativeEngine`; what it raises ends the call.

        Raises `MediaError` (a ValueError) that names a picture or clip which cannot be used, TypeError for an
        unknown option, ValueError for values that make no sense, `CacheFullError` for a prompt that the key/value
        cache can never hold with its answer.
        """
        ask = Ask.of(
            parameters_of(SmolVLM.generate),
            max_new_tokens=max_new_tokens,
            do_image_splitting=do_image_splitting,
            skip_special_tokens=skip_special_tokens,
            reuse=reuse,
            **options,
        )
        if isinstance(prompt, (list, tuple)):
            return self._answer(rows_of_prompts(prompt, images, videos), ask)
        return self._answer([row_of_prompt(prompt, images, videos)], ask)[0]

    def chat(self, messages: Sequence[Mapping[str, Any]], **options: Any) -> Result:
        """Answer the last of `messages`: dicts or objects with a `role` and a `content`, text or a list of parts.

        Parts are `{"type": "text", "text": …}`, `{"type": "image", "image": …}` and `{"type": "video", "video": …}`;
        the source of the last two may stand under `url`, `path` or `base64` too, and may be what `generate` takes.
        Understood are also the parts of OpenAI's chat and Responses interfaces, of LangChain and of Anthropic. Roles
        are system (also called developer), user and assistant. The other arguments are those of `generate`. Raises a
        ValueError that names message (counted from 0), part and field for anything else, tools among them: nothing is
        left out of a conversation without a word.
        """
        return self._answer([row_of_messages(messages)], Ask.of(parameters_of(SmolVLM.chat), **options))[0]

    def stream(
        self,
        prompt: str | Sequence[Mapping[str, Any]],
        *,
        images: Sequence[Any] = (),
        videos: Sequence[Any] = (),
        **options: Any,
    ) -> Stream:
        """As `generate` for a prompt, or `chat` for messages, giving the text in pieces as it comes.

        Pictures are read before this returns; each piece is made when it is asked for.
        """
        ask = Ask.of(parameters_of(SmolVLM.stream), **options)
        if isinstance(prompt, str):
            row = row_of_prompt(prompt, images, videos)
        elif is_given(images) or is_given(videos):
            raise MessageError("images and videos go with a prompt; in messages they are parts of the content")
        else:
            row = row_of_messages(prompt)
        return Stream(self._start(row, ask), self._tokens, ask.skip_special_tokens)

    def watch(
        self,
        source: Any,
        *,
        prompt: str,
        every: float = 2.0,
        window: int = 8,
        max_new_tokens: int = 64,
        **options: Any,
    ) -> Iterator[Observation]:
        """Yield an answer about the last `window` frames each time `every` seconds of a video have passed.

        `source` is a video, from any source that `generate` takes, or an iterable that may never end, of pictures
        (timed by their arrival) or of (seconds, picture). Each frame is encoded once; its features are kept while it is
        in the window, so memory does not grow. The time stamps that the model sees count from the first frame of the
        window. The next frame is read when the next answer is asked for. `options` are those of `generate`, but for
        `do_image_splitting` and `reuse`, which are a TypeError. Raises as `generate`.
        """
        from .watch import watch  # imports the tokenizer and the reader of videos

        options |= {"max_new_tokens": max_new_tokens}
        Ask.of(parameters_of(SmolVLM.watch), **options)  # refuses what is unknown before the first frame
        return watch(self, source, prompt=prompt, every=every, window=window, **options)

    @property
    def tensors(self) -> str:
        """The `return_tensors` that the model takes."""
        return self._engine.tensors

    def encode(self, pixel_values: AnyArray) -> AnyArray:
        """Return the image tokens (tokens, hidden_size) of frames (1, frames, 3, height, width)."""
        return self._engine.encode(pixel_values)

    def encode_frame(self, frame: object) -> AnyArray:
        """Return the image tokens (tokens, hidden_size) of one frame of a clip, a picture or its source."""
        clip_of_one = np.asarray(load_image(frame, self.policy))[None]
        pixels = self.processor.require_video_processor()(
            clip_of_one, do_sample_frames=False, return_tensors=self.tensors, media_policy=self.policy
        )
        return self.encode(pixels["pixel_values"])

    def answer_encoded(
        self, prompt: str, clip: Clip, features: Sequence[AnyArray], sampling: Mapping[str, object]
    ) -> Result:
        """Answer a prompt about one clip whose frames are encoded already: one of `features` for each.

        `sampling` are options of `generate`. Nothing is reused or kept.
        """
        start = time.perf_counter()
        # The position of each frame in the prompt moves with the window: a kept prefix would be of no use.
        ask = Ask.of(**{**sampling, "reuse": False})
        text = self._preparation(ask).prompt(one_message(prompt, 0, 1))
        sanitize = is_marked(text) and not ask.control_tokens
        encoded = self.processor.encode_text(
            [text], clips=[clip], add_special_tokens=False, sanitize_control_tokens=sanitize
        )
        inputs = BatchFeature(encoded, tensor_type=self.tensors)
        timings = Timings(preprocessing=time.perf_counter() - start)
        return self._begin({**inputs, **self._engine.encoded_inputs(features)}, ask, timings).run()[0]

    @property
    def _engine(self) -> AnswerEngine:
        return engine_of(self.model)

    def _preparation(self, ask: Ask) -> Preparation:
        return Preparation(self.processor, self.policy, self._engine, ask)

    def _start(self, row: Row, ask: Ask) -> Call:
        """Read the pictures of one prompt, make the inputs of the model, and begin a call."""
        prepared = self._preparation(replace(ask, on_error="raise")).run([row])
        return self._begin(prepared.inputs or {}, ask, prepared.timings)

    def _answer(self, rows: Sequence[Row], ask: Ask) -> list[Result]:
        """Answer several prompts in one batch."""
        prepared = self._preparation(ask).run(rows)
        answered = iter(self._answer_parts(prepared.inputs, ask, prepared.timings) if prepared.inputs else ())
        failed = prepared.failed
        return [Result.failed(failed[index]) if index in failed else next(answered) for index in range(len(rows))]

    def _answer_parts(self, inputs: Inputs, ask: Ask, timings: Timings) -> list[Result]:
        """Answer as many prompts at a time as there is memory for."""
        parts = self._engine.parts(inputs["attention_mask"].sum(1).tolist(), ask)
        if len(parts) > 1:
            ask = ask.with_generator()
        results: list[Result] = []
        for part, some in zip(parts, self._engine.cut(inputs, parts), strict=True):
            try:
                results += self._begin(some, ask, timings).run()
            except CacheFullError as error:
                if ask.on_error == "raise":
                    raise
                results += [Result.failed(error)] * (part.stop - part.start)
        return results

    def _begin(self, inputs: Inputs, ask: Ask, timings: Timings) -> Call:
        decoding = self._engine.start(inputs, self.processor.tokenizer, ask)
        lengths = inputs["attention_mask"].sum(1).tolist()
        timings = replace(timings, load=self.load_seconds)
        return Call(decoding, self.processor, lengths, timings, ask.skip_special_tokens)
