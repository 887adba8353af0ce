# `make test` makes an environment in .venv, installs the project into it and runs the tests.
PYTHON ?= python3
VENV ?= .venv
# The versions that the tests are run with; pyproject.toml allows others.
TORCH ?= torch==2.14.1 torchvision==0.29.1
RUN = $(VENV)/bin

.PHONY: install test test-all lint check wheel clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(RUN)/pip install -q --upgrade pip
	$(RUN)/pip install -q $(TORCH)
	$(RUN)/pip install -q -e ".[dev]"
	touch $@

test: install
	$(RUN)/python -m pytest -n 2

test-all: install
	$(RUN)/python -m pytest -n 2 -m "slow or not slow"

lint: install
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy

# What CI runs: the same for a person.
check: test lint

wheel: install
	$(RUN)/python -m build --wheel --outdir dist

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
