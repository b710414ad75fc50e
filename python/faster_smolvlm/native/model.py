"""A checkpoint loaded into the native engine."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from .._rust import NativeModel, checkpoint_tensors
from ..checkpoint.configuration_smolvlm import SmolVLMConfig
from ..checkpoint.hub import HUB_NAMES, Checkpoint, checkpoint, split_hub_options
from ..checkpoint.weights import EMBEDDING, HEAD, WeightFiles
from ..cores import usable_cores
from ..generation.caller import warn_caller
from ..generation.config import FILE_NAME, GenerationConfig
from ..integers import count_of, optional_count
from ..quoting import shown
from ..unknown_names import check_names, parameters_of
from .admission import Admission
from .cache_limits import CacheLimits
from .engine import NativeEngine, Progress
from .frames import Float32, FrameEncoder
from .reuse import FeatureCache, PrefixCache
from .serial import SerialModel

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .._rust import LoadOptions, ModelSizes

MemoryTensor = tuple[str, str, Sequence[int], npt.NDArray[np.uint8]]
"""Name, dtype ("float32", "float16" or "bfloat16"), shape, and the bytes of the values in a row."""

DTYPES = ("auto", "float32", "bfloat16")
FEATURE_CACHE_BYTES = 64 << 20
"""Default budget for the image tokens that are kept between calls: some 440 frames of the 256M model."""


class NativeSmolVLM(FrameEncoder):
    """A SmolVLM or Idefics3 model for the CPU.

    `config` describes it; `dtype` is the storage of its weights ("float32", "bfloat16" or "int8"). Sums are
    float32, and so are activations, but that instruction sets with bfloat16 arithmetic ("amx", "avx512bf16") round
    them when they are multiplied with bfloat16 weights. `isa` names the set in use and `num_threads` the threads;
    `position_limit` is the length of the longest sequence; `load_seconds` is how long loading took. Results do not
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
        packed_cache_dir: str | os.PathLike[str] | None = None,
        position_limit: int | None = None,
        **cache_limits: Unpack[CacheLimits],
    ) -> None:
        """Read, check and pack the weights: paths of safetensors files, or tensors in memory.

        The memory of tensors must not be written during a call, and that of the embeddings is read by all later ones.
        `quantization="int8"` stores every weight matrix in 8 bits with a scale per output channel and 128 inputs; its
        inputs become integers of 15 bits. `packed_cache_dir` keeps the packed weights in a file there (some hundred
        megabytes), from which later loads of the same files on the same kind of processor take them; `packed` says what
        became of it. The folder has to belong to this user (or to root) and to be closed to writes of others: one that
        cannot be used costs a warning, and the weights are packed anew. `position_limit` bounds a sequence (default:
        what the config says), `cache_limits` the memory, see `CacheLimits`.
        Raises ValueError if tensors and config do not fit or a weight is NaN, OSError for files that cannot be read,
        MemoryError if the system does not give the memory.
        """
        start = time.perf_counter()
        check_names(cache_limits, CacheLimits.__annotations__, also_named=parameters_of(NativeSmolVLM))
        if dtype not in DTYPES[1:]:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {shown(dtype)}.")
        if quantization not in (None, "int8"):
            raise ValueError(f"quantization must be None or 'int8', got {shown(quantization)}.")
        if packed_cache_dir is not None and any(isinstance(part, tuple) for part in weights):
            raise ValueError("packed_cache_dir is for weights in files: leave it out for tensors in memory.")
        num_threads = optional_count("num_threads", num_threads, 1)
        position_limit = optional_count("position_limit", position_limit, 1)
        self.config = config
        self.dtype = quantization or dtype
        limit = position_limit or config.text_config.max_position_embeddings
        sizes = model_sizes(config, position_limit=limit)
        tensors = [part for part in weights if isinstance(part, tuple)]
        paths = [os.fspath(part) for part in weights if not isinstance(part, tuple)]
        if tensors and paths:
            raise ValueError("weights has to be either paths or tensors, got both.")
        positions = optional_count("cache_positions", cache_limits.get("cache_positions"), 1)
        prefix_bytes = optional_count("prefix_cache_bytes", cache_limits.get("prefix_cache_bytes"), 0)
        feature_bytes = count_of("feature_cache_bytes", cache_limits.get("feature_cache_bytes", FEATURE_CACHE_BYTES), 0)
        options: LoadOptions = {
            "dtype": self.dtype,
            "kv_dtype": "float32" if self.dtype == "float32" else "bfloat16",
            "num_threads": num_threads or usable_cores(),
            "cache_positions": 2 * limit if positions is None else positions,
            "packed_cache": packed_cache_dir,
        }
        rust = NativeModel.from_tensors(tensors, sizes, options) if tensors else NativeModel(paths, sizes, options)
        self.rust = SerialModel(rust)
        if self.packed in ("replaced", "failed"):
            warn_caller(f"packed weights in {packed_cache_dir}: {self.packed}, {self.rust.packed[1]}")
        self.position_limit = limit
        self.generation_config = GenerationConfig.from_model_config(config)
        self.features = FeatureCache(feature_bytes)
        if prefix_bytes is None:
            prefix_bytes = limit * self.rust.position_bytes
        self.prefixes = PrefixCache(self.rust, prefix_bytes)
        self.admission = Admission(self.rust)
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

        `dtype="auto"` stores the weights as the checkpoint does (float16 and float64 as float32). Raises RuntimeError
        that names the tensors if the weights do not fit the config, and as the constructor.
        """
        hub_options, options = split_hub_options(options)
        check_names(options, {*CacheLimits.__annotations__, *parameters_of(NativeSmolVLM)}, also_named=HUB_NAMES)
        return cls.from_checkpoint(checkpoint(name_or_dir, **hub_options), dtype=dtype, **options)

    @classmethod
    def from_checkpoint(
        cls, files: Checkpoint, *, config: SmolVLMConfig | None = None, dtype: str = "auto", **options: Any
    ) -> NativeSmolVLM:
        """As `from_pretrained`, for a checkpoint that is resolved already, and whose `config` may be read already."""
        config = config or SmolVLMConfig.from_checkpoint(files)
        weights = WeightFiles(files)
        found = weights.match(_expected(config), tied=config.tie_word_embeddings)
        if config.tie_word_embeddings and weights.has_own_head(found):
            config = copy.copy(config)
            config.tie_word_embeddings = False
        if dtype == "auto":
            dtype = "bfloat16" if weights.float_dtype() == "bfloat16" else "float32"
        if weights.is_as_named(found):
            paths = sorted({path for path, _, _ in weights.entries.values()})
            model = cls(paths, config, dtype=dtype, **options)
        else:
            if options.pop("packed_cache_dir", None) is not None:
                warn_caller(f"the tensors of {shown(files.name)} are renamed or converted: packed weights are not kept")
            tied = config.tie_word_embeddings
            tensors = weights.mapped({target: name for target, name in found.items() if not (tied and target == HEAD)})
            model = cls(tensors, config, dtype=dtype, **options)
        settings = files.find(FILE_NAME)
        if settings is not None:
            model.generation_config = GenerationConfig.from_file(settings)
        return model

    def grow_cache(self, positions: int) -> None:
        """Enlarge the key/value cache to at least `positions` positions in all."""
        self.rust.grow_cache(positions)
        self.admission.settle()

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

        "off", "read", "written", "replaced" (it was damaged, made from other weights, or not safe to read), or "failed"
        (it could not be written).
        """
        return self.rust.packed[0]

    def logits(
        self,
        input_ids: npt.ArrayLike,
        *,
        pixel_values: npt.ArrayLike | None = None,
        pixel_attention_mask: npt.ArrayLike | None = None,
        features: npt.ArrayLike | None = None,
        progress: Progress | None = None,
    ) -> Float32:
        """Return the logits of every position of one prompt, [length, vocabulary]; no cache is read or filled."""
        ids = np.asarray(input_ids, dtype=np.int64).reshape(1, -1)
        engine = NativeEngine(
            self, ids, None, pixel_values, pixel_attention_mask, features, reuse=False, progress=progress
        )
        try:
            return engine.all_logits()
        finally:
            engine.free()


