# Everything a newcomer needs: `make demo` runs the main job, `make test` runs every check.
PYTHON ?= python3
BIN := .venv/bin
.DEFAULT_GOAL := help

.PHONY: help install demo test lint types unit coverage bench schemas docs rivals docker-checks images lock clean

help:  ## Show what can be made
	@grep -E '^[a-z/.-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

# One environment for demo and tests: versions come from requirements.lock.
.venv/.installed: pyproject.toml requirements.lock
	@echo "Installing into .venv; this takes a few minutes and 1.6 GB, and prints nothing until it is done."
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --constraint requirements.lock --editable '.[all]' --group dev
	touch $@

install: .venv/.installed  ## Install Backchannel and its tools into .venv

demo: install  ## Learn in a closed loop with the simulated world; writes out/demo.html
	$(BIN)/backchannel demo

test: lint types unit  ## Run every check: lint, layers, types, tests

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: install
	$(BIN)/mypy

unit: install
	$(BIN)/pytest --numprocesses logical --dist worksteal

coverage: install  ## Run the tests and say which lines they do not reach; it takes half as long again
	$(BIN)/pytest --numprocesses logical --dist worksteal --cov --cov-report=term

bench: install rivals  ## Measure everything, in half an hour, and write docs/performance.md
	mkdir -p out
	$(BIN)/backchannel bench --json > out/bench.json
	$(BIN)/backchannel bench --of out/bench.json --markdown > docs/performance.md

schemas: install  ## Write the JSON Schemas, the AsyncAPI and the OpenAPI document from the structs
	$(BIN)/backchannel schemas
	$(BIN)/backchannel serve --openapi > docs/openapi.json

docs: install  ## Write the references of configuration and events from the code, and build the site in out/site
	$(BIN)/backchannel config --markdown > docs/configuration.md
	$(BIN)/backchannel schemas --markdown > docs/events.md
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

rivals: install  ## Install the libraries that `backchannel bandits` and `backchannel bench bandit` compare with
	$(BIN)/python -m pip install --quiet --constraint requirements.lock --group bench

docker-checks: install  ## Install what the tests check the files in docker/ with
	$(BIN)/python -m pip install --quiet --constraint requirements.lock --group docker

docker/.env:  ## Make up passwords and tokens for docker/compose.yaml
	umask 077; for name in POSTGRES_PASSWORD BACKCHANNEL_TOKENS BACKCHANNEL_DASHBOARD_TOKEN; do \
	    echo "$$name=$$(openssl rand -hex 16)"; done > $@

images: install  ## Build the image and run it as docker/compose.yaml says, as root, with buildah and debootstrap
	$(BIN)/pytest -m images tests/integration/test_images.py

lock: install  ## Resolve requirements.lock anew
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --all-extras --group dev --group bench --group docker --universal --no-header --no-emit-index-url --quiet --output-file requirements.lock

clean:  ## Remove what was installed and written
	rm -rf .venv out dist .coverage .mypy_cache .pytest_cache .ruff_cache .hypothesis
