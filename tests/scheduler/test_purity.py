"""The scheduler is pure: a few modules of the standard library and its own, and no more."""

import ast
from pathlib import Path

import pytest

import scheduler

ALLOWED = {
    "__future__",
    "bisect",
    "collections",
    "dataclasses",
    "enum",
    "heapq",
    "itertools",
    "math",
    "typing",
}
FLOORS = (
    ("recorded", "replay"),
    ("contest",),
    ("simulate",),
    ("core", "machine"),
    ("turn",),
    ("report", "running", "setup"),
    ("bound", "loading", "machine_run", "plan"),
    ("index",),
    ("baselines", "followers", "policy_priced", "profile", "shares", "strategy", "waiting"),
    ("policy",),
    ("job", "ledger", "recording", "residency", "view", "workload"),
    ("fields",),
    ("messages",),
    ("errors", "types"),
)
FILES = sorted(Path(scheduler.__file__).parent.glob("*.py"))


def imports(path: Path) -> list[str]:
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            module = node.module or ""
            names = [alias.name for alias in node.names]
            found += [f"scheduler.{n}" for n in names] if module == "scheduler" else [module]
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_nothing_but_pure_modules_is_imported(path: Path) -> None:
    for name in imports(path):
        assert name.split(".")[0] in ALLOWED | {"scheduler"}, name


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_imports_point_down(path: Path) -> None:
    floor = {name: number for number, names in enumerate(FLOORS) for name in names}
    if path.stem == "__init__":
        return
    for name in imports(path):
        if name.startswith("scheduler."):
            assert floor[name.split(".")[1]] > floor[path.stem], f"{path.stem} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_no_set_is_iterated(path: Path) -> None:
    """The order of a set of names differs from process to process."""
    makes_set = (ast.Set, ast.SetComp)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.For | ast.comprehension):
            call = isinstance(node.iter, ast.Call) and isinstance(node.iter.func, ast.Name)
            assert not isinstance(node.iter, makes_set), ast.unparse(node)
            assert not (call and node.iter.func.id in {"set", "frozenset"}), ast.unparse(node)
