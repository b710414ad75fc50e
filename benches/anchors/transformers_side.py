"""Transformers with its sdpa attention."""

from __future__ import annotations

import functools
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from transformers import AutoProcessor, SmolVLMForConditionalGeneration
from transformers.utils import logging

from .side import Float32, Run, Settings, clocked, normalized, prompt_ids


class Transformers:
    def __init__(self, settings: Settings, precision: str) -> None:
        self.settings = settings
        self.dtype: torch.dtype = getattr(torch, precision)
        torch.set_num_threads(settings.threads)
        torch.set_grad_enabled(False)
        logging.disable_progress_bar()
        logging.set_verbosity_error()
        warnings.filterwarnings("ignore", category=FutureWarning)  # the old name of `cache` serves every 5.x

    @functools.cached_property
    def model(self) -> Any:
        return SmolVLMForConditionalGeneration.from_pretrained(
            self.settings.checkpoint, dtype=self.dtype, attn_implementation="sdpa"
        ).eval()

    def ran(self) -> str:
        return f"{str(self.dtype).removeprefix('torch.')} throughout, torch {torch.backends.cpu.get_cpu_capability()}"

    def vision(self, frame: npt.NDArray[np.uint8]) -> Run:
        pixels = torch.from_numpy(normalized(frame)).to(self.dtype)
        return clocked(lambda: self.model.model.get_image_features(pixels))

    def features(self, frame: npt.NDArray[np.uint8]) -> Float32:
        pixels = torch.from_numpy(normalized(frame)).to(self.dtype)
        found: Float32 = torch.cat(list(self.model.model.get_image_features(pixels).pooler_output)).float().numpy()
        return found

    def prefill(self, count: int) -> Run:
        ids = torch.from_numpy(prompt_ids(count))[None]
        return clocked(lambda: self.model(input_ids=ids, logits_to_keep=1, use_cache=True))

    def logits(self, count: int) -> Float32:
        ids = torch.from_numpy(prompt_ids(count))[None]
        found: Float32 = self.model(input_ids=ids, logits_to_keep=1).logits[0, -1].float().numpy()
        return found

    def decode(self, context: int, batch: int) -> Run:
        ids = torch.from_numpy(prompt_ids(context))[None].repeat(batch, 1)
        cache = self.model(input_ids=ids, logits_to_keep=1, use_cache=True).past_key_values

        def steps() -> None:
            token = torch.from_numpy(prompt_ids(batch))[:, None]
            for _ in range(self.settings.new_tokens):
                token = self.model(input_ids=token, past_key_values=cache).logits[:, -1:].argmax(-1)

        def run() -> float:
            if (extra := cache.get_seq_length() - context) > 0:
                cache.crop(-extra)
            return clocked(steps)()

        return run

    @functools.cached_property
    def processor(self) -> Any:
        return AutoProcessor.from_pretrained(self.settings.checkpoint)

    def photo(self) -> Run:
        return clocked(self.photo_logits)

    def photo_logits(self) -> tuple[Float32, int]:
        content = [{"type": "image"}, {"type": "text", "text": self.settings.question}]
        text = self.processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        with Image.open(self.settings.photograph) as picture:
            inputs = self.processor(text=text, images=[picture.convert("RGB")], return_tensors="pt").to(self.dtype)
        logits = self.model(**inputs, logits_to_keep=1, use_cache=True).logits[0, -1].float().numpy()
        return logits, inputs["input_ids"].shape[1]
