# The commands people use. The build itself is CMake's (CMakePresets.json).

MODEL ?= models/demo
PORT ?= 8080
HOST ?= 127.0.0.1
# Where keys, usage and invoices are kept; LEDGER= serves without keys.
LEDGER ?= .millpower
ADMIN_PORT ?= 8081
# More flags for `millpower serve`, e.g. ARGS="--threads 8 --kv-memory 4GiB"
ARGS ?=
# ON in CI: warnings are errors.
WERROR ?= OFF

BINARY := build/release/millpower

.PHONY: help serve build bench test test-fast test-e2e test-console test-interop asan tsan fuzz format check setup clean

help: ## this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

serve: build ## install what is missing, build, and serve MODEL (default: the demo) on PORT
	@exec $(BINARY) serve --model "$(MODEL)" --host $(HOST) --port $(PORT) --hints \
	  $(if $(LEDGER),--ledger "$(LEDGER)" --admin-port $(ADMIN_PORT)) $(ARGS)

build: setup ## build/release/millpower
	@test -f build/release/build.ninja || cmake --preset release -DMILLPOWER_WERROR=$(WERROR) >/dev/null
	@ninja -C build/release --quiet millpower

bench: setup ## build/release/bench: kernel_bench, ledger_bench, and serving, which drives any OpenAI server
	@cmake --preset release -DMILLPOWER_WERROR=$(WERROR) >/dev/null
	@ninja -C build/release --quiet kernel_bench ledger_bench serving tokenizer_bench

test: test-fast test-e2e ## set up and run the unit tests and the end-to-end tests

test-fast: setup ## unit tests beside the sources, in C++
	@cmake --preset release -DMILLPOWER_WERROR=$(WERROR) >/dev/null
	@ninja -C build/release --quiet
	@ctest --test-dir build/release --output-on-failure --no-tests=error

test-e2e: build build/venv/.ready ## the real binary, driven by real clients
	@build/venv/bin/python -m pytest -q tests/e2e

test-interop: build build/venv-interop/.ready ## other people's tools against the server (lm-evaluation-harness)
	@build/venv-interop/bin/python -m pytest -q tests/interop

test-console: build build/venv-console/.ready ## the web console, in headless Chromium
	@tools/setup.sh packages-console.txt
	@build/venv-console/bin/python -m pytest -q tests/console

build/venv-interop/.ready: tests/interop/requirements.txt
	@python3 -m venv build/venv-interop
	@build/venv-interop/bin/pip install --quiet --disable-pip-version-check -r tests/interop/requirements.txt
	@touch $@

build/venv-console/.ready: tests/console/requirements.txt
	@python3 -m venv build/venv-console
	@build/venv-console/bin/pip install --quiet --disable-pip-version-check -r tests/console/requirements.txt
	@touch $@

build/venv/.ready: tests/e2e/requirements.txt
	@python3 -m venv build/venv
	@build/venv/bin/pip install --quiet --disable-pip-version-check -r tests/e2e/requirements.txt
	@touch $@

asan: setup ## the unit tests under AddressSanitizer and UndefinedBehaviorSanitizer
	@cmake --preset asan >/dev/null
	@ninja -C build/asan --quiet
	@ctest --test-dir build/asan --output-on-failure --no-tests=error

# Their threads meet in memory; the other folders have none.
TSAN_TESTS := base device ledger ledger_store engine ranking serve inference batch
tsan: setup ## the unit tests of what has threads under ThreadSanitizer
	@cmake --preset tsan >/dev/null
	@ninja -C build/tsan --quiet $(TSAN_TESTS:%=%_test)
	@ctest --test-dir build/tsan --output-on-failure --no-tests=error \
	  --tests-regex "^($$(echo $(TSAN_TESTS) | tr ' ' '|'))$$"

FUZZ_SECONDS ?= 60
fuzz: setup-dev ## every fuzz target for FUZZ_SECONDS each
	@tools/fuzz.sh $(FUZZ_SECONDS)

check: setup-dev ## formatting, and that folders include only what they may
	@git ls-files '*.cc' '*.h' | xargs clang-format-19 --dry-run --Werror
	@python3 tools/check_layers.py

format: setup-dev ## format all C++ sources
	@git ls-files '*.cc' '*.h' | xargs clang-format-19 -i

setup:
	@tools/setup.sh packages.txt

.PHONY: setup-dev
setup-dev:
	@tools/setup.sh packages.txt packages-dev.txt

clean: ## remove everything built
	rm -rf build

.PHONY: test-models
test-models: build build/venv-models/.ready ## ONNX node tests; models of PyTorch and Keras (large)
	@build/venv-models/bin/python tests/onnx_node_tests/run.py build/release/millpower --refusals docs/onnx-refusals.md
	@test -d build/models/torch || build/venv-models/bin/python tools/goldens/ranking_models.py --out build/models/torch
	@test -d build/models/keras || build/venv-models/bin/python tools/goldens/keras_models.py --out build/models/keras
	@build/venv-models/bin/python tests/models/run.py build/release/millpower build/models/torch build/models/keras
	@build/venv-models/bin/python -m pytest -q tests/models/test_torch.py
	@build/venv-models/bin/python -m pytest -q tests/models/test_tensorflow.py

build/venv-models/.ready: tests/models/requirements.txt
	@python3 -m venv build/venv-models
	@build/venv-models/bin/pip install --quiet --disable-pip-version-check -r tests/models/requirements.txt
	@touch $@
