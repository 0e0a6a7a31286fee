"""Jobs in, events out, nothing written while a trial runs; knows no engine."""

import json
import time
import traceback

PROTOCOL = 1

# What MLX, the system and the C++ library say when memory is short.
OUT_OF_MEMORY = (
    "unable to allocate",
    "out of memory",
    "insufficient memory",
    "bad_alloc",
    "attempting to allocate",
    "outofmemory",
)


class Unsupported(Exception):
    """The engine cannot do what the case asks for."""


def kind_of(error):
    """The kind of a failure, as the harness tells them apart."""
    if isinstance(error, Unsupported):
        return "unsupported"
    text = str(error).lower()
    if isinstance(error, MemoryError) or any(words in text for words in OUT_OF_MEMORY):
        return "out-of-memory"
    return "failed"


def describe(error):
    """`ValueError: what (file.py:12)`: the reason, and where in which library."""
    text = str(error).strip() or "no reason given"
    if isinstance(error, Unsupported):
        return text
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({frames[-1].filename.rsplit('/', 1)[-1]}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {text}{place}"


def failed(error):
    return {"event": "failed", "kind": kind_of(error), "error": describe(error)}


def send(out, event):
    # A number that is none is no JSON, and no answer.
    line = json.dumps(event, allow_nan=False, separators=(",", ":")).encode() + b"\n"
    while line:
        line = line[out.write(line) :]


def serve(jobs, out):
    """Says hello, then answers jobs until their end."""
    try:
        from bench_mlx import engine
    except BaseException as error:  # a library may exit, too
        reason = f"mlx does not start: {describe(error)}; type: bench setup mlx"
        send(out, {"event": "failed", "kind": "not-installed", "error": reason})
        return 1
    send(out, {"event": "hello", "protocol": PROTOCOL, "engine": "mlx", **engine.version()})
    loaded = None
    for line in jobs:
        try:
            job = json.loads(line)
            if job["job"] == "load":
                loaded = None  # its memory goes before the next one's comes
                start = time.perf_counter_ns()
                loaded = engine.Engine(job["model"]["path"], job["settings"])
                load_ns = time.perf_counter_ns() - start
                event = {"event": "loaded", "load_ns": load_ns, **loaded.report()}
            elif loaded is None:
                raise RuntimeError("no model is loaded")
            elif job["job"] == "trial":
                check(job["requests"])
                schedule = job.get("schedule", "lockstep")
                event = {"event": "trial", **loaded.trial(job["requests"], schedule)}
            elif job["job"] == "logits":
                event = {"event": "logits", "logits": loaded.logits(job["tokens"])}
            else:
                raise RuntimeError(f"no job of protocol {PROTOCOL}: '{job['job']}'")
            send(out, event)
        except (Exception, SystemExit) as error:
            send(out, failed(error))
    return 0


def check(requests):
    for number, request in enumerate(requests):
        if not request["prompt"] or not request["output"]:
            raise ValueError(f"request {number} has no prompt or no output tokens")
