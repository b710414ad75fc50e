"""From pixels to image tokens in the native engine: which frames are real, their hash, their encoding."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..checkpoint.configuration_smolvlm import SmolVLMConfig
from .reuse import FeatureCache
from .serial import SerialModel

Float32 = npt.NDArray[np.float32]
UInt8 = npt.NDArray[np.uint8]
Bool = npt.NDArray[np.bool_]


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


class FrameEncoder:
    """Makes frames of pixels and image tokens of frames; `features` keeps image tokens between calls."""

    rust: SerialModel
    config: SmolVLMConfig
    features: FeatureCache

    def image_tokens(self, height: int, width: int) -> int:
        """Return the number of image tokens of a frame of this size in pixels."""
        return (height // self._patch) * (width // self._patch) // self.config.scale_factor**2

    def frames(self, pixel_values: npt.ArrayLike, pixel_attention_mask: npt.ArrayLike | None = None) -> list[Frame]:
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
        # Black is 0 in uint8: only the mask tells it from padding.
        shown = masks if pixels.dtype == np.uint8 and pixel_attention_mask is not None else pixels
        real = [index for index in range(len(pixels)) if shown[index].any()] or [0]
        tokens = self.image_tokens(height, width)
        return [Frame(_digest(pixels[index], masks[index]), tokens, pixels[index], masks[index]) for index in real]

    def encoded(self, features: npt.ArrayLike) -> Frame:
        """Return image tokens that were encoded before, [tokens, hidden_size], as one frame."""
        values = np.ascontiguousarray(features, dtype=np.float32)
        hidden = self.config.text_config.hidden_size
        if values.ndim != 2 or values.shape[1] != hidden:
            raise ValueError(f"Encoded pictures have to be of shape (tokens, {hidden}), got {values.shape}.")
        return Frame(_digest(values), len(values), features=values)

    def encode(
        self,
        frames: Sequence[Frame],
        *,
        reuse: bool = True,
        salt: bytes = b"",
        done: Callable[[], None] | None = None,
    ) -> tuple[Float32, list[bool]]:
        """Return the image tokens of the frames, [frames * tokens, hidden_size], and which frames were known.

        `reuse` looks them up among those of the same `salt`, and keeps new ones. `done` is called after each frame.
        """
        encoded: list[Float32] = []
        known: list[bool] = []
        for frame in frames:
            features = frame.features
            if features is None and reuse:
                features = self.features.get(frame.digest + salt)
            known.append(features is not None)
            if features is None:
                assert frame.pixels is not None
                assert frame.patch_mask is not None
                features = self.rust.encode(_normalized(frame.pixels), frame.patch_mask)
                if reuse:
                    self.features.put(frame.digest + salt, features)
            encoded.append(features)
            if done is not None:
                done()
        return np.concatenate(encoded) if encoded else self.no_features(), known

    def no_features(self) -> Float32:
        """Return no image tokens."""
        return np.zeros((0, self.config.text_config.hidden_size), np.float32)

    @property
    def _patch(self) -> int:
        patch = self.config.vision_config.patch_size
        assert isinstance(patch, int)
        return patch

    def _patch_masks(self, mask: npt.ArrayLike | None, shape: tuple[int, int, int, int]) -> Bool:
        """Return which patches belong to the picture, [frames, patch rows, patch columns]."""
        rows, count, height, width = shape
        patch = self._patch
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
