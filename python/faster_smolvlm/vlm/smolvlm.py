"""`SmolVLM`: pictures and a question in, an answer out."""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from ..batch_feature import BatchFeature
from ..generation.choice import forced_engine
from ..generation.config import asks_to_draw
from ..generation.token_bytes import TokenBytes
from ..media import MediaError, MediaPolicy, load_image
from ..media.kinds import is_source
from .answers import Call, Result, Stream, Timings

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ..checkpoint.hub import HubOptions
    from ..media.video import VideoReader
    from ..modeling.modeling_smolvlm import SmolVLMForConditionalGeneration
    from ..native import NativeSmolVLM
    from ..processor.processing_smolvlm import SmolVLMProcessor
    from ..text.placeholders import Clip
    from .watch import Observation

# How the family samples clips, for a checkpoint whose files do not say.
_NUM_FRAMES, _FPS = 64, 1
# What the drivers of NVIDIA and AMD put up.
_GPU_FILES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")


class SmolVLM:
    """A model with its processor, for questions about pictures and clips.

    >>> vlm = SmolVLM.from_pretrained("HuggingFaceTB/SmolVLM2-256M-Video-Instruct")  # doctest: +SKIP
    >>> print(vlm.generate("What is in the picture?", images=["cat.jpg"]).text)  # doctest: +SKIP

    `policy` limits the pictures and clips that are read; see `MediaPolicy`. `engine` says what computes: "native", the
    Rust engine, with `model` a `NativeSmolVLM` and no torch; or "torch".
    """

    def __init__(
        self,
        model: SmolVLMForConditionalGeneration | NativeSmolVLM,
        processor: SmolVLMProcessor,
        *,
        policy: MediaPolicy | None = None,
        load_seconds: float = 0.0,
    ) -> None:
        self.model: Any = model
        self.engine = "native" if hasattr(model, "isa") else "torch"
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
        num_threads: int | None = None,
        packed_cache_dir: str | os.PathLike[str] | None = None,
        policy: MediaPolicy | None = None,
        **hub_options: Unpack[HubOptions],
    ) -> SmolVLM:
        """Load a directory, a hub id or "demo", the small checkpoint that ships with the package.

        `device` "auto" is the first GPU where there is one, else the CPU. On a CPU the native engine computes, without
        torch, on `num_threads` threads (default: the cores of this process): `dtype` "auto" stores the weights as the
        checkpoint does, `quantization="int8"` in 8 bits; `packed_cache_dir` keeps them there as the engine packs them,
        so that later loads are quicker (see `NativeSmolVLM`). The environment variable FASTER_SMOLVLM_ENGINE=torch
        takes torch instead ("native" is the default); with torch, `dtype` "auto" is bfloat16 on a GPU and float32 on a
        CPU, there is no quantization, and `torch.set_num_threads` sets the threads. `hub_options` are those of
        `HubOptions`: `revision`, `token`, `cache_dir`, `local_files_only`.
        Raises OSError for missing or broken files, ValueError for weights that do not fit or a `quantization` that is
        not there.
        """
        start = time.perf_counter()

        def read_processor() -> SmolVLMProcessor:
            from ..processor.processing_smolvlm import SmolVLMProcessor

            return SmolVLMProcessor.from_pretrained(pretrained_model_name_or_path, **hub_options)

        device = _device(device)
        native = device == "cpu" and forced_engine() != "torch"
        if quantization is not None and not native:
            raise ValueError(
                f"quantization={quantization!r} is not available with the torch engine; leave it None for the weights "
                "as stored."
            )
        only_native = {"num_threads": num_threads, "packed_cache_dir": packed_cache_dir}
        given = [f"{name}={value!r}" for name, value in only_native.items() if value is not None]
        if given and not native:
            raise ValueError(f"{', '.join(given)}: for the native engine only, and torch serves here; leave it out.")
        if native:
            from ..native import NativeSmolVLM

            # What the processor imports and its tokenizer take a sixth of a second, in which the weights can be packed.
            with ThreadPoolExecutor(1) as side:
                reading = side.submit(read_processor)
                native_model = NativeSmolVLM.from_pretrained(
                    pretrained_model_name_or_path,
                    dtype=str(dtype).removeprefix("torch."),
                    quantization=quantization,
                    num_threads=num_threads,
                    packed_cache_dir=packed_cache_dir,
                    **hub_options,
                )
                processor = reading.result()
            return cls(native_model, processor, policy=policy, load_seconds=time.perf_counter() - start)
        processor = read_processor()
        from ..modeling.modeling_smolvlm import SmolVLMForConditionalGeneration

        dtype = ("float32" if device == "cpu" else "bfloat16") if dtype == "auto" else dtype
        model = SmolVLMForConditionalGeneration.from_pretrained(
            pretrained_model_name_or_path, dtype=dtype, device=device, **hub_options
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
        progress: Callable[[int, int], None] | None = None,
        **sampling: Any,
    ) -> Result | list[Result]:
        """Answer a prompt about pictures, or a list of prompts in one batch.

        `images` are paths, URLs, data URIs, base64 strings, bytes, binary files, PIL images, arrays or tensors, in the
        order in which the prompt sees them; `videos`, which the prompt sees after them, come from the same sources, or
        are arrays or tensors (frames, height, width, 3) or lists of pictures. For a list of prompts, one such list for
        each. The frames of a source are sampled as the checkpoint says; of an array or a list all are taken.
        `do_image_splitting=False` shows each picture as one tile: less detail, several times faster; None is the
        checkpoint's setting. `skip_special_tokens=False` keeps them in `text`.
        `sampling` are settings of `GenerationConfig`, `seed`, `logits_processor` or `stopping_criteria`; without
        `do_sample`, a temperature above 0, `top_k`, `top_p` or `min_p` asks for it. With the native engine the
        callables get NumPy arrays, and there a picture is encoded once and no beginning of a prompt is read twice (see
        `Usage`); `reuse=False` neither uses nor keeps anything between calls. `progress(done, all)` is called while
        the native engine works towards the first token, see `NativeEngine`; what it raises ends the call.

        Raises `MediaError` (a ValueError) that names a picture or clip which cannot be used, ValueError for other
        arguments.
        """
        single = isinstance(prompt, str)
        prompts: list[Any] = list(prompt) if isinstance(prompt, (list, tuple)) else [prompt]
        pictures = [images] if single else list(images) or [()] * len(prompts)
        clips = [videos] if single else list(videos) or [()] * len(prompts)
        if not prompts or not all(isinstance(text, str) for text in prompts):
            raise ValueError(f"prompt has to be a string or a non-empty list of strings, got {prompt!r:.200}")
        if len(pictures) != len(prompts):
            raise ValueError(f"{len(prompts)} prompts need as many lists of images, got {len(pictures)}")
        if len(clips) != len(prompts):
            raise ValueError(f"{len(prompts)} prompts need as many lists of videos, got {len(clips)}")
        conversations = [_conversation(*parts) for parts in zip(prompts, pictures, clips, strict=True)]
        sampling |= {"max_new_tokens": max_new_tokens, "min_new_tokens": min_new_tokens}
        results = self._start(conversations, do_image_splitting, skip_special_tokens, reuse, progress, sampling).run()
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
        progress: Callable[[int, int], None] | None = None,
        **sampling: Any,
    ) -> Result:
        """Answer the last of `messages`: dicts with a `role` and a `content`, text or a list of items.

        Items are `{"type": "text", "text": …}`, `{"type": "image", "image": …}` and `{"type": "video", "video": …}`;
        the source of the last two may stand under `url`, `path` or `base64` too, and may be what `generate` takes. The
        other arguments are those of `generate`.
        """
        sampling |= {"max_new_tokens": max_new_tokens, "min_new_tokens": min_new_tokens}
        return self._start([messages], do_image_splitting, skip_special_tokens, reuse, progress, sampling).run()[0]

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
        progress: Callable[[int, int], None] | None = None,
        **sampling: Any,
    ) -> Stream:
        """As `generate` for a prompt, or `chat` for messages, giving the text in pieces as it comes.

        Pictures are read before this returns; each piece is made when it is asked for.
        """
        messages = _conversation(prompt, images, videos) if isinstance(prompt, str) else prompt
        sampling |= {"max_new_tokens": max_new_tokens, "min_new_tokens": min_new_tokens}
        call = self._start([messages], do_image_splitting, skip_special_tokens, reuse, progress, sampling)
        return Stream(call, self._tokens, skip_special_tokens)

    def _start(
        self,
        conversations: Sequence[Sequence[Mapping[str, Any]]],
        do_image_splitting: bool | None,
        skip_special_tokens: bool,
        reuse: bool,
        progress: Callable[[int, int], None] | None,
        sampling: dict[str, Any],
    ) -> Call:
        """Read the pictures, make the inputs of the model, and begin a call."""
        start = time.perf_counter()
        loaded = [self._load(messages) for messages in conversations]
        decoded = time.perf_counter()
        pictures = [shown for _, shown, _ in loaded]
        clips = [clip for _, _, shown in loaded for clip in shown]
        arguments: dict[str, Any] = {} if do_image_splitting is None else {"do_image_splitting": do_image_splitting}
        if clips:
            clips, sampling_of_clips = self._sample(clips)
            arguments |= sampling_of_clips
        inputs = self.processor(
            text=[self.processor.apply_chat_template(messages, add_generation_prompt=True) for messages, *_ in loaded],
            images=pictures if any(pictures) else None,
            videos=[clips] if clips else None,  # as of one prompt, so that a list of pictures in it is one clip
            return_tensors=self.tensors,
            padding=True,
            padding_side="left",
            add_special_tokens=False,
            **arguments,
        )
        prepared = time.perf_counter()
        timings = Timings(load=self.load_seconds, image_decode=decoded - start, preprocessing=prepared - decoded)
        return self._begin(inputs, sampling, timings, skip_special_tokens, reuse, progress)

    def _begin(
        self,
        inputs: Mapping[str, Any],
        sampling: dict[str, Any],
        timings: Timings,
        skip_special_tokens: bool,
        reuse: bool,
        progress: Callable[[int, int], None] | None = None,
    ) -> Call:
        if sampling.get("temperature") == 0:
            sampling |= {"do_sample": False, "temperature": None}
        sampling.setdefault("do_sample", asks_to_draw(sampling))
        if sampling.get("num_return_sequences", 1) != 1:
            raise ValueError("num_return_sequences is for model.generate(); repeat the prompt in a list instead.")
        if self.engine == "native":
            from ..native import start_generation

            tokenizer = self.processor.tokenizer
            sampling |= {"reuse": reuse, "progress": progress}
            decoding = start_generation(self.model, **inputs, tokenizer=tokenizer, **sampling)
        else:
            tokenizer = self.processor.tokenizer
            decoding = self.model.start_generation(**inputs, tokenizer=tokenizer, engine="torch", **sampling)
        lengths = inputs["attention_mask"].sum(1).tolist()
        return Call(decoding, self.processor, lengths, timings, skip_special_tokens)

    def watch(
        self,
        source: Any,
        *,
        prompt: str,
        every: float = 2.0,
        window: int = 8,
        max_new_tokens: int = 64,
        **sampling: Any,
    ) -> Iterator[Observation]:
        """Yield an answer about the last `window` frames each time `every` seconds of a video have passed.

        `source` is a video, from any source that `generate` takes, or an iterable that may never end, of pictures
        (timed by their arrival) or of (seconds, picture). Each frame is encoded once; its features are kept while it is
        in the window, so memory does not grow. The time stamps that the model sees count from the first frame of the
        window. The next frame is read when the next answer is asked for. Raises as `generate`.
        """
        from .watch import watch

        return watch(self, source, prompt=prompt, every=every, window=window, max_new_tokens=max_new_tokens, **sampling)

    @property
    def tensors(self) -> str:
        """The `return_tensors` that the model takes."""
        return "np" if self.engine == "native" else "pt"

    def encode(self, pixel_values: Any) -> Any:
        """Return the image tokens (tokens, hidden_size) of frames (1, frames, 3, height, width)."""
        if self.engine == "native":
            return self.model.encode(self.model.frames(pixel_values), reuse=False)[0]
        import torch

        with torch.inference_mode():
            return self.model.get_image_features(pixel_values.to(self.model.device)).pooler_output[0]

    def answer_encoded(self, prompt: str, clip: Clip, features: Sequence[Any], sampling: Mapping[str, Any]) -> Result:
        """Answer a prompt about one clip whose frames are encoded already: one of `features` for each."""
        from ..text.expansion import PromptEncoder, prompt_parts
        from ..text.placeholders import MediaTokens

        start = time.perf_counter()
        processor = self.processor
        tokens = MediaTokens(
            processor.image_token, processor.video_token, processor.fake_image_token, processor.global_image_token
        )
        encoder = PromptEncoder(processor.tokenizer, tokens, processor.image_token_id, processor.image_seq_len)
        text = processor.apply_chat_template(_conversation(prompt, (), [None]), add_generation_prompt=True)
        encoded = encoder.encode([text], prompt_parts([text], tokens, [], [clip]), add_special_tokens=False)
        inputs = BatchFeature(encoded, tensor_type=self.tensors)
        timings = Timings(load=self.load_seconds, preprocessing=time.perf_counter() - start)
        if self.engine == "native":
            pictures: dict[str, Any] = {"features": np.concatenate(features)}
        else:
            import torch

            pictures = {"mm_encoder_outputs": [torch.cat(list(features))]}
        # The place of each frame in the prompt moves with the window: a kept prefix would be of no use.
        return self._begin({**inputs, **pictures}, dict(sampling), timings, True, reuse=False).run()[0]

    def _load(self, messages: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], list[Any], list[Any]]:
        """Return the messages in the form of the template, the pictures in them, decoded, and the clips."""
        from ..text import conversation

        (normal,), batched = conversation.normalize(list(messages))
        if batched:
            raise TypeError("messages has to be one conversation: a list of dicts")
        for message in normal:
            if isinstance(message.get("content"), str):  # the family's chat template reads lists only
                message["content"] = [{"type": "text", "text": message["content"]}]
        sources, videos = conversation.media(normal)
        pictures = [self._picture(source, number, len(sources)) for number, source in enumerate(sources, 1)]
        return normal, pictures, videos

    def _sample(self, clips: list[Any]) -> tuple[list[Any], dict[str, Any]]:
        """Return the clips and how to sample them: files as the checkpoint says, of arrays every frame."""
        from ..media.nesting import metadata_of

        files = [is_source(clip) for clip in clips]
        videos = self.processor.require_video_processor()
        limits: dict[str, Any] = {"num_frames": videos.num_frames or _NUM_FRAMES, "fps": videos.fps or _FPS}
        if all(files):
            return clips, {"media_policy": self.policy, "do_sample_frames": True, **limits}
        if not any(files):
            return clips, {"media_policy": self.policy, "do_sample_frames": False}
        # One call samples either all clips or none, so the files become arrays first.
        from ..media.video import VideoReader

        frames: list[Any] = []
        metadata = metadata_of(clips, None)
        for place, clip in enumerate(clips):
            if files[place]:
                reader = VideoReader(clip, policy=self.policy, threads=videos.threads, rotate=True)
                sampler = videos.sampler(reader, frame_sampling=videos.frame_sampling, **limits)
                decoded, metadata[place] = reader.read(sampler, partial(_rgb, reader))
                clip = np.stack(decoded)
            frames.append(clip)
        return frames, {"media_policy": self.policy, "do_sample_frames": False, "video_metadata": metadata}

    def _picture(self, source: Any, number: int, total: int) -> Any:
        try:
            return load_image(source, self.policy)
        except MediaError as error:
            if total == 1:
                raise
            raise type(error)(f"picture {number}: {error}") from None


def _rgb(reader: VideoReader, _: int, frame: Any) -> Any:
    return reader.to_rgb(frame)


def _device(device: str) -> str:
    """Return the device "auto" stands for; torch is only asked where the machine may have a GPU."""
    if device != "auto":
        return str(device)
    on_linux_without = sys.platform == "linux" and not any(map(os.path.exists, _GPU_FILES))
    if on_linux_without or importlib.util.find_spec("torch") is None:
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _conversation(prompt: str, images: Any, videos: Any) -> list[dict[str, Any]]:
    content = [
        {"type": kind, kind: item} for kind, items in (("image", images), ("video", videos)) for item in _list(items)
    ]
    return [{"role": "user", "content": [*content, {"type": "text", "text": prompt}]}]


def _list(media: Any) -> Sequence[Any]:
    single = is_source(media) or not isinstance(media, Sequence)
    return [media] if single else media
