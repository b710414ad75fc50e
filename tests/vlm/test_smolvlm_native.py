"""`SmolVLM` on the native engine: the answers of torch on the demo checkpoint, without torch in the process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faster_smolvlm import SmolVLM

QUESTION = "Describe the image."


@pytest.fixture(scope="module")
def native() -> SmolVLM:
    return SmolVLM.from_pretrained("demo", device="cpu")


@pytest.fixture(scope="module")
def torch_vlm() -> SmolVLM:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTER_SMOLVLM_ENGINE", "torch")
        return SmolVLM.from_pretrained("demo", device="cpu")


def pictures() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    flat = [np.full((90, 120, 3), colour, np.uint8) for colour in ((255, 0, 0), (0, 90, 255))]
    noise = random.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    return [*flat, noise]


def test_the_engine_says_which_it_is(native: SmolVLM, torch_vlm: SmolVLM, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (native.engine, torch_vlm.engine) == ("native", "torch")
    monkeypatch.setenv("FASTER_SMOLVLM_ENGINE", "abacus")
    with pytest.raises(ValueError, match="abacus"):
        SmolVLM.from_pretrained("demo", device="cpu")


def test_answers_are_those_of_torch(native: SmolVLM, torch_vlm: SmolVLM) -> None:
    questions = [QUESTION, "What colour is it?"]
    batch = [[picture] for picture in pictures()]
    for question in questions:
        given = native.generate([question] * len(batch), images=batch, max_new_tokens=24)
        expected = torch_vlm.generate([question] * len(batch), images=batch, max_new_tokens=24)
        assert [result.token_ids for result in given] == [result.token_ids for result in expected]
        assert [result.finish_reason for result in given] == [result.finish_reason for result in expected]
    clip = np.stack([np.roll(pictures()[0], 9 * shift, axis=1) for shift in range(4)])
    arguments: dict[str, Any] = {"videos": [clip], "max_new_tokens": 12}
    assert native.generate("What moves?", **arguments).text == torch_vlm.generate("What moves?", **arguments).text


def test_streams_chats_and_watches_as_torch(native: SmolVLM, torch_vlm: SmolVLM) -> None:
    image = pictures()[0]
    messages = [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": QUESTION}]}]
    expected = torch_vlm.chat(messages, max_new_tokens=16)
    assert native.chat(messages, max_new_tokens=16).token_ids == expected.token_ids
    with native.stream(QUESTION, images=[image], max_new_tokens=16) as stream:
        assert "".join(stream) == expected.text
    frames = [(float(second), np.roll(image, 11 * second, axis=1)) for second in range(4)]
    seen = [list(vlm.watch(frames, prompt="What moves?", every=1.0, window=2)) for vlm in (native, torch_vlm)]
    assert [o.text for o in seen[0]] == [o.text for o in seen[1]]
    assert len(seen[0]) == 4


def test_a_second_question_reads_only_itself(native: SmolVLM) -> None:
    image = np.random.default_rng(7).integers(0, 256, (80, 100, 3), dtype=np.uint8)
    first = native.generate("How many?", images=[image], max_new_tokens=4)
    assert (first.usage.frames_reused, first.usage.frames > 0) == (0, True)
    second = native.generate("Which colour?", images=[image], max_new_tokens=4)
    assert second.usage.frames_reused == second.usage.frames == first.usage.frames
    assert second.usage.prompt_tokens_reused > 0.5 * second.usage.prompt_tokens
    fresh = native.generate("Which colour?", images=[image], max_new_tokens=4, reuse=False)
    assert fresh.usage.prompt_tokens_reused == fresh.usage.frames_reused == 0
    assert fresh.token_ids == second.token_ids


def test_seeds_and_int8(native: SmolVLM) -> None:
    draw = {"temperature": 1.0, "seed": 3, "max_new_tokens": 12}
    assert native.generate("Hello", **draw).token_ids == native.generate("Hello", **draw).token_ids
    small = SmolVLM.from_pretrained("demo", device="cpu", quantization="int8")
    assert small.model.dtype == "int8"
    assert small.generate(QUESTION, images=[pictures()[0]], max_new_tokens=12).text


def test_no_torch_in_the_process(tmp_path: Path) -> None:
    code = (
        "import sys, numpy as np\n"
        "from faster_smolvlm import SmolVLM\n"
        "vlm = SmolVLM.from_pretrained('demo', device='cpu')\n"
        "print(vlm.generate('Describe the image.', images=[np.zeros((40, 60, 3), np.uint8)], max_new_tokens=4).text)\n"
        "clip = np.zeros((3, 40, 60, 3), np.uint8)\n"
        "print(vlm.generate('What moves?', videos=[clip], max_new_tokens=4).text)\n"
        "assert not {'torch', 'transformers', 'torchvision'} & set(sys.modules), 'torch was imported'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
