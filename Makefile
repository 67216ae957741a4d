# The only place where a command is written.  Needs Python, g++ and the package registry.
PYTHON ?= python3
VENV ?= .venv
PY = $(VENV)/bin/python
OP ?= layer_norm
THREADS ?= 1
CPP = $$(git ls-files -co --exclude-standard '*.h' '*.cc' '*.cu')

.PHONY: demo test test-fast test-faults build lint format bench docs tour asan gpu clean

# What is installed stands in setup.py and pyproject.toml; a change there installs anew.
$(VENV)/.installed: pyproject.toml setup.py
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --upgrade 'pip>=23' 'setuptools>=61,<81' wheel
	D2L_WITH_OPS=0 $(PY) -m pip install --quiet --no-build-isolation --editable '.[mxnet]'
	touch $@

$(VENV)/.test-installed: $(VENV)/.installed
	D2L_WITH_OPS=0 $(PY) -m pip install --quiet --no-build-isolation --editable '.[mxnet,test,dev]'
	touch $@

build: $(VENV)/.installed
	$(PY) setup.py build_ops

demo: build
	$(PY) examples/lenet.py --out out/demo

# Two processes, each with whole files of tests: their fixtures build things.
test: build lint
	$(PY) -m pytest -n 2 --dist loadfile

test-fast: build $(VENV)/.test-installed
	$(PY) -m pytest -n 2 --dist loadfile -m 'not slow and not isa'

# Every kind of fault in every process of a job, at MOMENTS random moments each: about an hour and a
# half.  A row for each run goes to out/faults.csv, a table of them to docs/parallel.md.  The ring
# needs PyTorch; the build for the CPU, if it is there already, will do.
MOMENTS ?= 20
test-faults: build $(VENV)/.test-installed
	$(PY) -c 'import torch' 2>/dev/null || D2L_WITH_OPS=0 $(PY) -m pip install --quiet \
		--no-build-isolation --editable '.[mxnet,ring]'
	mkdir -p out && rm -f out/faults.csv
	D2L_FAULT_MOMENTS=$(MOMENTS) $(PY) -m pytest tests/parallel/test_faults.py
	$(PY) tests/parallel/fault_rows.py out/faults.csv

lint: $(VENV)/.test-installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/clang-format --dry-run --Werror $(CPP)

format: $(VENV)/.test-installed
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/clang-format -i $(CPP)

# make bench OP=masked_softmax THREADS=2; rows go to benchmarks/results, tables to README and
# docs/measured.md.
# PyTorch, if it is installed, is one of the providers.
bench: build
	$(PY) benchmarks/run.py ops/$(OP) --threads $(THREADS)

docs: build
	$(PY) benchmarks/report.py

# The pictures of docs/tour.md, by the examples on that page.
tour: build
	$(PY) tools/make_tour.py

asan: build
	$(PY) tests/ops/sanitized.py

gpu: build
	$(PY) tests/gpu/harness.py --check --bench

clean:
	rm -rf build dist out *.egg-info d2l/ops/libd2l_ops.so d2l/ops/libd2l_blas.so
