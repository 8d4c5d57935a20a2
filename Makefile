# Everything is set up from here: a virtual environment in .venv, from the lock file.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Bytecode is written whatever the environment says: each of many processes would compile the package.
export PYTHONDONTWRITEBYTECODE =

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-stop test test-wheel test-fresh bench bench-merge test-long test-faults test-faults-again test-store test-spark test-celery test-browser lint types imports docs command-page lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## make .venv and install the locked dependencies

$(STAMP): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 10) else "datazone_dagster needs Python 3.10 or newer; set PYTHON=python3.x")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "python3 -m venv failed: on Debian and Ubuntu install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@$(BIN)/python -m compileall -q -j 0 $(VENV)/lib >/dev/null || true # pip would do it on one core
	@touch $(STAMP)

demo: $(STAMP) ## local DynamoDB with live orders, Dagster on top; Ctrl-C ends it
	$(BIN)/datazone-dagster demo

demo-stop: $(STAMP) ## end a demo that was left behind
	$(BIN)/datazone-dagster demo --stop

test: $(STAMP) ## the whole test suite, a process per core
	$(BIN)/python -m pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile

test-wheel: $(STAMP) ## the wheel alone: built, installed into an empty environment, README run from an empty folder
	$(BIN)/python -m pytest -m wheel tests/wheel

test-fresh: ## the README's commands on a fresh Debian with the newest Python (needs root and debootstrap)
	tests/fresh_machine.sh

LEDGER := .datazone/faults.jsonl
FAULTS := tests/faults tests/test_whole_flow.py tests/apply/test_dataset_start.py tests/snapshot/test_long_snapshot.py tests/snapshot/test_quarantined_keys.py tests/snapshot/test_bucket_resync.py tests/apply/test_bucket_modes.py
test-faults: $(STAMP) ## the long fault runs, and docs/reliability.md made from them
	@mkdir -p .datazone; test ! -e $(LEDGER) || mv $(LEDGER) $(LEDGER).before
	@$(MAKE) --no-print-directory test-faults-again

test-faults-again: $(STAMP) ## a part of them again: make test-faults-again FAULTS=tests/faults/test_kills.py
	@mkdir -p .datazone
	DATAZONE_FAULT_LEDGER="$(CURDIR)/$(LEDGER)" DATAZONE_TEST_PROFILE=long \
	  $(BIN)/python -m pytest -m "(faults or not faults) and not wheel and not store" $(FAULTS)
	$(BIN)/python -m tests.faults.reliability_table $(LEDGER) docs/reliability.md

bench: $(STAMP) ## all benchmarks but that of merges, under ten minutes; results in benchmarks/results
	$(BIN)/python -m benchmarks

bench-merge: $(STAMP) ## merges into 1 and 10 million rows, 20 minutes and 2 GB in the temporary folder
	$(BIN)/python -m benchmarks.merge 10 1
	$(BIN)/python -m benchmarks.merge --reads

VERSITYGW := github.com/versity/versitygw/cmd/versitygw@v1.8.0
$(BIN)/versitygw: | $(STAMP)
	@if ! go version 2>/dev/null | awk '{split(substr($$3, 3), v, ".")} END {exit !(v[1] > 1 || v[2] >= 25)}'; then \
	  echo "test-store: no S3 server here, it is built by Go 1.25 or newer; its tests are skipped"; exit 0; fi; \
	GOBIN=$(abspath $(BIN)) go install $(VERSITYGW)

AZURITE := $(VENV)/azurite/node_modules/.bin/azurite-blob
$(AZURITE): | $(STAMP)
	@if ! npm --version >/dev/null 2>&1; then \
	  echo "test-store: no Azure server here, it is installed by npm; its tests are skipped"; exit 0; fi; \
	npm install --silent --no-audit --no-fund --prefix $(VENV)/azurite azurite@3.35.0

