# `make demo` and `make test` set up everything they need in .venv: a fresh clone needs only Python and make.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint setup clean

demo: .venv/installed
	$(BIN)/evlift demo --out runs/demo

test: .venv/installed lint
	$(BIN)/python -m pytest -n 2

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

setup: .venv/installed

# torch first and by itself: its pinned version settles which build everything after it uses.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip setuptools wheel
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv runs build dist src/*.egg-info .mypy_cache .ruff_cache .hypothesis
