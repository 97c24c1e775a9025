# Every target does its own set-up: a virtual environment in .venv from constraints.txt.
# PYTHON names the interpreter that makes it (3.11 or later, with venv).

PYTHON ?= python3
BIN := .venv/bin
# OpenMP threads that spin while they wait would starve the event loop on a small machine.
export OMP_WAIT_POLICY := passive

.PHONY: setup demo test sim crash soak check lint gpu bench bench-sched bench-delivery clean

setup: .venv/ready

.venv/ready: constraints.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed") if sys.version_info < (3, 11) else 0'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

# What the tests take from npm.
.venv/node: tests/node/package-lock.json .venv/ready
	npm ci --prefix tests/node --no-audit --no-fund --loglevel=error
	touch $@

# The main job, end to end, on the embedded default.
demo: setup
	$(BIN)/ourvidz demo

# Every test.
test: setup .venv/node
	$(BIN)/pytest

# Random lives of the scheduler, with faults: SEEDS of them, from FIRST on. The first that fails is
# told with its seed; FIRST=seed SEEDS=1 walks it once more.
SEEDS ?= 10000
FIRST ?= 0
sim: setup
	$(BIN)/python -m tests.scheduler.walk --seeds $(SEEDS) --first $(FIRST)

# Kills a worker at every call of every port, and looks at what becomes of its jobs: at the points
# whose name holds ONLY, at LANES of them at a time.
ONLY ?=
LANES ?= 4
crash: setup
	PYTHONPATH=.:tests $(BIN)/python -m tests.crash.matrix --only '$(ONLY)' --lanes $(LANES)

# Two workers and JOBS jobs with faults planted among them by SEED; one of the workers is killed every
# 20 seconds.
JOBS ?= 2000
SEED ?= 0
soak: setup
	PYTHONPATH=.:tests $(BIN)/python -m tests.soak.soak --jobs $(JOBS) --seed $(SEED)

# What to run before a commit: style, types, floors and the fast tests.
check: setup .venv/node lint
	$(BIN)/pytest -m 'not slow' --numprocesses logical

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The pipelines' tests and the demo on CUDA; figures go to bench/results/.
gpu: setup
	$(BIN)/python -m bench.gpu

# Benchmarks that need no GPU.
bench: setup
	$(BIN)/python -m bench.planner

# Serves generated traffic by every policy; renews the figures of docs/scheduling.md in minutes.
bench-sched: setup
	$(BIN)/python -m bench.sched_report

# Pickup, cost of a job, idle cost and recovery; renews the figures of docs/reliability.md in minutes.
bench-delivery: setup
	PYTHONPATH=tests $(BIN)/python -m bench.delivery

clean:
	rm -rf .venv tests/node/node_modules data build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
