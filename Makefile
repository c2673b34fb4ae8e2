# Everything a contributor runs. The venv is .venv; nothing is installed outside of it but by `make tools`.
PYTHON ?= python3.11
EXTRAS := logger explainers anchors detectors reports dashboards demo
BIN := .venv/bin
COMPILE := uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-annotate --no-header

.PHONY: demo test check bench transparency faults study-drift crash-proof tools build clean lock

.venv/.ready: requirements/dev.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements/uv.txt
	$(BIN)/uv pip sync -q --python $(BIN)/python --require-hashes requirements/dev.txt
	$(BIN)/uv pip install -q --python $(BIN)/python --no-deps -e .
	touch $@

demo: .venv/.ready ## the whole loop on this machine; ARGS=--check to fail unless everything held
	$(BIN)/servelens demo $(ARGS)

build/nannyml/.ready: .venv/.ready requirements/study.txt # data for the drift study; the package is not imported
	$(BIN)/uv pip install -q --python $(BIN)/python --no-deps --require-hashes --target build/nannyml -r requirements/study.txt
	touch $@

test: .venv/.ready build/nannyml/.ready ## every test; ARGS are pytest's
	$(BIN)/pytest $(ARGS)

check: .venv/.ready ## ruff, mypy, import-linter, locks, docs, dashboards
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(MAKE) -s lock-check
	$(BIN)/pytest -q tests/docs tests/dashboards -m "not slow"

transparency: .venv/.ready ## 100,000 generated exchanges, directly and through the tap: two minutes
	$(BIN)/python tests/transparency/compare.py $(ARGS)

faults: .venv/.ready ## 200 rounds of kills, stops and full disks against Apache Kafka: seven minutes; needs `make tools`
	$(BIN)/python tests/faults/rounds.py $(ARGS)

study-drift: .venv/.ready build/nannyml/.ready ## can drift verdicts be believed? half an hour; ARGS=--short a minute
	$(BIN)/python tests/study/drift.py $(ARGS)

crash-proof: .venv/.ready ## detectors under kills, zombies and broker restarts: six minutes; needs `make tools`
	$(BIN)/python tests/crash/proof.py $(ARGS)

bench: .venv/.ready ## every benchmark; each prints both sides of one run
	for bench in $$(find tests/bench -name "bench_*.py" | sort); do echo "== $$bench"; $(BIN)/python $$bench || exit 1; done

tools: ## what the fuller tests use: JDK and Maven (Apache Kafka), Prometheus, Chromium, nginx
	bash deploy/tools

build: .venv/.ready ## the wheel
	$(BIN)/uv build -q --wheel --out-dir dist

lock: .venv/.ready ## one hashed requirements file an extra
	for extra in $(EXTRAS); do $(BIN)/$(COMPILE) --extra $$extra pyproject.toml -o requirements/$$extra.txt || exit 1; done
	$(BIN)/$(COMPILE) --extra demo --extra anchors --extra dashboards --extra reports --group dev pyproject.toml -o requirements/dev.txt

lock-check: # the locks say what pyproject asks for: compiled again from themselves they do not change
	@rm -rf build/locks && mkdir -p build/locks && cp requirements/*.txt build/locks/
	@for extra in $(EXTRAS); do $(BIN)/$(COMPILE) --extra $$extra pyproject.toml -o build/locks/$$extra.txt || exit 1; done
	@$(BIN)/$(COMPILE) --extra demo --extra anchors --extra dashboards --extra reports --group dev pyproject.toml -o build/locks/dev.txt
	@diff -r requirements build/locks || { echo "the locks are stale: run make lock"; exit 1; }

clean:
	rm -rf .venv build dist out spool deploy/kafka/target .mypy_cache .pytest_cache .ruff_cache .hypothesis
