"""Reading and writing the tensors of a checkpoint: safetensors, in one file or in shards with an index.

Everything is checked against what the model expects from the headers alone, before a tensor is read.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..quoting import shown
from .hub import Checkpoint
from .json_files import json_text, read_json

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

logger = logging.getLogger(__name__)

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
PARTS = ("model.vision_model.", "model.connector.", "model.text_model.", "lm_head.")
"""What the full names of a whole model start with."""
FLOATS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
HEAD, EMBEDDING = "lm_head.weight", "model.text_model.embed_tokens.weight"
_TABLES = re.compile(r"\.(rotary_emb\.inv_freq|embeddings\.position_ids)$")
"""What older versions of Transformers wrote besides the weights; it follows from the config."""
SHOWN = 8
CHUNK = 1 << 22


class WeightFiles:
    """The safetensors files of one checkpoint: `entries` maps each tensor's name to its file, shape and dtype.

    Raises OSError if there are none, or if one is missing, truncated or not safetensors: the file is named.
    """

    def __init__(self, files: Checkpoint) -> None:
        self.name = files.name
        self.entries: dict[str, tuple[Path, tuple[int, ...], str]] = {}
        for path in _paths(files):
            for tensor, shape, dtype in _header(path):
                if tensor in self.entries:
                    raise OSError(
                        f"The tensor {shown(tensor)} is in two files of {shown(self.name)}: {shown(path.name)} is one "
                        "of them."
                    )
                self.entries[tensor] = (path, shape, dtype)

    def match(self, expected: Mapping[str, tuple[int, ...]], *, prefix: str = "", tied: bool = False) -> dict[str, str]:
        """Find for each expected name the one in the files, and check that nothing is missing or misshaped.

        `prefix` is the path of the model within a whole one ("" for the whole): names may carry it or not, and the
        whole's names may lack their leading "model." or have it once too often, as for Transformers. If the language
        head is `tied`, it may be missing, or stand for embeddings that are missing. Tensors that the model does not
        have are left out with a warning, and without one if they are tables that older versions wrote. Raises
        RuntimeError with every name that does not fit.
        """
        found: dict[str, str] = {}
        unexpected = []
        for name in sorted(self.entries):
            target = next((name for name in _readings(name, prefix) if name in expected), None)
            if target is None:
                if not (_TABLES.search(name) or (prefix and _is_elsewhere(name, prefix))):
                    unexpected.append(name)
            elif target in found:
                raise RuntimeError(
                    f"{shown(self.name)} holds {shown(target)} twice: as {shown(found[target])} and as {shown(name)}."
                )
            else:
                found[target] = name
        if tied and HEAD in found and EMBEDDING not in found:
            found[EMBEDDING] = found.pop(HEAD)
        self._check(expected, found, unexpected, optional={HEAD} if tied else set())
        if unexpected:
            logger.warning(
                "%s holds tensors that the model has not:%s", shown(self.name), _listed("unused", unexpected)
            )
        return found

    def _check(
        self,
        expected: Mapping[str, tuple[int, ...]],
        found: Mapping[str, str],
        unexpected: list[str],
        *,
        optional: Container[str],
    ) -> None:
        missing = sorted(name for name in expected if name not in found and name not in optional)
        misshaped = [
            f"{name} is {list(self.entries[found[name]][1])}, expected {list(shape)}"
            for name, shape in sorted(expected.items())
            if name in found and self.entries[found[name]][1] != tuple(shape)
        ]
        kinds = [(name, self.entries[name][2]) for name in sorted(found.values())]
        problems = [
            _listed("missing", missing),
            _listed("of another shape than the config asks for", misshaped),
            _listed(f"of a dtype other than {', '.join(FLOATS)}", [f"{n} is {k}" for n, k in kinds if k not in FLOATS]),
        ]
        if any(problems):
            problems.insert(1, _listed("unexpected", unexpected))
            raise RuntimeError(
                f"The weights of {shown(self.name)} do not fit the model that its config describes.\n"
                + "\n".join(problem for problem in problems if problem)
                + "\nCheck that config.json and the safetensors files belong to the same checkpoint."
            )

    def has_own_head(self, found: Mapping[str, str]) -> bool:
        """Whether `found` holds a language head whose bytes differ from those of the token embeddings.

        Transformers uses such a head even if the config ties the two (tie_word_embeddings).
        """
        if HEAD not in found:
            return False
        (path, *kind), (other, *other_kind) = (self.entries[found[name]] for name in (HEAD, EMBEDDING))
        if kind != other_kind:
            return True
        return any(a != b for a, b in zip(_bytes(path, found[HEAD]), _bytes(other, found[EMBEDDING]), strict=True))

    def is_as_named(self, found: Mapping[str, str]) -> bool:
        """Whether an engine finds the tensors in the files by itself: under their names, or without "model."."""
        return all(
            name in (target, target.removeprefix("model.")) and self.entries[name][2] != "F64"
            for target, name in found.items()
        )

    def mapped(self, found: Mapping[str, str]) -> list[tuple[str, str, list[int], npt.NDArray[np.uint8]]]:
        """Return name, dtype, shape and bytes of the tensors that `match` found, mapped; float64 becomes float32."""
        import numpy as np

        tensors: list[tuple[str, str, list[int], npt.NDArray[np.uint8]]] = []
        for target, name in found.items():
            path, shape, kind = self.entries[name]
            start, end = _span(path, name)
            values = np.memmap(path, np.uint8, "r", start, (end - start,)) if end > start else np.empty(0, np.uint8)
            if kind == "F64":
                values, kind = values.view("<f8").astype("<f4").view(np.uint8), "F32"
            tensors.append((target, FLOATS[kind], list(shape), values.view(np.ndarray)))
        return tensors

    def float_dtype(self) -> str:
        """Return the dtype of the first floating-point tensor, as torch names it."""
        return next((FLOATS[dtype] for _, _, dtype in self.entries.values() if dtype in FLOATS), "float32")

    def read(
        self, found: Mapping[str, str], *, dtype: torch.dtype, device: torch.device | str
    ) -> dict[str, torch.Tensor]:
        """Read the tensors that `match` found. On the CPU, those that need no cast stay views of the mapped file."""
        from safetensors import safe_open

        by_file: dict[Path, list[str]] = {}
        for target, name in found.items():
            by_file.setdefault(self.entries[name][0], []).append(target)
        state: dict[str, torch.Tensor] = {}
        for path, targets in by_file.items():
            with safe_open(path, framework="pt", device=str(device)) as file:
                for target in targets:
                    state[target] = file.get_tensor(found[target]).to(dtype)
        return state


def save(state: Mapping[str, torch.Tensor], directory: Path, *, max_shard_size: int | str = "50GB") -> None:
    """Write `state` to `model.safetensors`, or, above `max_shard_size`, to shards and their index.

    Each file appears whole or not at all, and files that are mapped into memory stay as they were.
    """
    from huggingface_hub import split_torch_state_dict_into_shards
    from safetensors.torch import save_file

    # By name, as Transformers sorts them: which tensor is in which shard is part of the layout.
    plan = split_torch_state_dict_into_shards(dict(sorted(state.items())), max_shard_size=max_shard_size)
    for filename, names in plan.filename_to_tensors.items():
        partial = directory / f"{filename}.partial"
        try:
            save_file({name: state[name].detach().contiguous() for name in names}, partial, metadata={"format": "pt"})
            os.replace(partial, directory / filename)
        finally:
            partial.unlink(missing_ok=True)
    stale = {
        path.name
        for path in directory.glob("model*.safetensors")
        if re.fullmatch(r"model(-\d{5}-of-\d{5})?\.safetensors", path.name)
    }
    for filename in stale - plan.filename_to_tensors.keys():
        (directory / filename).unlink()
    if not plan.is_sharded:
        (directory / INDEX).unlink(missing_ok=True)
        return
    total = sum(tensor.numel() for tensor in state.values())
    index = {"metadata": {"total_parameters": total, **plan.metadata}, "weight_map": plan.tensor_to_filename}
    (directory / INDEX).write_text(json_text(index), encoding="utf-8")


def _paths(files: Checkpoint) -> list[Path]:
    single = files.find(SINGLE)
    if single is not None:
        return [single]
    index = files.find(INDEX)
    if index is None:
        files.refuse_adapter()
        raise OSError(f"{shown(files.name)} has neither '{SINGLE}' nor '{INDEX}'. Only safetensors files are read.")
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise OSError(f"{shown(str(index))} has no 'weight_map' from tensor names to file names.")
    names = sorted({str(name) for name in weight_map.values()})
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise OSError(
                f"The 'weight_map' of {shown(str(index))} names {shown(name)}, which is no safetensors file beside it."
            )
    return [files.require(name) for name in names]


def _header(path: Path) -> list[tuple[str, tuple[int, ...], str]]:
    from safetensors import SafetensorError, safe_open

    with path.open("rb"):
        pass  # a file that may not be read is a PermissionError here; safetensors says that there is none
    try:
        with safe_open(path, framework="np") as file:
            slices = [(name, file.get_slice(name)) for name in file.keys()]  # noqa: SIM118  # not a dict
            return [(name, tuple(part.get_shape()), str(part.get_dtype())) for name, part in slices]
    except SafetensorError as error:
        raise OSError(
            f"{shown(str(path))} is not a whole safetensors file ({path.stat().st_size} bytes): {error}. "
            "It may be truncated: fetch it again."
        ) from error


def _bytes(path: Path, name: str) -> Iterator[bytes]:
    """Yield the bytes of a tensor of a file whose header is checked already, in pieces."""
    start, end = _span(path, name)
    with path.open("rb") as file:
        file.seek(start)
        for position in range(start, end, CHUNK):
            yield file.read(min(CHUNK, end - position))


def _span(path: Path, name: str) -> tuple[int, int]:
    """Return from where to where the bytes of a tensor lie in a file whose header is checked already."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        start, end = json.loads(file.read(size))[name]["data_offsets"]
    return 8 + size + start, 8 + size + end


