# `make demo` and `make test` each do all of their set-up: a virtual environment in .venv, everything from the
# package registry. PYTHON names the interpreter (3.11 or newer).

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint types unit fuzz browser docs format clean

demo: $(VENV)/bake.installed
	$(BIN)/edgex demo --out demo-output

test: lint types unit

lint: $(VENV)/dev.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# mypy does not read setuptools' package-dir: links show it the packages as they are imported.
types: $(VENV)/dev.installed
	rm -rf build/types && mkdir -p build/types/edgex
	ln -s $(CURDIR)/edgex/* $(CURDIR)/export $(CURDIR)/runtime build/types/edgex/
	ln -s $(CURDIR)/tests $(CURDIR)/benchmarks build/types/
	cd build/types && MYPYPATH=.:tests/support:benchmarks \
		$(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml edgex tests benchmarks

# The page of `edgex watch` is tested in Debian's chromium: installed where that is allowed, else its test is skipped.
browser:
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && ! command -v chromedriver >/dev/null; then \
		{ apt-get update && DEBIAN_FRONTEND=noninteractive \
			apt-get install --yes --no-install-recommends chromium chromium-driver; } >/dev/null 2>&1 \
		|| echo "no chromium here: the browser test is skipped"; \
	fi

# Two processes of one thread each: torch's own threads would wait for each other on two cores. A file's tests stay
# together, so that what they share, such as an environment or an exported model, is made once.
unit: $(VENV)/dev.installed browser
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --cov --cov-report=term:skip-covered

# Mutated inputs for every parser and commands killed at random moments, for an hour or more. A run that was stopped is
# continued; FUZZ holds options, such as FUZZ='--parser picture --cases 1000'. Failing inputs are kept in
# tests/fuzz/cases, which `make unit` tries again ever after.
fuzz: $(VENV)/dev.installed
	PYTHONPATH=tests/support $(BIN)/python -m fuzzing $(FUZZ)

# The documentation at http://127.0.0.1:8000, built again at every change; the tests build it strictly.
docs: $(VENV)/dev.installed
	$(BIN)/mkdocs serve

format: $(VENV)/dev.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The markers are newer than pyproject.toml and constraints.txt only where everything that they name is installed.
$(VENV)/bake.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(or $(shell command -v $(PYTHON)),python3) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bake]'
	touch $@

$(VENV)/dev.installed: $(VENV)/bake.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bake,dev]'
	touch $@

clean:
	rm -rf $(VENV) demo-output build *.egg-info .mypy_cache .ruff_cache .pytest_cache .coverage
