"""`SmolVLM` with the bundled checkpoint: the same answers as processor and model by hand, streams, errors."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from faster_smolvlm import MediaPolicy, SmolVLM
from faster_smolvlm.media import MediaError
from faster_smolvlm.media.video_metadata import VideoMetadata
from faster_smolvlm.modeling.kv_cache import KVCache
from PIL import Image, ImageDraw

from tests.helpers.video_clips import every_frame, write_clip


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def vlm() -> SmolVLM:
    """On torch: these tests compare with the steps made by hand with its model."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTER_SMOLVLM_ENGINE", "torch")
        return SmolVLM.from_pretrained("demo", device="cpu")


def picture(colour: str, size: tuple[int, int] = (128, 128)) -> Image.Image:
    image = Image.new("RGB", size, "lightgrey")
    ImageDraw.Draw(image).ellipse((30, 30, 90, 90), fill=colour)
    return image


def by_hand(vlm: SmolVLM, prompt: str, images: list[Any], **settings: Any) -> list[int]:
    content = [{"type": "image", "image": image} for image in images] + [{"type": "text", "text": prompt}]
    inputs = vlm.processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    ids = vlm.model.generate(**inputs, **settings)
    return ids[0, inputs["input_ids"].shape[1] :].tolist()


def test_an_answer_is_what_processor_and_model_give(vlm: SmolVLM) -> None:
    image = picture("red")
    for prompt, images in (("Describe the image.", [image]), ("How many?", [image, picture("blue")]), ("Hello", [])):
        result = vlm.generate(prompt, images=images, max_new_tokens=16)
        assert result.token_ids == by_hand(vlm, prompt, images, max_new_tokens=16)
        assert result.text == vlm.processor.decode(result.token_ids, skip_special_tokens=True).lstrip()
        assert result.usage.completion_tokens == len(result.token_ids)
    assert isinstance(result.text, str)


def test_a_batch_says_what_each_prompt_says_alone(vlm: SmolVLM) -> None:
    prompts = ["Describe the image.", "What colour is the circle?", "Hi"]
    images: list[list[Any]] = [[picture("red")], [picture("blue", (300, 120))], []]
    together = vlm.generate(prompts, images=images, max_new_tokens=16)
    for prompt, shown, result in zip(prompts, images, together, strict=True):
        alone = vlm.generate(prompt, images=shown, max_new_tokens=16)
        assert (result.text, result.token_ids, result.finish_reason) == (
            alone.text,
            alone.token_ids,
            alone.finish_reason,
        )
        assert result.usage == alone.usage
    assert len(vlm.generate(["Hi", "Hello"], max_new_tokens=1)) == 2


def test_usage_timings_and_finish_reason(vlm: SmolVLM) -> None:
    eos = vlm.model.generation_config.eos_ids
    result = vlm.generate("Describe the image.", images=[picture("red")], max_new_tokens=64)
    assert result.finish_reason == "stop"
    assert result.token_ids[-1] in eos
    timings = result.timings
    assert min(timings.load, timings.image_decode + timings.preprocessing, timings.vision, timings.prefill) > 0
    assert timings.tokens == len(result.token_ids)
    assert timings.per_token == pytest.approx(timings.decode / (timings.tokens - 1))
    whole = vlm.generate("Describe the image.", images=[picture("red")], max_new_tokens=2, do_image_splitting=False)
    assert (whole.finish_reason, len(whole.token_ids)) == ("length", 2)
    assert whole.usage.prompt_tokens < result.usage.prompt_tokens
    kept = vlm.generate("Describe the image.", images=[picture("red")], max_new_tokens=64, skip_special_tokens=False)
    assert kept.text.endswith("<end_of_utterance>")
    assert not result.text.endswith("<end_of_utterance>")


def test_pictures_come_in_every_form(vlm: SmolVLM, tmp_path: Path) -> None:
    image = picture("green")
    path = tmp_path / "green.png"
    image.save(path)
    expected = vlm.generate("Describe the image.", images=[image], max_new_tokens=12).token_ids
    forms: list[Any] = [path, str(path), path.read_bytes(), np.asarray(image)]
    for form in forms:
        assert vlm.generate("Describe the image.", images=[form], max_new_tokens=12).token_ids == expected
        assert vlm.generate("Describe the image.", images=form, max_new_tokens=12).token_ids == expected


def test_chat(vlm: SmolVLM, tmp_path: Path) -> None:
    path = tmp_path / "red.png"
    picture("red").save(path)
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": [{"type": "image", "path": str(path)}, {"type": "text", "text": "Describe it."}]}
    ]
    first = vlm.chat(messages, max_new_tokens=12)
    assert first.token_ids == vlm.generate("Describe it.", images=[path], max_new_tokens=12).token_ids
    messages += [{"role": "assistant", "content": first.text}, {"role": "user", "content": "How many?"}]
    before = [dict(message) for message in messages]
    second = vlm.chat(messages, max_new_tokens=12)
    assert messages == before, "the messages of the caller stay as they are"
    assert second.usage.prompt_tokens > first.usage.prompt_tokens
    listed = [{**m, "content": [{"type": "text", "text": m["content"]}]} for m in messages[1:]]
    assert vlm.chat([messages[0], *listed], max_new_tokens=12).token_ids == second.token_ids
    with pytest.raises(TypeError, match="one conversation"):
        vlm.chat([messages], max_new_tokens=2)  # type: ignore[list-item]


def test_a_stream_gives_the_answer_in_pieces(vlm: SmolVLM) -> None:
    expected = vlm.generate("Describe the image.", images=[picture("red")], max_new_tokens=32)
    stream = vlm.stream("Describe the image.", images=[picture("red")], max_new_tokens=32)
    pieces = list(stream)
    assert "".join(pieces) == expected.text
    assert len(pieces) > 3
    assert stream.result.token_ids == expected.token_ids
    assert stream.result.finish_reason == expected.finish_reason
    messages = [{"role": "user", "content": "Hello"}]
    assert "".join(vlm.stream(messages, max_new_tokens=8)) == vlm.chat(messages, max_new_tokens=8).text


def test_closing_a_stream_frees_the_cache(vlm: SmolVLM) -> None:
    def caches() -> int:
        gc.collect()
        return sum(type(item) is KVCache for item in gc.get_objects())

    before = caches()
    with vlm.stream("Describe the image.", images=[picture("red")], max_new_tokens=32, min_new_tokens=9) as stream:
        assert next(stream)
        assert caches() == before + 1
    assert caches() == before
    assert stream.result.finish_reason == "cancelled"
    assert list(stream) == []
    del stream
    unread = vlm.stream("Hello", max_new_tokens=32)
    next(unread)
    del unread
    assert caches() == before


def test_drawing(vlm: SmolVLM) -> None:
    def draw(**sampling: Any) -> list[int]:
        return vlm.generate("Hello", max_new_tokens=24, min_new_tokens=24, **sampling).token_ids

    greedy = draw()
    assert draw(temperature=0) == greedy
    assert draw(temperature=2.0, seed=1) == draw(temperature=2.0, seed=1)
    assert draw(temperature=2.0, seed=1) != draw(temperature=2.0, seed=2)
    assert draw(top_k=1) == greedy
    with pytest.warns(UserWarning, match="temperature"):
        assert draw(temperature=2.0, do_sample=False) == greedy


def test_stop_strings(vlm: SmolVLM) -> None:
    whole = vlm.generate("Describe the image.", images=[picture("red")], max_new_tokens=32)
    word = whole.text.split()[1]
    result = vlm.generate("Describe the image.", images=[picture("red")], max_new_tokens=32, stop_strings=word)
    assert result.text.rstrip().endswith(word)
    assert len(result.token_ids) < len(whole.token_ids)
    assert result.finish_reason == "stop"


