# Each target works on a fresh clone: what it needs is built first.
PYTHON ?= python3
VENV := .venv
FLOODGATE := $(VENV)/bin/floodgate
STAMP := $(VENV)/.installed
SOURCES := pyproject.toml setup.py core_ext/codes.py $(wildcard core_ext/compiled/*.pyx core_ext/compiled/*.pxd)

.PHONY: setup up test lint sanitize leaks bench faults simulate fuzz profile clean

setup: $(STAMP)

$(STAMP): $(SOURCES)
	@command -v cc >/dev/null || command -v gcc >/dev/null || { echo "No C compiler found. Install one: apt-get install gcc python3-dev (Debian, Ubuntu), dnf install gcc python3-devel (Fedora)."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Floodgate needs CPython 3.11 or later; $(PYTHON) is $$($(PYTHON) -V). Name another one: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[local,tracing,dev]'
	@touch $@

up: setup
	$(FLOODGATE) up

test: setup
	$(VENV)/bin/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	PATH=$(VENV)/bin:$$PATH cython-lint core_ext/compiled

bench: setup
	$(FLOODGATE) bench

# Breaks a system of its own in every way that this machine allows; within an hour.
faults: setup
	$(FLOODGATE) faults

# Whole systems in a virtual world, each with its own faults; about a minute. SEEDS=1000000 takes hours.
SEEDS ?= 5000
simulate: setup
	$(VENV)/bin/python -m tests.simulation --seeds $(SEEDS)

# Inputs that nobody should send; within an hour. Where there is no wheel of atheris, hypothesis tries its inputs, too.
INPUTS ?= 1000000
fuzz: setup
	-$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[fuzz]'
	$(VENV)/bin/python -m tests.fuzz --inputs $(INPUTS)

profile: setup
	$(VENV)/bin/python -m bench.profile --out profiles

# core_ext under AddressSanitizer and UndefinedBehaviorSanitizer, built into build/sanitized; about two minutes.
sanitize: setup
	$(VENV)/bin/python -m tests.ext.sanitized

# What the tests of memory do in seconds, thirty times as long; about a minute.
leaks: setup
	LEAK_CALLS=300000 $(VENV)/bin/python -m pytest -n 2 tests/ext/test_leaks.py

clean:
	rm -rf $(VENV) build *.egg-info core_ext/compiled/*.c core_ext/compiled/*.so core_ext/compiled/codes.pxi