def _expected(config: SmolVLMConfig) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all tensors of a checkpoint by their names, the language head included."""
    expected = {name: tuple(shape) for name, shape in checkpoint_tensors(model_sizes(config))}
    return {HEAD: expected[EMBEDDING], **expected}


def model_sizes(config: SmolVLMConfig, *, position_limit: int | None = None) -> ModelSizes:
    """Return the numbers that the Rust side takes, after refusing settings that it does not have.

    `position_limit` bounds a sequence (default: what the config says). Raises ValueError for such settings.
    """
    vision, text = config.vision_config, config.text_config
    rope = text.rope_parameters or {}
    supported = [
        ("vision_config.hidden_act", vision.hidden_act, "gelu_pytorch_tanh"),
        ("text_config.hidden_act", text.hidden_act, "silu"),
        ("text_config.attention_bias", text.attention_bias, False),
        ("text_config.mlp_bias", text.mlp_bias, False),
        ("text_config.rope_parameters['rope_type']", rope.get("rope_type", "default"), "default"),
        ("vision_config.image_size", type(vision.image_size), int),
        ("vision_config.patch_size", type(vision.patch_size), int),
    ]
    for name, given, expected in supported:
        if given != expected:
            raise ValueError(
                f"The native engine has {name} = {expected!r} only, the config says {shown(given)}. "
                "Use SmolVLMForConditionalGeneration, which needs torch, for this checkpoint."
            )
    # What may have another type was looked at above, or filled in by the configuration itself.
    return {
        "scale_factor": config.scale_factor,
        "vision": {
            "hidden_size": vision.hidden_size,
            "intermediate_size": vision.intermediate_size,
            "num_hidden_layers": vision.num_hidden_layers,
            "num_attention_heads": vision.num_attention_heads,
            "num_channels": vision.num_channels,
            "image_size": cast("int", vision.image_size),
            "patch_size": cast("int", vision.patch_size),
            "layer_norm_eps": vision.layer_norm_eps,
        },
        "text": {
            "hidden_size": text.hidden_size,
            "intermediate_size": text.intermediate_size,
            "num_hidden_layers": text.num_hidden_layers,
            "num_attention_heads": text.num_attention_heads,
            "num_key_value_heads": cast("int", text.num_key_value_heads),
            "head_dim": cast("int", text.head_dim),
            "vocab_size": text.vocab_size,
            "max_position_embeddings": position_limit or text.max_position_embeddings,
            "rope_theta": text.rope_theta,
            "rms_norm_eps": text.rms_norm_eps,
            "tie_word_embeddings": config.tie_word_embeddings,
        },
    }
