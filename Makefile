# Two commands do everything: `make demo` runs the main job, `make test` passes the tests.
# Each target sets up what it needs: a virtual environment from locked, hashed requirements, and, when
# run as root on a Debian-like system, the packages that tests and demo use when they are there.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Three on two cores: tests wait a lot, for processes, clocks and sockets. Drills load the machine themselves.
WORKERS ?= 3
drill: WORKERS = 2
PIP := PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip install --quiet --no-input
SOURCES := src tests examples benchmarks scripts
unexport PYTHONDONTWRITEBYTECODE  # hundreds of tests start the program: it is compiled once

.PHONY: help demo test test-converters drill fuzz bench bench-serving lint format docs lock build reference manual sbom clean system

help: ## show the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: $(VENV)/ready system ## run the main job: lend, ask unseen, count, stop (under a minute)
	$(BIN)/cloister demo $(ARGS)

test: $(VENV)/ready $(VENV)/triton-ready system $(VENV)/oidc-ready ## pass the tests
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

# One drill alone, and as often as you like: CLOISTER_DRILL_POWER_CUTS=50000 make drill ARGS="-k test_power"
drill: $(VENV)/ready $(VENV)/triton-ready system $(VENV)/oidc-ready ## run every test, the slow fault drills too
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "drill or not drill" --timeout 1800 $(ARGS)
	$(if $(ARGS),,$(MAKE) test-converters)

test-converters: $(VENV)/converters-ready ## pass the tests of the converters, with PyTorch, which the other tests do without
	$(VENV)/converters/bin/python -m pytest -n 0 tests/convert/test_convert_torch.py

SECONDS_EACH ?= 20
fuzz: $(VENV)/ready ## fuzz every parser of what strangers send, guided by coverage; grows the corpus
	$(BIN)/python tests/fuzz/fuzz.py --seconds $(SECONDS_EACH) $(ARGS)

bench: $(VENV)/ready ## print how fast it is, as ratios to peers and limits
	@for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script $(ARGS); done

bench-serving: $(VENV)/ready system ## print how fast it serves, beside plaintext and other servers (ARGS=--peers)
	$(BIN)/python benchmarks/serving.py $(ARGS)

lint: $(VENV)/ready ## check style and types
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy

format: $(VENV)/ready ## mend what a tool can mend
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

docs: $(VENV)/docs-ready ## build the documentation into site/, refusing broken links
	NO_MKDOCS_2_WARNING=1 $(VENV)/docs/bin/mkdocs build --quiet --strict

build: $(VENV)/ready ## build wheel and sdist into dist/; the same commit gives the same bytes
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(BIN)/hatchling build

reference: $(VENV)/ready ## write the pages that are made from the source anew, man pages too
	$(BIN)/python scripts/pages
	$(MAKE) manual

manual: $(VENV)/ready ## write man pages and completions anew into share/
	mkdir -p share/man/man1 share/bash-completion/completions share/zsh/site-functions share/fish/vendor_completions.d
	rm -f share/man/man1/*.1 && $(BIN)/cloister manual share/man/man1
	$(BIN)/cloister completion bash > share/bash-completion/completions/cloister
	$(BIN)/cloister completion zsh > share/zsh/site-functions/_cloister
	$(BIN)/cloister completion fish > share/fish/vendor_completions.d/cloister.fish

sbom: $(VENV)/run/ready ## write what the wheel depends on anew into requirements/cloister.cdx.json
	$(PYTHON) -m venv $(VENV)/sbom && $(VENV)/sbom/bin/python -m pip install --quiet cyclonedx-bom
	$(PYTHON) scripts/make_sbom.py $(VENV)/sbom/bin/cyclonedx-py $(VENV)/run/bin/python

lock: ## write requirements/*.txt anew from pyproject.toml
	$(PYTHON) -m venv $(VENV)/lock && $(VENV)/lock/bin/python -m pip install --quiet uv
	for group in dev docs triton; do $(VENV)/lock/bin/uv pip compile --quiet --universal --python-version 3.11 --upgrade \
	  --generate-hashes --no-emit-index-url --no-annotate --no-header \
	  $$( [ $$group = dev ] && echo --all-extras pyproject.toml ) --group $$group -o requirements/$$group.txt; done
	$(VENV)/lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-annotate --no-header --constraint requirements/dev.txt pyproject.toml -o requirements/run.txt
	$(MAKE) sbom

clean: ## remove what the targets made
	rm -rf $(VENV) dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/ready: requirements/dev.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "cloister needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) --require-hashes -r requirements/dev.txt
	$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

# What a user of the wheel gets, and nothing else.
$(VENV)/run/ready: requirements/run.txt
	$(PYTHON) -m venv $(VENV)/run
	PIP_DISABLE_PIP_VERSION_CHECK=1 $(VENV)/run/bin/python -m pip install --quiet --no-input --no-deps --require-hashes -r requirements/run.txt
	$(VENV)/run/bin/python -m pip uninstall --quiet --yes setuptools pip
	@touch $@

# An environment over the first one that adds PyTorch alone: its builds are for machines, and hundreds of megabytes large.
$(VENV)/converters-ready: requirements/converters.txt $(VENV)/ready
	$(PYTHON) -m venv $(VENV)/converters
	main=$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))'); \
	  own=$$($(VENV)/converters/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))'); \
	  echo "import site; site.addsitedir('$$main')" > "$$own/main.pth"
	PIP_DISABLE_PIP_VERSION_CHECK=1 $(VENV)/converters/bin/python -m pip install --quiet --no-input -r requirements/converters.txt
	@touch $@

# The clients that the proxy is tested with: they want another protobuf than we do.
$(VENV)/triton-ready: requirements/triton.txt
	$(PYTHON) -m venv $(VENV)/triton
	PIP_DISABLE_PIP_VERSION_CHECK=1 $(VENV)/triton/bin/python -m pip install --quiet --no-input --require-hashes -r requirements/triton.txt
	@touch $@

# A real OpenID Connect provider, in JavaScript; without npm the tests say that they skip it.
$(VENV)/oidc-ready: tests/custodian/oidc/package-lock.json $(VENV)/ready | system
	if command -v npm >/dev/null; then mkdir -p $(VENV)/oidc && cp tests/custodian/oidc/package*.json $(VENV)/oidc/ && \
	  npm ci --prefix $(VENV)/oidc --ignore-scripts --no-audit --no-fund --silent && touch $@; fi

$(VENV)/docs-ready: requirements/docs.txt
	$(PYTHON) -m venv $(VENV)/docs
	PIP_DISABLE_PIP_VERSION_CHECK=1 $(VENV)/docs/bin/python -m pip install --quiet --no-input --require-hashes -r requirements/docs.txt
	@touch $@

system: ## install the software TPM where that is possible
	@scripts/system-packages
