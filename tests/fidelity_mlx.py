#!/usr/bin/env python3
"""How far the MLX runner and a plain loop over mlx_lm's generate_step are apart: same folder, same tokens.

    python3 tests/fidelity_mlx.py PYTHON FOLDER [--rounds 5] [--trials 7] [--prompt 64] [--new 32]

PYTHON is the one that `bench setup mlx` made (runners/mlx/*/venv/bin/python in the cache), FOLDER a model
that MLX loads. Each round starts two processes anew, the runner and the plain loop, and lets them take
turns, so that drift of the machine hits both; printed are the ratios runner / loop of each round's
medians, and their median. Prefill is prompt / first token, decode (N - 1) tokens in the time between the
first and the last: mlx_lm.benchmark counts N + 1 tokens there, because its generator starts a step more
than it yields.
"""

import argparse
import json
import os
import pathlib
import random
import statistics
import subprocess
import sys
import time

RUNNER = pathlib.Path(__file__).resolve().parent.parent / "runners" / "mlx"


def plain_loop():
    """Jobs in, stamps out: nothing between two tokens but the loop."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    import mlx.core as mx
    from mlx_lm.generate import generate_step
    from mlx_lm.utils import load_model

    job = json.loads(sys.stdin.readline())
    model, _ = load_model(pathlib.Path(job["folder"]), lazy=True)
    dtypes = {"float32": mx.float32, "bfloat16": mx.bfloat16, "float16": mx.float16}
    model.set_dtype(dtypes[job["dtype"]])
    mx.eval(model.parameters())
    print("{}", file=out)
    for line in sys.stdin:
        job = json.loads(line)
        prompt = mx.array(job["prompt"])
        mx.synchronize()
        stamps = []
        start = time.perf_counter_ns()
        for _ in generate_step(prompt, model, max_tokens=job["new"]):
            stamps.append(time.perf_counter_ns() - start)
        mx.synchronize()
        print(json.dumps(stamps), file=out)


class Process:
    def __init__(self, command, **environment):
        environment = {**os.environ, **environment}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def read(self):
        return json.loads(self.process.stdout.readline())

    def ask(self, job):
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        return self.read()

    def end(self):
        self.process.stdin.close()
        self.process.wait()


def speeds(prompt, stamps):
    seconds = [stamp / 1e9 for stamp in stamps]
    return len(prompt) / seconds[0], (len(seconds) - 1) / (seconds[-1] - seconds[0])


def one_round(args, vocabulary):
    runner = Process([args.python, "-m", "bench_mlx"], PYTHONPATH=str(RUNNER))
    runner.read()
    settings = {"slots": 1, "slot_tokens": args.prompt + args.new, "dtype": args.dtype}
    load = {"job": "load", "model": {"path": args.folder}, "settings": settings}
    effective = runner.ask(load)["effective"]
    loop = Process([args.python, __file__, "--plain-loop"])
    loop.ask({"folder": args.folder, "dtype": effective["dtype"]})
    mine, theirs = [], []
    for trial in range(args.trials + 1):
        prompt = [random.randrange(vocabulary) for _ in range(args.prompt)]
        output = [random.randrange(vocabulary) for _ in range(args.new)]
        request = {"context": [], "prompt": prompt, "output": output, "start_ns": 0}
        turns = [
            lambda: runner.ask({"job": "trial", "requests": [request]})["samples"][0]["token_ns"],
            lambda: loop.ask({"prompt": prompt, "new": args.new}),
        ]
        # Who comes first changes, and the first trial of each warms up.
        order = (0, 1) if trial % 2 else (1, 0)
        stamps = {place: turns[place]() for place in order}
        if trial > 0:
            mine.append(speeds(prompt, stamps[0]))
            theirs.append(speeds(prompt, stamps[1]))
    runner.end()
    loop.end()
    medians = [[statistics.median(column) for column in zip(*rows)] for rows in (mine, theirs)]
    return medians, effective["dtype"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("python")
    parser.add_argument("folder")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=7)
    parser.add_argument("--prompt", type=int, default=64)
    parser.add_argument("--new", type=int, default=32)
    parser.add_argument("--dtype")
    args = parser.parse_args()
    config = json.loads(pathlib.Path(args.folder, "config.json").read_text())
    ratios = []
    for number in range(args.rounds):
        (mine, theirs), dtype = one_round(args, config["vocab_size"])
        ratios.append([m / t for m, t in zip(mine, theirs)])
        pairs = zip(("prefill", "decode"), mine, theirs, ratios[-1])
        text = ", ".join(f"{name} {m:.2f} / {t:.2f} = {r:.4f}" for name, m, t, r in pairs)
        print(f"round {number + 1} ({dtype}): {text}", flush=True)
    for name, column in zip(("prefill", "decode"), zip(*ratios)):
        print(f"{name}: median ratio {statistics.median(column):.4f}, {min(column):.4f} to {max(column):.4f}")


if __name__ == "__main__":
    if sys.argv[1:] == ["--plain-loop"]:
        plain_loop()
    else:
        main()
