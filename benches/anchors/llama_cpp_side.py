"""llama.cpp through the bindings of llama-cpp-python, its multimodal library included."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import llama_cpp
import numpy as np
import numpy.typing as npt
from faster_smolvlm.processor.processing_smolvlm import SmolVLMProcessor
from llama_cpp import mtmd_cpp as mtmd

from . import checkpoint
from .side import Float32, Run, Settings, clocked, prompt_ids

CONTEXT = 2048
LONGEST_EDGE = 2048
"""A picture of this size is cut without being resized."""


class LlamaCpp:
    def __init__(self, settings: Settings, precision: str) -> None:
        self.settings = settings
        self.precision = precision
        silent = llama_cpp.llama_log_callback(lambda *_: None)
        self._keep: list[Any] = [silent]
        llama_cpp.llama_log_set(silent, ctypes.c_void_p(0))
        mtmd.mtmd_helper_log_set(silent, ctypes.c_void_p(0))

    def _file(self, precision: str, *, vision: bool) -> bytes:
        made = self.settings
        path = checkpoint.gguf(made.checkpoint, made.cache, made.llama_source, precision, vision=vision)
        return str(path).encode()

    @functools.cached_property
    def model(self) -> Any:
        path = self._file(self.precision, vision=False)
        return _made(llama_cpp.llama_model_load_from_file(path, llama_cpp.llama_model_default_params()), path)

    @functools.cached_property
    def context(self) -> Any:
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx = CONTEXT
        parameters.n_batch = CONTEXT
        parameters.n_threads = parameters.n_threads_batch = self.settings.threads
        return _made(llama_cpp.llama_init_from_model(self.model, parameters), "a context")

    @functools.cached_property
    def tower(self) -> Any:
        parameters = mtmd.mtmd_context_params_default()
        parameters.use_gpu = False
        parameters.print_timings = False
        parameters.n_threads = self.settings.threads
        path = self._file(self.precision, vision=True)
        return _made(mtmd.mtmd_init_from_file(path, self.model, parameters), path)

    @functools.cached_property
    def vocabulary(self) -> int:
        return llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))

    def ran(self) -> str:
        has = [part for part in llama_cpp.llama_print_system_info().decode().split("|") if "= 1" in part]
        return f"{self.precision} weights, {' '.join(part.split('=')[0].split(':')[-1].strip() for part in has)}"

    def vision(self, frame: npt.NDArray[np.uint8]) -> Run:
        chunk = self._tile(frame)
        return clocked(lambda: self._encode(chunk))

    def features(self, frame: npt.NDArray[np.uint8]) -> Float32:
        chunk = self._tile(frame)
        self._encode(chunk)
        rows, columns = mtmd.mtmd_input_chunk_get_n_tokens(chunk), llama_cpp.llama_model_n_embd(self.model)
        found: Float32 = np.ctypeslib.as_array(mtmd.mtmd_get_output_embd(self.tower), (rows * columns,)).copy()
        return found.reshape(rows, columns)

    def prefill(self, count: int) -> Run:
        return clocked(lambda: self._fill(prompt_ids(count)))

    def logits(self, count: int) -> Float32:
        self._fill(prompt_ids(count))
        return self._last_logits().copy()

    def decode(self, context: int, batch: int) -> Run:
        if batch != 1:
            raise NotImplementedError("Batches are not measured here.")
        self._fill(prompt_ids(context))
        memory = llama_cpp.llama_get_memory(self.context)

        def steps() -> None:
            token = prompt_ids(1)
            for _ in range(self.settings.new_tokens):
                self._decode(token)
                token = self._last_logits().argmax(keepdims=True)

        def run() -> float:
            llama_cpp.llama_memory_seq_rm(memory, 0, context, -1)
            return clocked(steps)()

        return run

    def photo(self) -> Run:
        return clocked(lambda: int(self._read_photo().argmax()))

    def photo_logits(self) -> tuple[Float32, int]:
        logits = self._read_photo().copy()
        last = llama_cpp.llama_memory_seq_pos_max(llama_cpp.llama_get_memory(self.context), 0)
        return logits, last + 1

    @functools.cached_property
    def prompt(self) -> str:
        """The chat with the marker of llama.cpp where the picture goes."""
        processor = SmolVLMProcessor.from_pretrained(self.settings.checkpoint)
        content = [{"type": "image"}, {"type": "text", "text": self.settings.question}]
        text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        return str(text).replace(processor.image_token, mtmd.mtmd_default_marker().decode())

    def _read_photo(self) -> Float32:
        picture = mtmd.mtmd_helper_bitmap_init_from_file(self.tower, str(self.settings.photograph).encode(), False)
        self._clear()
        past = llama_cpp.llama_pos(0)
        with self._chunks(self.prompt, _made(picture, self.settings.photograph)) as chunks:
            failed = mtmd.mtmd_helper_eval_chunks(
                self.tower, self.context, chunks, 0, 0, CONTEXT, True, ctypes.byref(past)
            )
        if failed:
            raise RuntimeError(f"mtmd_helper_eval_chunks returned {failed}.")
        return self._last_logits()

    def _tile(self, frame: npt.NDArray[np.uint8]) -> Any:
        """Return the chunk of one tile: the first of a picture that has `frame` in its corner."""
        picture = np.zeros((LONGEST_EDGE, LONGEST_EDGE, 3), np.uint8)
        picture[: frame.shape[0], : frame.shape[1]] = frame
        data = picture.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        bitmap = _made(mtmd.mtmd_bitmap_init(LONGEST_EDGE, LONGEST_EDGE, data), "a picture")
        with self._chunks(mtmd.mtmd_default_marker().decode(), bitmap) as chunks:
            for index in range(mtmd.mtmd_input_chunks_size(chunks)):
                chunk = mtmd.mtmd_input_chunks_get(chunks, index)
                if mtmd.mtmd_input_chunk_get_type(chunk) == mtmd.MTMD_INPUT_CHUNK_TYPE_IMAGE:
                    return _made(mtmd.mtmd_input_chunk_copy(chunk), "a copy")
        raise RuntimeError("llama.cpp made no tile of a picture.")

    @contextmanager
    def _chunks(self, text: str, bitmap: Any) -> Iterator[Any]:
        """Cut text with one picture into chunks; frees the picture and, on leaving, the chunks."""
        raw = text.encode()
        given = mtmd.mtmd_input_text(text=raw, text_len=len(raw), add_special=False, parse_special=True)
        chunks = mtmd.mtmd_input_chunks_init()
        try:
            bitmaps = (mtmd.mtmd_bitmap_p_ctypes * 1)(bitmap)
            failed = mtmd.mtmd_tokenize(self.tower, chunks, ctypes.byref(given), bitmaps, 1)
            mtmd.mtmd_bitmap_free(bitmap)
            if failed:
                raise RuntimeError(f"mtmd_tokenize returned {failed}.")
            yield chunks
        finally:
            mtmd.mtmd_input_chunks_free(chunks)

    def _encode(self, chunk: Any) -> None:
        if mtmd.mtmd_encode_chunk(self.tower, chunk):
            raise RuntimeError("mtmd_encode_chunk failed.")

    def _clear(self) -> None:
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), False)

    def _fill(self, ids: npt.NDArray[np.int64]) -> None:
        self._clear()
        self._decode(ids)

    def _decode(self, ids: npt.NDArray[np.int64]) -> None:
        tokens = np.ascontiguousarray(ids, dtype=np.int32)
        pointer = tokens.ctypes.data_as(ctypes.POINTER(llama_cpp.llama_token))
        if llama_cpp.llama_decode(self.context, llama_cpp.llama_batch_get_one(pointer, len(tokens))):
            raise RuntimeError("llama_decode failed.")

    def _last_logits(self) -> Float32:
        return np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(self.context, -1), (self.vocabulary,))


def _made(result: Any, what: Any) -> Any:
    if not result:
        raise RuntimeError(f"llama.cpp could not make or read {what!s}.")
    return result
