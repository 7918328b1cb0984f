# The commands of this repository: `make` lists them.

# Both images have 3.11; smdebug works with no later one.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
SHELL_SCRIPTS = $(shell git ls-files '*.sh')

# The server's port on this machine.
PORT ?= 8080
export PORT

.PHONY: help setup up down predict test lint format

help:  ## List these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s  %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/ready  ## Install everything into .venv

.venv/ready: requirements/dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
		{ echo 'make: Python 3.11 is needed: make setup PYTHON=/path/to/python3.11' >&2; exit 1; }
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --require-hashes --requirement requirements/dev.txt
	touch $@

up:  ## Train on the sample pictures and serve the model on PORT (8080)
	local_test/up.sh

down:  ## Stop what `make up` started
	local_test/down.sh

predict:  ## Ask the server about FILE (default: a validation picture)
	local_test/predict.sh "$(or $(FILE),$(firstword $(wildcard local_test/test_dir/input/data/validation/*.png)))"

test: setup  ## Run the tests
	.venv/bin/python -m pytest

lint: setup  ## Check style, types, imports, scripts and Dockerfiles
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	PYTHONPATH=container:. .venv/bin/lint-imports
	.venv/bin/shellcheck $(SHELL_SCRIPTS)
	.venv/bin/hadolint Dockerfile.train Dockerfile.serve

format: setup  ## Mend what the formatter can
	.venv/bin/ruff check --fix
	.venv/bin/ruff format