def test_a_picture_that_cannot_be_used_is_named(vlm: SmolVLM, tmp_path: Path) -> None:
    bad = tmp_path / "text.png"
    bad.write_text("not a picture")
    with pytest.raises(MediaError, match=r"text\.png"):
        vlm.generate("Hi", images=[bad])
    with pytest.raises(MediaError, match=r"picture 2: .*text\.png"):
        vlm.stream("Hi", images=[picture("red"), bad])
    with pytest.raises(FileNotFoundError, match=r"absent\.png"):
        vlm.generate("Hi", images=[tmp_path / "absent.png"])
    with pytest.raises(TypeError):
        vlm.generate("Hi", images=[3])
    strict = SmolVLM(vlm.model, vlm.processor, policy=MediaPolicy.strict())
    with pytest.raises(PermissionError, match="not allowed"):
        strict.generate("Hi", images=[bad])


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda vlm: SmolVLM.from_pretrained("demo", device="cpu", quantization="int3"), ValueError, "int3"),
        (lambda vlm: vlm.generate([]), ValueError, "prompt"),
        (lambda vlm: vlm.generate(3), ValueError, "prompt"),
        (lambda vlm: vlm.generate(["a", "b"], images=[[]]), ValueError, "2 prompts"),
        (lambda vlm: vlm.generate("a", videos=["b.mp4"]), FileNotFoundError, r"b\.mp4"),
        (lambda vlm: vlm.generate(["a", "b"], videos=[[]]), ValueError, "2 prompts need as many lists of videos"),
        (lambda vlm: vlm.chat([{"role": "user", "content": [{"type": "video", "path": "b"}]}]), ValueError, "b"),
        (lambda vlm: vlm.generate("a", temprature=3), ValueError, "temprature"),
        (lambda vlm: vlm.generate("a", max_new_tokens=0), ValueError, "max_new_tokens"),
        (lambda vlm: vlm.generate("a", num_return_sequences=2), ValueError, "num_return_sequences"),
        (lambda vlm: vlm.generate("a <image>", control_tokens=True), ValueError, "<image>"),
    ],
)
def test_arguments_that_do_not_fit(vlm: SmolVLM, call: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call(vlm)


def test_clips(vlm: SmolVLM, tmp_path: Path) -> None:
    """The answer about a clip is what the processor's sampled frames and the model give, alone and in a batch."""
    path = write_clip(tmp_path / "clip.mp4", frames=40, fps=10)
    for clips in ([str(path)], [path, path], [[picture("red"), picture("blue")]]):
        sampled = {"do_sample_frames": True} if clips[0] in (path, str(path)) else {"do_sample_frames": False}
        content = [{"type": "video", "video": clip} for clip in clips] + [{"type": "text", "text": "What moves?"}]
        inputs = vlm.processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs=sampled,
        )
        expected = vlm.model.generate(**inputs, max_new_tokens=8)[0, inputs["input_ids"].shape[1] :].tolist()
        assert vlm.generate("What moves?", videos=clips, max_new_tokens=8).token_ids == expected
        with vlm.stream("What moves?", videos=clips, max_new_tokens=8) as stream:
            assert "".join(stream) == vlm.generate("What moves?", videos=clips, max_new_tokens=8).text
    drawn = [picture("red"), picture("blue")]
    metadata = VideoMetadata(40, fps=10.0, duration=4.0, frames_indices=[0, 13, 26, 39])
    decoded = np.stack(every_frame(path))[metadata.frames_indices]
    inputs = vlm.processor(
        text=vlm.processor.apply_chat_template(
            [
                {
                    "role": "user",
                    "content": [{"type": "video"}, {"type": "video"}, {"type": "text", "text": "What moves?"}],
                }
            ],
            add_generation_prompt=True,
        ),
        videos=[decoded, drawn],
        video_metadata=[metadata, VideoMetadata(2, frames_indices=[0, 1])],
        do_sample_frames=False,
        return_tensors="pt",
    )
    ids = vlm.model.generate(**inputs, max_new_tokens=8)[0, inputs["input_ids"].shape[1] :].tolist()
    assert vlm.generate("What moves?", videos=[path, drawn], max_new_tokens=8).token_ids == ids, "files and frames"
    alone = [vlm.generate("What moves?", videos=[path], max_new_tokens=8), vlm.generate("Hi", max_new_tokens=8)]
    batch = vlm.generate(["What moves?", "Hi"], videos=[[path], []], max_new_tokens=8)
    assert [result.token_ids for result in batch] == [result.token_ids for result in alone]
    strict = SmolVLM(vlm.model, vlm.processor, policy=MediaPolicy.strict())
    with pytest.raises(PermissionError, match="not allowed"):
        strict.generate("Hi", videos=[path])
