# Every recipe is one step a person would take; `make` lists them.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
TORCH ?= 2.13.0
PYTEST_ARGS ?= -n 3 --dist loadfile --no-loadscope-reorder
LONG ?= long or hypothesis
LAWS ?= long

.DEFAULT_GOAL := help
.PHONY: help demo test long crash clients check fix docs lock bench peers clean

help: ## List the recipes
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

# The example keeps its rows in the EU, so a home has to say that it is there. They are public: the demo says it for you.
demo: export BEDPLATE_REGION ?= eu
demo: $(VENV)/.demo ## Set up, run the retail use case end to end, leave the pages serving
	@echo "BEDPLATE_REGION=$$BEDPLATE_REGION: where this demo says that it runs, as the example asks; its data are public"
	@$(BIN)/bedplate run examples/retail
	@$(BIN)/bedplate up --detach

test: $(VENV)/.test $(VENV)/.mlflow $(VENV)/.inference ## Set up with everything the tests need, then run the suite
	@$(BIN)/python scripts/browser.py
	$(BIN)/python -m pytest $(PYTEST_ARGS)

long: $(VENV)/.test $(VENV)/.mlflow $(VENV)/.inference $(VENV)/.contracts ## Run the tests that take longest: whole runs, kills, lost networks, laws on many examples
	$(BIN)/python -m pytest -m "($(LONG)) and not crash and not torch" --hypothesis-profile $(LAWS) --timeout 600 $(PYTEST_ARGS)

crash: $(VENV)/.test ## Run the long crash sweeps
	$(BIN)/python -m pytest -m crash --timeout 1200 $(PYTEST_ARGS)

clients: $(VENV)/.test $(VENV)/.torch $(VENV)/.skypilot ## Run what PyTorch and Lightning log through the MLflow client, and SkyPilot on exports (2 GB and more to install)
	$(BIN)/python -m pytest -m torch --timeout 600
	$(BIN)/python -m pytest -m long tests/app/test_skypilot.py

check: $(VENV)/.test ## Lint, types, import rules, generated reference
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python scripts/reference.py --check

fix: $(VENV)/.test ## Format and mend what the linter can
	$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

docs: $(VENV)/.test ## Write the generated reference pages anew
	$(BIN)/python scripts/reference.py

bench: $(VENV)/.test $(VENV)/.mlflow ## Run the benchmarks that docs/benchmarks.md reports
	@for file in benchmarks/*.py; do echo "== $$file"; $(BIN)/python $$file; done

peers: $(VENV)/.test $(VENV)/.mlserver $(VENV)/.feast ## Measure serving beside MLServer, over HTTP and gRPC, and features beside Feast
	$(BIN)/python benchmarks/serving.py --peer $(VENV)/mlserver/bin/python
	$(BIN)/python benchmarks/serving_grpc.py --peer $(VENV)/mlserver/bin/python
	$(BIN)/python benchmarks/features.py --peer $(VENV)/feast/bin/python

lock: $(VENV)/.uv ## Pin the newest versions that fit pyproject.toml
	sh scripts/lock.sh $(BIN)/uv

clean: ## Remove the environment and what tools left behind
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

# The environment: uv from a hashed pin, then everything else from hashed locks, compiled to bytecode once.
$(VENV)/.uv: requirements/uv.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
		|| { echo "Bedplate needs Python 3.11 to 3.13; name one: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --require-hashes -r requirements/uv.txt
	@touch $@

$(VENV)/.demo: $(VENV)/.uv requirements/demo.txt pyproject.toml
	@echo "Setting up: installing pinned dependencies"
	@VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/uv pip install --quiet --compile-bytecode --no-deps --require-hashes -r requirements/demo.txt
	@VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/uv pip install --quiet --no-deps --no-build-isolation --editable .
	@env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m compileall -q src
	@touch $@

$(VENV)/.test: $(VENV)/.demo requirements/test.txt
	@echo "Setting up: installing what the tests need"
	@VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/uv pip install --quiet --compile-bytecode --no-deps --require-hashes -r requirements/test.txt
	@touch $@

# The stock MLflow client and server, which tests and benchmarks compare with, apart from ours: their pins are not ours.
$(VENV)/.mlflow: $(VENV)/.uv requirements/mlflow.txt
	@echo "Setting up: installing the MLflow client and server that the tests compare with"
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(VENV)/mlflow
	@$(BIN)/uv pip install --quiet --compile-bytecode --no-deps --require-hashes --python $(VENV)/mlflow -r requirements/mlflow.txt
	@touch $@

# The stock inference clients, likewise.
$(VENV)/.inference: $(VENV)/.uv requirements/inference.txt
	@echo "Setting up: installing the inference clients that the tests call a replica with"
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(VENV)/inference
	@$(BIN)/uv pip install --quiet --compile-bytecode --no-deps --require-hashes --python $(VENV)/inference -r requirements/inference.txt
	@touch $@

# What others read our contracts with, and dlt, whose resources are sources of ours, likewise.
$(VENV)/.contracts: $(VENV)/.uv requirements/contracts.txt
	@echo "Setting up: installing the tools that read contracts, and dlt"
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(VENV)/contracts
	@$(BIN)/uv pip install --quiet --compile-bytecode --no-deps --require-hashes --python $(VENV)/contracts -r requirements/contracts.txt
	@touch $@

# The emulator of Azure's object storage: asked for by name, as it takes Node.js; tests on it are skipped without.
$(VENV)/.azurite: $(VENV)/.uv requirements/azurite/package-lock.json
	@mkdir -p $(VENV)/azurite && cp requirements/azurite/*.json $(VENV)/azurite
	@echo "Setting up: installing Azurite"
	@npm ci --prefix $(VENV)/azurite --ignore-scripts --no-audit --no-fund --silent
	@touch $@

# SkyPilot, which reads the tasks that are exported for it, likewise.
$(VENV)/.skypilot: $(VENV)/.uv requirements/skypilot.txt
	@echo "Setting up: installing the SkyPilot that reads what is exported for it"
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(VENV)/skypilot
	@$(BIN)/uv pip install --quiet --compile-bytecode --no-deps --require-hashes --python $(VENV)/skypilot -r requirements/skypilot.txt
	@touch $@

# MLServer, which the benchmarks of serving are measured beside, likewise.
$(VENV)/.mlserver: $(VENV)/.uv requirements/mlserver.txt
	@echo "Setting up: installing the MLServer that serving is measured beside"
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(VENV)/mlserver
	@$(BIN)/uv pip install --quiet --compile-bytecode --no-deps --require-hashes --python $(VENV)/mlserver -r requirements/mlserver.txt
	@touch $@

# Feast, which joins and reads of features are measured beside, likewise.
$(VENV)/.feast: $(VENV)/.uv requirements/feast.txt
	@echo "Setting up: installing the Feast that features are measured beside"
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(VENV)/feast
	@$(BIN)/uv pip install --quiet --compile-bytecode --no-deps --require-hashes --python $(VENV)/feast -r requirements/feast.txt
	@touch $@

# The same as .mlflow with PyTorch and Lightning. pip chooses the build of torch: the one it was told of, or the registry's.
$(VENV)/.torch: $(VENV)/.uv requirements/torch.txt
	@echo "Setting up: installing PyTorch and Lightning with the MLflow client"
	@$(BIN)/python -m venv --clear $(VENV)/torch
	@$(BIN)/uv pip install --quiet --compile-bytecode --no-deps --require-hashes --python $(VENV)/torch -r requirements/torch.txt
	@$(VENV)/torch/bin/python -m pip install --quiet torch==$(TORCH)
	@touch $@
