# `make run` and `make test` do all the set-up that a fresh Debian, Ubuntu or macOS machine needs.

# The engines to build. One list for run, test and CI, so that llama.cpp is compiled once.
FEATURES ?= candle,llama-cpp,openai
CARGO ?= cargo
BENCH = $${CARGO_TARGET_DIR:-target}/release/bench

.PHONY: run test test-browser lint build setup candle llama-cpp openai overhead clean

run: build
	$(BENCH) run scenarios/quickstart.toml

test: setup
	$(CARGO) test --release --features $(FEATURES)

# Reports in a real Chromium: no errors, sorting, filters, sliders, widths, accessibility.
test-browser: build
	sh .ci/browser $(BENCH)

lint: setup
	$(CARGO) fmt --check
	$(CARGO) clippy --release --all-targets --features $(FEATURES) -- -D warnings

build: setup
	$(CARGO) build --release --features $(FEATURES)

candle llama-cpp openai: setup
	$(CARGO) build --release --features $@ --bin bench --bin bench-$@

# What the ruler itself costs: a token stamp, an event, the statistics.
overhead:
	$(CARGO) bench --test overhead --features $(FEATURES)

# llama.cpp needs cmake and a C++ compiler, its Rust bindings need libclang.
setup:
	@sh .ci/setup

clean:
	$(CARGO) clean
