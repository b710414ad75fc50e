"""Which instruction set runs, and what AMX needs of the process."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from faster_smolvlm.native import NativeSmolVLM

from tests.helpers.native_models import DEMO_DIRECTORY

REQUEST_PERMISSION, TILE_DATA = 0x1023, 18
ARCH_PRCTL = 158

# Leaves the thread an alternate signal stack of so many bytes before the engine is loaded, as a library might.
SMALL_STACK = """
import ctypes, sys
class Stack(ctypes.Structure):
    _fields_ = [("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]
size = int(sys.argv[1])
memory = ctypes.create_string_buffer(size)
stack = Stack(ctypes.cast(memory, ctypes.c_void_p), 0, size)
assert ctypes.CDLL(None).sigaltstack(ctypes.byref(stack), None) == 0
from faster_smolvlm.native import NativeSmolVLM
print(NativeSmolVLM.from_pretrained(sys.argv[2], cache_positions=16).isa)
"""


@pytest.fixture
def amx() -> None:
    """Skip where the processor has no AMX or the system does not give leave to use it."""
    flags = Path("/proc/cpuinfo").read_text().split() if Path("/proc/cpuinfo").exists() else []
    if platform.machine() != "x86_64" or not {"amx_bf16", "amx_int8", "avx512_bf16"} <= set(flags):
        pytest.skip("no AMX")
    if ctypes.CDLL(None).syscall(ARCH_PRCTL, REQUEST_PERMISSION, TILE_DATA) != 0:
        pytest.skip("the system keeps AMX from this process")


def isa_of(*arguments: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "FASTER_SMOLVLM_ISA"}
    done = subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    return done.stdout.strip()


def test_amx_is_preferred(amx: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here too, where pytest's faulthandler has set up an alternate signal stack."""
    monkeypatch.delenv("FASTER_SMOLVLM_ISA", raising=False)
    assert NativeSmolVLM.from_pretrained(DEMO_DIRECTORY, cache_positions=16).isa == "amx"


@pytest.mark.parametrize(("size", "isa"), [(8192, "avx512bf16"), (65536, "amx")])
def test_a_signal_stack_without_room_for_the_tiles(amx: None, size: int, isa: str) -> None:
    """Linux then refuses the tiles; the next best set runs instead."""
    assert isa_of("-c", SMALL_STACK, str(size), str(DEMO_DIRECTORY)) == isa
