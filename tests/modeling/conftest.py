"""The models that the tests of `generate` share."""

from __future__ import annotations

import pytest

from tests.helpers.generate_pair import Models, save_and_load


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return save_and_load(tmp_path_factory.mktemp("generate"))
