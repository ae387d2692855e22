# make help      lists what follows
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# With another busy process on the cores, spinning OpenMP threads make a step thirty times slower.
export OMP_WAIT_POLICY ?= passive
export HF_HUB_DISABLE_TELEMETRY ?= 1
# DeepSpeed looks for ninja on the PATH.
TEST := PATH="$(CURDIR)/$(BIN):$$PATH" OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

.PHONY: help install quickstart test test-all test-ci test-distributed test-faults test-pairs-faults test-gpu check oracles mutations \
	fuzz-rows bench bench-gpu docs docs-reference wheel resolve clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-17s %s\n", $$1, $$2}'

install: $(VENV)/.installed ## makes .venv and installs prefopt with everything its tests need

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

quickstart: install ## trains a small model on this machine and shows what changed; no network beyond the install, no GPU
	$(BIN)/prefopt train recipe=quickstart

test: install ## the tests, under ten minutes on two cores
	$(TEST) -m "not slow and not gpu"

test-all: install ## all tests, the slow ones too (DeepSpeed on two ranks, the wheel in an empty environment)
	$(TEST) -m "not gpu"

test-ci: install ## all but the longest of the slow tests: what CI runs
	$(TEST) -m "not gpu and not long"

DISTRIBUTED := tests/slurm tests/sweeps tests/test_nodes_run.py tests/test_rank_deaths.py tests/test_company.py \
	$(addprefix tests/train/test_,engine_table.py fsdp.py in_force.py other_world.py invariance.py resume.py)

test-distributed: install ## every engine on one and two ranks, another world, several nodes, dead ranks, sweeps, a real SLURM
	$(TEST) -m "not gpu" $(DISTRIBUTED)

N ?= 100
test-faults: install ## N attacks on each promise of reliability (make test-faults N=100): kills, deaths inside saves, signals
	OMP_NUM_THREADS=1 $(BIN)/python tests/faults/campaign.py --attacks $(N) --json faults.json

test-pairs-faults: install ## kills prefopt pairs N times (make test-pairs-faults N=100) and compares what it makes after all
	OMP_NUM_THREADS=1 $(BIN)/python tests/pairs/pairs_campaign.py --kills $(N)

test-gpu: install ## the tests that need a GPU, one after the other; bitsandbytes' own skip where it is not installed
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -m gpu -rs

check: install ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

oracles: install ## the table of methods against numbers recorded from their authors' code
	$(BIN)/python scripts/check_oracles.py

mutations: install ## breaks every method in small ways and looks whether an oracle or a test notices; about eight minutes
	OMP_NUM_THREADS=1 $(BIN)/python scripts/mutation_check.py

fuzz-rows: install ## 100,000 messy rows through the real preparation: each kept or named, no crash; about fifteen minutes
	OMP_NUM_THREADS=1 $(BIN)/python scripts/fuzz_rows.py --rows 100000 --seed 1

bench: install ## speed and memory beside TRL on this machine's CPU, about an hour; figures go to bench.json
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python scripts/bench_peers.py --json bench.json

bench-gpu: install ## the same on one GPU: a Llama of 1B with all weights, one of 8B with adapters
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python scripts/bench_peers.py --device cuda --dtype bf16 --model 1b --tokens 16384 --pairs 16 --json bench-1b.json
	$(BIN)/python scripts/bench_peers.py --device cuda --dtype bf16 --model 8b --lora-rank 16 --tokens 16384 --pairs 16 \
		--json bench-8b.json

docs: install ## builds the documentation into build/site; a warning is an error
	$(BIN)/python scripts/docs_reference.py --check
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict --config-file docs/site/mkdocs.yml

docs-reference: install ## writes docs/reference anew, of docstrings and recipes
	$(BIN)/python scripts/docs_reference.py

wheel: install ## builds dist/*.whl and dist/*.tar.gz
	$(BIN)/python -m build --no-isolation

resolve: install ## what pip would install today beside constraints.txt, into newest.txt; for a weekly job
	$(BIN)/python scripts/resolve_weekly.py --write newest.txt

clean: ## removes .venv and everything built; runs stay
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache
