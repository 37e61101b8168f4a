# Everything runs in .venv; nothing is installed outside this folder.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow check clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.setup-done
TYPING := .cache/typing/vitruvius

help:
	@echo "make setup      prepare .venv (incremental)"
	@echo "make demo       trace, quantize, generate Verilog, estimate, co-simulate; report in out/demo"
	@echo "make test       lint, types, layers and the tests that take minutes at most"
	@echo "make test-slow  the remaining tests"
	@echo "make clean      remove .venv, out and every cache"

setup: $(STAMP)

# The tools that the Python packages need from the system, each with the Debian package that has it.
$(STAMP): pyproject.toml constraints.txt
	@missing=""; \
	for pair in g++:g++ make:make perl:perl git:git; do \
	  command -v "$${pair%%:*}" >/dev/null || missing="$$missing $${pair##*:}"; \
	done; \
	if ! command -v $(PYTHON) >/dev/null; then missing="$$missing python3"; \
	else \
	  $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "vitruvius needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1)." \
	         "Name another one: make setup PYTHON=python3.11" >&2; exit 2; }; \
	  $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || missing="$$missing python3-venv"; \
	fi; \
	if [ -n "$$missing" ]; then \
	  echo "missing from this system:$$missing. On Debian or Ubuntu: apt-get install$$missing" >&2; \
	  exit 2; \
	fi
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@$(BIN)/python -c 'import find_libpython, sys; sys.exit(not find_libpython.find_libpython())' || { \
	  package=$$($(BIN)/python -c 'import sys; print("libpython%d.%d" % sys.version_info[:2])'); \
	  echo "cocotb needs Python's shared library, which this Python lacks." \
	       "On Debian or Ubuntu: apt-get install $$package" >&2; exit 2; }
	mkdir -p $(dir $(TYPING))
	ln -sfn ../.. $(TYPING)
	touch $@

demo: setup
	$(BIN)/vitruvius demo --out out/demo

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: check
	$(BIN)/python -m pytest -n 2 -m "not slow"

# Icarus Verilog, which a few of these tests need, is no Python package.
test-slow: setup
	@command -v iverilog >/dev/null || { \
	  echo "iverilog is missing from this system, which some slow tests need." \
	       "On Debian or Ubuntu: apt-get install iverilog" >&2; exit 2; }
	$(BIN)/python -m pytest -n 2 -m slow

clean:
	rm -rf $(VENV) out build dist .cache .pytest_cache .mypy_cache .ruff_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
