# The doors of the project. Each target sets up what it needs; `make help` lists them.
# It reads on GNU Make 3.81 as well, which is what macOS has.

BIN := .venv/bin
READY := .venv/.installed
CODE := pipeline workers tests benchmarks examples scripts

.DEFAULT_GOAL := help
.PHONY: help demo test chaos fuzz check bench install format clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

demo: $(READY) ## turn a short clip into a streamable asset and play it in your browser
	$(BIN)/reelway demo

test: $(READY) ## run all tests; what is missing on this machine is skipped with a reason
	$(BIN)/python -m pytest

chaos: $(READY) ## kill workers, Redis and S3 under a hundred assets, stock dramatiq beside ours; SEED=… repeats a run
	PYTHONPATH=tests $(BIN)/python tests/chaos/run.py $(if $(SEED),--seed $(SEED))
	CHAOS_FULL=1 $(BIN)/python -m pytest tests/chaos/test_bad_days.py

fuzz: $(READY) ## damage good files at random and process them; N=… (2000) mutants, SEED=… repeats a run
	PYTHONPATH=tests $(BIN)/python tests/fuzz/fuzz.py $(if $(N),--count $(N)) $(if $(SEED),--seed $(SEED))

check: $(READY) ## lint, format, types, import layers, and a lock that is current and free of duplicates
	$(BIN)/ruff check $(wildcard $(CODE))
	$(BIN)/ruff format --check $(wildcard $(CODE))
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/unit/test_layers.py tests/unit/test_dependencies.py
	$(BIN)/python scripts/bootstrap.py lock

bench: $(READY) ## measure every performance claim against its peer, on this machine
	set -e; for claim in benchmarks/[a-z]*.py; do $(BIN)/python -m benchmarks.$$(basename $$claim .py); done

install: $(READY) ## set up .venv and the players, nothing else

format: $(READY) ## put the code in the project's format
	$(BIN)/ruff check --fix $(wildcard $(CODE))
	$(BIN)/ruff format $(wildcard $(CODE))

clean: ## remove what `make install` made
	rm -rf .venv .tools node_modules

$(READY): pyproject.toml uv.lock package.json package-lock.json scripts/bootstrap scripts/bootstrap.py
	@sh scripts/bootstrap
