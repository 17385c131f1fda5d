# The two commands of the README are `make run` and `make test`; each sets the environment up first if it is not there.

PYTHON ?= python3
PY := .venv/bin/python
PIP := .venv/bin/pip --disable-pip-version-check --quiet
READY := .venv/.ready

.PHONY: setup run test lint format check wheel clean

setup: $(READY)

run: $(READY)
	.venv/bin/harness run matrix.yaml

test: $(READY)
	$(PY) -m pytest

lint: $(READY)
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

format: $(READY)
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

check: lint test

wheel: $(READY)
	$(PY) -m build --wheel --no-isolation

clean:
	rm -rf .venv build dist

# The stamp is written last, so an interrupted set-up is done again.
$(READY): requirements/cpu.txt requirements/dev.txt pyproject.toml
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || { echo "harness needs Python 3.11 or later; name one with: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; exit 1; }
	@test -x $(PY) || $(PYTHON) -m venv .venv
	@echo "setup: torch"
	@if $(PIP) install --no-deps "torch==2.13.0+cpu" 2>/dev/null; then echo "setup: torch 2.13.0+cpu (the CPU build)"; \
	 else echo "setup: pip finds no torch 2.13.0+cpu; taking torch 2.13.0 with its dependencies (larger, runs on a CPU too)"; \
	      $(PIP) install "torch==2.13.0"; fi
	@echo "setup: the pinned CPU environment (about three minutes)"
	@$(PIP) install --no-deps -r requirements/cpu.txt -r requirements/dev.txt
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@echo "setup: importing torch, transformers and vllm"
	@$(PY) -W ignore -c "import torch, transformers, vllm; print('setup: ready: torch', torch.__version__, '| transformers', transformers.__version__, '| vllm', vllm.__version__)"
	@touch $(READY)
