# Either command makes an environment in .venv and installs the project into it first:
#   make demo    runs the bundled models on the bundled benchmark, offline, and shows the result
#   make test    runs the tests
PYTHON ?= python3
VENV ?= .venv
# The versions that the tests are run with; pyproject.toml allows others.
TORCH ?= torch==2.14.1 torchvision==0.29.1
RUN = $(VENV)/bin

.PHONY: demo install test test-all lint audit check wheel train-tiny clean

demo: install
	$(RUN)/vlm-harness --model tiny-clip,tiny-llava --tasks whatsup_rendered \
		--output-dir results --run-id demo --fresh
	$(RUN)/vlm-harness contact-sheet results/demo
	$(RUN)/vlm-harness report results/demo

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(RUN)/pip install -q --upgrade pip
	$(RUN)/pip install -q $(TORCH)
	$(RUN)/pip install -q -e ".[dev]"
	touch $@

test: install
	$(RUN)/python -m pytest -n 2 --dist worksteal

test-all: install
	$(RUN)/python -m pytest -n 2 --dist worksteal -m "slow or not slow"

lint: install
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy

# Known holes in what is installed, where PyPI can be asked.
audit: install
	@found=$$($(RUN)/pip-audit --progress-spinner off --skip-editable 2>&1) && echo "no known holes" || \
		case "$$found" in \
			*onnection*) echo "not audited: PyPI cannot be reached";; \
			*) echo "$$found"; exit 1;; \
		esac

# What CI runs: the same for a person.
check: test lint audit

# Makes the checkpoints in models/ anew from the drawings: under an hour on 2 cores.
train-tiny: install
	$(RUN)/python -m toy_models --output models

wheel: install
	$(RUN)/python -m build --wheel --outdir dist

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
