"""OpenVINO: the text stack through openvino-genai, the vision tower converted here."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino
import openvino_genai

from . import checkpoint
from .side import Float32, Run, Settings, clocked, normalized, prompt_ids

WEIGHTS = {"bfloat16 hint": "fp32", "float32": "fp32", "int8 weights": "int8"}
HINTS = {"bfloat16 hint": "bf16", "float32": "f32", "int8 weights": "bf16"}


class OpenVino:
    def __init__(self, settings: Settings, precision: str) -> None:
        self.settings = settings
        self.weights = WEIGHTS[precision]
        self.options = {
            "INFERENCE_PRECISION_HINT": HINTS[precision],
            "INFERENCE_NUM_THREADS": settings.threads,
            "PERFORMANCE_HINT": "LATENCY",
        }
        self.core = openvino.Core()

    @functools.cached_property
    def tower(self) -> Any:
        path = checkpoint.openvino_vision(self.settings.checkpoint, self.settings.cache)
        return self.core.compile_model(path, "CPU", self.options)

    @functools.cached_property
    def text(self) -> str:
        made = checkpoint.openvino_text(
            self.settings.checkpoint, self.settings.cache, self.settings.export_python, self.weights
        )
        return str(made)

    @functools.cached_property
    def pipeline(self) -> Any:
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.enable_prefix_caching = False  # every round reads its prompt
        scheduler.max_num_batched_tokens = 4096
        scheduler.cache_size = 1
        return openvino_genai.LLMPipeline(self.text, "CPU", scheduler_config=scheduler, **self.options)

    def ran(self) -> str:
        """Compile the smallest thing there is and ask what the hint became."""
        from openvino import opset13

        node = opset13.parameter([1, 1], np.float32)
        product = opset13.matmul(node, node, False, False)
        compiled = self.core.compile_model(openvino.Model([product], [node]), "CPU", self.options)
        really = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
        return f"{self.weights} weights, computes in {really} (hint {self.options['INFERENCE_PRECISION_HINT']})"

    def vision(self, frame: npt.NDArray[np.uint8]) -> Run:
        pixels = normalized(frame)[0]
        request = self.tower.create_infer_request()
        return clocked(lambda: request.infer([pixels]))

    def features(self, frame: npt.NDArray[np.uint8]) -> Float32:
        found: Float32 = next(iter(self.tower(normalized(frame)[0]).values()))
        return found.reshape(-1, found.shape[-1])

    def prefill(self, count: int) -> Run:
        return lambda: self._generate(count, 1)[0]

    def decode(self, context: int, batch: int) -> Run:
        if batch != 1:
            raise NotImplementedError("Batches are not measured here.")
        return lambda: sum(self._generate(context, self.settings.new_tokens + 1)[1:])

    def _generate(self, count: int, new_tokens: int) -> list[float]:
        """Return the seconds to each token, as the pipeline counts them."""
        ids = openvino.Tensor(prompt_ids(count)[None])
        inputs = openvino_genai.TokenizedInputs(ids, openvino.Tensor(np.ones((1, count), np.int64)))
        config = openvino_genai.GenerationConfig(max_new_tokens=new_tokens, ignore_eos=True, do_sample=False)
        metrics = self.pipeline.generate(inputs, config).perf_metrics.raw_metrics
        if len(metrics.m_durations) != new_tokens - 1:
            raise RuntimeError(f"openvino-genai made {len(metrics.m_durations) + 1} tokens, not {new_tokens}.")
        return [float(each) * 1e-6 for each in (*metrics.m_times_to_first_token, *metrics.m_durations)]

    def logits(self, count: int) -> Float32:
        """Run the exported model itself, since the pipeline shows no logits."""
        model = self.core.compile_model(f"{self.text}/openvino_model.xml", "CPU", self.options)
        inputs = {
            "input_ids": prompt_ids(count)[None],
            "attention_mask": np.ones((1, count), np.int64),
            "position_ids": np.arange(count)[None],
            "beam_idx": np.zeros(1, np.int32),
        }
        names = {name for port in model.inputs for name in port.names}
        found: Float32 = model({name: value for name, value in inputs.items() if name in names})["logits"][0, -1]
        return found

    def photo(self) -> Run:
        raise NotImplementedError("openvino-genai has no pipeline for this family.")

    def photo_logits(self) -> tuple[Float32, int]:
        raise NotImplementedError("openvino-genai has no pipeline for this family.")
