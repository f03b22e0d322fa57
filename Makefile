# Two commands do everything on a fresh machine: `make demo` and `make test`.
SHELL := /bin/bash
SEEDS ?= 200
CI ?=
MODE ?= scripted

.PHONY: help setup build demo test test-full chaos proof fuzz conformance bench

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

setup: ## installs what the build and the tests need (Debian packages)
	@.ci/setup

build: ## builds the three binaries
	@.ci/setup build
	@. .ci/env && cargo build --workspace --bins

demo: ## three members, three clusters, one is lost: watch its steps move (CI=true: no terminal, exits 0 or 1)
	@.ci/setup build
	@CI=$(CI) .ci/demo

test: ## everything that fits in an hour on a fresh machine, real Kubernetes included
	@.ci/setup
	@.ci/suites test

test-full: ## what is too long for `make test` as well
	@.ci/setup
	@.ci/suites full

chaos: ## simulated federation: SEEDS=n seeds, or one: SEED=n
	@.ci/setup build
	@. .ci/env && cargo build -q --release -p argosy-chaos && \
	  "$$CARGO_TARGET_DIR/release/argosy-chaos" $(if $(SEED),--seed $(SEED) --trace,--seeds $(SEEDS))

proof: ## bugs planted in the product, one by one: how soon the simulator finds each (docs/proof.md)
	@.ci/setup build
	@. .ci/env && cargo run -q --release -p argosy-chaos --features planted -- --planted

fuzz: ## every fuzz target for a while: FUZZ_SECONDS=60, TARGET=name for one of them
	@.ci/setup build
	@tests/fuzz/run $(or $(FUZZ_SECONDS),60) $(TARGET)

conformance: ## Argo's recordings through the real engine, a table by area: MODE=scripted|process|kubernetes CASES=DIR AREAS=a,b SHOW=area/name
	@.ci/setup build
	@. .ci/env && $(if $(CASES),CASES=$(abspath $(CASES))) $(if $(AREAS),AREAS=$(AREAS)) $(if $(SHOW),SHOW=$(SHOW)) \
	  .ci/conformance $(MODE)

bench: ## numbers beside etcd's on this machine: SUITE=name for one of them
	@.ci/setup
	@tests/bench/run $(SUITE)
