"""A checkpoint loaded into the native engine, and the encoding of its pictures."""

from __future__ import annotations

import hashlib
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .._rust import NativeModel
from ..checkpoint.configuration_smolvlm import SmolVLMConfig
from ..checkpoint.hub import Checkpoint, checkpoint, split_hub_options
from ..checkpoint.weights import WeightFiles
from ..generation.config import FILE_NAME, GenerationConfig
from .reuse import FeatureCache, PrefixCache

Float32 = npt.NDArray[np.float32]
UInt8 = npt.NDArray[np.uint8]
Bool = npt.NDArray[np.bool_]
Int64 = npt.NDArray[np.int64]
MemoryTensor = tuple[str, str, Sequence[int], npt.NDArray[np.uint8]]
"""Name, dtype ("float32", "float16" or "bfloat16"), shape, and the bytes of the values in a row."""

DTYPES = ("auto", "float32", "bfloat16")
FEATURE_CACHE_BYTES = 64 << 20
"""Default budget for the image tokens that are kept between calls: some 440 frames of the 256M model."""


@dataclass(frozen=True)
class Frame:
    """`tokens` image tokens: of pixels [channels, height, width] with a patch mask, or already encoded `features`.

    `digest` is the hash of what they come from.
    """

    digest: bytes
    tokens: int
    pixels: Float32 | UInt8 | None = None
    patch_mask: Bool | None = None
    features: Float32 | None = None


