# Two commands matter: `make quickstart` and `make test`. Both build .venv in this folder when it is missing or stale.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DATA ?=

export NO_ALBUMENTATIONS_UPDATE := 1
# Without compiled files each process reads torch's source: ten seconds. An empty value lets Python write them.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help setup quickstart test test-all lint docs notebook format clean

help:
	@echo "make quickstart            fine-tune on a generated dataset; on your data: make quickstart DATA=folder"
	@echo "make test                  linter, type checker and tests (under 10 minutes on 2 cores)"
	@echo "make test-all              linter, type checker and all tests (under an hour)"
	@echo "make docs                  build the documentation site in site/; a dead link is an error"
	@echo "make notebook              execute examples/quickstart.ipynb and store its outputs"
	@echo "make format                ruff format and automatic fixes"

setup: $(STAMP)

# uv unpacks torch several times faster than pip; where it cannot reach what pip is configured for, pip does it.
$(STAMP): pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' || \
		{ echo "tldet needs Python 3.10 to 3.13: make PYTHON=python3.12 $(MAKECMDGOALS)"; rm -rf $(VENV); exit 2; }
	@echo "setting up $(VENV) (torch is large: about a minute with a warm cache, a few without)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv 2>/dev/null && \
		$(BIN)/uv pip install --quiet --python $(BIN)/python -e '.[dev]' || \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $(STAMP)

quickstart: $(STAMP)
	@$(BIN)/tldet quickstart $(if $(DATA),--data "$(DATA)")

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Two processes of one thread each end sooner than one of two: much of a test is no matrix product.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

test: lint
	$(PYTEST) -m "not slow"

test-all: lint
	$(PYTEST)

docs: $(STAMP)
	DISABLE_MKDOCS_2_WARNING=true NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

notebook: $(STAMP)
	$(BIN)/python docs/generate/notebook.py

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis site
