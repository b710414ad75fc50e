"""Native half of faster_smolvlm (Rust); the arrays are C-contiguous NumPy arrays."""

from collections.abc import Sequence
from os import PathLike
from typing import Any, Literal, Protocol, TypedDict, final, overload, type_check_only

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

__all__ = [
    "BUILD_PROFILE",
    "VERSION",
    "FrameStream",
    "ImageSettings",
    "ImageSizes",
    "NativeModel",
    "checkpoint_tensors",
    "empty",
    "explicit_frames",
    "fill_mask",
    "frames_at_rate",
    "frames_at_times",
    "image_threads",
    "kernel_names",
    "key_frames",
    "layout",
    "machine_limits",
    "pool_trim",
    "pool_waiting",
    "preprocess",
    "resize",
    "resize_float32",
    "resize_float64",
    "sample_frames",
    "uniform_frames",
    "weights_fingerprint",
]

VERSION: str
BUILD_PROFILE: str

def sample_frames(
    total: int, video_fps: float, duration: float, max_frames: int, fps: float, skip_secs: float = 1.0
) -> list[int]: ...
def uniform_frames(total: int, n: int) -> list[int]: ...
def frames_at_rate(total: int, video_fps: float, fps: float) -> list[int]: ...
def frames_at_times(times: Sequence[float], fps: float) -> list[int]: ...
def explicit_frames(total: int, indices: Sequence[int]) -> list[int]: ...
def key_frames(keys: Sequence[int], max_frames: int) -> list[int]: ...

@final
class FrameStream:
    def __new__(
        cls,
        max_frames: int,
        *,
        fps: float | None = None,
        indices: Sequence[int] | None = None,
        keys_only: bool = False,
    ) -> FrameStream: ...
    def offer(self, time: float, is_key: bool) -> tuple[bool, list[int]]: ...
    def finish(self) -> list[int]: ...

@final
class ImageSizes:
    """How pictures are resized (to the longest edge, else exactly to (height, width), else not) and cut."""

    def __new__(
        cls,
        *,
        longest_edge: int | None,
        exact: tuple[int, int] | None,
        tile: int,
        split: bool,
        upscale: bool = True,
        max_tiles: int | None = None,
    ) -> ImageSizes: ...

@final
class ImageSettings:
    """How pictures become frames; made once, used for many calls."""

    def __new__(
        cls,
        sizes: ImageSizes,
        *,
        resample: int,
        arithmetic: str,
        table: NDArray[np.float32],
        formula: Sequence[tuple[float, float, float]],
        kernels: str | None = None,
    ) -> ImageSettings: ...

def layout(height: int, width: int, *, sizes: ImageSizes) -> tuple[tuple[int, int], tuple[int, int], int, int]: ...
def preprocess(
    images: Sequence[NDArray[np.uint8] | Image],
    places: Sequence[int],
    out: NDArray[np.float32] | NDArray[np.uint16] | NDArray[np.uint8],
    settings: ImageSettings,
) -> None: ...
def empty(shape: Sequence[int], dtype: str) -> NDArray[Any]: ...
def fill_mask(mask: NDArray[np.int64], counts: Sequence[int]) -> None: ...
def pool_waiting() -> int: ...
def pool_trim() -> None: ...
def kernel_names() -> list[str]: ...
def image_threads() -> int: ...
def resize(
    image: NDArray[np.uint8], height: int, width: int, *, resample: int, arithmetic: str
) -> NDArray[np.uint8]: ...
def resize_float32(image: NDArray[np.float32], height: int, width: int, *, resample: int) -> NDArray[np.float32]: ...
def resize_float64(image: NDArray[np.float64], height: int, width: int, *, resample: int) -> NDArray[np.float64]: ...

@type_check_only
class VisionSizes(TypedDict):
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_channels: int
    image_size: int
    patch_size: int
    layer_norm_eps: float

@type_check_only
class TextSizes(TypedDict):
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    max_position_embeddings: int
    rope_theta: float
    rms_norm_eps: float
    tie_word_embeddings: bool

@type_check_only
class ModelSizes(TypedDict):
    scale_factor: int
    vision: VisionSizes
    text: TextSizes

@type_check_only
class LoadOptions(TypedDict):
    dtype: str
    kv_dtype: str
    num_threads: int
    cache_positions: int
    packed_cache: str | PathLike[str] | None

@type_check_only
class Step(Protocol):
    """Tokens that are appended to some sequences; the object has these attributes."""

    @property
    def sequences(self) -> Sequence[int]: ...
    @property
    def lengths(self) -> Sequence[int]: ...
    @property
    def ids(self) -> NDArray[np.int64]: ...
    @property
    def features(self) -> NDArray[np.float32]: ...
    @property
    def feature_rows(self) -> NDArray[np.int64]: ...
    @property
    def outputs(self) -> Sequence[int]: ...

@final
class NativeModel:
    """A model loaded for the CPU, and the sequences that it is working on. One call runs at a time."""

    STEP_ROWS: int
    @property
    def isa(self) -> str: ...
    @property
    def num_threads(self) -> int: ...
    @property
    def text_bytes(self) -> int: ...
    @property
    def position_bytes(self) -> int: ...
    @property
    def packed(self) -> tuple[str, str]: ...
    def __new__(cls, files: Sequence[str], config: ModelSizes, options: LoadOptions) -> NativeModel: ...
    @staticmethod
    def from_tensors(
        tensors: Sequence[tuple[str, str, Sequence[int], NDArray[np.uint8]]], config: ModelSizes, options: LoadOptions
    ) -> NativeModel: ...
    def encode(self, pixels: NDArray[np.float32], patch_mask: NDArray[np.bool_]) -> NDArray[np.float32]: ...
    @overload
    def step(self, step: Step, argmax: Literal[False]) -> NDArray[np.float32]: ...
    @overload
    def step(self, step: Step, argmax: Literal[True]) -> NDArray[np.int64]: ...
    def open(self) -> int: ...
    def close(self, sequence: int) -> None: ...
    def fork(self, sequence: int, length: int) -> int: ...
    def truncate(self, sequence: int, length: int) -> None: ...
    def length(self, sequence: int) -> int: ...
    def cache_pages(self) -> tuple[int, int, int]: ...
    def grow_cache(self, positions: int) -> None: ...

def checkpoint_tensors(config: ModelSizes) -> list[tuple[str, list[int]]]: ...
def machine_limits(num_threads: int) -> tuple[float, float, float | None]: ...
def weights_fingerprint(arrays: Sequence[NDArray[np.uint8]], num_threads: int) -> int: ...
