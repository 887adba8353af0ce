# Either command makes an environment in .venv and installs the project into it first:
#   make demo    runs the bundled models on the bundled benchmark, offline, and shows the result
#   make test    runs the tests
PYTHON ?= python3
VENV ?= .venv
# The versions that the tests are run with; pyproject.toml allows others.
TORCH ?= torch==2.14.1 torchvision==0.29.1
RUN = $(VENV)/bin

.PHONY: demo install test test-all lint docs pre-commit audit check wheel train-tiny clean

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
	$(RUN)/typos
	$(RUN)/python .ci/check_wording.py
	$(RUN)/check-jsonschema -q --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(RUN)/check-jsonschema -q --builtin-schema vendor.github-issue-forms \
		$(filter-out %/config.yml,$(wildcard .github/ISSUE_TEMPLATE/*.yml))
	$(RUN)/check-jsonschema -q --builtin-schema vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml
	$(RUN)/check-jsonschema -q --builtin-schema vendor.citation-file-format CITATION.cff
	$(RUN)/hadolint Dockerfile

# The documentation site, in site/; a warning is an error.
docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(RUN)/mkdocs build --strict --quiet

$(VENV)/.installed-docs: $(VENV)/.installed
	$(RUN)/pip install -q -e ".[docs]"
	touch $@

# Checks at every commit; needs pre-commit (pip install pre-commit).
pre-commit:
	pre-commit install

# Known vulnerabilities of the installed packages; skipped if PyPI cannot be reached.
audit: install
	@found=$$($(RUN)/pip-audit --progress-spinner off --skip-editable 2>&1) && echo "no known vulnerabilities" || \
		case "$$found" in \
			*onnection*) echo "not audited: PyPI cannot be reached";; \
			*) echo "$$found"; exit 1;; \
		esac

# What CI runs: the same for a person.
check: test lint docs audit

# Trains the checkpoints in models/ again, from rendered images; takes up to an hour on 2 cores.
train-tiny: install
	$(RUN)/python -m toy_models --output models

wheel: install
	$(RUN)/python -m build --wheel --outdir dist

clean:
	rm -rf $(VENV) build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis
