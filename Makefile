# `make run` and `make test` do all the set-up that a fresh Debian, Ubuntu or macOS machine needs.

# The engines to build. One list for run, test and CI, so that llama.cpp is compiled once. Metal is part
# of macOS; CUDA's engines stand beside these, see `cuda`.
ifeq ($(shell uname -s),Darwin)
FEATURES ?= candle-metal,llama-cpp-metal,openai
else
FEATURES ?= candle,llama-cpp,openai
endif
CARGO ?= cargo
TARGET = $${CARGO_TARGET_DIR:-target}
BENCH = $(TARGET)/release/bench

PREFIX ?= /usr/local

.PHONY: run test test-browser lint build install setup cuda cuda-check gpu vulkan candle llama-cpp openai mlx overhead clean

run: build gpu
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

# MLX, from PyPI into a virtual environment of its own under the cache folder.
mlx:
	$(CARGO) build --release --bin bench
	$(BENCH) setup mlx

# The CUDA engines, for the cards of this machine or for CUDA_ARCHS="80 90"; nothing to do the second time.
cuda: setup
	@sh .ci/cuda

# Whether the CUDA engines still compile, for one architecture; needs no card.
cuda-check: setup
	@CUDA_ARCHS=$${CUDA_ARCHS:-90} sh .ci/cuda

# The same where a card's driver answers, and nothing elsewhere.
gpu: setup
	@if command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L 2>/dev/null | grep -q GPU; then \
		sh .ci/cuda || echo "gpu: the CUDA engines were not built (see above); those for the CPU are used"; fi

# llama.cpp on any GPU with a Vulkan driver; needs the Vulkan headers and glslc.
vulkan: setup
	CARGO_TARGET_DIR=$(TARGET)/vulkan $(CARGO) build --release --features llama-cpp-vulkan --bin bench-llama-cpp
	mkdir -p $(TARGET)/release
	cp $(TARGET)/vulkan/release/bench-llama-cpp $(TARGET)/release/bench-llama-cpp-vulkan

# What the ruler itself costs: a token stamp, an event, the statistics.
overhead:
	$(CARGO) bench --test overhead --features $(FEATURES)

# llama.cpp needs cmake and a C++ compiler, its Rust bindings need libclang.
setup:
	@sh .ci/setup

clean:
	$(CARGO) clean
