# Every target does its own set-up; nothing has to be installed first but Python 3.11 or newer and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test test-all lint types claims bench-main bench-speed bench-overhead bench-decisions bench-generators bench-where bench-modalities bench-shifts bench-scale bench-gpu audit rivals prior chaos clean

demo: $(READY)
	$(BIN)/python -m benchmarks.demo

# One thread for each of the two processes: torch's threads wait for each other where cores are short.
test: $(READY) lint types
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow and not cluster and not browser"

test-all: $(READY) lint types
	$(BIN)/python -m pytest

lint: $(READY)
	$(BIN)/ruff check .

types: $(READY)
	$(BIN)/mypy

bench-main: $(READY)
	$(BIN)/python -m benchmarks.main

bench-speed: $(READY)
	$(BIN)/python -m benchmarks.speed

bench-overhead: $(READY)
	$(BIN)/python -m benchmarks.overhead

claims: $(READY)
	$(BIN)/python -m benchmarks.claims

bench-decisions: $(READY)
	$(BIN)/python -m benchmarks.decisions
	$(BIN)/python -m benchmarks.verdicts

bench-generators: $(READY)
	$(BIN)/python -m benchmarks.generators

bench-where: $(READY)
	$(BIN)/python -m benchmarks.where

bench-modalities: $(READY)
	$(BIN)/python -m benchmarks.modalities

bench-shifts: $(READY)
	$(BIN)/python -m benchmarks.shifts

bench-scale: $(READY)
	$(BIN)/python -m benchmarks.size

# On a machine with a GPU, and torch's build for it.
bench-gpu: $(READY)
	$(BIN)/python -m benchmarks.gpu

# Known vulnerabilities of what constraints.txt pins.
audit: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check pip-audit
	$(BIN)/pip-audit --requirement constraints.txt --no-deps --disable-pip

# Rivals pin other versions of what this package needs: CODSA_RIVALS=.rivals/bin/python make bench-generators
rivals:
	$(PYTHON) -m venv .rivals
	.rivals/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	.rivals/bin/python -m pip install --quiet --disable-pip-version-check 'sdv>=2,<3' imbalanced-learn ForestDiffusion be-great

prior: $(READY)
	$(BIN)/python -m benchmarks.prior

# Up to an hour; goes on where it was stopped.
chaos: $(READY)
	nice -n 10 $(BIN)/python -m benchmarks.chaos

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(READY)

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
