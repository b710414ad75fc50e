"""`BatchFeature`: what a processor returns; a dict whose keys are attributes too, as in Transformers."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .quoting import shown

if TYPE_CHECKING:
    import torch

Array = npt.NDArray[Any]


class BatchFeature(UserDict[str, Any]):
    """Model inputs by name.

    `data` maps names to arrays, tensors or nested lists; `tensor_type` "pt" or "np" converts every entry on creation,
    except those in `skip`. Raises ValueError for another `tensor_type`, or if an entry cannot become one tensor.
    """

    def __init__(
        self, data: Mapping[str, object] | None = None, tensor_type: str | None = None, skip: Collection[str] = ()
    ) -> None:
        super().__init__(data or {})
        self.convert_to_tensors(tensor_type, skip=skip)

    def __getattr__(self, name: str) -> Any:
        if name == "data":  # not there yet while unpickling
            raise AttributeError(name)
        try:
            return self.data[name]
        except KeyError:
            raise AttributeError(name) from None

    def __getstate__(self) -> dict[str, object]:
        return {"data": self.data}

    def __setstate__(self, state: dict[str, dict[str, object]]) -> None:
        self.data = state["data"]

    def convert_to_tensors(self, tensor_type: str | None = None, skip: Collection[str] = ()) -> BatchFeature:
        """Convert the entries in place to torch tensors ("pt") or NumPy arrays ("np"); None leaves them as they are."""
        if tensor_type is None:
            return self
        convert = _converter(tensor_type)
        for key, value in self.data.items():
            if key in skip:
                continue
            try:
                self.data[key] = convert(value)
            except (ValueError, TypeError, RuntimeError) as error:
                raise ValueError(
                    f"Unable to convert output {shown(key)} to one {shown(tensor_type)} tensor: its items have "
                    "different shapes or are no numbers. You should probably activate padding with 'padding=True' "
                    "(text) or 'do_pad=True' (pictures)."
                ) from error
        return self

    def to(
        self,
        *args: str | int | torch.device | torch.dtype,
        device: str | int | torch.device | None = None,
        dtype: torch.dtype | None = None,
        non_blocking: bool = False,
    ) -> BatchFeature:
        """Move every tensor to a device and cast the floating-point ones to a dtype, as `torch.Tensor.to`.

        Raises TypeError for a positional argument that is neither a device nor a dtype.
        """
        import torch

        for arg in args:
            if isinstance(arg, torch.dtype):
                dtype = arg
            elif isinstance(arg, (str, int, torch.device)):
                device = arg
            else:
                raise TypeError(f"expected a device or a dtype, got {shown(arg)}")

        def move(value: object) -> object:
            if isinstance(value, (list, tuple)):
                return type(value)(move(item) for item in value)
            if not isinstance(value, torch.Tensor):
                return value
            cast = dtype if value.is_floating_point() else None
            return value.to(device=device, dtype=cast, non_blocking=non_blocking)

        self.data = {key: move(value) for key, value in self.data.items()}
        return self


def _converter(tensor_type: str) -> Callable[[object], Array | torch.Tensor]:
    if str(tensor_type) in ("np", "TensorType.NUMPY"):
        return _to_numpy
    if str(tensor_type) in ("pt", "TensorType.PYTORCH"):
        return _to_torch
    raise ValueError(f"{tensor_type} is not a valid TensorType, please select one of ['pt', 'np']")


def _to_numpy(value: object) -> Array:
    if isinstance(value, np.ndarray):
        return value
    try:
        return np.array(value)
    except ValueError:  # rows of different lengths become an array of arrays, as in Transformers
        if not isinstance(value, (list, tuple)):
            raise
        ragged = np.empty(len(value), dtype=object)
        for index, item in enumerate(value):
            ragged[index] = _to_numpy(item)
        return ragged


def _to_torch(value: object) -> torch.Tensor:
    import torch

    if isinstance(value, torch.Tensor):
        return value
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value)
    if isinstance(value, (list, tuple)) and _holds_arrays(value):
        return torch.stack([_to_torch(item) for item in value])
    return torch.tensor(value)


def _holds_arrays(value: object) -> bool:
    while isinstance(value, (list, tuple)) and len(value) > 0:
        value = value[0]
    return hasattr(value, "shape")
