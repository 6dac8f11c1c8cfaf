# Everything a person or CI does here is one of these targets. Needs make, git and Python 3.11.
PYTHON ?= $(shell for p in python3.11 python3; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null && { echo "$$p"; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SOURCES := $(wildcard services deploy bench chaos tests clients)

.DEFAULT_GOAL := help
.PHONY: help install demo test test-long check static bench chaos bad-days simulate trial lock clean

help: ## List these targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(STAMP) ## Make .venv from requirements.lock, when the lock or pyproject.toml changed.

demo: $(STAMP) ## Start the local stack, sell 2,000 leads on it, and show what became of them.
	$(BIN)/gavel demo

test: check ## Run every check and every test but the long ones, integration and end-to-end included.
	$(BIN)/python -m pytest -m "not long" tests/model tests/integration tests/e2e tests/simulation

test-long: $(STAMP) ## Run the tests that take minutes each: outages, bad days, three brokers, a standby.
	$(BIN)/python -m pytest -m long tests

check: static ## Run the fast checks: format, lint, types, imports, unit, contract and stream tests.
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile tests/unit tests/contract tests/stream

static: $(STAMP) ## Run the checks that execute nothing: format, lint, types, imports.
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy $(SOURCES)
	$(BIN)/lint-imports

bench: $(STAMP) ## Measure Gavel beside its controls (ARGS="--quick" for a short run, "--only NAME" for some of it).
	$(BIN)/python -m bench $(ARGS)

chaos: $(STAMP) ## Kill, stop and cut off everything under load, then audit (ARGS="--leads 5000 --faults 20").
	$(BIN)/python -m chaos $(ARGS)

bad-days: $(STAMP) ## Play bad days: full disk, database away, wrong clocks (ARGS="--only disk-full").
	$(BIN)/python -m chaos.bad_days $(ARGS)

simulate: $(STAMP) ## Run seeds of the simulator: all steps, faults anywhere (ARGS="--seeds 10000", "--seed 17").
	$(BIN)/python -m tests.simulation $(ARGS)

trial: ## Sell leads on the composed system and audit it (ARGS=cluster: three brokers and a standby, killed under load).
	deploy/docker/trial.sh $(ARGS)

lock: $(STAMP) ## Remake requirements.lock from pyproject.toml, with hashes and without addresses.
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --upgrade \
		--generate-hashes --no-emit-index-url --no-emit-find-links \
		--custom-compile-command "make lock  (one lock for running and development alike)" \
		--quiet --output-file requirements.lock

clean: ## Remove what the tools left behind; keeps .venv and the data folder .gavel.
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .bench .chaos
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

$(STAMP): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "Gavel needs Python 3.11, and neither python3.11 nor python3 on PATH is that." \
		"Install it, or say where it is: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null \
		|| { echo "PYTHON=$(PYTHON) is not Python 3.11." >&2; exit 1; }
	test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@
