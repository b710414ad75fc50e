"""Each of the two image processors in turn."""

from __future__ import annotations

import pytest

from tests.helpers.image_processors import NAMES


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)
