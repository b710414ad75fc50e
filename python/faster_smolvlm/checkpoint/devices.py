"""The names of devices, as callers give them; torch is not imported for that."""

from __future__ import annotations

import re

from ..integers import as_int
from ..quoting import shown

_NAME = re.compile(r"[a-z]{1,20}(:\d{1,4})?")


def device_name(device: object) -> str:
    """Return the name of a device that is given as a name, a number or a `torch.device`.

    A number is that of a GPU; "cpu:0" is "cpu", "auto" stays as it is. Raises ValueError for anything else.
    """
    number = as_int(device)
    if number is not None:
        name = f"cuda:{number}"
    else:
        name = str(device) if isinstance(device, str) or type(device).__name__ == "device" else ""
    if name == "cpu:0":
        return "cpu"
    if not _NAME.fullmatch(name) or name.startswith(("cpu:", "auto:", "meta")):
        raise ValueError(
            f"device has to be 'auto', 'cpu', a GPU such as 'cuda' or 'cuda:0', its number or a torch.device, "
            f"got {shown(device)}."
        )
    return name
