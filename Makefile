# Two commands do everything on a fresh machine: `make demo` and `make test`. `make` alone lists the rest.
VENV    := .venv
BIN     := $(VENV)/bin
PYTHON  ?= python3
SOURCES := Cargo.toml Cargo.lock pyproject.toml README.md $(shell find rust python/faster_smolvlm kernels -type f \
             -not -name '*.so' -not -path '*/__pycache__/*')
# Tests of small models are quickest on one thread each; pytest runs two of them side by side.
TEST_ENV := OMP_NUM_THREADS=1 RAYON_NUM_THREADS=2 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1 FASTER_SMOLVLM_EXPECT_WHEEL=1
# By name: `cargo fmt` does not see modules that a macro declares.
RUST := $(shell find rust -name '*.rs')
OLD_TRITON := build/triton-3.6.0
CONTRACT := build/contract

DESCRIBE := HF_HUB_OFFLINE=1 $(BIN)/faster-smolvlm describe --model demo

.DEFAULT_GOAL := help
.PHONY: help demo test test-rust test-python test-contract test-gpu bench-gpu gate valgrind lint format dev wheel clean

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/pip:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip

build/wheel.stamp: $(SOURCES) | $(BIN)/pip
	rm -rf dist && mkdir -p build
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir dist .
	touch $@

build/demo.stamp: build/wheel.stamp
	$(BIN)/pip install --quiet --force-reinstall --no-deps dist/*.whl
	$(BIN)/pip install --quiet dist/*.whl  # answers on a CPU need no torch
	touch $@

build/test.stamp: build/wheel.stamp
	$(BIN)/pip install --quiet --force-reinstall --no-deps dist/*.whl
	$(BIN)/pip install --quiet "$$(ls dist/*.whl)[dev]"
	touch $@

# Packages that have bounds of their own on torch and Transformers stay apart from those of the other tests.
$(CONTRACT)/stamp: build/wheel.stamp
	$(PYTHON) -m venv $(CONTRACT)
	$(CONTRACT)/bin/pip install --quiet --upgrade pip
	$(CONTRACT)/bin/pip install --quiet --force-reinstall --no-deps dist/*.whl
	$(CONTRACT)/bin/pip install --quiet "$$(ls dist/*.whl)[contract]"
	touch $@

# The oldest triton that the kernels are compiled with, beside the installed one; where it has no wheel the tests say so.
$(OLD_TRITON): | $(BIN)/pip
	-$(BIN)/pip install --quiet --no-deps --target $@ triton==3.6.0

demo: build/demo.stamp ## build, then answer questions about the bundled picture and clip with the bundled checkpoint
	$(DESCRIBE) examples/media/scene.png --timings
	$(DESCRIBE) examples/media/scene.png -p "What colour is the square?"
	$(DESCRIBE) examples/media/clip.mp4 -p "What happens in the video?" --timings

test: test-rust test-python ## build, then run every test against the installed wheel

test-rust: ## the tests of the Rust core (no Python needed)
	cargo test --quiet --locked -p faster-smolvlm-core

test-python: build/test.stamp $(OLD_TRITON) ## the Python tests against the installed wheel, two processes side by side
	$(TEST_ENV) $(BIN)/pytest -n 2 --dist worksteal --ignore tests/kernels $(ARGS)
	$(TEST_ENV) FASTER_SMOLVLM_OLD_TRITON=$(abspath $(OLD_TRITON)) $(BIN)/pytest -n 2 --dist worksteal tests/kernels  # Triton's interpreter needs processes of its own

test-contract: $(CONTRACT)/stamp ## docling, colpali-engine, TRL, peft, … with and without us, in an environment of their own (5 GB)
	$(TEST_ENV) $(CONTRACT)/bin/python -m pytest tests/contract $(ARGS)

test-gpu: build/test.stamp ## the kernels and the captured decode step on the GPU of this machine
	$(BIN)/pytest tests/gpu $(ARGS)

bench-gpu: build/test.stamp ## ten minutes on the GPU of this machine: the tables that answer what only a GPU can
	$(BIN)/python -m benches.bench_gpu $(ARGS)

gate: build/test.stamp $(OLD_TRITON) ## compile every kernel for every GPU target, with two releases of triton (no GPU needed; minutes)
	$(BIN)/python tests/kernels/aot_gate.py $(ARGS)
	PYTHONPATH=$(OLD_TRITON) TRITON_CACHE_DIR=build/triton-cache $(BIN)/python tests/kernels/aot_gate.py $(ARGS)

# Valgrind knows no AVX-512 and no AMX and shows its programs a CPU without them, so the tests find AVX2 and the plain code. Its threads
# take turns on one core; `fair-sched` keeps those that spin from starving the others. In a child what the threads of its parent held
# counts as lost: the tests that fork say by the child's end whether it worked.
MEMCHECK := valgrind --quiet --error-exitcode=1 --fair-sched=yes --child-silent-after-fork=yes --leak-check=full --show-leak-kinds=definite --errors-for-leak-kinds=definite
VALGRIND = cargo test --quiet --locked -p faster-smolvlm-core --lib --config "target.'cfg(unix)'.runner = '$(MEMCHECK)'" -- --test-threads=1

valgrind: ## the tests of the Rust core under valgrind's memcheck, AVX2 and plain code (two minutes)
	@command -v valgrind >/dev/null || { echo "make valgrind needs valgrind: apt-get install valgrind, or as your system has it"; exit 1; }
	$(VALGRIND)
	FASTER_SMOLVLM_ISA=scalar $(VALGRIND) model::tests  # the others run every set that they find

lint: build/test.stamp ## rustfmt, clippy, ruff, mypy, stubtest
	rustfmt --edition 2024 --check $(RUST)
	cargo clippy --quiet --locked --workspace --all-targets -- -D warnings
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest faster_smolvlm._rust

format: build/test.stamp ## let rustfmt and ruff write
	rustfmt --edition 2024 $(RUST)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

dev: | $(BIN)/pip ## editable install, compiled quickly (optimised, not link-time optimised)
	$(BIN)/pip install --quiet --editable ".[dev]"

wheel: build/wheel.stamp ## build the wheel into dist/

clean: ## remove what was built, the virtual environment too
	rm -rf $(VENV) build dist target
