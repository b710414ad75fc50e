"""The folder of packed weights: what others put there is not followed, read or waited for, and loads at once agree."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest
from faster_smolvlm.native import NativeSmolVLM
from safetensors.torch import load_file, save_file

from tests.helpers.native_models import Saved

IDS = np.arange(3, 40)
Loaded: TypeAlias = tuple[str, str, np.ndarray]


class Cache:
    """A checkpoint of its own, and the folder of its packed weights."""

    def __init__(self, checkpoint: Path, folder: Path) -> None:
        self.checkpoint = checkpoint
        self.folder = folder

    def load(self) -> Loaded:
        """Return what became of the packed weights, the warning, and logits."""
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            model = NativeSmolVLM.from_pretrained(self.checkpoint, packed_cache_dir=self.folder)
        return model.packed, " ".join(str(warning.message) for warning in seen), model.logits(IDS)

    def filled(self) -> Path:
        """Load once; return the file that was written."""
        assert self.load()[0] == "written"
        (path,) = self.folder.iterdir()
        return path


@pytest.fixture
def cache(random_model: Callable[[str], Saved], tmp_path: Path) -> Cache:
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(random_model("odd").directory, checkpoint)
    return Cache(checkpoint, tmp_path / "packed")


def test_what_is_written_is_private(cache: Cache) -> None:
    path = cache.filled()
    assert path.stat().st_mode & 0o777 == 0o600
    assert cache.folder.stat().st_mode & 0o777 == 0o700
    assert cache.load()[0] == "read"


@pytest.mark.parametrize("kind", ["link", "hanging link", "fifo", "socket"])
def test_what_is_no_file_is_replaced_and_not_followed(cache: Cache, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path, treasure = cache.filled(), cache.folder.parent / "treasure"
    whole = path.read_bytes()
    treasure.write_bytes(whole)
    path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        import socket

        with socket.socket(socket.AF_UNIX) as listener:
            monkeypatch.chdir(cache.folder)  # the path of a socket has to be short
            listener.bind(path.name)
    else:
        path.symlink_to(treasure if kind == "link" else "nowhere")
    start = time.monotonic()
    packed, warning, _ = cache.load()
    assert time.monotonic() - start < 20
    assert packed == "replaced"
    assert re.search("symbolic link|regular file|No such device", warning)
    assert path.is_file()
    assert not path.is_symlink()
    assert path.read_bytes() == whole == treasure.read_bytes()
    assert cache.load()[0] == "read"


def test_a_folder_in_place_of_the_file_fails_only_the_cache(cache: Cache) -> None:
    path = cache.filled()
    expected = cache.load()[2]
    path.unlink()
    path.mkdir()
    packed, warning, logits = cache.load()
    assert packed == "failed"
    assert "irectory" in warning
    np.testing.assert_array_equal(logits, expected)
    assert list(cache.folder.iterdir()) == [path]


def test_links_that_wait_for_the_partial_file_are_not_followed(cache: Cache) -> None:
    """Names that earlier versions chose, and could be guessed."""
    treasure = cache.folder.parent / "treasure"
    treasure.write_text("precious")
    name = cache.filled().stem
    for path in cache.folder.iterdir():
        path.unlink()
    for process in range(os.getpid() - 2, os.getpid() + 3):
        (cache.folder / f"{name}.{process}.partial").symlink_to(treasure)
    assert cache.load()[0] == "written"
    assert treasure.read_text() == "precious"


@pytest.mark.parametrize("mode", [0o777, 0o720, 0o702])
def test_a_folder_that_others_can_write_is_not_used(cache: Cache, mode: int) -> None:
    path = cache.filled()
    cache.folder.chmod(mode)
    before = path.stat().st_mtime_ns
    packed, warning, _ = cache.load()
    assert packed == "failed"
    assert f"can be written by other users (mode {mode:o})" in warning
    assert path.stat().st_mtime_ns == before


def test_a_file_that_others_can_write_is_replaced(cache: Cache) -> None:
    path = cache.filled()
    path.chmod(0o666)
    packed, warning, _ = cache.load()
    assert packed == "replaced"
    assert "mode 666" in warning
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("given_away", ["file", "folder"])
def test_what_belongs_to_another_user_is_not_used(cache: Cache, given_away: str) -> None:
    path = cache.filled()
    os.chown(path if given_away == "file" else cache.folder, 12345, -1)
    packed, warning, _ = cache.load()
    assert packed == ("replaced" if given_away == "file" else "failed")
    assert "belongs to user 12345, not to user 0" in warning


def test_other_weights_of_equal_path_size_and_time_are_noticed(cache: Cache) -> None:
    cache.filled()
    file = cache.checkpoint / "model.safetensors"
    old, times = cache.load()[2], file.stat()
    save_file({**load_file(file), "lm_head.weight": 2 * load_file(file)["lm_head.weight"]}, file, {"format": "pt"})
    assert file.stat().st_size == times.st_size
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    packed, warning, logits = cache.load()
    assert (packed, "made from other weights" in warning) == ("replaced", True)
    np.testing.assert_array_equal(logits, 2 * old)
    assert cache.load()[0] == "read"


def test_damage_anywhere_is_noticed(cache: Cache) -> None:
    path = cache.filled()
    whole, expected = path.read_bytes(), cache.load()[2]
    random = np.random.default_rng(7)
    flips = [*random.integers(32, len(whole), 8), 0, 15, 24, 31, 32, len(whole) - 1]
    for damage in [
        *(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :] for at in map(int, flips)),
        *(whole[:length] for length in (0, 15, 40, len(whole) // 2, len(whole) - 8, len(whole) - 1)),
        whole + b"x",
    ]:
        path.write_bytes(damage)
        packed, warning, logits = cache.load()
        assert packed == "replaced", warning
        np.testing.assert_array_equal(logits, expected)
        assert path.read_bytes() == whole


def test_threads_that_load_at_once_all_succeed(cache: Cache) -> None:
    with ThreadPoolExecutor(4) as threads:
        models = list(
            threads.map(
                lambda _: NativeSmolVLM.from_pretrained(cache.checkpoint, packed_cache_dir=cache.folder), range(8)
            )
        )
    assert {model.packed for model in models} <= {"written", "read"}
    assert len(list(cache.folder.iterdir())) == 1
    expected = models[0].logits(IDS)
    for model in models:
        np.testing.assert_array_equal(model.logits(IDS), expected)


_LOAD = (
    "import sys; from faster_smolvlm.native import NativeSmolVLM\n"
    "print(NativeSmolVLM.from_pretrained(sys.argv[1], packed_cache_dir=sys.argv[2]).packed)"
)


def test_processes_that_load_at_once_all_succeed(cache: Cache) -> None:
    command = [sys.executable, "-c", _LOAD, str(cache.checkpoint), str(cache.folder)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert {process.communicate(timeout=60)[0].strip() for process in running} <= {"written", "read"}
    assert len(list(cache.folder.iterdir())) == 1


def test_a_full_disk_leaves_nothing_behind(cache: Cache) -> None:
    """A limit on the size of files fails a write as a full disk does."""
    code = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (9999, 9999))\n{_LOAD}"
    command = [sys.executable, "-c", code, str(cache.checkpoint), str(cache.folder)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "failed"
    assert ended.stderr.count("UserWarning") == 1
    assert list(cache.folder.iterdir()) == []


def test_leftovers_of_processes_that_ended_are_removed(cache: Cache) -> None:
    """Those that nobody has locked, and that were not begun just now."""
    import fcntl

    cache.folder.mkdir(mode=0o700)
    old, young, locked = (cache.folder / f"{'0' * 15}{k}.{'a' * 16}.partial" for k in range(3))
    link, other = cache.folder / "link.partial", cache.folder / "notes.txt"
    for path in (old, young, locked, other):
        path.write_bytes(b"")
        path.chmod(0o600)
    link.symlink_to(other)
    for path in (old, locked, other):
        os.utime(path, (0, 0))
    with locked.open("r") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert cache.load()[0] == "written"
    left = {path.name for path in cache.folder.iterdir() if path.suffix != ".packed"}
    assert left == {young.name, locked.name, link.name, other.name}


def test_weights_that_are_no_file_are_refused_at_once(cache: Cache) -> None:
    weights = cache.checkpoint / "model.safetensors"
    config = NativeSmolVLM.from_pretrained(cache.checkpoint).config
    weights.unlink()
    os.mkfifo(weights)
    start = time.monotonic()
    with pytest.raises(OSError, match="not a regular file"):
        NativeSmolVLM([weights], config)
    assert time.monotonic() - start < 10
