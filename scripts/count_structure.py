"""Counts how the package hangs together, read from its source: files in each folder, imports and
circles between modules and between rooms, and what tells of scattered knowledge.

    python scripts/count_structure.py [--json]

An import counts wherever it stands: at the top, inside a function, or for type checking only.
"""

from __future__ import annotations

import argparse
import ast
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "src" / "rkzoo"
WINGS = ("graph", "workflow")
API = ("load", "convert")

Edges = Mapping[str, set[str]]


@dataclass(frozen=True)
class Wing:
    """One part of the package. `files` a folder, without `__init__.py`; `imports` between its
    modules and between its rooms; circles as the names that are in them."""

    name: str
    files: dict[str, int]
    imports: int
    circles: list[list[str]]
    room_imports: int
    room_circles: list[list[str]]


@dataclass(frozen=True)
class Structure:
    """`circles` of modules, package-wide; `head_checks` lines that ask a head for its class;
    `parameters` of the functions that users call first."""

    modules: int
    circles: list[list[str]]
    wings: list[Wing]
    head_checks: int
    head_check_files: int
    parameters: dict[str, int]


def modules(package: Path = PACKAGE) -> dict[str, Path]:
    """Every module of the package by its full name, that stand-in for another package apart."""
    paths = {}
    for path in sorted(package.rglob("*.py")):
        parts = [package.name, *path.relative_to(package).with_suffix("").parts]
        if "torch_stub" not in parts:
            paths[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return paths


def imports(path: Path, known: Mapping[str, Path]) -> Iterator[tuple[str, ast.stmt]]:
    """Which of the `known` modules a file imports, each with the statement that does it."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module in known:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield (inner if inner in known else node.module), node


def edges(package: Path = PACKAGE) -> dict[str, set[str]]:
    """Every module with the modules that it imports."""
    known = modules(package)
    return {
        name: {other for other, _ in imports(path, known)} - {name} for name, path in known.items()
    }


def circles(graph: Edges) -> list[list[str]]:
    """Groups of names each of which reaches all others of its group."""
    reach = {name: _reachable(graph, name) for name in graph}
    groups = {
        tuple(sorted(other for other in reach[name] if name in reach.get(other, ())))
        for name in graph
        if name in reach[name]
    }
    return [list(group) for group in sorted(groups)]


def _reachable(graph: Edges, start: str) -> set[str]:
    reached: set[str] = set()
    todo = list(graph[start])
    while todo:
        name = todo.pop()
        if name not in reached:
            reached.add(name)
            todo.extend(graph.get(name, ()))
    return reached


def room_of(module: str) -> str:
    """The room of a module below a wing: `rkzoo.graph.onnx.view` is in `onnx`; what lies in no
    folder of its own is the wing's floor, "."."""
    parts = module.split(".")[2:]
    return parts[0] if len(parts) > 1 else "."


def rooms(graph: Edges, wing: str) -> dict[str, set[str]]:
    """Every room of a wing with the rooms that it imports, itself apart."""
    packages = {name.rpartition(".")[0] for name in graph}
    imported: dict[str, set[str]] = {}
    for name, others in graph.items():
        if name.startswith(f"rkzoo.{wing}.") and name not in packages:
            here = imported.setdefault(room_of(name), set())
            here |= {room_of(other) for other in others if other.startswith(f"rkzoo.{wing}.")}
    return {room: others - {room} for room, others in imported.items()}


def _wing(graph: Edges, wing: str) -> Wing:
    prefix = f"rkzoo.{wing}"
    paths = modules()
    inside = {
        name: {other for other in others if other.startswith(f"{prefix}.")}
        for name, others in graph.items()
        if name.startswith(f"{prefix}.")
    }
    between = rooms(graph, wing)
    files = Counter(
        str(path.parent.relative_to(PACKAGE))
        for name, path in paths.items()
        if (name == prefix or name in inside) and path.name != "__init__.py"
    )
    return Wing(
        wing,
        dict(sorted(files.items())),
        sum(map(len, inside.values())),
        circles(inside),
        sum(map(len, between.values())),
        circles(between),
    )


def head_checks(path: Path) -> int:
    """Lines with an isinstance() that names a head's class."""
    lines = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id == "isinstance"
            and any(
                isinstance(name, ast.Name) and (name.id.endswith("Head") or name.id == "FACES")
                for name in ast.walk(node.args[1])
            )
        ):
            lines.add(node.lineno)
    return len(lines)


def _parameters(paths: Sequence[Path], function: str) -> int:
    """How many parameters a public function of the workflow has, in the module of its name."""
    (path,) = (path for path in paths if path.name == f"{function}.py" and "workflow" in path.parts)
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name == function:
            args = node.args
            return len(args.posonlyargs) + len(args.args) + len(args.kwonlyargs)
    raise LookupError(f"{path} has no {function}()")


def count() -> Structure:
    graph = edges()
    paths = list(modules().values())
    checks = [check for path in paths if (check := head_checks(path))]
    return Structure(
        len(paths),
        circles(graph),
        [_wing(graph, wing) for wing in WINGS],
        sum(checks),
        len(checks),
        {name: _parameters(paths, name) for name in API},
    )


def _table(told: Structure) -> str:
    lines = [f"modules{told.modules:>33}", f"circles of modules{len(told.circles):>22}"]
    lines += [f"  {' - '.join(circle)}" for circle in told.circles]
    for wing in told.wings:
        lines += ["", wing.name]
        lines += [f"  {folder:<32}{number:>4} files" for folder, number in wing.files.items()]
        lines += [
            f"  imports between its modules{wing.imports:>11}",
            f"  circles of its modules{len(wing.circles):>16}",
            f"  imports between its rooms{wing.room_imports:>13}",
            f"  circles of its rooms{len(wing.room_circles):>18}",
        ]
        lines += [f"    {' - '.join(circle)}" for circle in wing.room_circles]
    lines += ["", f"isinstance(..., a head){told.head_checks:>17} lines"]
    lines += [f"  in{told.head_check_files:>36} files"]
    lines += [f"parameters of {name:<22}{number:>4}" for name, number in told.parameters.items()]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    structure = count()
    print(
        json.dumps(asdict(structure), indent=1) if parser.parse_args().json else _table(structure)
    )


if __name__ == "__main__":
    main()
