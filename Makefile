# `make demo` and `make test` need a Python of 3.11 or later with pip, and nothing else: they install the rest in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test test-compat lint types contracts pytest exactness conformance test-pythons test-servers benchmarks clean

demo: $(STAMP)
	PATH="$(CURDIR)/$(BIN):$$PATH" sh examples/demo.sh

test: $(STAMP) lint types contracts pytest

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy
	cd examples/orders && $(CURDIR)/$(BIN)/mypy
	cd examples/fastapi && $(CURDIR)/$(BIN)/mypy

contracts: $(STAMP)
	$(BIN)/lint-imports

pytest: $(STAMP)
	PATH="$(CURDIR)/$(BIN):$$PATH" sh tests/run.sh

# Run by hand: many more programs than in each test run (see tests/exactness), and 5,000 leases in a row.
EXACTNESS_PROGRAMS ?= 10000
EXACTNESS_SEED ?= $(shell date +%s)

exactness: $(STAMP)
	PATH="$(CURDIR)/$(BIN):$$PATH" EXACTNESS_PROGRAMS=$(EXACTNESS_PROGRAMS) EXACTNESS_SEED=$(EXACTNESS_SEED) \
		LEASES=5000 sh tests/run.sh -n 0 -s --timeout 0 tests/exactness tests/integration/lease/test_many.py

# Run by hand: many more programs than in each test run, on a plain connection and in the sandbox, in each of its ways.
CONFORMANCE_PROGRAMS ?= 10000
CONFORMANCE_SEED ?= $(shell date +%s)

conformance: $(STAMP)
	@echo "CONFORMANCE_PROGRAMS=$(CONFORMANCE_PROGRAMS) CONFORMANCE_SEED=$(CONFORMANCE_SEED)"
	PATH="$(CURDIR)/$(BIN):$$PATH" CONFORMANCE_PROGRAMS=$(CONFORMANCE_PROGRAMS) CONFORMANCE_SEED=$(CONFORMANCE_SEED) \
		sh tests/run.sh --timeout 0 tests/integration/sandbox

# Run by hand: the suite under each other Python that we support, and with the oldest asyncpg that we say works.
# They are found on PATH and among those of pyenv; others: make test-pythons PYTHONS="/opt/python3.13/bin/python3"
PYTHONS ?=
OLDEST_ASYNCPG := 0.30.0

test-pythons: $(STAMP)
	@set -e; pythons="$(PYTHONS)"; [ -n "$$pythons" ] || pythons=$$(sh tests/pythons.sh 3.12 3.13); \
	for python in $$pythons; do \
		version=$$($$python -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
		$$python -m venv --clear .venv-$$version; \
		.venv-$$version/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'; \
		echo "== Python $$version"; \
		PATH="$(CURDIR)/.venv-$$version/bin:$$PATH" sh tests/run.sh; \
	done
	$(BIN)/python -m venv --clear .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]' asyncpg==$(OLDEST_ASYNCPG)
	@echo "== asyncpg $(OLDEST_ASYNCPG)"
	PATH="$(CURDIR)/.venv-oldest/bin:$$PATH" sh tests/run.sh

# Run by hand: what depends on the server's version, on others than that of the embedded one, from 14 on.
# SERVERS are directories with initdb and postgres: make test-servers SERVERS="/usr/lib/postgresql/15/bin …"
SERVERS ?= $(wildcard /usr/lib/postgresql/*/bin)

test-servers: $(STAMP)
	@set -e; for server in $(SERVERS); do \
		echo "== $$($$server/postgres --version)"; \
		PATH="$(CURDIR)/$(BIN):$$PATH" TESTS_POSTGRES=$$server sh tests/run.sh -n 0 -s --timeout 0 \
			tests/exactness tests/integration/lease tests/integration/template tests/plugin/test_roles.py; \
	done

# Run by hand: the tests of asyncpg, SQLAlchemy and pgqueuer on our server and in the sandbox (docs/compatibility.md).
# Needs a package index. Only some of them: make test-compat LIBRARIES=asyncpg
LIBRARIES ?=

test-compat: $(STAMP)
	$(BIN)/python -u tests/compat/run.py $(LIBRARIES)

# Run by hand, on an idle machine.
benchmarks: $(STAMP)
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) .venv-* .cache .bootstrap dist build

# Debian ships Python without ensurepip: there, pip installs virtualenv beside the checkout.
$(STAMP): pyproject.toml Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed; run make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv --clear $(VENV) 2>/dev/null || { \
		$(PYTHON) -m pip install --quiet --target .bootstrap virtualenv && \
		PYTHONPATH=.bootstrap $(PYTHON) -m virtualenv --quiet --clear $(VENV); }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@
