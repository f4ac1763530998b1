# `make demo` and `make test` do everything from nothing: each sets up what it needs first.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# Airflow finds airflow.cfg and dags/ here, and writes its database and logs here (all of it is git-ignored).
export AIRFLOW_HOME := $(CURDIR)
# Scheduler, API server and tasks write to one SQLite file: by default each gives up after waiting five seconds for the
# others, and a run that was triggered meanwhile is lost. A database of your own, in this variable, wins.
export AIRFLOW__DATABASE__SQL_ALCHEMY_CONN ?= sqlite:///$(AIRFLOW_HOME)/airflow.db?timeout=60
# Without its bytecode TensorFlow takes 17 seconds to import instead of 6, in every task.
unexport PYTHONDONTWRITEBYTECODE
export UV_COMPILE_BYTECODE := 1

UV_VERSION := 0.13.9
UV := $(shell command -v uv || echo .uv/bin/uv)
BIN := .venv/bin

.PHONY: help install demo test thorough emulator clients quick code lint docs picture bench fuzz airflow tensorboard notebook lock clean

help:
	@echo 'make demo     set up, run the whole DAG through Airflow on synthetic posts, and say how to ask the model'
	@echo 'make test     set up, check the code, and run the tests'
	@echo 'make thorough  the tests that are too slow for make test, in half an hour'
	@echo 'make quick    what to run before each commit, in two minutes: format, style, types, imports, and the fast tests'
	@echo 'make airflow  the Airflow UI and its scheduler, on http://localhost:8080'
	@echo 'make tensorboard  the learning curves of all runs in the store, on http://localhost:6006'
	@echo 'make notebook    write notebooks/*.ipynb again from the .py files beside them'
	@echo 'make docs     the documentation as a site, on http://localhost:8000'
	@echo 'make picture  take the picture of the UI that README shows, by the browser test'
	@echo 'make bench    compare with the notebook, Keras and scikit-learn'
	@echo 'make fuzz     break sources of every form for MINUTES=6, and see that each is read or refused'
	@echo 'make lint     format, style, types, the direction of imports, documentation, container files, advisories of the'
	@echo '              dependencies'
	@echo 'make lock     resolve the dependencies of pyproject.toml again into requirements.lock'

install: .venv/installed

.venv/installed: requirements.lock pyproject.toml | $(UV)
	$(UV) venv --quiet --allow-existing --python 3.11 .venv
	$(UV) pip install --quiet --python .venv --require-hashes -r requirements.lock
	$(UV) pip install --quiet --python .venv --no-deps --no-build-isolation --editable .
	@touch $@

.uv/bin/uv:
	python3 -m venv .uv
	.uv/bin/pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

# Airflow's own lines go to the log; what the stages say is shown.
demo: install
	@mkdir -p logs
	@echo 'Airflow runs the six tasks of stackoverflow_tagger (its log: logs/demo.log)'
	@$(BIN)/airflow db migrate > logs/demo.log 2>&1
	@$(BIN)/airflow dags test stackoverflow_tagger 2>&1 | tee -a logs/demo.log \
	  | sed -un 's/^[^[]*\[[a-z ]*\] \(.*[^ ]\) *\[\(pipeline[a-z._]*\|stackoverflow_tagger\)\].*/  \1/p' \
	  || { echo 'the run failed: the end of logs/demo.log says why'; exit 1; }
	@echo
	@$(BIN)/tagger show

# The theme prints an advertisement unless told not to.
MKDOCS := NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs

code: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# Not --quiet, which hides the warnings from --strict, too.
lint: code
	$(MKDOCS) build --strict
	$(BIN)/hadolint docker/Dockerfile
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.compose-spec docker/compose.yaml
	$(BIN)/python tools/audit.py --uv $(UV)

docs: install
	$(MKDOCS) serve --strict

picture: install
	SCREENSHOTS=build/screenshots $(BIN)/pytest tests/dags/test_scheduler.py -k turns_green
	cp build/screenshots/run.png docs/images/airflow.png

# A file at a time in each process, in the order of tests/conftest.py: the longest first. One process more than there are
# cores, because many tests wait for servers and for other processes.
PROCESSES := $(shell echo $$(( $$(getconf _NPROCESSORS_ONLN) + 1 )))
PYTEST := $(BIN)/pytest --numprocesses $(PROCESSES) --dist loadfile --no-loadscope-reorder

