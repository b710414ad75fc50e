"""The memory of the native engine, set where a `SmolVLM` is loaded."""

import pytest
from faster_smolvlm import SmolVLM


def test_the_memory_is_what_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    vlm = SmolVLM.from_pretrained("demo", device="cpu", cache_positions=1600, feature_cache_bytes=7)
    _, pages, size = vlm.model.rust.cache_pages()
    assert pages * size == 1600
    assert vlm.model.features.budget == 7
    with pytest.raises(ValueError, match="cache_positions must be an integer of at least 1, got 0"):
        SmolVLM.from_pretrained("demo", device="cpu", cache_positions=0)
    with pytest.raises(TypeError, match=r"'cache_position'.* nearest known one is 'cache_positions'"):
        SmolVLM.from_pretrained("demo", device="cpu", cache_position=1600)
    monkeypatch.setenv("FASTER_SMOLVLM_ENGINE", "torch")
    with pytest.raises(ValueError, match="cache_positions=1600: for the native engine only"):
        SmolVLM.from_pretrained("demo", device="cpu", cache_positions=1600)
