"""A keyword argument that nobody reads is a TypeError that names it, and the nearest known one, at every entrance."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import faster_smolvlm as fs
import numpy as np
import pytest
from faster_smolvlm.checkpoint.hub import checkpoint
from faster_smolvlm.integrations.transformers import accelerate, enable
from faster_smolvlm.native import NativeSmolVLM, start_generation
from faster_smolvlm.unknown_names import UnknownSettingError, check_names, nearest_name, parameters_of

MESSAGES = [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]
CLIP = np.zeros((2, 8, 8, 3), np.uint8)
PICTURE = CLIP[0]


class Loaded(NamedTuple):
    """What the entrances belong to."""

    vlm: fs.SmolVLM
    model: fs.SmolVLMForConditionalGeneration
    processor: fs.SmolVLMProcessor


@pytest.fixture(scope="module")
def demo() -> Loaded:
    vlm = fs.SmolVLM.from_pretrained("demo", device="cpu")
    return Loaded(vlm, fs.SmolVLMForConditionalGeneration.from_pretrained("demo"), vlm.processor)


Call = Callable[..., object]
# (a misspelt name, the known one) for entrances that take any name.
OPEN: Mapping[str, tuple[str, str, Call]] = {
    "SmolVLM.from_pretrained": (
        "quantisation", "quantization", lambda d, **kw: fs.SmolVLM.from_pretrained("demo", **kw)),
    "SmolVLM.from_pretrained, hub": ("revison", "revision", lambda d, **kw: fs.SmolVLM.from_pretrained("demo", **kw)),
    "SmolVLM.generate": ("max_new_token", "max_new_tokens", lambda d, **kw: d.vlm.generate("hi", **kw)),
    "SmolVLM.generate, pictures": ("image", "images", lambda d, **kw: d.vlm.generate("hi", **kw)),
    "SmolVLM.chat": ("do_image_spliting", "do_image_splitting", lambda d, **kw: d.vlm.chat(MESSAGES, **kw)),
    "SmolVLM.stream": ("temprature", "temperature", lambda d, **kw: d.vlm.stream("hi", **kw)),
    "SmolVLM.watch": ("windw", "window", lambda d, **kw: d.vlm.watch([], prompt="?", **kw)),
    "a torch model's from_pretrained": (
        "dtyp", "dtype", lambda d, **kw: fs.SmolVLMForConditionalGeneration.from_pretrained("demo", **kw)),
    "AutoModelForImageTextToText": (
        "device_mp", "device_map", lambda d, **kw: fs.AutoModelForImageTextToText.from_pretrained("demo", **kw)),
    "a torch model's generate": ("temprature", "temperature", lambda d, **kw: d.model.generate(**kw)),
    "a torch model's generate, inputs": ("pixel_vlaues", "pixel_values", lambda d, **kw: d.model.generate(**kw)),
    "NativeSmolVLM.from_pretrained": (
        "num_thread", "num_threads", lambda d, **kw: NativeSmolVLM.from_pretrained("demo", **kw)),
    "NativeSmolVLM.from_pretrained, hub": (
        "cache_dirs", "cache_dir", lambda d, **kw: NativeSmolVLM.from_pretrained("demo", **kw)),
    "NativeSmolVLM.from_checkpoint": (
        "cache_position", "cache_positions", lambda d, **kw: NativeSmolVLM.from_checkpoint(checkpoint("demo"), **kw)),
    "start_generation": ("featurs", "features", lambda d, **kw: start_generation(d.vlm.model, [[1]], **kw)),
    "GenerationConfig.from_pretrained": (
        "revison", "revision", lambda d, **kw: fs.GenerationConfig.from_pretrained("demo", **kw)),
    "a config's from_pretrained": (
        "revison", "revision", lambda d, **kw: fs.SmolVLMConfig.from_pretrained("demo", **kw)),
    "a config's from_pretrained, fields": (
        "scale_facto", "scale_factor", lambda d, **kw: fs.SmolVLMConfig.from_pretrained("demo", **kw)),
    "load_video": ("num_frame", "num_frames", lambda d, **kw: fs.load_video(CLIP, **kw)),
    "a tokenizer's from_pretrained": (
        "paddding_side", "padding_side", lambda d, **kw: type(d.processor.tokenizer).from_pretrained("demo", **kw)),
    "AutoProcessor": ("media_polcy", "media_policy", lambda d, **kw: fs.AutoProcessor.from_pretrained("demo", **kw)),
    "AutoProcessor, hub": ("revison", "revision", lambda d, **kw: fs.AutoProcessor.from_pretrained("demo", **kw)),
    "AutoImageProcessor": (
        "do_resiz", "do_resize", lambda d, **kw: fs.AutoImageProcessor.from_pretrained("demo", **kw)),
    "a processor": ("paddin", "padding", lambda d, **kw: d.processor(text="hi", **kw)),
    "a processor's constructor": (
        "image_seq_length", "image_seq_len",
        lambda d, **kw: fs.SmolVLMProcessor(d.processor.image_processor, d.processor.tokenizer, **kw)),
    "apply_chat_template": (
        "add_generation_promp", "add_generation_prompt",
        lambda d, **kw: d.processor.apply_chat_template(MESSAGES, **kw)),
    "an image processor": ("do_resiz", "do_resize", lambda d, **kw: d.processor.image_processor(PICTURE, **kw)),
    "plan": ("max_tile", "max_tiles", lambda d, **kw: d.processor.image_processor.plan(8, 8, **kw)),
    "get_number_of_image_patches": (
        "do_image_spliting", "do_image_splitting",
        lambda d, **kw: d.processor.image_processor.get_number_of_image_patches(8, 8, kw)),
    "a video processor": ("num_frame", "num_frames", lambda d, **kw: d.processor.video_processor(CLIP, **kw)),
    "an image processor's constructor": ("do_resiz", "do_resize", lambda d, **kw: fs.SmolVLMImageProcessor(**kw)),
    "a video processor's constructor": ("num_frame", "num_frames", lambda d, **kw: fs.SmolVLMVideoProcessor(**kw)),
}  # fmt: skip
# Entrances whose names stand in their signature: the error is Python's.
CLOSED: Mapping[str, tuple[str, Call]] = {
    "SmolVLM": ("polcy", lambda d, **kw: fs.SmolVLM(d.vlm.model, d.processor, **kw)),
    "forward": ("pixel_vlaues", lambda d, **kw: d.model(**kw)),
    "logits": ("pixel_vlaues", lambda d, **kw: d.vlm.model.logits([1], **kw)),
    "GenerationConfig": ("temprature", lambda d, **kw: fs.GenerationConfig(**kw)),
    "accelerate": ("foo", lambda d, **kw: accelerate(object(), **kw)),
    "enable": ("foo", lambda d, **kw: enable(**kw)),
    "load_image": ("polcy", lambda d, **kw: fs.load_image(PICTURE, **kw)),
    "FrameSampling": ("max_frame", lambda d, **kw: fs.FrameSampling(**kw)),
    "MediaPolicy": ("max_pixel", lambda d, **kw: fs.MediaPolicy(**kw)),
    "MediaPolicy.strict": ("max_pixel", lambda d, **kw: fs.MediaPolicy.strict(**kw)),
    "a tokenizer": ("paddding", lambda d, **kw: d.processor.tokenizer("hi", **kw)),
    "encode": ("paddding", lambda d, **kw: d.processor.tokenizer.encode("hi", **kw)),
    "decode": ("skip_special_token", lambda d, **kw: d.processor.decode([1], **kw)),
    "save_pretrained": ("max_shard_sise", lambda d, **kw: d.model.save_pretrained("nowhere", **kw)),
}


@pytest.mark.parametrize("entrance", OPEN)
def test_the_nearest_known_name_is_given(entrance: str, demo: Loaded) -> None:
    name, nearest, call = OPEN[entrance]
    with pytest.raises(TypeError, match=rf"{name}\b.* nearest known one is '{nearest}'"):
        call(demo, **{name: 1})


@pytest.mark.parametrize("entrance", CLOSED)
def test_the_name_is_given(entrance: str, demo: Loaded) -> None:
    name, call = CLOSED[entrance]
    with pytest.raises(TypeError, match=f"'{name}'"):
        call(demo, **{name: 1})


def test_an_unknown_setting_of_generate_is_a_value_error_too(demo: Loaded) -> None:
    """As with `generate` of Transformers."""
    with pytest.raises(ValueError, match="temprature"):
        demo.model.generate(temprature=1.0)
    assert issubclass(UnknownSettingError, TypeError)


def test_names_of_transformers_are_taken(demo: Loaded) -> None:
    frames, _ = fs.load_video(CLIP, backend="pyav")
    assert len(frames) == 2
    seen: dict[str, Any] = {}

    def sampler(metadata: object, **kwargs: object) -> list[int]:
        seen.update(kwargs)
        return [1]

    assert len(fs.load_video(CLIP, sample_indices_fn=sampler, anything=3)[0]) == 1
    assert seen == {"anything": 3}
    tokenizer = type(demo.processor.tokenizer).from_pretrained("demo", boi_token="<image>", use_fast=True)
    assert tokenizer.boi_token == "<image>"
    assert fs.SmolVLMConfig.from_pretrained("demo", quite_else=1).quite_else == 1


def test_parts() -> None:
    check_names(["a"], {"a"})
    with pytest.raises(TypeError, match="'ab' in there: nothing here reads it; the nearest known one is 'abc'"):
        check_names(["ab"], {"xyz"}, " in there", also_named=["abc"])
    assert nearest_name("a", ()) == ""

    def function(self: object, one: int, *args: int, two: int = 2, **kwargs: int) -> None: ...

    assert parameters_of(function) == ("one", "two")
