# Everything a contributor types. PYTHON picks the interpreter, EXAMPLE the rooms of `make dev`, COUNT how
# often long tests repeat.

PYTHON ?= python3
EXAMPLE ?= chat
COUNT ?= 30
SCENARIO ?= storm
BIN := .venv/bin

.PHONY: help dev test long model mutants simulate poison takeover timers chaos failover topologies browser fuzz load rebalance check lint types layers size schema format bench wheel secrets audit manifests proxies
.DEFAULT_GOAL := help

help: ## Show this list
	@sed -n 's/^\([a-z]*\):.*## /\1	/p' $(MAKEFILE_LIST) | expand -t 12

dev: .venv/.ready $(patsubst %/package.json,%/node_modules/.ready,$(wildcard examples/$(EXAMPLE)/package.json)) ## Run everything here, with the rooms of EXAMPLE (default: chat)
	$(BIN)/innkeeper dev examples/$(EXAMPLE).py

test: .venv/.ready ## Run the tests; FLAGS are given to pytest
	$(BIN)/pytest -n 3 $(FLAGS)

model: .venv/.ready ## Run SEEDS (10000) seeds of the model of the acts from FROM (1) on, STEPS (600) steps each, on all cores
	PYTHONPATH=tests $(BIN)/python -m harness.model model --seeds $(or $(SEEDS),10000) --first $(or $(FROM),1) \
		--steps $(or $(STEPS),600)

mutants: .venv/.ready ## Hunt the deliberately broken acts with the model; ONLY="name" hunts one and prints how it is caught
	PYTHONPATH=tests $(BIN)/python -m harness.model mutants --seeds 1000 --only "$(ONLY)"

long: .venv/.ready ## Test clients, moves, posts, timers and examples against whole houses by the dozen, for minutes
	$(BIN)/pytest -n 2 -m long tests/acceptance $(FLAGS)

poison: .venv/.ready ## Test rooms that kill their workers, and kill storms, for minutes
	$(BIN)/pytest -m 'chaos or not chaos' -s tests/acceptance/test_poison.py $(FLAGS)

takeover: .venv/.ready ## Measure takeovers and leaves, for minutes, on an idle machine
	$(BIN)/pytest -m chaos -s -p no:randomly tests/acceptance/test_takeover.py tests/acceptance/test_leaves.py $(FLAGS)

timers: .venv/.ready ## Run 100,000 timers in 10,000 rooms, HZ (150) a second, for minutes, on an idle machine
	INNKEEPER_TEST_TIMERS_HZ=$(or $(HZ),150) $(BIN)/pytest -m chaos -s -p no:randomly tests/acceptance/test_many_timers.py $(FLAGS)

failover: .venv/.ready ## Let Sentinels fail over COUNT times under traffic; every other time history is lost
	INNKEEPER_TEST_FAILOVERS=$(COUNT) $(BIN)/pytest -s -m topologies -k many_failovers tests/acceptance $(FLAGS)

topologies: .venv/.ready ## Test what is too slow for `test`: nodes of clusters die, replicas are cut off, power fails
	$(BIN)/pytest -s -m topologies -k "not many_failovers" tests/acceptance $(FLAGS)

simulate: .venv/.ready ## Run SEEDS simulations of the whole system from FIRST on; SEED=n shows one (EVENTS its length)
	PYTHONPATH=tests $(BIN)/python -m harness.simulation --seeds $(or $(SEEDS),200) --first $(or $(FIRST),1) $(if $(SEED),--seed $(SEED)) $(if $(EVENTS),--events $(EVENTS)) $(FLAGS)

browser: .venv/.ready ## Test the page in headless Chromium (Debian: apt-get install chromium)
	$(BIN)/pytest -m browser tests/browser $(FLAGS)

chaos: .venv/.ready ## Hurt a real house and judge its history; SCENARIO (default: storm), SECONDS, SEED, FLAGS
	PYTHONPATH=tests $(BIN)/python -m chaos $(SCENARIO) $(if $(SECONDS),--seconds $(SECONDS)) $(if $(SEED),--seed $(SEED)) $(FLAGS)

fuzz: .venv/.ready ## Send INPUTS (100000) pieces of noise to everything that parses; SEED repeats a run
	PYTHONPATH=tests $(BIN)/python -m fuzz --inputs $(or $(INPUTS),100000) $(if $(SEED),--seed $(SEED))

rebalance: .venv/.ready ## Start a worker beside others and see it take its share of 60 and of 500 rooms, on an idle machine
	$(BIN)/pytest -s -p no:randomly -m 'long or chaos' tests/acceptance/test_balance.py $(FLAGS)

load: .venv/.ready ## Flood, stall, starve and lose edges of a real house, for minutes, on an idle machine; SEED repeats a run
	ulimit -n 20000; INNKEEPER_TEST_SEED=$(SEED) $(BIN)/pytest -m chaos -s -p no:randomly tests/load $(FLAGS)

check: lint types layers size schema ## Run every check that is not a test

lint: .venv/.ready
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: .venv/.ready
	$(BIN)/mypy

layers: .venv/.ready
	$(BIN)/lint-imports

size: .venv/.ready
	$(BIN)/loq check

schema: .venv/.ready
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec compose.yaml

format: .venv/.ready ## Format the code and mend what can be mended
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

bench: .venv/.ready ## Measure; results go to bench/results/
	$(BIN)/python bench/run.py $(FLAGS)

audit: .venv/.deploy ## Look up known vulnerabilities of what is pinned (asks the public index), and list the licences
	$(BIN)/pip-licenses --order=license --fail-on='GPLv2;GPLv3;AGPLv3' --partial-match
	$(BIN)/pip-audit --strict --no-deps --disable-pip -r constraints.txt \
		|| { echo "make audit: something is vulnerable, or the public index did not tell; see above" >&2; exit 1; }

manifests: .venv/.deploy ## Check the manifests in deploy/kubernetes/ by the schemas of Kubernetes
	$(BIN)/kubernetes-validate --strict deploy/kubernetes/*.yaml

proxies: .venv/.deploy ## Test behind HAProxy and Caddy, beside FastAPI and Django (Debian: apt-get install haproxy caddy)
	@for name in haproxy caddy; do command -v $$name >/dev/null || { echo "make proxies needs $$name: apt-get install haproxy caddy" >&2; exit 1; }; done
	$(BIN)/pytest -m proxies tests/acceptance $(FLAGS)

secrets: ## Make the passwords of the users of Redis, for compose.yaml (deploy/secrets/)
	deploy/redis/make-secrets.sh

wheel: .venv/.ready ## Build the wheel into dist/
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir dist .

.venv/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Innkeeper needs Python 3.11 or newer; run: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[speed,dev,test]'
	@touch $@

.venv/.deploy: .venv/.ready
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[deploy]'
	@touch $@

# What the page of an example loads.
examples/%/node_modules/.ready: examples/%/package.json examples/%/package-lock.json
	@command -v npm >/dev/null \
		|| { echo "The page of examples/$*.py needs packages of npm, which is not installed: get Node, which brings it (https://nodejs.org)" >&2; exit 1; }
	cd examples/$* && npm install --silent --no-audit --no-fund
	@touch $@
