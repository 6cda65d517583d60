# `make demo` and `make test` set everything up themselves. All targets may be repeated.
PY := .venv/bin/python
.DEFAULT_GOAL := help
.PHONY: help setup demo test check bench format docs clean requirements

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

setup:
	@sh tools/setup.sh

demo: setup  ## the whole main job on an embedded example: create, lock, build, test, publish
	@$(PY) tools/demo.py

test: setup  ## every test that this machine can run; the reasons for the others are printed
	@$(PY) -m pytest -n 2 --dist loadfile $(TESTS)

check: setup  ## lint, types, unit tests
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy
	@$(PY) -m pytest -q -n 2 --dist loadfile test/unit

bench: setup  ## speed, as ratios
	@$(PY) -m pytest -q -s test/benchmark -o python_files='bench_*.py' -p no:xdist

format: setup  ## format the code
	@$(PY) -m ruff format .
	@$(PY) -m ruff check --fix .

docs: setup  ## write the generated parts of docs/ again
	@$(PY) tools/docs.py

requirements: setup  ## lock the dependencies again, with hashes
	@.venv/bin/lockyard package lock
	@grep -A100 '^uv==' requirements/dev.txt | awk 'NR==1 || /^    --hash/ {print; next} {exit}' > requirements/uv.txt

clean:  ## remove what was made here
	rm -rf .venv .demo .cache out dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
