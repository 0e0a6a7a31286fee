# `make run` and `make test` do all the set-up that a fresh Debian, Ubuntu or macOS machine needs.

# The engines to build. One list for run, test and CI, so that llama.cpp is compiled once.
FEATURES ?= candle,llama-cpp,openai
CARGO ?= cargo
BENCH = $${CARGO_TARGET_DIR:-target}/release/bench

PREFIX ?= /usr/local

.PHONY: run test lint build install setup candle llama-cpp openai overhead clean

run: build
	$(BENCH) run scenarios/quickstart.toml

test: setup
	$(CARGO) test --release --features $(FEATURES)

lint: setup
	$(CARGO) fmt --check
	$(CARGO) clippy --release --all-targets --features $(FEATURES) -- -D warnings

build: setup
	$(CARGO) build --release --features $(FEATURES)

# The programs, the manual pages, and the completions of three shells.
install: build
	install -d $(PREFIX)/bin $(PREFIX)/share/man/man1 $(PREFIX)/share/zsh/site-functions \
		$(PREFIX)/share/bash-completion/completions $(PREFIX)/share/fish/vendor_completions.d
	for program in bench bench-candle bench-llama-cpp bench-openai; do \
		built=$$(dirname $(BENCH))/$$program; \
		if [ -e "$$built" ]; then install -m 755 "$$built" $(PREFIX)/bin || exit 1; fi; done
	$(BENCH) man --out $(PREFIX)/share/man/man1
	$(BENCH) completions bash > $(PREFIX)/share/bash-completion/completions/bench
	$(BENCH) completions zsh > $(PREFIX)/share/zsh/site-functions/_bench
	$(BENCH) completions fish > $(PREFIX)/share/fish/vendor_completions.d/bench.fish

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
