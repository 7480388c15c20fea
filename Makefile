# make run    install the pinned packages, run the changed stages (dvc repro), show the result
# make test   the tests
# make soak   the long tests: kills, servers, large images, thousands of damaged files
# make lint   check format, style, types and who may import whom
# make docs   build the documentation site in site/
# make wheel  build the package in dist/
# make venv   only install; then `. .venv/bin/activate` gives dvc and segline
# make generate   write what follows from params.py: docs/params.md and the comments in params.yaml

.PHONY: run test soak lint docs wheel venv generate
.DEFAULT_GOAL := run

BIN := .venv/bin
# The Python of .venv, else the newest supported one. `make run PYTHON=python3.12` chooses another, and installs anew.
# A name is not enough: a pyenv shim may exist without its Python.
SHOW := import sys; v = sys.version_info[:2]; (3, 11) <= v < (3, 15) or sys.exit(1); print("%d.%d" % v)
PYTHON ?= $(shell for name in $(BIN)/python python3.14 python3.13 python3.12 python3.11 python3 python; do \
	$$name -c '$(SHOW)' >/dev/null 2>&1 && echo $$name && break; done)
VERSION := $(shell $(PYTHON) -c '$(SHOW)' 2>/dev/null)
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# The stages call `python`, which DVC looks up on PATH, not in its own environment.
export PATH := $(CURDIR)/$(BIN):$(PATH)

# The stamps are named by Python and the content of the pins, so that a changed pin installs and a changed date does not.
PINS := .venv/pins-$(VERSION)-$(shell cat requirements.txt | cksum | cut -d ' ' -f 1)
DEV_PINS := .venv/dev-pins-$(VERSION)-$(shell cat requirements.txt requirements-dev.txt | cksum | cut -d ' ' -f 1)

run: $(PINS)
	$(BIN)/python -m dvc repro
	@PYTHONPATH=src $(BIN)/python -m segline summary

test: $(DEV_PINS)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

soak: $(DEV_PINS)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m soak --durations=15 tests/soak

lint: $(DEV_PINS)
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	PYTHONPATH=src $(BIN)/lint-imports --no-logo

docs: $(DEV_PINS)
	$(BIN)/zensical build --clean --strict

# Without the first line, setuptools would pack files of an earlier build that no longer exist in src.
wheel: $(PINS)
	rm -rf build
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir dist .

generate: $(DEV_PINS)
	PYTHONPATH=src $(BIN)/python tools/params_text.py

venv: $(PINS)

$(PINS):
	@test -n "$(VERSION)" || { echo "Python 3.11 to 3.14 is needed: install one of them, or set PYTHON" >&2; exit 1; }
	@echo "Installing the pinned packages into .venv for Python $(VERSION); this takes a minute or two."
	@test -e $(BIN)/python$(VERSION) || $(PYTHON) -m venv --clear .venv
	@$(PIP) $$(grep -o '^torch==[^ ]*' requirements.txt)
	@$(PIP) -r requirements.txt
	@$(PIP) --no-deps --no-build-isolation -e .
	@rm -f .venv/pins-* && touch $@

$(DEV_PINS): $(PINS)
	@$(PIP) -r requirements-dev.txt
	@rm -f .venv/dev-pins-* && touch $@
