# `make` lists the targets.  Each sets up what it needs in VENV.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
NATIVE := $(shell find csrc -name '*.cpp' -o -name '*.h' -o -name 'CMakeLists.txt') CMakeLists.txt
CXX_FILES := $(shell find csrc -name '*.cpp' -o -name '*.h')
INSTALL_INPUTS := pyproject.toml $(NATIVE)

.DEFAULT_GOAL := help
.PHONY: help run test check audit format bench bench-peers native-test native-test-arm sanitize clean

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 17

run: $(VENV)/run ## Ask the packaged model a question
	$(BIN)/quintet run demo "What is the capital of France?" < /dev/null

test: $(VENV)/test ## Run the tests, as the README says
	$(BIN)/pytest

check: $(VENV)/check ## Check style, types and formatting, without changing anything
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror $(CXX_FILES)

# Not in CI: it asks a service for advisories, whose answer changes while the code does not.
audit: $(VENV)/run ## Look up known weaknesses of the dependencies; needs the network
	$(BIN)/pip install --quiet "pip-audit>=2.7,<3"
	$(BIN)/pip freeze --exclude-editable --exclude quintet --exclude pip-audit > $(VENV)/audited.txt
	$(BIN)/pip-audit --strict --no-deps --disable-pip -r $(VENV)/audited.txt

format: $(VENV)/check ## Format the code in place
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/clang-format -i $(CXX_FILES)

bench: $(VENV)/test ## Measure the overheads around the model
	$(BIN)/python benchmarks/bench.py $(ARGS)

bench-peers: $(VENV)/test ## Measure against llama.cpp; ARGS=--quick for a short run
	$(BIN)/python benchmarks/bench_peers.py $(ARGS)

native-test: ## Build and run the C++ tests
	cmake -S . -B build/native -DQUINTET_TESTS=ON -DQUINTET_PYTHON=OFF
	cmake --build build/native --parallel 2
	ctest --test-dir build/native --output-on-failure

native-test-arm: ## Cross-compile the C++ tests for 64-bit Arm and run them under qemu-user
	cmake -S . -B build/aarch64 -DQUINTET_TESTS=ON -DQUINTET_PYTHON=OFF \
		-DCMAKE_TOOLCHAIN_FILE=cmake/aarch64-linux-gnu.cmake
	cmake --build build/aarch64 --parallel 2
	ctest --test-dir build/aarch64 --parallel 2 --output-on-failure

sanitize: ## Build and run the C++ tests under AddressSanitizer and UBSan
	cmake -S . -B build/sanitize -DQUINTET_TESTS=ON -DQUINTET_PYTHON=OFF -DQUINTET_SANITIZE=ON \
		-DCMAKE_BUILD_TYPE=RelWithDebInfo
	cmake --build build/sanitize --parallel 2
	ctest --test-dir build/sanitize --output-on-failure

clean: ## Remove what was built, the environment included
	rm -rf build dist $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis

# An editable install sees changed Python at once; changed C++ is built again.

$(VENV)/run: $(INSTALL_INPUTS) | $(BIN)/pip
	$(BIN)/pip install -e .
	@touch $@

$(VENV)/test: $(INSTALL_INPUTS) | $(BIN)/pip
	$(BIN)/pip install -e ".[test]"
	@touch $@ $(VENV)/run

$(VENV)/check: $(INSTALL_INPUTS) | $(BIN)/pip
	$(BIN)/pip install -e ".[dev]"
	@touch $@ $(VENV)/run

$(BIN)/pip:
	$(PYTHON) -m venv $(VENV)
