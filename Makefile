# Two commands matter: `make reproduce-all` and `make test`. Both make their own environment in .venv first.
# Variables: PYTHON, CLCR_DATA, CLCR_CACHE, PROFILE, SEEDS, WORKERS, DEVICE, LAUNCHER (and OUT, the results folder).

PYTHON ?= python3
PROFILE ?= tiny
SEEDS ?= 0-2
WORKERS ?=
DEVICE ?= auto
LAUNCHER ?= local
OUT ?= results

VENV := .venv
CLCR := $(VENV)/bin/clcr
BENCHMARKS := crema_d kinetics_sounds ave ucf101 cmu_mosi cmu_mosei
OPEN_SETS := ravdess av_digits
comma := ,
space := $(subst ,, )
OPEN = OUT="$(OUT)" DEVICE="$(DEVICE)" LAUNCHER="$(LAUNCHER)" WORKERS="$(WORKERS)" benchmarks/open_sets.sh
RUN_FLAGS = --launcher $(LAUNCHER) --device $(DEVICE) --out $(OUT) $(if $(WORKERS),--workers $(WORKERS))

.DELETE_ON_ERROR:
.PHONY: env reproduce-all open findings table test cluster check bench lint clean $(BENCHMARKS) $(OPEN_SETS)

env: $(VENV)/.made

# Made anew whenever a pin or the packaging changes; the stamp is written last.
$(VENV)/.made: constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'make: PYTHON must be 3.11 or newer'; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[language,media,figures,dev]'
	@touch $@

# The six synthetic twins always; the real sets as well where CLCR_DATA names their folder. Failed runs do not keep the
# tables from being made: they are listed in them, and the command fails at its end.
reproduce-all: env
	@failed=0; \
	$(CLCR) run --benchmark $(subst $(space),$(comma),$(BENCHMARKS)) --data twin --method all --variant all \
	  --profile $(PROFILE) --seeds $(SEEDS) $(RUN_FLAGS) || failed=$$?; \
	if [ -n "$(CLCR_DATA)" ]; then $(OPEN) || failed=$$?; fi; \
	$(CLCR) report --partial --out $(OUT) || failed=$$?; \
	exit $$failed

# The open real sets at the profile and the seeds of the committed numbers (see REPRODUCE.md).
open: env
	$(OPEN)
	$(CLCR) report --partial --out $(OUT)

# Everything behind results/REPORT.md: hours on two cores, and goes on where it was stopped.
findings: env
	OUT="$(OUT)" DEVICE="$(DEVICE)" LAUNCHER="$(LAUNCHER)" WORKERS="$(WORKERS)" benchmarks/findings.sh

table: env
	$(CLCR) report --only tables --out $(OUT)

$(BENCHMARKS) $(OPEN_SETS): env
	benchmarks/$@.sh

test: env
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest --numprocesses 2 --durations 15

# Launchers on clusters of their own on this machine: SLURM where its programs are (as root), Ray.
cluster: env
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[slurm,ray]'
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -m cluster --durations 5 tests/slurm tests/rays

# Published numbers, golden runs, committed tables and records. The open real sets are looked at as well where CLCR_DATA
# names their folder.
check: env
	@if [ -n "$(CLCR_DATA)" ]; then for set in cmu_mosi ravdess ucf101 av_digits; do \
	  $(CLCR) prepare $$set --source "$(CLCR_DATA)" --quiet || echo "check: goes on without $$set"; done; fi
	OMP_NUM_THREADS=1 $(CLCR) check --out $(OUT)

# Training steps of every method on DEVICE: time, operations, roofline, memory; printed, and kept below OUT.
bench: env
	$(CLCR) bench --device $(DEVICE) --out $(OUT)/bench/here.json

lint: env
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