class NativeSmolVLM:
    """A SmolVLM or Idefics3 model for the CPU.

    `config` describes it; `dtype` is the storage of its weights ("float32", "bfloat16" or "int8"). Sums are
    float32, and so are activations, but that instruction sets with bfloat16 arithmetic ("amx", "avx512bf16") round
    them where they are multiplied with bfloat16 weights. `isa` names the set in use and `num_threads` the threads;
    `position_limit` is the length of the longest sequence; `load_seconds` is what loading took. Results do not
    depend on the number of threads, nor on what else is in the batch.
    """

    def __init__(
        self,
        weights: Sequence[str | os.PathLike[str]] | Sequence[MemoryTensor],
        config: SmolVLMConfig,
        *,
        dtype: str = "float32",
        quantization: str | None = None,
        num_threads: int | None = None,
        cache_positions: int | None = None,
        feature_cache_bytes: int = FEATURE_CACHE_BYTES,
        prefix_cache_bytes: int | None = None,
        packed_cache_dir: str | os.PathLike[str] | None = None,
        position_limit: int | None = None,
    ) -> None:
        """Read, check and pack the weights: paths of safetensors files, or tensors in memory.

        The memory of tensors must not be written during a call, and that of the embeddings is read by all later ones.
        `quantization="int8"` stores every weight matrix in 8 bits with a scale per output channel and 128 inputs; its
        inputs become integers of 15 bits. `cache_positions`
        bounds the tokens in flight and kept for reuse, all sequences together (default: twice the position limit).
        Between calls, image tokens are kept in `feature_cache_bytes`, and keys and values of past prompts in
        `prefix_cache_bytes` of that (default: one sequence of full length); the least recently used go first.
        `packed_cache_dir` keeps the packed weights in a file there (some hundred megabytes, trusted as the checkpoint
        is), from which later loads of the same files on the same kind of processor take them; `packed` says what
        became of it. `position_limit` bounds a sequence (default: what the config says).
        Raises ValueError where tensors and config do not fit or a weight is NaN, OSError for files that cannot be read,
        MemoryError where the system does not give the memory.
        """
        start = time.perf_counter()
        if dtype not in DTYPES[1:]:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}.")
        if quantization not in (None, "int8"):
            raise ValueError(f"quantization must be None or 'int8', got {quantization!r}.")
        if packed_cache_dir is not None and any(isinstance(part, tuple) for part in weights):
            raise ValueError("packed_cache_dir is for weights in files: leave it out for tensors in memory.")
        if num_threads is not None and num_threads < 1:
            raise ValueError(f"num_threads must be at least 1, got {num_threads}.")
        self.config = config
        self.dtype = quantization or dtype
        limit = position_limit or config.text_config.max_position_embeddings
        sizes = _sizes(config)
        sizes["text"]["max_position_embeddings"] = limit
        tensors = [part for part in weights if isinstance(part, tuple)]
        paths = [os.fspath(part) for part in weights if not isinstance(part, tuple)]
        if tensors and paths:
            raise ValueError("weights has to be either paths or tensors, got both.")
        make: Any = NativeModel.from_tensors if tensors else NativeModel
        self.rust: NativeModel = make(
            tensors or paths,
            sizes,
            dtype=self.dtype,
            kv_dtype="float32" if self.dtype == "float32" else "bfloat16",
            num_threads=num_threads or _cores(),
            cache_positions=2 * limit if cache_positions is None else cache_positions,
            **({} if packed_cache_dir is None else {"packed_cache": packed_cache_dir}),
        )
        if self.packed in ("replaced", "failed"):
            warnings.warn(f"packed weights in {packed_cache_dir}: {self.packed}, {self.rust.packed[1]}", stacklevel=3)
        self.position_limit = limit
        self.generation_config = GenerationConfig.from_model_config(config)
        self.features = FeatureCache(feature_cache_bytes)
        if prefix_cache_bytes is None:
            prefix_cache_bytes = limit * self.rust.position_bytes
        self.prefixes = PrefixCache(self.rust, prefix_cache_bytes)
        self.load_seconds = time.perf_counter() - start

    @classmethod
    def from_pretrained(
        cls,
        name_or_dir: str | os.PathLike[str],
        *,
        dtype: str = "auto",
        **options: Any,
    ) -> NativeSmolVLM:
        """Load a directory, a hub repository or "demo"; `options` are those of the constructor and of `HubOptions`.

        `dtype="auto"` stores the weights as the checkpoint does (float16 as float32).
        """
        hub_options, options = split_hub_options(options)
        return cls.from_checkpoint(checkpoint(name_or_dir, **hub_options), dtype=dtype, **options)

    @classmethod
    def from_checkpoint(cls, files: Checkpoint, *, dtype: str = "auto", **options: Any) -> NativeSmolVLM:
        """As `from_pretrained`, for a checkpoint that is resolved already."""
        config = SmolVLMConfig.from_checkpoint(files)
        weights = WeightFiles(files)
        if dtype == "auto":
            dtype = "bfloat16" if weights.float_dtype() == "bfloat16" else "float32"
        paths = sorted({path for path, _, _ in weights.entries.values()})
        model = cls(paths, config, dtype=dtype, **options)
        settings = files.find(FILE_NAME)
        if settings is not None:
            model.generation_config = GenerationConfig.from_file(settings)
        return model

    @property
    def isa(self) -> str:
        """Name of the instruction set in use."""
        return self.rust.isa

    @property
    def num_threads(self) -> int:
        """Number of threads that compute."""
        return self.rust.num_threads

    @property
    def packed(self) -> str:
        """What became of the file of packed weights.

        "off", "read", "written", "replaced" (it was damaged), or "failed" (it could not be written).
        """
        return self.rust.packed[0]

    def image_tokens(self, height: int, width: int) -> int:
        """Return the number of image tokens of a frame of this size in pixels."""
        patch, side = self.config.vision_config.patch_size, self.config.scale_factor
        assert isinstance(patch, int)
        return (height // patch) * (width // patch) // side**2

    def frames(self, pixel_values: Any, pixel_attention_mask: Any = None) -> list[Frame]:
        """Return the real frames of a batch, row after row: all-zero ones are padding, unless there is no other.

        `pixel_values` is [rows, frames, channels, height, width], `pixel_attention_mask` [rows, frames, height, width].
        uint8 pixels stay so until they are encoded, when they are rescaled by 1/255 and normalised by 0.5 and 0.5;
        which of their frames are padding is read from the mask.
        """
        pixels = np.ascontiguousarray(pixel_values)
        if pixels.dtype != np.uint8:
            pixels = pixels.astype(np.float32, copy=False)
        channels = self.config.vision_config.num_channels
        if pixels.ndim != 5 or pixels.shape[2] != channels or 0 in pixels.shape:
            raise ValueError(
                f"pixel_values has to be of shape (rows, frames, {channels}, height, width), got {pixels.shape}."
            )
        rows, count, _, height, width = pixels.shape
        pixels = pixels.reshape(rows * count, channels, height, width)
        masks = self._patch_masks(pixel_attention_mask, (rows, count, height, width))
        told = masks if pixels.dtype == np.uint8 and pixel_attention_mask is not None else pixels
        real = [index for index in range(len(pixels)) if told[index].any()] or [0]
        tokens = self.image_tokens(height, width)
        return [Frame(_digest(pixels[index], masks[index]), tokens, pixels[index], masks[index]) for index in real]

    def encoded(self, features: Any) -> Frame:
        """Return image tokens that were encoded before, [tokens, hidden_size], as one frame."""
        values = np.ascontiguousarray(features, dtype=np.float32)
        hidden = self.config.text_config.hidden_size
        if values.ndim != 2 or values.shape[1] != hidden:
            raise ValueError(f"Encoded pictures have to be of shape (tokens, {hidden}), got {values.shape}.")
        return Frame(_digest(values), len(values), features=values)

    def encode(
        self, frames: Sequence[Frame], *, reuse: bool = True, done: Callable[[], None] | None = None
    ) -> tuple[Float32, list[bool]]:
        """Return the image tokens of the frames, [frames * tokens, hidden_size], and which frames were known.

        `done` is called after each frame.
        """
        encoded: list[Float32] = []
        known: list[bool] = []
        for frame in frames:
            features = frame.features
            if features is None and reuse:
                features = self.features.get(frame.digest)
            known.append(features is not None)
            if features is None:
                assert frame.pixels is not None
                assert frame.patch_mask is not None
                features = self.rust.encode(_normalized(frame.pixels), frame.patch_mask)
                if reuse:
                    self.features.put(frame.digest, features)
            encoded.append(features)
            if done is not None:
                done()
        return np.concatenate(encoded) if encoded else self.no_features(), known

    def no_features(self) -> Float32:
        """Return no image tokens."""
        return np.zeros((0, self.config.text_config.hidden_size), np.float32)

    def logits(
        self,
        input_ids: Any,
        *,
        pixel_values: Any = None,
        pixel_attention_mask: Any = None,
        features: Any = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Float32:
        """Return the logits of every position of one prompt, [length, vocabulary], with no cache in the way."""
        from .engine import NativeEngine

        ids = np.asarray(input_ids, dtype=np.int64).reshape(1, -1)
        engine = NativeEngine(
            self,
            ids,
            pixel_values=pixel_values,
            pixel_attention_mask=pixel_attention_mask,
            features=features,
            reuse=False,
            progress=progress,
        )
        try:
            return engine.all_logits()
        finally:
            engine.free()

    def _patch_masks(self, mask: Any, shape: tuple[int, int, int, int]) -> Bool:
        """Return which patches belong to the picture, [frames, patch rows, patch columns]."""
        rows, count, height, width = shape
        patch = self.config.vision_config.patch_size
        assert isinstance(patch, int)
        down, across = height // patch, width // patch
        if mask is None:
            return np.ones((rows * count, down, across), np.bool_)
        visible = np.asarray(mask) > 0
        if visible.shape != shape:
            raise ValueError(f"pixel_attention_mask has to be of shape {shape}, as the pixels, got {visible.shape}.")
        visible = visible.reshape(rows * count, height, width)[:, : down * patch, : across * patch]
        return np.ascontiguousarray(visible.reshape(-1, down, patch, across, patch).any(axis=(2, 4)))


def _normalized(pixels: Float32 | UInt8) -> Float32:
    """Rescale and normalise bytes, as torchvision's arithmetic does."""
    return _BYTES[pixels] if pixels.dtype == np.uint8 else pixels.astype(np.float32, copy=False)


# (x / 255 - 0.5) / 0.5 for each byte x, in the order of operations that the image processor uses.
_BYTES: Float32 = (np.arange(256, dtype=np.float32) - np.float32(127.5)) / np.float32(127.5)


def _digest(*arrays: Float32 | UInt8 | Bool) -> bytes:
    digest = hashlib.blake2b(digest_size=32)
    for array in arrays:
        digest.update(repr((array.dtype.str, array.shape)).encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.digest()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _sizes(config: SmolVLMConfig) -> dict[str, Any]:
    """Return the numbers that the Rust side takes, after refusing settings that it does not have."""
    vision, text = config.vision_config, config.text_config
    rope = text.rope_parameters or {}
    wanted = [
        ("vision_config.hidden_act", vision.hidden_act, "gelu_pytorch_tanh"),
        ("text_config.hidden_act", text.hidden_act, "silu"),
        ("text_config.attention_bias", text.attention_bias, False),
        ("text_config.mlp_bias", text.mlp_bias, False),
        ("text_config.rope_parameters['rope_type']", rope.get("rope_type", "default"), "default"),
        ("vision_config.image_size", type(vision.image_size), int),
        ("vision_config.patch_size", type(vision.patch_size), int),
    ]
    for name, given, expected in wanted:
        if given != expected:
            raise ValueError(
                f"The native engine has {name} = {expected!r} only, the config says {given!r}. "
                "Use SmolVLMForConditionalGeneration, which needs torch, for this checkpoint."
            )
    return {
        "scale_factor": config.scale_factor,
        "vision": dict(_numbers(vision, "layer_norm_eps image_size patch_size num_channels")),
        "text": dict(
            _numbers(text, "num_key_value_heads head_dim vocab_size max_position_embeddings rope_theta rms_norm_eps")
        )
        | {"tie_word_embeddings": config.tie_word_embeddings},
    }


def _numbers(config: Any, names: str) -> Iterator[tuple[str, Any]]:
    common = "hidden_size intermediate_size num_hidden_layers num_attention_heads"
    for name in f"{common} {names}".split():
        yield name, getattr(config, name)
