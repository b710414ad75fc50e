"""How a child process with a fresh interpreter is started, so that the threads of this process do not matter."""

from __future__ import annotations

import json
import sys


def child_command(code: str, *arguments: str) -> list[str]:
    """Return the command that runs `code` with the import path of this process; `arguments` are its `sys.argv[1:]`.

    Raises OSError if this process is no Python interpreter that could be started again.
    """
    if getattr(sys, "frozen", False) or not sys.executable:
        raise OSError
    path = f"import sys; sys.path[:] = {json.dumps(sys.path)}"
    return [sys.executable, "-I", "-c", f"{path}\n{code}", *arguments]
