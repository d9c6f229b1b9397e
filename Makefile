# Every target works in a fresh clone on a machine with make and python3 >= 3.11: uv is fetched when it is missing.

.DEFAULT_GOAL := help
.PHONY: help demo test test-all check bench clean sync

# A `uv` on PATH may be a shim that leads nowhere, so it has to answer before it is used.
UV := $(shell uv --version >/dev/null 2>&1 && command -v uv || echo .uv-bootstrap/bin/uv)
BIN := $(or $(UV_PROJECT_ENVIRONMENT),.venv)/bin
# --inexact: what another target has installed stays, so that the order of the targets does not matter.
SYNC := CXX=$(CURDIR)/rayml/engines/c++20 $(UV) sync --frozen --inexact
TEST_EXTRAS := --extra sklearn --extra plots --extra polars --extra sql --extra mlflow --extra examples --extra torch --extra horovod --extra dask --extra spark --extra xgboost --extra lightgbm --extra hub --extra onnx
# Two at a time, each with servers and Rays of its own: much of a test is waiting. A file's tests share a Ray.
SIDE_BY_SIDE := -n 2 --dist loadfile --no-loadscope-reorder
FAST_TESTS := rayml tests/unit tests/packaging tests/formats tests/store
RAY_TESTS := tests/cli tests/mlflow tests/hub tests/ray
# What takes all CPUs for minutes: nothing else would be in time beside it.
GREEDY := tests/ray/test_kills.py
KUBE_TESTS := tests/kube
# Of these each has a whole Ray on a whole Kubernetes: two of them are more than two CPUs take.
HEAVY_KUBE_TESTS := $(addprefix $(KUBE_TESTS)/,test_jobs.py test_faults.py test_engines.py test_hub.py)

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

# The tools are called by their path, not through `uv run`: Ray notices a `uv run` above it and would
# start its workers through uv as well.
demo: $(UV)  ## train on 336,776 flights, then load the model back and predict
	$(SYNC) --no-dev --extra examples
	$(BIN)/rayml run examples/flight_delays.py:train
	$(BIN)/python examples/predict_delays.py

test: WHICH := not thorough
test: check  ## all checks, then the tests
test-all: WHICH :=
test-all: check  ## the same, with what takes long, mostly for one more case of what others cover
test test-all:
	$(BIN)/pytest -m "$(WHICH)" $(SIDE_BY_SIDE) $(FAST_TESTS)
	$(BIN)/pytest -m "$(WHICH)" $(SIDE_BY_SIDE) $(RAY_TESTS) $(GREEDY:%=--ignore=%)
	$(BIN)/pytest -m "$(WHICH)" $(GREEDY)
	$(BIN)/python -m tests.kube.building
	$(BIN)/pytest -m "$(WHICH)" $(SIDE_BY_SIDE) $(KUBE_TESTS) $(HEAVY_KUBE_TESTS:%=--ignore=%)
	$(BIN)/pytest -m "$(WHICH)" $(HEAVY_KUBE_TESTS)

check: sync  ## ruff, mypy and import-linter
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: sync  ## measure everything anew and write benchmarks/results.md
	$(BIN)/python benchmarks/run_all.py

clean:  ## remove what the targets made, but for the runs in .rayml
	rm -rf .venv .uv-bootstrap build dist *.egg-info
	rm -rf .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

# The tests start Python some thousand times, which takes half as long once all that it imports is compiled.
sync: $(UV)
	$(SYNC) $(TEST_EXTRAS) --compile-bytecode
	$(BIN)/python -m compileall -q rayml cluster hub

.uv-bootstrap/bin/uv:
	python3 -m venv .uv-bootstrap
	.uv-bootstrap/bin/pip install --quiet uv
