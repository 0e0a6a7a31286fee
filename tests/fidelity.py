#!/usr/bin/env python3
"""How far `bench run` and llama.cpp's own llama-bench are apart: the same file, threads and settings.

    python3 tests/fidelity.py LLAMA_BENCH MODEL.gguf [--rounds 7] [--prompt 512] [--new 64 | --prefill-only]
        [--gpu-layers 99]

LLAMA_BENCH is the llama-bench of the llama.cpp source that llama-cpp-sys-2 carries. The two run in
turn, so that drift of the machine hits both; printed are the ratios ours / llama-bench of each round
and their median. `llama-bench -d PROMPT -n NEW` generates at the depth at which we do after a prompt
of PROMPT tokens.
"""

import argparse
import csv
import json
import os
import pathlib
import statistics
import subprocess
import tempfile

REPETITIONS = 5


def llama_bench(program, model, threads, gpu_layers, prompt, new):
    """Median prefill and decode tok/s over the repetitions; prefill alone where `new` is 1."""
    speeds = []
    tests = [["-p", str(prompt), "-n", "0"], ["-p", "0", "-n", str(new), "-d", str(prompt)]]
    for test in tests[: min(new, 2)]:
        command = [program, "-m", model, "-t", str(threads), "-ngl", str(gpu_layers)]
        command += ["-r", str(REPETITIONS), "-o", "json", *test]
        rows = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        speeds.append(statistics.median(rows[0]["samples_ts"]))
    return speeds


def ours(program, folder, scenario):
    """Median prefill and decode tok/s, and the harness's own share of the CPU."""
    out = pathlib.Path(tempfile.mkdtemp(dir=folder))
    command = [program, "run", scenario, "--out", str(out), "--format", "csv"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    row = next(csv.DictReader(text.splitlines()))
    share = row["harness_cpu_share"]
    speeds = [row["prefill_tok_s_median"], row["decode_tok_s_median"]]
    return [float(speed) for speed in speeds if speed], share


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("llama_bench")
    parser.add_argument("model")
    parser.add_argument("--bench", default="target/release/bench")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--prefill-only", action="store_const", const=1, dest="new")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--gpu-layers", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scenario = pathlib.Path(folder, "fidelity.toml")
        scenario.write_text(
            f"""
[trials]
min = {REPETITIONS}
max = {REPETITIONS}

[settings]
threads = {args.threads}
gpu_layers = {args.gpu_layers}

[[matrix]]
models = ["qwen3-0.6b"]
quants = ["Q4_K_M"]
engines = ["llama.cpp"]
weights = "{os.path.abspath(args.model)}"
points = [{{ prompt_tokens = {args.prompt}, new_tokens = {args.new} }}]
"""
        )
        ratios = []
        for number in range(args.rounds):
            theirs = llama_bench(
                args.llama_bench, args.model, args.threads, args.gpu_layers, args.prompt, args.new
            )
            mine, share = ours(args.bench, folder, str(scenario))
            ratios.append([m / t for m, t in zip(mine, theirs)])
            pairs = zip(("prefill", "decode"), mine, theirs, ratios[-1])
            text = ", ".join(f"{name} {m:.2f} / {t:.2f} = {r:.4f}" for name, m, t, r in pairs)
            print(f"round {number + 1}: {text}, harness CPU {share}", flush=True)
    for name, column in zip(("prefill", "decode"), zip(*ratios)):
        print(f"{name}: median ratio {statistics.median(column):.4f}, {min(column):.4f} to {max(column):.4f}")


if __name__ == "__main__":
    main()
