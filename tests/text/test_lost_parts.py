"""The processor leaves out what its template does not read, as Transformers does, and says so once."""

from __future__ import annotations

from typing import Any

import pytest
from faster_smolvlm import AutoProcessor
from faster_smolvlm.text.chat_template import _log_lost_part


def test_each_type_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    _log_lost_part.cache_clear()
    processor = AutoProcessor.from_pretrained("demo")

    def log_of(*content: dict[str, Any]) -> list[str]:
        caplog.clear()
        processor.apply_chat_template([{"role": "user", "content": list(content)}])
        return [record.getMessage() for record in caplog.records]

    text = {"type": "text", "text": "a"}
    for kind in ("input_image", "input_text", "video_url", "image_url"):
        (message,) = log_of(text, {"type": kind, "x": "y"})
        assert repr(kind) in message
        assert log_of(text, {"type": kind}) == []
    assert log_of(text, {"type": "image", "url": "x"}, {"type": "image_url", "image_url": "x"}) == []
