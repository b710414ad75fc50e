"""``python -m faster_smolvlm.patch script.py [args…]``: run a script with Transformers accelerated, unedited.

``-m module`` runs a module in place of a script. What is accelerated is that of
`faster_smolvlm.integrations.transformers.enable`.
"""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Sequence

_USAGE = "usage: python -m faster_smolvlm.patch (script.py | -m module) [args…]"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script or module that the arguments name; returns 2 if they name none."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    as_module = given[:1] == ["-m"]
    target = given[as_module:]
    if not target or (target[0].startswith("-") and not as_module):
        helped = target[:1] in (["-h"], ["--help"])
        print(__doc__.strip() if helped else _USAGE, file=sys.stdout if helped else sys.stderr)
        return 0 if helped else 2
    if not as_module and not os.path.exists(target[0]):
        print(f"{_USAGE}\nno such file: {target[0]}", file=sys.stderr)
        return 2

    from .integrations.transformers import enable

    enable()
    sys.argv = target
    if as_module:
        runpy.run_module(target[0], run_name="__main__", alter_sys=True)
    else:
        sys.path[0] = os.path.dirname(os.path.abspath(target[0]))
        runpy.run_path(target[0], run_name="__main__")
    return 0


if __name__ == "__main__":
    sys.exit(main())
