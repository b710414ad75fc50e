"""Checkpoint folders without weights: real configurations, and a small checkpoint made on the spot.

The configurations of 256M and 500M are part of the repository; all else of a real checkpoint is in the test data only.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
WRITTEN = ROOT / "tests" / "data"

TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{message['role'] | capitalize}}{% if message['content'][0]['type'] == "
    "'image' %}{{':'}}{% else %}{{': '}}{% endif %}{% for line in message['content'] %}{% if line['type'] == 'text' %}"
    "{{line['text']}}{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
NAMED = {
    "bos_token": "<|im_start|>",
    "eos_token": "<end_of_utterance>",
    "pad_token": "<|im_end|>",
    "unk_token": "<|endoftext|>",
    "end_of_utterance_token": "<end_of_utterance>",
    "fake_image_token": "<fake_token_around_image>",
    "global_image_token": "<global-img>",
    "image_token": "<image>",
}


def find_data_dir() -> Path | None:
    """Return the folder of real pictures, clips, configs and texts, or None; it is never part of the repository."""
    path = Path(os.environ.get("FASTER_SMOLVLM_DATA", ROOT.parent / "shared" / "data"))
    return path if path.is_dir() else None


@pytest.fixture(scope="session")
def data_dir() -> Path:
    path = find_data_dir()
    if path is None:
        pytest.skip("the real test data is not here: set FASTER_SMOLVLM_DATA to its folder")
    return path


@pytest.fixture(scope="session")
def small_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in the hub's legacy layout: a byte-level BPE tokenizer of a few hundred tokens, tiles of 32 pixels."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    folder = tmp_path_factory.mktemp("small-checkpoint")
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = Tokenizer(models.BPE())
    digits, byte_level = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    words = "User: Assistant: System: what is in the picture? You are provided the following series of frames\n\n"
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet)
    tokenizer.train_from_iterator([words, words.lower(), "the red circle is left of the blue square\n"] * 4, trainer)
    rows = [f"<row_{row}_col_{col}>" for row in range(1, 7) for col in range(1, 7)]
    added = ["<global-img>", *rows, "<fake_token_around_image>", "<image>", "<end_of_utterance>"]
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in added])
    tokenizer.save(str(folder / "tokenizer.json"))
    extra = {name: token for name, token in NAMED.items() if name.split("_")[0] not in ("bos", "eos", "pad", "unk")}
    _write(
        folder / "tokenizer_config.json",
        {
            **NAMED,
            "extra_special_tokens": extra,
            "additional_special_tokens": ["<fake_token_around_image>", "<image>", "<end_of_utterance>"],
            "model_max_length": 8192,
            "truncation_side": "left",
            "tokenizer_class": "GPT2Tokenizer",
            "clean_up_tokenization_spaces": False,
        },
    )
    _write(
        folder / "preprocessor_config.json",
        {
            "image_processor_type": "SmolVLMImageProcessor",
            "do_convert_rgb": True,
            "do_image_splitting": True,
            "do_normalize": True,
            "do_pad": True,
            "do_rescale": True,
            "do_resize": True,
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
            "max_image_size": {"longest_edge": 32},
            "processor_class": "SmolVLMProcessor",
            "resample": 1,
            "rescale_factor": 0.00392156862745098,
            "size": {"longest_edge": 128},
            "video_sampling": {"fps": 1, "max_frames": 8, "video_size": {"longest_edge": 32}},
        },
    )
    _write(folder / "processor_config.json", {"image_seq_len": 4, "processor_class": "SmolVLMProcessor"})
    _write(folder / "chat_template.json", {"chat_template": TEMPLATE})
    _write(folder / "config.json", {"model_type": "smolvlm", "architectures": ["SmolVLMForConditionalGeneration"]})
    return folder


@pytest.fixture(scope="session")
def config_dir() -> Callable[[str], Path]:
    """Return a function that gives the folder with the configuration of a size ("256m", "500m", "2.2b").

    It is the real one if the test data is present, else the one in `tests/data`; there is none of 2.2B.
    """

    def folder_of(size: str) -> Path:
        data, written = find_data_dir(), WRITTEN / f"smolvlm-{size}"
        if data is not None:
            return data / f"smolvlm2-{size}-config"
        if not written.is_dir():
            pytest.skip(f"the configuration of {size} is in the real test data only: set FASTER_SMOLVLM_DATA")
        return written

    return folder_of


@pytest.fixture(scope="session")
def real_checkpoint(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the folder of a size ("256m", "500m", "2.2b"), with the tokenizer that all sizes share."""
    shared = data_dir / "smolvlm2-256m-config"
    return _merged(lambda size: [shared, data_dir / f"smolvlm2-{size}-config"], tmp_path_factory)


@pytest.fixture(scope="session")
def configured_checkpoint(
    config_dir: Callable[[str], Path], request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """As `real_checkpoint`; without the test data, the tokenizer is that of `small_checkpoint`."""
    if find_data_dir() is not None:
        return request.getfixturevalue("real_checkpoint")  # type: ignore[no-any-return]
    small: Path = request.getfixturevalue("small_checkpoint")
    return _merged(lambda size: [small, config_dir(size)], tmp_path_factory)


def _merged(sources: Callable[[str], list[Path]], factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that copies the sources of a size into one folder, later ones over earlier ones."""
    made: dict[str, Path] = {}

    def folder_of(size: str) -> Path:
        if size not in made:
            folders = sources(size)
            made[size] = factory.mktemp(f"checkpoint-{size}")
            for path in (path for folder in folders for path in folder.iterdir()):
                shutil.copyfile(path, made[size] / path.name)
        return made[size]

    return folder_of


@pytest.fixture(scope="session", params=["small", "256m", "500m", "2.2b"])
def checkpoint_dir(request: pytest.FixtureRequest) -> Path:
    if request.param == "small":
        return request.getfixturevalue("small_checkpoint")  # type: ignore[no-any-return]
    return request.getfixturevalue("configured_checkpoint")(request.param)  # type: ignore[no-any-return]


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")
