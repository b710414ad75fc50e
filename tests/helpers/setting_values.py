"""A value for each setting that its readers notice."""

from __future__ import annotations

from typing import Any

import numpy as np
from faster_smolvlm import FrameSampling, MediaPolicy

SMALL = {"size": {"longest_edge": 64}, "max_image_size": {"longest_edge": 32}, "return_tensors": "np"}
NOISE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
FADED = np.dstack((NOISE, np.linspace(0, 255, NOISE[..., 0].size, dtype=np.uint8).reshape(NOISE.shape[:2])))
THREE_WIDE = np.random.default_rng(1).integers(0, 256, (3, 40, 3), np.uint8)
CLIP = np.stack([NOISE, NOISE[::-1], NOISE[:, ::-1], 255 - NOISE])
METADATA = {"total_num_frames": 4, "fps": 2.0, "duration": 2.0}
SAMPLED = {"do_sample_frames": True, "num_frames": 4, "fps": 2, "video_metadata": METADATA}

# A value that a reader of the setting notices, and what else the call needs for that.
Case = tuple[Any, dict[str, Any]]
BOTH: dict[str, Case] = {
    "do_resize": (False, {}),
    "size": ({"longest_edge": 16}, {}),
    "default_to_square": (False, {"size": 40}),
    "resample": (0, {}),
    "do_rescale": (False, {}),
    "rescale_factor": (0.5, {}),
    "do_normalize": (False, {}),
    "image_mean": (0.25, {}),
    "image_std": ([0.25, 0.5, 0.75], {}),
    "do_pad": (False, {}),
    "data_format": ("channels_last", {}),
    "device": ("meta", {"return_tensors": "pt"}),
    "return_tensors": ("pt", {}),
    "do_center_crop": (True, {"crop_size": 8}),
    "crop_size": (8, {}),
    "media_policy": (MediaPolicy(max_output_bytes=100), {}),
}
PICTURES: dict[str, Case] = {
    **BOTH,
    "do_convert_rgb": (False, {"images": FADED, "image_mean": 0.5, "image_std": 0.5}),
    "input_data_format": ("channels_last", {"images": THREE_WIDE}),
    "max_image_size": ({"longest_edge": 16}, {}),
    "do_image_splitting": (False, {}),
    "max_tiles": (1, {}),
    "upscale": (False, {}),
    "output_dtype": ("uint8", {}),
    "return_row_col_info": (True, {}),
    "pad_size": (16, {}),
    "disable_grouping": (True, {}),
    "image_seq_length": (3, {}),
}
CLIPS: dict[str, Case] = {
    **BOTH,
    "do_convert_rgb": (False, {"videos": CLIP[..., :1], "image_mean": 0.5, "image_std": 0.5}),
    "input_data_format": ("channels_last", {"videos": np.stack([THREE_WIDE] * 2)}),
    "max_image_size": ({"longest_edge": 16}, {}),
    "do_sample_frames": (True, {**SAMPLED, "do_sample_frames": False, "num_frames": 2}),
    "num_frames": (2, SAMPLED),
    "fps": (1, SAMPLED),
    "frame_sampling": (FrameSampling.at([3]), SAMPLED),
    "video_metadata": ({**METADATA, "fps": 1.0}, {"return_metadata": True}),
    "return_metadata": (True, {}),
    "fast": (True, {"videos": "clip"}),
    "threads": (2, {}),
}
