"""Each folder of the package imports only folders below it, and no modules import each other in a circle.

Imports inside functions and for type checkers count: a late import is for weight, never a way around this order.
"""

from __future__ import annotations

from pathlib import Path

import faster_smolvlm

from tests.helpers.import_graph import circles, imports, room

PACKAGE = Path(faster_smolvlm.__file__).parent
# From the ground up; those in one row do not import each other.
ORDER = [
    {"_rust", "kernels", "batch_feature"},
    {"media"},
    {"checkpoint"},
    {"pixels", "text"},
    {"generation"},
    {"native"},
    {"processor"},
    {"modeling"},
    {"families"},
    {"auto"},
    {"vlm"},
    {"integrations"},
    {"cli"},
    {"patch", "__main__", ""},
]
HEIGHT = {name: height for height, row in enumerate(ORDER) for name in row}

# What is still to be cut; nothing may be added.
KNOWN_CIRCLES = [
    {"media.fetch", "media.source"},
    {"media.video_stream", "media.webp"},
    {"modeling.engines.native", "modeling.generate", "modeling.modeling_smolvlm"},
    {"native.engine", "native.model"},
]
KNOWN_UPWARD = {f"modeling.engines.native imports modeling.modeling_{name}" for name in ("smolvlm", "vision", "text")}


def test_every_folder_has_its_place() -> None:
    assert {room(module) for module in imports(PACKAGE)} == set(HEIGHT)


def test_folders_import_only_folders_below() -> None:
    wrong = [
        f"{module} imports {target}"
        for module, targets in imports(PACKAGE).items()
        for target in targets
        if room(target) != room(module) and HEIGHT[room(target)] >= HEIGHT[room(module)]
    ]
    assert not wrong, "\n".join(wrong)


def test_engines_do_not_import_the_models() -> None:
    graph = imports(PACKAGE)
    wrong = [
        f"{module} imports {target}"
        for module, targets in graph.items()
        for target in targets
        if module.startswith("modeling.engines") and target.startswith("modeling.modeling_")
    ]
    wrong = [arrow for arrow in wrong if arrow not in KNOWN_UPWARD]
    assert not wrong, "\n".join(wrong)


def test_no_circles() -> None:
    found = [circle for circle in circles(imports(PACKAGE)) if not any(circle <= known for known in KNOWN_CIRCLES)]
    assert not found, "\n".join(" <-> ".join(sorted(circle)) for circle in found)
