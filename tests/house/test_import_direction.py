"""Each folder of the package imports only folders below it, and no modules import each other in a circle.

Imports inside functions and for type checkers count: a late import is for weight, never a way around this order.
"""

from __future__ import annotations

from pathlib import Path

import faster_smolvlm

from tests.helpers.import_graph import circles, imports, levels, room

PACKAGE = Path(faster_smolvlm.__file__).parent
# From the ground up; those in one row do not import each other.
ORDER = [
    {"_rust", "kernels", "quoting"},
    {"batch_feature", "integers", "unknown_names"},
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
    assert not wrong, "\n".join(wrong)


def test_no_circles() -> None:
    found = circles(imports(PACKAGE))
    assert not found, "\n".join(" <-> ".join(sorted(circle)) for circle in found)


def test_every_kind_of_import_is_seen(tmp_path: Path) -> None:
    package = tmp_path / "house"
    for name, text in {
        "__init__": "if TYPE_CHECKING:\n    from .roof import tiles",
        "roof/__init__": "",
        "roof/tiles": "def late():\n    from ..floor import board\n    import house.cellar",
        "floor/board": "from .. import cellar",
        "floor/carpet": "from . import board",
        "cellar": "from house import roof",
        "_rust": "",
    }.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / f"{name}.py").write_text(text)
    graph = imports(package)
    assert graph == {
        "": {"roof.tiles"}, "roof": set(), "roof.tiles": {"floor.board", "cellar"}, "floor.board": {"cellar"},
        "floor.carpet": {"floor.board"}, "cellar": {"roof"}, "_rust": set(),
    }  # fmt: skip
    assert levels(graph) == 5
    assert circles(graph) == []
    assert circles({**graph, "roof": {"roof.tiles"}}) == [{"roof", "roof.tiles", "floor.board", "cellar"}]
