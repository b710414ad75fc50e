"""Importing the package is quick because nothing heavy comes along."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "torchvision", "triton", "transformers", "av", "tokenizers", "PIL", "huggingface_hub", "jinja2")


@pytest.mark.parametrize(
    ("statement", "allowed"),
    [
        ("import faster_smolvlm", ()),
        ("from faster_smolvlm import GenerationConfig, MediaPolicy", ()),
        ("from faster_smolvlm import SmolVLM, TextIteratorStreamer", ()),
        ("from faster_smolvlm.cli import main\ntry: main(['--version'])\nexcept SystemExit: pass", ()),
    ],
)
def test_what_an_import_brings_along(statement: str, allowed: tuple[str, ...]) -> None:
    code = f"{statement}\nimport sys\nprint('found:', sorted(set({HEAVY!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == f"found: {sorted(allowed)}"


def test_the_package_brings_itself_and_three_modules_of_the_standard_library() -> None:
    """Compared with a process that imports those three, so that the list is exact for every Python."""

    def brought(statement: str) -> set[str]:
        code = f"import sys\nbefore = set(sys.modules)\n{statement}\nprint(*set(sys.modules) - before)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        return set(done.stdout.split())

    standard = brought("import __future__, importlib, typing, warnings")
    own = {"faster_smolvlm", "faster_smolvlm._rust"}
    assert brought("import faster_smolvlm") == standard | own
    assert brought("from faster_smolvlm import __version__, __all__") == standard | own


def test_the_integration_imports_nothing_that_makes_pixels_or_models() -> None:
    code = (
        "from faster_smolvlm.integrations.transformers import accelerate, disable, enable, is_enabled\nimport sys\n"
        f"print(*[name for name in sys.modules if name.startswith('faster_smolvlm') or name in {(*HEAVY, 'numpy')}])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    package = "faster_smolvlm.integrations.transformers"
    own = {f"{package}.{name}" for name in ("classes", "inplace", "notes", "patching", "pipelines", "versions")}
    parents = {"faster_smolvlm", "faster_smolvlm._rust", "faster_smolvlm.integrations", package}
    # The table of names, a lock of its own, and what bounds a message.
    own |= {f"faster_smolvlm.{name}" for name in ("families", "fork_lock", "quoting")}
    assert set(done.stdout.split()) == parents | own
