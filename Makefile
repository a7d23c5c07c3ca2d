# Everything a fresh machine needs: GNU make, and Python 3.11, 3.12 or 3.13.
#   make demo       depth from the clip inside the package, in a fresh .venv
#   make test       lint, types and the quick tests (what CI runs)
#   make test-slow  the minutes-long checks
#   make lint       formatter, linter and types only
#   make bench      throughput and time to first depth on this machine

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
OUT ?= out/demo
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo test test-slow lint bench clean

help:
	@sed -n 's/^#   //p' Makefile

# PYTHON=... picks an interpreter; otherwise the first suitable one on the PATH.
$(BIN)/python:
	@candidates="$(or $(PYTHON),python3 python3.13 python3.12 python3.11)"; \
	for python in $$candidates; do \
	  if "$$python" -c 'import sys; sys.exit(not ((3, 11) <= sys.version_info[:2] <= (3, 13)))' 2>/dev/null; then \
	    echo "creating $(VENV) with $$("$$python" --version)"; \
	    "$$python" -m venv $(VENV) && exit 0; \
	    echo "error: '$$python -m venv' failed (on Debian and Ubuntu: apt-get install python3-venv)" >&2; exit 2; \
	  fi; \
	done; \
	echo "error: no Python 3.11, 3.12 or 3.13 among: $$candidates" >&2; \
	echo "  fix: install one, or name it: make PYTHON=/path/to/python3.12 ..." >&2; exit 2

# A stamp keeps the environment until its definition changes; the dev environment also serves the demo.
$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing endolux and its development tools into $(VENV)"
	@$(PIP) install -qq --constraint constraints.txt --editable '.[dev]'
	@touch $(VENV)/.core $(VENV)/.dev

$(VENV)/.core: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing endolux into $(VENV)"
	@$(PIP) install -qq --constraint constraints.txt --editable .
	@touch $(VENV)/.core

demo: $(VENV)/.core
	@$(BIN)/endolux demo --output $(OUT)

lint: $(VENV)/.dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

test: lint
	@$(BIN)/python -m pytest -n 2 -m "not slow"

test-slow: $(VENV)/.dev
	@$(BIN)/python -m pytest -n 2 -m slow

bench: $(VENV)/.core
	@$(BIN)/python benchmarks/first_depth.py
	@$(BIN)/python benchmarks/clip.py $(CLIP)

clean:
	@rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
