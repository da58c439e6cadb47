"""Who may import whom: the rule of ARCHITECTURE.md, held by reading the source."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from count_structure import circles, edges, rooms

import rkzoo

ROOT = Path(rkzoo.__file__).parent

GROUND = {
    "cache",
    "checks",
    "contract",
    "errors",
    "files",
    "html_template",
    "json_values",
    "native_output",
    "kept",
    "ort",
    "progress",
    "protocol",
    "session",
    "spelling",
}
FRONT_DOOR = {"__init__", "__main__", "api"}  # they open every room
# Room -> the rooms it may import, the ground floor and itself apart.
ALLOWED: dict[str, set[str]] = {
    "graph": set(),
    "vision": set(),
    "audio": set(),
    "soc": set(),
    "zoo": set(),
    "toolkit": {"soc"},
    "tasks": {"vision", "audio"},
    "runtime": {"toolkit"},
    "remote": {"toolkit"},  # uv, and the indexes that it asks
    "streaming": {"vision", "runtime", "tasks"},
    "accuracy": {"tasks", "vision", "audio"},
    "speed": {"soc", "toolkit"},
    "workflow": {
        "accuracy",
        "speed",
        "graph",
        "vision",
        "audio",
        "soc",
        "zoo",
        "toolkit",
        "tasks",
        "runtime",
        "remote",
        "streaming",
    },
    "serving": {
        "workflow",
        "tasks",
        "vision",
        "audio",
        "soc",
        "runtime",
        "streaming",
        "graph",
        "accuracy",
    },
    "cli": {
        "serving",
        "accuracy",
        "speed",
        "graph",
        "vision",
        "soc",
        "zoo",
        "toolkit",
        "tasks",
        "runtime",
        "remote",
        "streaming",
        "workflow",
    },
}
HEAVY = {
    "numpy",
    "cv2",
    "soundfile",
    "soxr",
    "onnx",
    "onnxruntime",
    "yaml",
    "rich",
    "PIL",
    "supervision",
    "pooch",
}


def _imports(path: Path, *, top_level_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text("utf-8"))
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
            # `from rkzoo import errors` names a module too.
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def _sources() -> list[Path]:
    return [p for p in sorted(ROOT.rglob("*.py")) if "torch_stub" not in p.parts]


@pytest.mark.parametrize("path", _sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_a_room_imports_only_what_it_may(path: Path) -> None:
    parts = path.relative_to(ROOT).parts
    if len(parts) == 1 and path.stem in FRONT_DOOR:
        return
    room = parts[0] if len(parts) > 1 else path.stem
    allowed = GROUND | ({room} | ALLOWED[room] if room not in GROUND else set())
    for name in _imports(path):
        if name.startswith("rkzoo."):
            assert name.split(".")[1] in allowed, f"{room} imports {name}"


def test_every_room_is_in_the_rule() -> None:
    rooms = {p.name for p in ROOT.iterdir() if (p / "__init__.py").exists()}
    assert rooms <= set(ALLOWED) | GROUND
    modules = {p.stem for p in ROOT.glob("*.py")} - FRONT_DOOR
    assert modules | (rooms - set(ALLOWED)) == GROUND


@pytest.mark.parametrize("path", _sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_only_the_worker_imports_the_vendors_toolkit(path: Path) -> None:
    vendor = {n.split(".")[0] for n in _imports(path)} & {"rknn", "rknnlite"}
    homes = {"rknn": Path("toolkit/worker.py"), "rknnlite": Path("runtime/npu_lite.py")}
    assert all(homes[name] == path.relative_to(ROOT) for name in vendor)


@pytest.mark.parametrize("path", sorted((ROOT / "cli").glob("*.py")), ids=lambda p: p.stem)
def test_verbs_import_nothing_heavy_at_the_top(path: Path) -> None:
    top = {name.split(".")[0] for name in _imports(path, top_level_only=True)}
    assert not top & HEAVY
    rooms = {n.split(".")[1] for n in _imports(path, top_level_only=True) if n.startswith("rkzoo.")}
    assert rooms <= {"errors", "spelling", "cli", "progress"}


# Graphs are read, looked at and written in these rooms; everybody else asks them.
ONNX_ROOMS = ("graph.onnx", "graph.families", "graph.lowering", "graph.from_weights")


def _when_run(nodes: list[ast.stmt]) -> Iterator[ast.AST]:
    """Every node that a program meets, which what is for type checking alone is not."""
    for node in nodes:
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            yield from ast.walk(node)


@pytest.mark.parametrize("path", _sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_only_the_rooms_for_it_import_onnx(path: Path) -> None:
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    if module.startswith(ONNX_ROOMS) or module == "toolkit.worker":
        return
    found = set()
    for node in _when_run(ast.parse(path.read_text("utf-8")).body):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
    assert "onnx" not in found


INFERENCE = sorted(f"workflow.inference.{p.stem}" for p in (ROOT / "workflow/inference").glob("*"))
RUNNING = [
    *(name for name in INFERENCE if "__" not in name),
    *(f"cli.{p.stem}" for p in sorted((ROOT / "cli").glob("*.py")) if p.stem != "__init__"),
    "workflow.apps.listen",
    "workflow.apps.search",
    "workflow.apps.stream",
    "workflow.comparison.check",
    "workflow.compile.simulate",
    "workflow.diagnostics.doctor",
    "workflow.evaluation.evaluate",
    "workflow.performance.bench",
]


@pytest.mark.parametrize("module", RUNNING)
def test_what_runs_a_rknn_imports_nothing_that_compiles(module: str) -> None:
    """Nor does anything that it imports; what a function imports when it is called counts in
    tests/workflow/test_without_onnx.py."""
    script = f"import sys, rkzoo.{module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    loaded = done.stdout.split()
    assert f"rkzoo.{module}" in loaded
    barred = [f"rkzoo.{room}" for room in ONNX_ROOMS]
    if module in INFERENCE:
        barred.append("rkzoo.workflow.compile")
    assert [name for name in loaded if name.startswith(tuple(barred))] == []
    assert {"onnx", "onnxruntime"} & set(loaded) == set()


# Inside a wing a room imports only rooms of the lines above its own; those that stand alone import
# none and are imported by none. "." is what lies in no room.
LAYERS: dict[str, list[set[str]]] = {
    "graph": [{"."}, {"onnx"}, {"families", "from_weights"}, {"lowering"}],
    "workflow": [
        {"request"},
        {"compile"},
        {"inference"},
        {"evaluation", "comparison", "performance", "apps"},
        {"tuning"},
        {"advice", "reporting"},
    ],
}
ALONE = {"graph": {"rknn"}, "workflow": {"diagnostics"}}


@pytest.mark.parametrize("wing", LAYERS)
def test_rooms_of_a_wing_have_an_order(wing: str) -> None:
    found = rooms(edges(), wing)
    assert set(found) == set().union(*LAYERS[wing], ALONE[wing])
    below: set[str] = set()
    for room in ALONE[wing]:
        assert found[room] <= {"."}, room
    for layer in LAYERS[wing]:
        for room in layer:
            assert found[room] <= below, f"{room} imports {sorted(found[room] - below)}"
        below |= layer


def test_no_circle_anywhere() -> None:
    """Of modules, whether they import at the top, inside a function or for types only."""
    assert circles(edges()) == []


def test_circles_are_seen() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set(), "e": {"e2"}, "e2": {"e"}}
    assert circles(graph) == [["a", "b", "c"], ["e", "e2"]]
