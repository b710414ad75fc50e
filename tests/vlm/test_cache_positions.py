"""The size of the key/value cache, set where a `SmolVLM` is loaded."""

import pytest
from faster_smolvlm import SmolVLM


def test_the_cache_has_the_positions_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    vlm = SmolVLM.from_pretrained("demo", device="cpu", cache_positions=1600)
    _, pages, size = vlm.model.rust.cache_pages()
    assert pages * size == 1600
    with pytest.raises(MemoryError, match="load with a larger cache_positions"):
        vlm.generate(["Hello " * 400] * 8)
    monkeypatch.setenv("FASTER_SMOLVLM_ENGINE", "torch")
    with pytest.raises(ValueError, match="cache_positions=1600: for the native engine only"):
        SmolVLM.from_pretrained("demo", device="cpu", cache_positions=1600)
