# The verbs of this house. Each sets up what it needs; a second run starts in seconds.
# On machines where plain `pip install torch` would bring a CUDA build, name the index that has the CPU build:
#   make demo TORCH_INDEX=<the CPU index that pytorch.org names>
PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
TORCH_INDEX ?=
BIN := $(VENV)/bin

.PHONY: docs setup demo demo-tp test soak releases lint bench serve clean help
.DEFAULT_GOAL := help

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(VENV)/.ready ## a virtual environment with everything for demo, tests and lint

$(VENV)/.ready: pyproject.toml agent/pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) '$(TORCH)'
	@# Whatever a framework asks for: no other torch than the one above.
	@echo '$(TORCH)' > $(VENV)/constraints.txt
	$(BIN)/python -m pip install --quiet --constraint $(VENV)/constraints.txt -e ./agent -e '.[postgres]' --group dev
	@touch $@

demo-tp: setup ## the seed bug of SmolLM3 on stock PyTorch, flagged before the first step
	$(BIN)/python examples/tp_seed_bug.py

test: setup ## the test suite (about ten minutes on two cores)
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not soak"

soak: setup ## the full fault campaigns
	$(BIN)/python -m pytest -n auto --timeout 3600 -m soak

releases: setup ## the integrations on older releases of the frameworks, and on those that setup leaves out
	$(BIN)/python -m pytest --timeout 3600 -m soak tests/integrations/test_releases.py

lint: setup ## ruff, mypy --strict, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

demo: setup ## watch a real training run fall ill, and the alert it sends
	$(BIN)/holter demo

docs: setup ## the documentation site, into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

serve: setup ## a collector on loopback
	$(BIN)/holter serve

clean: ## forget the virtual environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
