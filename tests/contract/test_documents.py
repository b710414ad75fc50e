"""docling and colpali-engine, run as they are and with `enable()` on: pixels, ids, embeddings and texts are equal."""

from __future__ import annotations

import copy
import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from PIL import Image

from tests.helpers.contract import SERVED, Twice, as_idefics3, same

REPOSITORY = "ibm-granite/granite-docling-258M"


@pytest.fixture(scope="session")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scanned page, three times the size that scikit-image keeps it in."""
    data = pytest.importorskip("skimage.data")
    path = tmp_path_factory.mktemp("page") / "page.png"
    picture = Image.fromarray(data.page()).convert("RGB")
    picture.resize((picture.width * 3, picture.height * 3)).save(path)
    return path


def convert(models: Path, page: Path, tokens: int, *stop: str) -> tuple[dict[str, Any], str, str, Any]:
    """Convert a page with docling's VLM pipeline; returns what the processor gave, both texts, and the engine."""
    from docling.datamodel.base_models import ConversionStatus, InputFormat
    from docling.datamodel.pipeline_options import VlmConvertOptions, VlmPipelineOptions
    from docling.datamodel.vlm_engine_options import TransformersVlmEngineOptions
    from docling.document_converter import DocumentConverter, ImageFormatOption
    from docling.pipeline.vlm_pipeline import VlmPipeline

    options = VlmConvertOptions.from_preset("granite_docling", engine_options=TransformersVlmEngineOptions())
    options.model_spec.max_new_tokens = tokens
    options.model_spec.stop_strings = [*options.model_spec.stop_strings, *stop]
    pipeline_options = VlmPipelineOptions(vlm_options=options, artifacts_path=models)
    kind = ImageFormatOption(pipeline_cls=VlmPipeline, pipeline_options=pipeline_options)
    converter = DocumentConverter(allowed_formats=[InputFormat.IMAGE], format_options={InputFormat.IMAGE: kind})
    converter.initialize_pipeline(InputFormat.IMAGE)
    engine = converter._get_pipeline(InputFormat.IMAGE).build_pipe[0].engine
    seen: list[dict[str, Any]] = []
    generate = engine.vlm_model.generate

    def recorded(**kwargs: Any) -> Any:
        seen.append({name: value for name, value in kwargs.items() if isinstance(value, torch.Tensor)})
        return generate(**kwargs)

    engine.vlm_model.generate = recorded
    result = converter.convert(page)
    assert result.status == ConversionStatus.SUCCESS
    served = getattr(engine.vlm_model, "generation_engine", None)
    said = result.pages[0].predictions.vlm_response.text
    return seen[0], said, result.document.export_to_doctags(), served


def test_docling(idefics3_demo: Path, page: Path, twice: Twice, tmp_path: Path) -> None:
    pytest.importorskip("docling.document_converter")
    folder = tmp_path / REPOSITORY.replace("/", "--")
    shutil.copytree(idefics3_demo, folder)
    settings = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps({**settings, "min_new_tokens": 20}))
    plain, fast = twice(lambda: convert(tmp_path, page, 32))
    same(fast[0], plain[0])
    assert fast[0]["pixel_values"].shape[1] > 1
    assert fast[1:3] == plain[1:3]
    assert len(plain[1].split()) > 6
    assert plain[3] is None
    assert fast[3].name == SERVED
    stop = plain[1].split()[4]
    stopped, fast_stopped = twice(lambda: convert(tmp_path, page, 32, stop))
    assert fast_stopped[1] == stopped[1] != plain[1]


@pytest.mark.real_size
def test_docling_at_its_size(data_dir: Path, twice: Twice, tmp_path: Path) -> None:
    """The real configuration, tokenizer and processor of 256M with random weights."""
    pytest.importorskip("docling.document_converter")
    folder = as_idefics3(data_dir / "smolvlm2-256m-config", tmp_path / REPOSITORY.replace("/", "--"))
    torch.manual_seed(0)
    model = transformers.Idefics3ForConditionalGeneration(transformers.AutoConfig.from_pretrained(folder))
    model.save_pretrained(folder)
    plain, fast = twice(lambda: convert(tmp_path, data_dir / "images" / "doc_page_with_table.png", 4))
    same(fast[0], plain[0])
    assert fast[1:3] == plain[1:3]
    assert plain[1]
    assert fast[3].name == SERVED


def test_colpali(idefics3_demo: Path, scene: Image.Image, twice: Twice) -> None:
    engine = pytest.importorskip("colpali_engine.models")
    torch.manual_seed(0)
    model = engine.ColIdefics3.from_pretrained(idefics3_demo, dtype=torch.float32).eval()
    processors = []

    def run() -> Any:
        processor = engine.ColIdefics3Processor.from_pretrained(idefics3_demo)
        assert type(processor) is engine.ColIdefics3Processor
        processors.append(processor)
        pages = processor.process_images([scene, scene.resize((90, 200))])
        questions = processor.process_texts(["what is red?", "a longer question about it"])
        with torch.no_grad():
            embedded = [model(**pages), model(**questions)]
        patches = processor.get_n_patches(scene.size, patch_size=model.config.vision_config.patch_size)
        return {**pages, "embedded": embedded[0], "scores": processor.score(embedded[1], embedded[0])}, patches

    plain, fast = twice(run)
    same(fast[0], plain[0])
    assert not plain[0]["scores"].isnan().any()
    assert fast[1] == plain[1]
    for copied in (copy.deepcopy(processors[1]), pickle.loads(pickle.dumps(processors[1]))):
        assert type(copied.image_processor) is type(processors[1].image_processor)
        same(copied.process_images([scene]), processors[0].process_images([scene]))
