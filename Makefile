# The two commands a newcomer needs are `make demo` and `make test`.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# Clients of other APIs, for tests: see tests/clients/requirements.in.
CLIENTS := $(VENV)/clients

.DEFAULT_GOAL := help
.PHONY: help demo test bench check format lock clean

help: ## list the commands
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: $(VENV)/.run ## install, then run workflows through the agent on the embedded simulator
	$(BIN)/comfyui-agent demo

test: $(VENV)/.dev $(CLIENTS)/.installed ## lint, types and the whole test suite
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest --numprocesses 3 --dist loadfile

bench: $(VENV)/.dev ## measure what the agent adds to the engine (docs/performance.md)
	$(BIN)/python -m benchmarks run $(BENCH)

format: $(VENV)/.dev ## let ruff format and fix what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: $(VENV)/.dev ## resolve the dependencies again and write the lock files
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --all-extras pyproject.toml -o requirements-dev.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header tests/clients/requirements.in -o tests/clients/requirements.lock

clean: ## remove what the commands above made
	rm -rf $(VENV) demo-output benchmark-output .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/bin/pip:
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: requirements.lock pyproject.toml | $(VENV)/bin/pip
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/.run
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	touch $@

$(CLIENTS)/.installed: tests/clients/requirements.lock tests/clients/package-lock.json | $(VENV)/bin/pip
	$(BIN)/python -m venv $(CLIENTS)
	$(CLIENTS)/bin/pip install --quiet --disable-pip-version-check --no-compile --require-hashes -r tests/clients/requirements.lock
	cp tests/clients/package.json tests/clients/package-lock.json $(CLIENTS)
	! command -v npm >/dev/null || npm ci --silent --ignore-scripts --prefix $(CLIENTS) \
		|| echo "npm could not install the clients for JavaScript; their tests will be skipped, and say so"
	touch $@
