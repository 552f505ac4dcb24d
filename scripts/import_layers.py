"""``python -m scripts.import_layers``: which module imports which, in layers; exit status 1 where there is a circle.

Every import counts, those inside functions, too, but for those of type checkers (``if TYPE_CHECKING``).
"""

from __future__ import annotations

import ast
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {
    "cim_plugin": ROOT / "cim_plugin",
    "cim_plugin.algorithms": ROOT / "algorithms",
    "scripts": ROOT / "scripts",
}


def modules() -> dict[str, Path]:
    """Every module's name and file; the method is ``cim_plugin.algorithms``."""
    found = {}
    for package, folder in PACKAGES.items():
        for file in sorted(folder.rglob("*.py")):
            words = [package, *file.relative_to(folder).with_suffix("").parts]
            name = ".".join(words[:-1] if words[-1] == "__init__" else words)
            found[name] = file
    return found


def imports(name: str, file: Path, known: set[str]) -> set[str]:
    """The modules of ours that a module imports."""
    is_package = file.name == "__init__.py"
    found = set()
    for node in _run_nodes(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            words = name.split(".")
            base = words[: len(words) - node.level + is_package] if node.level else []
            module = ".".join([*base, *(node.module or "").split(".")]).rstrip(".")
            found |= {f"{module}.{alias.name}" if f"{module}.{alias.name}" in known else module for alias in node.names}
    return (found & known) - {name}


def _run_nodes(node: ast.AST):
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        yield child
        yield from _run_nodes(child)


def graph() -> dict[str, set[str]]:
    """Module -> what it imports. A package and its own modules do not count as a circle where only its __init__
    gathers them.
    """
    files = modules()
    return {name: imports(name, file, set(files)) for name, file in files.items()}


def by_room(edges: dict[str, set[str]], depth: int = 2) -> dict[str, set[str]]:
    """The same between folders: the first ``depth`` words of the names."""
    files = modules()

    def room(name: str) -> str:
        package = name if files[name].name == "__init__.py" else name.rpartition(".")[0]
        words = package.split(".")
        return ".".join(words[:depth]) if package != "cim_plugin" else name

    rooms: dict[str, set[str]] = {}
    for name, targets in edges.items():
        own = room(name)
        rooms.setdefault(own, set()).update(room(target) for target in targets)
        rooms[own].discard(own)
    return rooms


def layers(edges: dict[str, set[str]]) -> list[list[str]]:
    """Each layer imports only from those before it.

    Raises:
        CycleError: there is a circle; its second argument names it.
    """
    sorter = TopologicalSorter(edges)
    sorter.prepare()
    found = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready())
        found.append(ready)
        sorter.done(*ready)
    return found


def main() -> int:
    status = 0
    for what, edges in (("folders", by_room(graph())), ("modules", graph())):
        try:
            for number, layer in enumerate(layers(edges)):
                print(f"{what} {number}: {', '.join(layer)}")
        except CycleError as error:
            print(f"{what}: a circle: {' -> '.join(error.args[1])}")
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
