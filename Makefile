# make demo · make test · make check · make bench: nothing else to learn.
PYTHON ?= $(firstword $(foreach p,python3 python3.14 python3.13 python3.12 python3.11,\
	$(shell $(p) -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $(p))))
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# Where this is set, every test process would compile all modules again, and so would every command that a test runs.
export PYTHONDONTWRITEBYTECODE :=

# One pytest process more than there are cores, for each waits for its own PostgreSQL now and then; at most four.
# `make test WORKERS=0` runs in one process.
WORKERS ?= $(shell $(PYTHON) -c 'import os; print((os.cpu_count() or 1) + 1)')
PYTEST := $(BIN)/python -m pytest -q -n $(WORKERS) --maxprocesses 4 --dist worksteal

# Side by side, each line of a recipe says what it has to say at its end; an old make (macOS has 3.81) mixes them.
BESIDE := --no-print-directory -j3 $(if $(filter output-sync,$(.FEATURES)),--output-sync=line)

.PHONY: help demo venv lint types test kills check bench audit ide clean

help:
	@echo "make demo   a server with data on http://127.0.0.1:8000"
	@echo "make test   the tests, on SQLite and PostgreSQL"
	@echo "make kills  50 times kill -9 under load on each engine, and a look at what is left; some minutes"
	@echo "make check  ruff (make lint), mypy (make types) and the tests, side by side"
	@echo "make bench  the measurements"
	@echo "make audit  GraphQL over HTTP, checked by graphql-http (npm)"
	@echo "make ide    local files for GraphiQL (npm)"
	@echo "make clean  removes the virtual environment, caches and builds; data stays"

demo: .venv/.runs
	@$(BIN)/scrm demo

venv: .venv/.tests

lint: .venv/.tests
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: .venv/.tests
	@$(BIN)/mypy

test: .venv/.tests
	@$(PYTEST)

kills: .venv/.tests
	@SCRM_KILLS=$${SCRM_KILLS:-50} $(BIN)/python -m pytest -q tests/times/test_kills.py

check: .venv/.tests
	@$(MAKE) $(BESIDE) lint types test

bench: .venv/.tests
	@$(BIN)/python -m bench

audit: .venv/.tests
	@$(BIN)/python tools/audit_http.py

ide: .venv/.runs
	@$(BIN)/python tools/install_ide.py

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis scrm/graphql/static/unpkg
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "scrm needs Python 3.11 or newer; name one with make PYTHON=/path/to/python3" >&2; exit 2; }
	@echo "creating .venv with $(PYTHON)"
	@$(PYTHON) -m venv --clear .venv || { rm -rf .venv; \
		echo "cannot create .venv; on Debian and Ubuntu: apt install python3-venv" >&2; exit 2; }

# Installed again only when pyproject.toml changes. The demo needs less than the tests do.
.venv/.runs: pyproject.toml | $(BIN)/python
	@echo "installing scrm"
	@$(PIP) -e .
	@touch $@

.venv/.tests: pyproject.toml | $(BIN)/python
	@echo "installing scrm and the tools for its tests"
	@$(PIP) -e '.[dev]'
	@touch .venv/.runs $@
