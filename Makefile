# Every target sets itself up: the first one creates .venv and installs, the next ones find it ready.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# Nothing here calls home or fetches anything at run time; HF_HUB_OFFLINE=0 lets a warm start download its weights.
export FLWR_TELEMETRY_ENABLED ?= 0
export FLWR_DISABLE_UPDATE_CHECK ?= 1
export FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION ?= 1
export RAY_USAGE_STATS_ENABLED ?= 0
export HF_HUB_OFFLINE ?= 1

.DEFAULT_GOAL := help
.PHONY: help install demo test e2e check format bench clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(INSTALLED) ## Create .venv and install what constraints.txt pins

demo: $(INSTALLED) ## Simulate a federation on synthetic hospitals, all arms, to its report
	$(BIN)/mumc-sim

test: $(INSTALLED) ## Run the whole test suite
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2

e2e: $(INSTALLED) ## Play a whole federation on loopback: TLS, masks, a power cut (minutes)
	$(BIN)/pytest -s -m deployment tests/e2e

check: $(INSTALLED) ## Lint, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED) ## Put the code in its standard form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(INSTALLED) ## Measure what the documentation quotes, and print the table (15 minutes)
	$(BIN)/python benchmarks/table.py

clean: ## Remove the caches of the tools
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis build *.egg-info

# uv resolves and unpacks in seconds where pip takes minutes. Unlike pip it compiles only where it is told to; without that
# each process of a test compiles torch and all else for six seconds again, where PYTHONDONTWRITEBYTECODE is set. The
# stamp is touched last, so a broken installation is redone.
$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -c constraints.txt -e '.[dev]'
	@touch $@