test-long: $(STAMP) ## what else is too long for make test: memory, properties with all their examples
	DATAZONE_TEST_PROFILE=long $(BIN)/python -m pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile \
	  -m "(faults or not faults) and not wheel and not store and not browser" \
	  --ignore=tests/faults --ignore=tests/test_whole_flow.py

SWEEP := .datazone/sweep.jsonl
test-store: $(STAMP) $(BIN)/versitygw $(AZURITE) ## all tests on object stores that run here (Go 1.25, npm), and their table in docs/reliability.md
	@mkdir -p .datazone; rm -f $(SWEEP)
	DATAZONE_SWEEP_LEDGER="$(CURDIR)/$(SWEEP)" $(BIN)/python -m pytest --numprocesses=auto --maxprocesses=4 --dist=worksteal \
	  -m "store or not store" tests/store
	@test ! -e $(SWEEP) || $(BIN)/python -m tests.store.sweep_table $(SWEEP) docs/reliability.md

SPARK_JARS := $(VENV)/spark-jars
test-spark: $(STAMP) ## our tables in Apache Spark with Delta Lake, and Spark as an engine (needs Java 17 and Maven; half an hour)
	@if ! java -version >/dev/null 2>&1 || ! mvn -v >/dev/null 2>&1; then \
	  echo "test-spark: skipped, it needs java (17) and mvn on the PATH"; exit 0; fi; \
	set -e; \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'pyspark[connect]>=4.0,<4.1'; \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check pysail || echo "test-spark: no Sail here, its test is skipped"; \
	mvn -q -B -f tests/spark/pom.xml dependency:copy-dependencies -DoutputDirectory=$(abspath $(SPARK_JARS)); \
	failed=0; \
	for folder in tests/spark tests/spark_engine; do \
	  DATAZONE_SPARK_JARS=$(abspath $(SPARK_JARS)) $(BIN)/python -m pytest -m spark --tb=native $$folder || failed=1; \
	done; \
	exit $$failed

DAGSTER_SATELLITES := dagster-celery dagster-k8s dagster-postgres
test-celery: $(STAMP) ## buckets on Celery's workers, some killed and frozen; settings of launchers (Redis and Postgres, by apt if root)
	@if ! command -v redis-server >/dev/null || ! ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends redis-server postgresql >/dev/null; \
	  else echo "test-celery: skipped, it needs Redis and Postgres: apt-get install redis-server postgresql"; exit 0; fi; fi; \
	set -e; \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'celery>=5.6' redis $(foreach one,$(DAGSTER_SATELLITES),'$(one)>=0.29,<0.30'); \
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m pytest -m celery tests/celery tests/dagster_glue/test_launcher_pages.py

test-browser: $(STAMP) ## Dagster's pages of the demo in Chromium; screenshots in .datazone/screenshots
	@if ! { command -v chromium || command -v chromium-browser; } >/dev/null; then \
	  echo "test-browser: skipped, it needs Chromium: apt-get install chromium"; exit 0; fi; \
	set -e; \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'playwright>=1.50'; \
	$(BIN)/python -m pytest -m browser tests/browser

lint: $(STAMP) ## ruff: rules and format; deptry: imports that no dependency declares
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/deptry .

types: $(STAMP) ## mypy, strict
	$(BIN)/mypy

imports: $(STAMP) ## the import rules between the packages
	$(BIN)/lint-imports

docs: $(STAMP) ## the documentation site in .datazone/site; a broken link fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

command-page: $(STAMP) ## docs/command-line.md from the commands themselves
	$(BIN)/python -m tests.commands.command_page > docs/command-line.md

lock: ## resolve requirements.txt anew (needs uv)
	uv pip compile --universal --python-version 3.10 --no-emit-index-url --no-header --no-annotate --no-strip-extras --generate-hashes \
	  --extra webserver --extra polars --extra pandas --group dev --group docs pyproject.toml -o requirements.txt

clean: ## remove the environment and local state
	rm -rf $(VENV) .datazone
