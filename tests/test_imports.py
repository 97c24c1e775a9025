"""The floors are held by import-linter; here, that it would notice."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PLANTED = [
    ("scheduler/ledger.py", "import time"),
    ("scheduler/policy.py", "import torch"),
    ("scheduler/types.py", "import scheduler.core"),
    ("pipelines/device.py", "import scheduler.types"),
    ("ourvidz/jobs/state.py", "import ourvidz.wire"),
    ("ourvidz/wire/keys.py", "import torch"),
    ("ourvidz/service/engine.py", "import ourvidz.adapters.device"),
    ("ourvidz/service/views.py", "import httpx"),
    ("ourvidz/adapters/clock.py", "import ourvidz.service.engine"),
    ("ourvidz/adapters/clock.py", "import ourvidz.http"),
    ("ourvidz/http/__init__.py", "import ourvidz.adapters.clock"),
    ("ourvidz/cli/jobs.py", "import ourvidz.adapters.clock"),
]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources alone, to plant in."""
    root = tmp_path_factory.mktemp("tree")
    for package in ("ourvidz", "pipelines", "scheduler"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, root / package, ignore=ignore)
    shutil.copy(ROOT / "pyproject.toml", root)
    return root


def lint(root: Path) -> subprocess.CompletedProcess[str]:
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    return subprocess.run(
        command,
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(root)},
    )


def test_the_floors_hold(copy: Path) -> None:
    done = lint(copy)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(("module", "planted"), PLANTED, ids=[f"{m}: {p}" for m, p in PLANTED])
def test_an_import_against_the_floors_is_caught(copy: Path, module: str, planted: str) -> None:
    path = copy / module
    before = path.read_text(encoding="utf-8")
    path.write_text(f"{before}\n{planted}\n", encoding="utf-8")
    try:
        done = lint(copy)
    finally:
        path.write_text(before, encoding="utf-8")
    assert done.returncode != 0, f"{planted} in {module} went unnoticed"
