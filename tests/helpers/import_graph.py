"""Who imports whom in the package, read from the source: imports inside functions and for type checkers count too.

python -m tests.helpers.import_graph [FOLDER]   # the numbers of the layout
"""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

Graph = dict[str, set[str]]


def modules(package: Path) -> dict[str, Path]:
    """Return the modules by dotted name within the package, "" for its own `__init__`; `_rust` has no source."""
    found = {"_rust": package / "_rust.pyi"}
    for folder, _, names in os.walk(package, followlinks=True):
        for path in (Path(folder, name) for name in names if name.endswith(".py")):
            parts = path.relative_to(package).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(package: Path) -> Graph:
    """Return for each module the modules of the package that it imports, by whatever kind of import."""
    known = modules(package)
    return {name: set(_imported(name, path, known, package.name)) - {name} for name, path in known.items()}


def _imported(module: str, path: Path, known: dict[str, Path], package: str) -> Iterator[str]:
    parts = [package, *filter(None, module.split("."))]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name for alias in node.names if (name := _inside(alias.name, package)) in known)
        elif isinstance(node, ast.ImportFrom):
            base = parts[: len(parts) - node.level + (path.name == "__init__.py")] if node.level else []
            source = _inside(".".join([*base, *filter(None, [node.module])]), package)
            if source is not None:
                names = [f"{source}.{alias.name}".lstrip(".") for alias in node.names]
                yield from ((name if name in known else source) for name in names if {name, source} & known.keys())


def _inside(name: str, package: str) -> str | None:
    return name[len(package) + 1 :] if name == package or name.startswith(package + ".") else None


def room(module: str) -> str:
    """Return the top folder of a module, or the module if it lies in none."""
    return module.split(".")[0]


def between_rooms(graph: Graph) -> Graph:
    arrows: Graph = {room(module): set() for module in graph}
    for module, targets in graph.items():
        arrows[room(module)] |= {room(target) for target in targets} - {room(module)}
    return arrows


def circles(graph: Graph) -> list[set[str]]:
    """Return the sets of modules that import each other, directly or by way of others."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        pending = [start]
        while pending:
            new = graph[pending.pop()] - seen
            seen |= new
            pending += new
        return seen

    reach = {module: reached(module) for module in graph}
    found = {frozenset(m for m in reach[module] if module in reach[m]) for module in graph if module in reach[module]}
    return sorted(map(set, found), key=sorted)


def levels(graph: Graph) -> int:
    """Return the length of the longest chain of imports; those in a circle count as one."""
    one_of = {member: min(circle) for circle in circles(graph) for member in circle}
    merged: Graph = {}
    for module, targets in graph.items():
        name = one_of.get(module, module)
        merged.setdefault(name, set()).update({one_of.get(t, t) for t in targets} - {name})
    height: dict[str, int] = {}
    for name in TopologicalSorter(merged).static_order():
        height[name] = 1 + max((height[target] for target in merged[name]), default=0)
    return max(height.values())


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "python/faster_smolvlm")
    graph = imports(folder)
    rooms = between_rooms(graph)
    print(
        f"{len(graph)} modules, {len(rooms)} rooms, {levels(rooms)} levels, {sum(map(len, rooms.values()))} arrows "
        f"between rooms, {len(circles(rooms))} circles of rooms, {len(circles(graph))} circles of modules"
    )
    for circle in circles(graph):
        print("circle:", *sorted(circle))


if __name__ == "__main__":
    main()
