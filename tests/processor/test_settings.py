"""Settings on their way through the processor: who gets them, which are refused, and the one policy for media."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from faster_smolvlm import (
    AutoImageProcessor,
    AutoProcessor,
    Idefics3Processor,
    MediaPolicy,
    SmolVLMImageProcessor,
    SmolVLMImageProcessorPil,
    SmolVLMProcessor,
    SmolVLMVideoProcessor,
)
from faster_smolvlm.batch_feature import BatchFeature
from faster_smolvlm.media.video_metadata import VideoMetadata
from faster_smolvlm.pixels.settings import IGNORED, SETTINGS, Reader, call_names, names

from tests.helpers.setting_values import CLIP, CLIPS, NOISE, PICTURES

VALUES = {name: value for name, (value, _) in {**PICTURES, **CLIPS}.items()}
CONVERSATION = [{"role": "user", "content": [{"type": "text", "text": "What?"}]}]


class Recording:
    """A part of a processor that notes the settings of its calls."""

    model_input_names = ("pixel_values",)

    def __init__(self, **entries: Any) -> None:
        self.entries = entries
        self.got: dict[str, Any] = {}
        self.num_frames = self.fps = self.frame_sampling = None

    def __call__(self, media: Any, **kwargs: Any) -> BatchFeature:
        self.got = kwargs
        return BatchFeature({"pixel_values": np.zeros((1, 1, 3, 2, 2)), **self.entries})


@pytest.fixture(scope="module")
def recording() -> SmolVLMProcessor:
    metadata = VideoMetadata(4, fps=2.0, duration=2.0, frames_indices=[0])
    parts: Any = Recording(rows=[[0]], cols=[[0]]), Recording(video_metadata=[metadata])
    return SmolVLMProcessor(parts[0], SmolVLMProcessor.from_pretrained("demo").tokenizer, parts[1])


@pytest.fixture(scope="module")
def demo() -> SmolVLMProcessor:
    return SmolVLMProcessor.from_pretrained("demo")


@pytest.mark.parametrize("name", [name for name in SETTINGS if SETTINGS[name].in_calls])
@pytest.mark.parametrize("how", ["flat", "common"])
def test_each_reader_gets_it(name: str, how: str, recording: Any) -> None:
    value = VALUES[name]
    given = {name: value} if how == "flat" else {"common_kwargs": {name: value}}
    recording(images=NOISE, text="<image>", **given)
    recording(videos=CLIP, text="<video>", **given)
    for part, reader in ((recording.image_processor, Reader.PICTURES), (recording.video_processor, Reader.CLIPS)):
        own = name in ("return_row_col_info", "return_metadata")
        assert (name in part.got) is (name in call_names(reader))
        assert own or part.got.get(name) is (value if reader in SETTINGS[name].readers else None)


@pytest.mark.parametrize("name", SETTINGS)
def test_grouped_settings_go_to_one_reader(name: str, recording: Any) -> None:
    groups = (("images_kwargs", Reader.PICTURES, {"images": NOISE}), ("videos_kwargs", Reader.CLIPS, {"videos": CLIP}))
    for group, reader, media in groups:
        text = "<image>" if "images" in media else "<video>"
        call = {**media, "text": text, group: {name: VALUES[name]}}
        if name in call_names(reader):
            recording(**call)
            part = recording.image_processor if "images" in media else recording.video_processor
            assert name in part.got
        else:
            with pytest.raises(TypeError, match=f"{name}.*{group}"):
                recording(**call)


@pytest.mark.parametrize("name", sorted(SETTINGS.keys() - {"default_to_square"}))  # no processor keeps that one
def test_loading_sets_it_on_each_reader(name: str, demo: Any) -> None:
    value = VALUES[name]
    processor: Any = AutoProcessor.from_pretrained("demo", **{name: value})
    for part, reader in (("image_processor", Reader.PICTURES), ("video_processor", Reader.CLIPS)):
        held = getattr(getattr(processor, part), name, None)
        if reader not in SETTINGS[name].readers:
            assert held == getattr(getattr(demo, part), name, None)
        elif isinstance(value, int) and "size" in name and not isinstance(value, bool):
            assert held == {"height": value, "width": value}
        else:
            assert held == (tuple(value) if isinstance(value, list) else value)


ENTRANCES: dict[str, Any] = {
    "AutoProcessor.from_pretrained": lambda p, **kw: AutoProcessor.from_pretrained("demo", **kw),
    "AutoImageProcessor.from_pretrained": lambda p, **kw: AutoImageProcessor.from_pretrained("demo", **kw),
    "SmolVLMProcessor.from_pretrained": lambda p, **kw: SmolVLMProcessor.from_pretrained("demo", **kw),
    "SmolVLMImageProcessor.from_pretrained": lambda p, **kw: SmolVLMImageProcessor.from_pretrained("demo", **kw),
    "SmolVLMImageProcessorPil.from_pretrained": lambda p, **kw: SmolVLMImageProcessorPil.from_pretrained("demo", **kw),
    "SmolVLMVideoProcessor.from_pretrained": lambda p, **kw: SmolVLMVideoProcessor.from_pretrained("demo", **kw),
    "a processor": lambda p, **kw: p(text="a", **kw),
    "a call with pictures": lambda p, **kw: p(images=NOISE, text="<image>", **kw),
    "text_kwargs": lambda p, **kw: p(text="a", text_kwargs=kw),
    "images_kwargs": lambda p, **kw: p(text="a", images_kwargs=kw),
    "videos_kwargs": lambda p, **kw: p(text="a", videos_kwargs=kw),
    "audio_kwargs": lambda p, **kw: p(text="a", audio_kwargs=kw),
    "common_kwargs": lambda p, **kw: p(text="a", common_kwargs=kw),
    "an image processor": lambda p, **kw: p.image_processor(NOISE, **kw),
    "a plan": lambda p, **kw: p.image_processor.plan(30, 40, **kw),
    "a video processor": lambda p, **kw: p.video_processor(CLIP, **kw),
    "apply_chat_template": lambda p, **kw: p.apply_chat_template(CONVERSATION, **kw),
    "apply_chat_template, tokenize": lambda p, **kw: p.apply_chat_template(CONVERSATION, tokenize=True, **kw),
    "processor_kwargs": lambda p, **kw: p.apply_chat_template(CONVERSATION, processor_kwargs=kw),
    "the constructor": lambda p, **kw: SmolVLMProcessor(p.image_processor, p.tokenizer, **kw),
}


@pytest.mark.parametrize("entrance", ENTRANCES)
def test_what_nobody_reads_is_refused_by_name(entrance: str, demo: SmolVLMProcessor) -> None:
    for unknown in ("do_resise", "paddin", "nothing_like_it"):
        with pytest.raises(TypeError, match=unknown) as caught:
            ENTRANCES[entrance](demo, **{unknown: True})
        assert entrance == "the constructor" or "nearest known one is '" in str(caught.value)


@pytest.mark.parametrize(
    ("entrance", "unknown", "nearest"),
    [
        ("AutoProcessor.from_pretrained", "media_polcy", "media_policy"),
        ("AutoProcessor.from_pretrained", "padding_sid", "padding_side"),
        ("a processor", "do_image_spliting", "do_image_splitting"),
        ("a processor", "paddin", "padding"),
        ("images_kwargs", "max_tile", "max_tiles"),
        ("videos_kwargs", "num_frame", "num_frames"),
        ("apply_chat_template", "frame_samplings", "frame_sampling"),
        ("SmolVLMVideoProcessor.from_pretrained", "thread", "threads"),
    ],
)
def test_the_nearest_name_is_given(entrance: str, unknown: str, nearest: str, demo: SmolVLMProcessor) -> None:
    with pytest.raises(TypeError, match=f"'{unknown}'.*'{nearest}'"):
        ENTRANCES[entrance](demo, **{unknown: True})


def test_a_processor_without_clips_takes_no_settings_of_clips(demo: SmolVLMProcessor) -> None:
    alone = SmolVLMProcessor(demo.image_processor, demo.tokenizer)
    alone(text="a", do_resize=True)
    for given in ({"num_frames": 3}, {"videos_kwargs": {"num_frames": 3}}, {"common_kwargs": {"num_frames": 3}}):
        with pytest.raises(TypeError, match=r"num_frames|videos_kwargs"):
            alone(text="a", **given)
    with pytest.raises(TypeError, match="num_frames"):
        Idefics3Processor.from_pretrained("demo", num_frames=3)


def test_names_of_transformers_without_meaning_here_are_taken(demo: SmolVLMProcessor) -> None:
    given: dict[str, Any] = dict.fromkeys(IGNORED)
    for kind in (AutoProcessor, SmolVLMProcessor, AutoImageProcessor, SmolVLMImageProcessor, SmolVLMVideoProcessor):
        kind.from_pretrained("demo", **given)
    demo(text="a", audio_kwargs={"sampling_rate": 16000}, common_kwargs=None)
    names_of_template = {"enable_thinking": True}
    with pytest.raises(TypeError, match="enable_thinking"):
        demo.apply_chat_template(CONVERSATION, **names_of_template)
    template = "{{ 'x' if enable_thinking else 'y' }}"
    assert demo.apply_chat_template(CONVERSATION, chat_template=template, **names_of_template) == "x"


@pytest.mark.parametrize("kind", [SmolVLMImageProcessor, SmolVLMVideoProcessor])
def test_unused_arguments_are_returned_when_asked_for(kind: Any) -> None:
    processor, unused = kind.from_pretrained("demo", return_unused_kwargs=True, do_resise=1, do_resize=False)
    assert unused == {"do_resise": 1}
    assert processor.do_resize is False


# One policy for pictures and clips


@pytest.fixture
def picture(tmp_path: Path) -> str:
    path = tmp_path / "picture.png"
    PIL.Image.fromarray(NOISE).save(path)
    return str(path)


def refuses(processor: Any, picture: str, **call: Any) -> None:
    for media in ({"images": [picture], "text": "<image>"}, {"videos": [[[picture]]], "text": "<video>"}):
        with pytest.raises(ValueError, match="local"):
            processor(**media, **call)


def reads(processor: Any, picture: str, **call: Any) -> None:
    processor(images=[picture], text="<image>", **call)
    processor(videos=[[[picture]]], text="<video>", **call)


@pytest.mark.parametrize("kind", [AutoProcessor, SmolVLMProcessor])
def test_a_policy_given_to_from_pretrained(kind: Any, picture: str) -> None:
    processor = kind.from_pretrained("demo", media_policy=MediaPolicy.strict())
    refuses(processor, picture)
    assert processor.media_policy == processor.video_processor.media_policy == MediaPolicy.strict()
    reads(kind.from_pretrained("demo"), picture)


def test_a_policy_given_to_a_processor(demo: SmolVLMProcessor, picture: str) -> None:
    other = SmolVLMProcessor.from_pretrained("demo")
    parts: tuple[Any, ...] = other.image_processor, other.tokenizer, other.video_processor
    refuses(SmolVLMProcessor(*parts, media_policy=MediaPolicy.strict()), picture)
    other.media_policy = MediaPolicy()
    reads(other, picture)
    other.media_policy = MediaPolicy.strict()
    refuses(other, picture)
    with pytest.raises(Exception, match="MediaPolicy"):
        other.media_policy = "strict"  # type: ignore[assignment]


def test_a_policy_given_to_a_call(demo: SmolVLMProcessor, picture: str) -> None:
    refuses(demo, picture, media_policy=MediaPolicy.strict())
    refuses(demo, picture, common_kwargs={"media_policy": MediaPolicy.strict()})
    reads(demo, picture)
    content = [{"type": "image", "path": picture}, {"type": "text", "text": "What?"}]
    with pytest.raises(ValueError, match="local"):
        demo.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=True, media_policy=MediaPolicy.strict()
        )


@pytest.mark.parametrize("media", [{"images": NOISE, "text": "<image>"}, {"videos": CLIP, "text": "<video>"}])
def test_a_policy_limits_the_output(media: dict[str, Any], demo: SmolVLMProcessor) -> None:
    demo(**media)
    with pytest.raises(ValueError, match="max_output_bytes"):
        demo(**media, media_policy=MediaPolicy(max_output_bytes=1000))
    with pytest.raises(ValueError, match="max_output_bytes"):
        AutoProcessor.from_pretrained("demo", media_policy=MediaPolicy(max_output_bytes=1000))(**media)


def test_the_lists_are_made_from_the_table() -> None:
    from faster_smolvlm.integrations.transformers import pixels

    transformers = {name for name, setting in SETTINGS.items() if not setting.ours}
    assert transformers | set(names(Reader.PICTURES)) - {"media_policy"} <= pixels._KNOWN
    assert not pixels._KNOWN & {"media_policy", "frame_sampling", "fast", "threads"}
    assert "kwargs" in inspect.signature(SmolVLMImageProcessor).parameters