test: lint emulator clients
	$(PYTEST) -m 'not thorough'

thorough: install
	$(BIN)/pytest -m thorough

quick: code
	$(PYTEST) -m 'not slow and not thorough'

# BigQuery's emulator wants newer packages than TensorFlow does, so it has an environment of its own. The tests that need
# it are skipped without it.
emulator:
	@$(MAKE) --silent .emulator/installed || echo 'the emulator of BigQuery could not be installed'

.emulator/installed: tests/sources/bqemulator.lock | install
	$(UV) venv --quiet --allow-existing --python 3.11 .emulator
	$(UV) pip install --quiet --python .emulator --require-hashes -r $<
	@touch $@

# The clients of other servers want newer packages, too, and each others than the next: an environment for each. What few
# of their modules are imported is compiled then.
CLIENTS := kserve mlserver tritonclient

clients:
	@$(MAKE) --silent --keep-going $(CLIENTS:%=.clients/%/installed) || echo 'not every client could be installed'

.clients/%/installed: tests/server/clients/%.lock | install
	$(UV) venv --quiet --allow-existing --python 3.11 .clients/$*
	UV_COMPILE_BYTECODE=0 $(UV) pip install --quiet --python .clients/$* --require-hashes -r $<
	@touch $@

# Atheris is wanted here only, so it is in no lock: one wheel, by its hash, in a folder of its own.
ATHERIS := atheris==3.0.0 --hash=sha256:8a5c8a781467c187da40fd29139784193e2647058831f837f675d0bb8cbd8746
MINUTES := 6

.fuzz/atheris: | install
	@mkdir -p .fuzz
	@echo '$(ATHERIS)' > .fuzz/requirements.txt
	$(UV) pip install --quiet --python .venv --target $@ --require-hashes --no-deps -r .fuzz/requirements.txt

fuzz: .fuzz/atheris
	for form in csv gzip parquet; do PYTHONPATH=.fuzz/atheris $(BIN)/python -m tests.fuzz.harness $$form .fuzz \
	  -max_total_time=$$(( $(MINUTES) * 20 )); done

bench: install
	$(BIN)/python -m benchmarks

# The secrets that Airflow's processes share: made once, readable by the owner only, kept out of git.
.secrets.env: | install
	@(umask 077; $(BIN)/python -c "import secrets, base64, os; \
	print('AIRFLOW__API_AUTH__JWT_SECRET=' + secrets.token_urlsafe(32)); \
	print('AIRFLOW__API__SECRET_KEY=' + secrets.token_urlsafe(32)); \
	print('AIRFLOW__CORE__FERNET_KEY=' + base64.urlsafe_b64encode(os.urandom(32)).decode())" > $@)

# Standalone starts its parts as `airflow`, so that must be on the path; what it writes is for its owner only.
airflow: install .secrets.env
	@umask 077; set -a; source ./.secrets.env; set +a; PATH="$(CURDIR)/$(BIN):$$PATH" airflow standalone

tensorboard: install
	$(BIN)/python -m tools.curves

notebook: install
	$(BIN)/jupytext --update --to ipynb notebooks/*.py

LOCK := pip compile - --universal --python-version 3.11 --generate-hashes --upgrade --quiet \
  --custom-compile-command 'make lock' --output-file

lock: | $(UV)
	$(UV) pip compile pyproject.toml --all-extras --group dev --universal --python-version 3.11 --generate-hashes \
	  --upgrade --quiet --custom-compile-command 'make lock' --output-file requirements.lock
	printf 'bqemulator==1.4.0\nnumpy\npandas\n' | $(UV) $(LOCK) tests/sources/bqemulator.lock
	echo 'kserve==0.21.0' | $(UV) $(LOCK) tests/server/clients/kserve.lock
	echo 'mlserver==1.7.1' | $(UV) $(LOCK) tests/server/clients/mlserver.lock
	echo 'tritonclient[grpc,http]==2.73.0' | $(UV) $(LOCK) tests/server/clients/tritonclient.lock

clean:
	rm -rf .venv .uv .emulator .clients
