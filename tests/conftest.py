"""What every test may ask for is in two modules of `tests.helpers`; their asserts tell as much as those of tests."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("tests.helpers")
pytest_plugins = ["tests.helpers.checkpoints", "tests.helpers.fixtures"]
