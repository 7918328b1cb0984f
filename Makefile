# The commands of this repository: `make` lists them.

# smdebug needs distutils, which Python 3.12 removed.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
SHELL_SCRIPTS = $(shell git ls-files '*.sh' .ci/run)

# The port of the local server.
PORT ?= 8080
export PORT

.PHONY: help setup prepare up down predict tour test lint format docs sdk3 lock

help:  ## List these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s  %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/ready  ## Install everything into .venv

# --no-deps: the lock lists all packages, some in versions that smdebug's metadata excludes.
# --no-config: the overrides in pyproject.toml have no hashes; they are in the lock.
# --compile-bytecode, as pip does: some packages compile with warnings, which tests treat as errors.
# uv does not read pip's settings. Where only these name a package index, pip installs.
INSTALL = install --no-deps --require-hashes --requirement
.venv/ready: requirements/setup.txt requirements/dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
		{ echo 'make: Python 3.11 is needed: make setup PYTHON=/path/to/python3.11' >&2; exit 1; }
	$(PYTHON) -m venv .venv
	.venv/bin/pip $(INSTALL) requirements/setup.txt
	.venv/bin/uv --no-config pip $(INSTALL) requirements/dev.txt --compile-bytecode || \
		.venv/bin/pip $(INSTALL) requirements/dev.txt
	.venv/bin/pip install --no-deps --no-build-isolation --editable .
	touch $@

prepare: setup  ## Prepare the data set OUT from SOURCE, a folder or an archive (docs/how-to/own-data.md)
	.venv/bin/python -m image_classifier.preparation prepare "$(SOURCE)" "$(OUT)" $(OPTIONS)

up:  ## Train on the sample images and serve the model on PORT (default 8080)
	local_test/up.sh

down:  ## Stop what `make up` started
	local_test/down.sh

predict:  ## Classify FILE (default: an image from test_dir); JSON=yes prints the whole response
	local_test/predict.sh $(if $(JSON),--json) $(if $(FILE),"$(FILE)")

tour: setup  ## Run the whole workflow offline; write one page that links all reports
	.venv/bin/python -m examples.tour local_test/tour

# Tests marked `docker` are deselected if no Docker engine is found.
test: setup  ## Run the tests; `make test TESTS='-m "not slow"'` runs some
	.venv/bin/python -m pytest $(TESTS)

lint: setup  ## Check style, types, imports, prose, scripts and Dockerfiles
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/lint-imports
	.venv/bin/python -m tests.prose
	.venv/bin/shellcheck $(SHELL_SCRIPTS)
	.venv/bin/hadolint Dockerfile.train Dockerfile.serve
	if docker compose version >/dev/null 2>&1; then docker compose config --quiet; fi

format: setup  ## Format the code and apply automatic fixes
	.venv/bin/ruff check --fix
	.venv/bin/ruff format

# Separate, because the site needs none of the other packages.
.venv/docs/ready: requirements/docs.txt
	$(PYTHON) -m venv .venv/docs
	.venv/docs/bin/pip install --quiet --no-deps --require-hashes --requirement $<
	touch $@

docs: .venv/docs/ready  ## Build the documentation site, site/index.html
	NO_MKDOCS_2_WARNING=1 .venv/docs/bin/mkdocs build --strict --quiet
	@echo 'open site/index.html'

# Separate, because version 2 of the SDK is in the other one.
.venv/sdk3/ready: requirements/sdk3.txt .venv/ready
	$(PYTHON) -m venv .venv/sdk3
	.venv/bin/uv --no-config pip $(INSTALL) $< --quiet --python .venv/sdk3 || \
		.venv/sdk3/bin/pip $(INSTALL) $< --quiet
	touch $@

sdk3: .venv/sdk3/ready  ## Install version 3 of the SageMaker SDK, for examples/sdk3.py and its test

# `make lock UPGRADE=--upgrade` takes the latest versions; without it only changes in pyproject.toml.
LOCK = .venv/bin/uv pip compile --quiet $(UPGRADE) --generate-hashes --universal \
	--python-version 3.11 --no-header --no-annotate
# Without pyproject.toml as an input, only the group is locked, not what the command needs.
lock: setup  ## Lock the packages that pyproject.toml requires
	$(LOCK) --group dev -o requirements/dev.txt pyproject.toml
	$(LOCK) --group setup -c requirements/dev.txt -o requirements/setup.txt
	$(LOCK) --group train -c requirements/dev.txt -o requirements/train.txt
	$(LOCK) --group mlflow -c requirements/dev.txt -o requirements/mlflow.txt
	$(LOCK) --group serve -c requirements/dev.txt -o requirements/serve.txt
	$(LOCK) --group serve-gpu -c requirements/dev.txt -o requirements/serve-gpu.txt
	$(LOCK) --group docs -c requirements/dev.txt -o requirements/docs.txt
	$(LOCK) --group sdk3 -o requirements/sdk3.txt
