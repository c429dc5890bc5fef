# `make help` lists the targets. Everything runs in .venv, which is made once, and again when
# pyproject.toml or constraints.txt changed. Needed: Python 3.11 or newer, git, make.

VENV ?= .venv
WORKERS ?= 2
UPGRADE ?=
STORAGE ?= sqlite
BENCH ?=

CANDIDATES = python3.13 python3.12 python3.11 python3 python
IS_NEW_ENOUGH = import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in $(CANDIDATES); do \
	"$$p" -c '$(IS_NEW_ENOUGH)' 2>/dev/null && { echo "$$p"; break; }; done)

BIN = $(VENV)/bin
READY = $(VENV)/.ready
PYTEST = $(BIN)/python -m pytest -q
# Without a router process, or nearly: what fails most often fails within seconds.
QUICK = $(wildcard $(patsubst %,tests/test_%.py,tidy floors install) \
	$(addprefix tests/,unit property scenarios contract wire))
# Looked for, since to collect all tests takes as long as some of these.
CRASHING = $(shell grep -rl 'mark\.crash' tests --include='test_*.py')
# Neither style nor floors, nor what only searches: planted faults, and calls of chance.
ON_EACH_PYTHON = $(addprefix tests/,test_install.py test_readme.py unit property scenarios \
	contract wire saver/test_conformance.py saver/test_pregel.py)
NOT_ON_EACH = redis or cassandra or uncached or evicting or planted or fuzz

.DEFAULT_GOAL = help
.DELETE_ON_ERROR:
.PHONY: help demo services test lint test-quick test-rest test-crash test-python format proto \
	bench profile constraints venv clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(READY) ## watch a run outlive its agent and its router, on STORAGE=redis too
	PYTHONPATH=. $(BIN)/python demo/demo.py --storage $(STORAGE)

services: ## install the servers that tests and demo run on, where that can be done; once
	-@"$(PYTHON)" scripts/redis_server.py install
	-@"$(PYTHON)" scripts/cassandra_server.py install

test: services ## lint and all tests; what fails quickly comes first
	$(MAKE) --no-print-directory lint
	$(MAKE) --no-print-directory test-quick
	$(MAKE) --no-print-directory test-rest
	$(MAKE) --no-print-directory test-crash

lint: $(READY) ## style, types, floors, proto
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/buf lint
	$(BIN)/python scripts/generate_proto.py --check
	$(BIN)/mypy

test-quick: $(READY) ## the tests that need no router process
	$(PYTEST) -n $(WORKERS) -m "not crash" $(QUICK)

test-rest: $(READY) ## all others but the crash tests
	$(PYTEST) -n $(WORKERS) --dist worksteal -m "not crash" tests $(addprefix --ignore=,$(QUICK))

# By file, whose tests share a server.
test-crash: $(READY) ## the crash tests, after the others: they want the whole machine
	$(PYTEST) -n $(WORKERS) --dist loadfile -m crash $(CRASHING)

# Without other servers than our own: their drivers are tested on one Python.
test-python: $(READY) ## what must hold on each Python: most quick tests, and some on a router
	$(PYTEST) -n $(WORKERS) -m "not crash" -k "not ($(NOT_ON_EACH))" $(ON_EACH_PYTHON)

format: $(READY) ## put the code into the project's format
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

proto: $(READY) ## make router/checkpoint_router/v1 anew from proto/
	$(BIN)/python scripts/generate_proto.py

bench: services $(READY) ## compare with other savers, a table an engine; BENCH=--quick is short
	-@"$(PYTHON)" scripts/postgres_server.py install
	$(BIN)/python -m benchmarks $(BENCH)

profile: $(READY) ## show where the time of a call goes
	$(BIN)/python -m benchmarks.profile

# Keeps each pin that still fits; `make constraints UPGRADE=--upgrade` moves them all.
# No address of an index is written, so that the file serves behind a mirror too.
constraints: ## make constraints.txt anew from pyproject.toml
	"$(PYTHON)" -m venv --clear build/uv
	build/uv/bin/pip install -q uv
	build/uv/bin/uv pip compile pyproject.toml --all-extras --group dev --group bench \
		--universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
		--no-emit-index-url --no-emit-find-links $(UPGRADE) -q -o constraints.txt
	{ echo '# Made by `make constraints`. Everything that the project and its tests install.'; \
		grep -v '^#' constraints.txt; } > build/constraints.txt
	mv build/constraints.txt constraints.txt

venv: $(READY) ## make .venv without running anything

$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo >&2 "No Python 3.11 or newer with the venv module was found" \
		"($(CANDIDATES)). Install one, or name it: make PYTHON=/path/to/python3"; exit 1; }
	@echo "Making $(VENV) with $$("$(PYTHON)" --version): once, and when its pins change."
	"$(PYTHON)" -m venv --clear $(VENV)
	$(BIN)/python -m pip install -q --require-hashes -r constraints.txt
	$(BIN)/python -m pip install -q --no-deps --no-build-isolation -e .
	@touch $@

clean: ## remove what the other targets made
	rm -rf .venv .venv-* build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis \
		.import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
