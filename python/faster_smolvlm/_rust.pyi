"""Native half of faster_smolvlm (Rust); the arrays are C-contiguous NumPy arrays."""

from collections.abc import Sequence
from os import PathLike
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

__all__ = [
    "BUILD_PROFILE",
    "VERSION",
    "FrameStream",
    "NativeModel",
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

def layout(
    height: int,
    width: int,
    *,
    longest_edge: int | None,
    exact: tuple[int, int] | None,
    tile: int,
    split: bool,
    upscale: bool = True,
    max_tiles: int | None = None,
) -> tuple[tuple[int, int], tuple[int, int], int, int]: ...
def preprocess(
    images: Sequence[NDArray[np.uint8] | Image],
    places: Sequence[int],
    out: NDArray[np.float32] | NDArray[np.uint16] | NDArray[np.uint8],
    *,
    longest_edge: int | None,
    exact: tuple[int, int] | None,
    split: bool,
    resample: int,
    arithmetic: str,
    table: NDArray[np.float32],
    formula: Sequence[tuple[float, float, float]],
    upscale: bool = True,
    max_tiles: int | None = None,
    kernels: str | None = None,
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
    def __new__(
        cls,
        files: Sequence[str],
        config: dict[str, Any],
        *,
        dtype: str,
        kv_dtype: str,
        num_threads: int,
        cache_positions: int,
        packed_cache: str | PathLike[str] | None = None,
    ) -> NativeModel: ...
    @staticmethod
    def from_tensors(
        tensors: Sequence[tuple[str, str, Sequence[int], NDArray[np.uint8]]],
        config: dict[str, Any],
        *,
        dtype: str,
        kv_dtype: str,
        num_threads: int,
        cache_positions: int,
    ) -> NativeModel: ...
    def encode(self, pixels: NDArray[np.float32], patch_mask: NDArray[np.bool_]) -> NDArray[np.float32]: ...
    def step_logits(
        self,
        sequences: Sequence[int],
        lengths: Sequence[int],
        ids: NDArray[np.int64],
        features: NDArray[np.float32],
        feature_rows: NDArray[np.int64],
        wanted: Sequence[int],
    ) -> NDArray[np.float32]: ...
    def step_argmax(
        self,
        sequences: Sequence[int],
        lengths: Sequence[int],
        ids: NDArray[np.int64],
        features: NDArray[np.float32],
        feature_rows: NDArray[np.int64],
        wanted: Sequence[int],
    ) -> NDArray[np.int64]: ...
    def open(self) -> int: ...
    def close(self, sequence: int) -> None: ...
    def fork(self, sequence: int, length: int) -> int: ...
    def truncate(self, sequence: int, length: int) -> None: ...
    def length(self, sequence: int) -> int: ...
    def cache_pages(self) -> tuple[int, int, int]: ...
    def grow_cache(self, positions: int) -> None: ...

def machine_limits(num_threads: int) -> tuple[float, float, float | None]: ...
def weights_fingerprint(arrays: Sequence[NDArray[np.uint8]], num_threads: int) -> int: ...
