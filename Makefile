# Two commands do everything on a bare Debian machine with Python >= 3.11 and root: `make demo` and `make test`.
# Everything that is built lies outside the checkout, in $(CACHE); everything that runs, in $(STATE).
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

CACHE ?= $(or $(DISTRIQUEUE_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/distriqueue)
PYTHON ?= python3
CLUSTER ?= local
LOCK_HASH := $(shell cat requirements/dev.lock | sha256sum | cut -c1-16)
VENV := $(CACHE)/venv-$(LOCK_HASH)
PY := $(VENV)/bin/python
export DISTRIQUEUE_CACHE := $(CACHE)
export CLUSTER
export PYTHONPATH := operator/src:worker-image/python/src:.
SOURCES := operator/src worker-image/python/src localcluster tests bench docs

.PHONY: help
help: ## This list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(VENV)/.done: requirements/dev.lock
	@./localcluster/prepare-python "$(PYTHON)" "$(VENV)"

.PHONY: venv venv-path
venv: $(VENV)/.done ## The Python environment, from the lock file
venv-path: ## Print where the Python environment is
	@echo $(VENV)

.PHONY: lock
lock: venv ## Renew the lock files (hashes, no index)
	@$(VENV)/bin/pip install --quiet uv
	@for spec in "operator:--extra operator --extra gateway" "worker:" "dev:--all-extras --group dev --group build"; do \
	  $(VENV)/bin/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url \
	    $${spec#*:} pyproject.toml -o requirements/$${spec%%:*}.lock; done
	@$(VENV)/bin/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url \
	  --group build -o requirements/build.lock

.PHONY: up down status kubeconfig install demo
up: ## A cluster with pods (CLUSTER=local, kind or current)
	@$(PYTHON) -m localcluster up
down: ## The cluster gone, with its data
	@$(PYTHON) -m localcluster down
status: ## How every part of the cluster is
	@$(PYTHON) -m localcluster status
kubeconfig: ## Print the path of the cluster's kubeconfig (make -s kubeconfig)
	@$(PYTHON) -m localcluster kubeconfig
install: ## Images and chart on the cluster that is up
	@$(PYTHON) -m localcluster.installing
demo: ## Everything, end to end: cluster, chart, jobs of every kind, and what became of them
	@$(PYTHON) -m localcluster.demo

.PHONY: lint format
lint: venv ## ruff, mypy --strict, import contracts
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(PY) -m mypy $(SOURCES)
	@$(VENV)/bin/lint-imports --no-logo
format: venv ## Let ruff format and fix
	@$(VENV)/bin/ruff check --fix . ; $(VENV)/bin/ruff format .

.PHONY: crds
crds: venv ## Generate crds/ and the chart's copies from the models

	@$(PY) -m distriqueue.api.crds --helm charts/distriqueue/templates/crds

.PHONY: protos
protos: venv ## Generate the gRPC stubs from the proto
	@$(PY) -m distriqueue.gateway.rpc.generating

.PHONY: docs
docs: venv ## Generate the pages of docs/ that code knows better
	@$(PY) -m docs.generating

.PHONY: bench
bench: venv ## Jobs per second and latency, beside the raw rate of the same API server
	@$(PY) -m bench.throughput

.PHONY: faults faults-quick
faults: venv ## Every fault of docs/reliability.md, on a real API server and RabbitMQ; renews its table; FAULT=name for some
	@status=0; $(PY) -m pytest tests/faults $(if $(FAULT),-k "$(FAULT)") || status=$$?; \
	  $(if $(FAULT),:,$(PY) -m tests.faults.table) || status=$$?; exit $$status
faults-quick: venv ## The quick ones of the faults
	@DISTRIQUEUE_FAULTS_QUICK=1 $(PY) -m pytest tests/faults -m quick

SEEDS ?= 1000
JOBS ?= 1
.PHONY: simulate
simulate: venv ## SEEDS=n made-up worlds of leader and workers under faults (JOBS=2: two cores; SEED=n: one, traced)
	@$(PY) -m tests.simulation --jobs $(JOBS) $(or $(SEED),0-$$(($(SEEDS) - 1)))

.PHONY: unit integration e2e test
unit: venv ## Tests without I/O, and the simulator's made-up worlds
	@$(PY) -m pytest tests/unit tests/simulation
integration: venv ## Tests on a real API server and RabbitMQ, as processes
	@$(PY) -m pytest tests/integration
e2e: venv ## Tests with pods, on the cluster that CLUSTER names; brings it up
	@$(PY) -m pytest tests/e2e
test: unit integration faults-quick e2e ## All tests; sets up what they need
