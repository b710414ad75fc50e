"""What must hold of the installed package."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import faster_smolvlm
import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = Path(faster_smolvlm.__file__).parent


def test_the_tests_run_against_the_installed_wheel() -> None:
    if not os.environ.get("FASTER_SMOLVLM_EXPECT_WHEEL"):
        pytest.skip("an editable install is being tested; `make test` tests the wheel")
    assert ROOT / "python" not in PACKAGE.parents
    assert PACKAGE.parent.name == "site-packages"


def test_version_is_the_native_one() -> None:
    if not os.environ.get("FASTER_SMOLVLM_EXPECT_WHEEL"):
        pytest.skip("an editable install may have no metadata")
    assert importlib.metadata.version("faster-smolvlm") == faster_smolvlm.__version__


def test_the_kernels_folder_is_no_regular_package() -> None:
    """With an `__init__.py`, Python run from the checkout would import it in place of the package named `kernels`."""
    assert not (ROOT / "kernels" / "__init__.py").exists()
    assert (PACKAGE / "kernels").is_dir()


def test_every_kernel_ships_inside_the_package() -> None:
    wanted = {path.relative_to(ROOT / "kernels") for path in (ROOT / "kernels").rglob("*.py")}
    shipped = {path.relative_to(PACKAGE / "kernels") for path in (PACKAGE / "kernels").rglob("*.py")}
    assert shipped == wanted


def test_every_public_name_can_be_had() -> None:
    for name in faster_smolvlm.__all__:
        assert getattr(faster_smolvlm, name) is not None


def test_import_stays_light() -> None:
    heavy = ("torch", "triton", "transformers", "av", "tokenizers", "huggingface_hub", "PIL", "jinja2")
    code = f"import sys, faster_smolvlm; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
