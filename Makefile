# make train: install and run the main job on the generated sample. make test: install, lint, types, all tests.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
JOBS ?= 2
BUNDLE := bundles/fmirnet_chaos

DATA ?= ../shared/data
WORK ?= work/tables
TABLES := table2 table4 table5 table1 table1_camus table6 table6_btcv propagation

.PHONY: help install train test tables lint format clean

help:
	@echo "make train   train fmirnet_chaos on the generated sample (about 2.5 minutes on two cores)"
	@echo "make test    lint, type check and all tests, in JOBS=$(JOBS) processes of one thread"
	@echo "make tables  the comparison tables from the raw data sets in DATA=$(DATA), into docs/results"
	@echo "make format  format the code"
	@echo "make clean   remove the environment, the sample and all runs"

$(VENV)/.installed: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@

install: $(VENV)/.installed

train: install
	$(BIN)/python -m monai.bundle run --config_file $(BUNDLE)/configs/train.json
	@echo "weights, table and picture: $(BUNDLE)/runs/train"

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile

tables: install
	for table in $(TABLES); do \
		$(BIN)/python -m fmirnet_monai table --study benchmarks/$$table.json --source_dir $(DATA) \
			--work_dir $(WORK) --results_dir docs/results || exit 1; \
	done

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) bundles/*/sample bundles/*/runs
