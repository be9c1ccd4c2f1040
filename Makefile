# `make demo` and `make test` set up all that they need: Python 3.11+, git and make are enough.
PYTHON ?= python3
BIN := .venv/bin
RUN := $(BIN)/python
STAMP := .venv/.installed

export HF_HUB_OFFLINE := 1
export TRANSFORMERS_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false

# Real benchmark data is optional: what needs it skips, and says so, where it is absent.
ifndef MEMORIST_DATA
ifneq ($(wildcard ../shared/data),)
export MEMORIST_DATA := $(abspath ../shared/data)
endif
else
export MEMORIST_DATA
endif

# $(call timed,NAME,COMMAND) runs a command and tells how long it took.
timed = @began=$$(date +%s); $(2); status=$$?; echo "$(1): $$(($$(date +%s) - began)) s"; exit $$status

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test test-promises test-verl test-integrations test-gpu lint types unit results-memory-r1 results-agents results-chooser results-profiles results-household results-notebook results-uav results-hybrid bench bench-experts bench-memory bench-serve bench-trainer docs site clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(STAMP) ## train on this machine, compare before and after, write a report
	@$(BIN)/memorist demo

test: lint types unit ## lint, types and unit tests
	@echo "lint, types and unit tests passed"

test-promises: $(STAMP) ## the tests that take long: crash rounds, real servers
	$(call timed,test-promises,$(RUN) -m pytest -m promise)

# verl wants another transformers, so it has an environment of its own.
VERL := .venv-verl/.installed
$(VERL): constraints-verl.txt
	@$(PYTHON) -m venv --clear .venv-verl
	@.venv-verl/bin/python -m pip install -q -r constraints-verl.txt
	@touch $@

test-verl: $(VERL) ## the contract with verl, in its own environment (2 GB of disk; CPU)
	$(call timed,test-verl,PYTHONPATH=src .venv-verl/bin/python -m pytest -q -p no:cacheprovider -o addopts= -o filterwarnings=default tests/cluster/check_verl.py)

# Frameworks of others pin what we do not, so they have an environment of their own too.
INTEGRATIONS := .venv-integrations/.installed
$(INTEGRATIONS): constraints-integrations.txt pyproject.toml
	@$(PYTHON) -m venv --clear .venv-integrations
	@.venv-integrations/bin/python -m pip install -q -c constraints-integrations.txt -e ".[langgraph,llama-index,openai-agents,crewai]" pytest
	@touch $@

test-integrations: $(INTEGRATIONS) ## LangGraph, LlamaIndex, OpenAI Agents, CrewAI: the real packages, in their own environment (1 GB of disk)
	$(call timed,test-integrations,OTEL_SDK_DISABLED=true .venv-integrations/bin/python -m pytest -q -p no:cacheprovider -o addopts= -o filterwarnings=default --confcutdir=tests/integrations tests/integrations/check_integrations.py)

test-gpu: $(STAMP) ## what a GPU adds; skipped, and said so, where there is none
	$(call timed,test-gpu,$(RUN) -m pytest -m gpu -rs)

lint: $(STAMP) ## ruff: rules and formatting
	$(call timed,lint,$(BIN)/ruff check . && $(BIN)/ruff format --check .)

types: $(STAMP) ## mypy, strict
	$(call timed,types,$(RUN) -m mypy)

unit: $(STAMP) ## unit tests
	$(call timed,unit,$(RUN) -m pytest)

results-memory-r1: $(STAMP) ## measure the rows of Memory-R1 (hours; goes on where it stopped)
	@$(RUN) scripts/results_memory_r1.py

results-agents: $(STAMP) ## measure the rows of MemAgent, MemSearcher and RMM (hours; goes on where it stopped)
	@$(RUN) scripts/results_agents.py

results-chooser: $(STAMP) ## measure the rows of the chooser (an hour; goes on where it stopped)
	@$(RUN) scripts/results_chooser.py

results-profiles: $(STAMP) ## measure the rows of PersonaTree's listener (an hour; goes on where it stopped)
	@$(RUN) scripts/results_profiles.py

results-household: $(STAMP) ## measure the rows of ESearch (an hour; goes on where it stopped)
	@$(RUN) scripts/results_household.py

results-notebook: $(STAMP) ## measure the rows of Datarus (three hours; goes on where it stopped)
	@$(RUN) scripts/results_notebook.py

results-uav: $(STAMP) ## measure the rows of UAV-VL-R1 (four hours; goes on where it stopped)
	@test -d runs/results/viewer-1800 || { $(RUN) scripts/make_viewer.py --annotated 1800 --out runs/results/viewer-1800.new \
		&& mv runs/results/viewer-1800.new runs/results/viewer-1800; }
	@$(RUN) scripts/results_uav.py

results-hybrid: $(STAMP) ## measure what hybrids know (hours; goes on where it stopped)
	@$(RUN) scripts/results_hybrid.py

bench: $(STAMP) ## run every benchmark in benchmarks/
	@set -e; for file in benchmarks/*.py; do if [ -e "$$file" ]; then echo "$$file"; $(RUN) "$$file"; fi; done

bench-experts: $(STAMP) ## measure the rows of pruning and lazy loading (half an hour, 12 GB of disk)
	@$(RUN) benchmarks/experts.py --json results/experts.json

bench-memory: $(STAMP) ## measure the rows of the library beside Mem0, LanceDB and Chroma (half an hour, 3 GB of disk)
	@$(RUN) benchmarks/memory.py --json results/memory.json

bench-serve: $(STAMP) ## measure the server under load, over SQLite and PostgreSQL (twenty minutes, 1 GB of disk)
	@$(RUN) benchmarks/serve.py --json results/serve.json

bench-trainer: $(STAMP) ## measure the rows of the trainer beside TRL (a quarter of an hour, 3 GB of disk)
	@$(RUN) benchmarks/trainer.py --json results/trainer.json

docs: $(STAMP) ## make docs/results.md and docs/curves from results
	@$(RUN) scripts/make_results.py
	@$(RUN) scripts/make_curves.py
	@$(RUN) scripts/make_http_reference.py

site: $(STAMP) ## the documentation as pages, in site/
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

clean: ## remove .venv, caches and the demo's output; runs/ and results/ stay
	@rm -rf .venv dist demo site .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find src tests scripts benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not there: install Python 3.11 or newer" >&2; exit 1; }
	@$(PYTHON) scripts/install.py
