"""What is public: these names and modules. Everything else may change without notice."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import faster_smolvlm
import pytest

_NAMES = """
    AutoImageProcessor AutoModelForImageTextToText AutoProcessor BatchFeature CacheFullError FrameSampling
    GenerationConfig Idefics3Config Idefics3ForConditionalGeneration Idefics3ImageProcessor
    Idefics3ImageProcessorPil Idefics3Model Idefics3Processor Idefics3VisionConfig MediaDecodeError MediaError
    MediaFetchError MediaLimitError MediaNotFoundError MediaPolicy MediaRefusedError MediaTypeError NativeSmolVLM
    Result SmolVLM SmolVLMConfig SmolVLMForConditionalGeneration SmolVLMImageProcessor SmolVLMImageProcessorFast
    SmolVLMImageProcessorPil SmolVLMModel SmolVLMPreTrainedModel SmolVLMProcessor SmolVLMTextConfig
    SmolVLMVideoProcessor SmolVLMVisionConfig SmolVLMVisionTransformer Stream TextIteratorStreamer Timings Usage
    __version__ load_image load_video
"""
NAMES = set(_NAMES.split())
# Module -> what it offers beside the names above.
MODULES = {
    "faster_smolvlm": NAMES,
    "faster_smolvlm.cli": {"main"},
    "faster_smolvlm.generation": {"Decoding", "Engine", "GenerationConfig", "TextIteratorStreamer"},
    "faster_smolvlm.integrations.transformers": {
        "ConfigFilesCallback",
        "accelerate",
        "disable",
        "enable",
        "is_enabled",
    },
    "faster_smolvlm.kernels": set[str](),
    "faster_smolvlm.media": {name for name in NAMES if name.startswith("Media")}
    | {"FrameSampling", "Source", "load_image", "read_source"},
    "faster_smolvlm.media.video": {
        "Sampler",
        "VideoMetadata",
        "VideoReader",
        "default_sample_indices_fn",
        "load_video",
    },
    "faster_smolvlm.native": {"NativeEngine", "NativeSmolVLM", "Usage", "start_generation"},
    "faster_smolvlm.patch": {"main"},
}


def test_the_names_at_the_top_are_these() -> None:
    assert sorted(faster_smolvlm.__all__) == sorted(NAMES)
    assert set(dir(faster_smolvlm)) >= NAMES


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_every_public_name_can_be_had(module: str) -> None:
    found = importlib.import_module(module)
    for name in MODULES[module]:
        assert getattr(found, name) is not None
    if hasattr(found, "__all__"):
        assert set(found.__all__) == MODULES[module]


def test_a_type_checker_sees_the_same_names_at_the_same_places() -> None:
    tree = ast.parse(Path(faster_smolvlm.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    assert len(imports) == len(block.body)
    # `import X as X` is what makes a name public to a type checker.
    seen = {(alias.asname, f"{node.module}.{alias.name}") for node in imports for alias in node.names}
    assert seen == {(name, f"{module}.{name}") for name, module in faster_smolvlm._HOME.items()}


def test_importing_the_package_imports_its_core_only() -> None:
    code = "import faster_smolvlm, sys; print(*[m for m in sys.modules if m.startswith('faster_smolvlm')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == {"faster_smolvlm", "faster_smolvlm._rust"}


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'SmolVLMX'"):
        _ = faster_smolvlm.SmolVLMX