def _readings(name: str, prefix: str) -> list[str]:
    """Return the names within the model that a name in a file may stand for, most literal first."""
    if not prefix:
        return [name, f"model.{name}", name.removeprefix("model.")]
    full = [name, f"model.{name}"]
    return [*full, *(reading[len(prefix) :] for reading in full if reading.startswith(prefix))]


def _is_elsewhere(name: str, prefix: str) -> bool:
    """Whether `name` belongs to a part of the whole model that lies outside `prefix`."""
    return any(full.startswith(PARTS) and not full.startswith(prefix) for full in (name, f"model.{name}"))


def _listed(problem: str, names: list[str]) -> str:
    if not names:
        return ""
    rest = f", and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"  {len(names)} {problem}: {', '.join(names[:SHOWN])}{rest}"


def torch_dtype(value: object) -> torch.dtype:
    """Return a torch.dtype from one, or from its name; another value is a ValueError that lists the names."""
    import torch

    if isinstance(value, torch.dtype) and value.is_floating_point:
        return value
    name = str(value).removeprefix("torch.")
    if name not in FLOATS.values():
        raise ValueError(f"dtype {shown(value)} is not supported; give 'auto' or one of {', '.join(FLOATS.values())}.")
    dtype: torch.dtype = getattr(torch, name)
    return dtype
