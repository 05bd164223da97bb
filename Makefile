# make train: install and run the main job on the generated sample. make test: install, lint, types, all tests.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
JOBS ?= 2
BUNDLE := bundles/fmirnet_chaos

DATA ?= ../shared/data
WORK ?= work/tables
TABLES := table2 table3_validation table3 table3_validation_frozen table3_frozen table3_mr table7 table7_frozen table4 table5 table1 table1_camus table1_echonet table_mr table6 table6_btcv \
	table6_landmarks few_ct few_mr propagation

LABEL_VENV ?= .venv-label
LABEL_BIN := $(LABEL_VENV)/bin
LABEL_APP := apps/fmirnet_label
STUDIES ?= work/studies
HOST ?= 127.0.0.1

.PHONY: help install train test test-all tables speed lint audit docs format label-env label test-label clean

help:
	@echo "make train   train fmirnet_chaos on the generated sample (about 2.5 minutes on two cores)"
	@echo "make test    lint, type check and the tests that take seconds, in JOBS=$(JOBS) processes of one thread"
	@echo "make test-all  these, those that train and export whole bundles, and make test-label"
	@echo "make tables  the comparison tables from the raw data sets in DATA=$(DATA), into docs/results"
	@echo "make speed   seconds and memory of FMIRNet, its opponents and the commands, into docs/results; nothing else may run"
	@echo "make label   a MONAI Label server for the studies in STUDIES=$(STUDIES), generated ones where there are none; for"
	@echo "             this computer alone, unless HOST names an address that others reach: it asks for no password"
	@echo "make test-label  ask such a server over REST (about two minutes, after an environment of its own)"
	@echo "make audit   known weaknesses of the pinned packages; it asks their index"
	@echo "make docs    the documentation, into work/site, without a network"
	@echo "make format  format the code"
	@echo "make clean   remove the environment, the sample and all runs"

$(VENV)/.installed: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable '.[test]'
	touch $@

install: $(VENV)/.installed

train: install
	$(BIN)/python -m monai.bundle run --config_file $(BUNDLE)/configs/train.json
	@echo "weights, table and picture: $(BUNDLE)/runs/train"

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/bandit --quiet --severity-level medium --recursive fmirnet_monai $(LABEL_APP)/lib $(LABEL_APP)/main.py

audit: install
	$(BIN)/python -m pip install --quiet pip-audit
	$(BIN)/pip-audit --requirement constraints.txt --no-deps --disable-pip

PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile

test: lint
	$(PYTEST) -m "not slow"

test-all:
	$(MAKE) --jobs 2 test label-env  # one computes while the other is fetched
	$(PYTEST) -m slow
	$(MAKE) test-label

tables: install
	for table in $(TABLES); do \
		$(BIN)/python -m fmirnet_monai table --study benchmarks/$$table.json --source_dir $(DATA) \
			--work_dir $(WORK) --results_dir docs/results || exit 1; \
	done

speed: install
	$(BIN)/python benchmarks/speed.py

docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "pages: work/site/index.html"

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(LABEL_VENV)/.installed: $(LABEL_APP)/requirements.txt
	$(PYTHON) -m venv $(LABEL_VENV)
	$(LABEL_BIN)/python -m pip install --quiet --no-compile --requirement $(LABEL_APP)/requirements.txt
	$(LABEL_BIN)/python -m pip install --quiet --no-deps --editable .
	touch $@

label-env: $(LABEL_VENV)/.installed

label: label-env
	case "$(STUDIES)" in *://*) ;; *) test -d "$(STUDIES)" || $(LABEL_BIN)/python $(LABEL_APP)/sample.py "$(STUDIES)";; esac
	$(LABEL_BIN)/python -m monailabel.main start_server --app $(LABEL_APP) --studies $(STUDIES) --host $(HOST) --conf sam2 false

test-label: label-env
	PYTHONPATH=$(LABEL_APP) $(LABEL_BIN)/python -m pytest -p no:cacheprovider $(LABEL_APP)/test_server.py

clean:
	rm -rf $(VENV) $(LABEL_VENV) $(LABEL_APP)/model bundles/*/sample bundles/*/runs
