"""MLX through mlx-lm: loading, a single stream, and batches by mlx-lm's own batch generator."""

import gc
import importlib
import platform
import time
from pathlib import Path

import mlx.core as mx
import mlx_lm
from mlx.utils import tree_flatten
from mlx_lm.generate import BatchGenerator, generate_step, wired_limit
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.utils import compute_bits_per_weight, load_model

from bench_mlx import queue
from bench_mlx.protocol import Unsupported

# mlx-lm's own default, and that of its command line.
PROMPT_STEP = 2048
# mlx-lm's own default: prompts that its batch generator processes together.
PROMPT_BATCH = 8

# The module, which the package's function of the same name hides.
generate = importlib.import_module("mlx_lm.generate")

DTYPES = {"float16": mx.float16, "bfloat16": mx.bfloat16, "float32": mx.float32}

# What this engine takes beside `slots` and `slot_tokens`; `threads` is the harness's for all engines.
SETTINGS = {"threads", "gpu_layers", "batch_tokens", "dtype", "group_size"}


def backend():
    if mx.metal.is_available():
        return "Metal"
    if hasattr(mx, "cuda") and mx.cuda.is_available():
        return "CUDA"
    return "CPU"


def version():
    """The receipt: what would be measured."""
    chip = mx.device_info().get("architecture", platform.machine())
    return {
        "version": f"{mx.__version__} mlx-lm {mlx_lm.__version__}",
        "build": f"{chip} Python {platform.python_version()}",
        "backend": backend(),
    }


class Outputs:
    """Samples greedily as mlx-lm does, and feeds back the given ids as if they had been sampled.

    What is fed back depends on the sampled token in the graph, so that a token that has come was
    really computed.
    """

    def __init__(self):
        self.outputs = []
        self.taken = []
        # The batch whose step is running; mlx-lm calls one sampler for all its sequences.
        self.batch = None

    def add(self, output):
        """The ids of one more sequence, in the order in which sequences enter."""
        self.outputs.append(output)
        self.taken.append(0)

    def next_of(self, sequence):
        place, ids = self.taken[sequence], self.outputs[sequence]
        self.taken[sequence] += 1
        # mlx-lm starts one step more than it is asked for.
        return ids[min(place, len(ids) - 1)]

    def __call__(self, logprobs):
        sampled = mx.argmax(logprobs, axis=-1)
        sequences = [0] if self.batch is None else self.batch.uids
        ids = [self.next_of(sequence) for sequence in sequences]
        return mx.depends(mx.array(ids, dtype=sampled.dtype), sampled)


class GenerationBatch(generate.GenerationBatch):
    """mlx-lm's, which tells the sampler whose tokens it asks for."""

    def _step(self):
        if isinstance(self.fallback_sampler, Outputs):
            self.fallback_sampler.batch = self
        return super()._step()


generate.GenerationBatch = GenerationBatch


class Engine:
    """A loaded model."""

    def __init__(self, path, settings):
        self.slots = max(settings.get("slots", 1), 1)
        self.prompt_step = settings.get("batch_tokens") or PROMPT_STEP
        self.device = self._device(settings)
        mx.set_default_device(self.device)
        self.stream = mx.new_thread_local_stream(self.device)
        folder = Path(path)
        if not (folder / "config.json").is_file():
            raise Unsupported(
                f"'{folder.name}' is no folder with a config.json and safetensors, which is what "
                "MLX loads; name one in weights"
            )
        try:
            self.model, self.config = load_model(folder, lazy=True)
        except ValueError as error:
            if "not supported" in str(error):
                raise Unsupported(f"mlx-lm: {error}") from error
            raise
        self.dtype = self._dtype(settings.get("dtype"))
        if self.dtype is not None:
            self.model.set_dtype(DTYPES[self.dtype])
        mx.eval(self.model.parameters())
        mx.clear_cache()

    def _device(self, settings):
        for name, value in settings.items():
            known = name in SETTINGS or name in ("slots", "slot_tokens")
            if not known and value not in (None, {}):
                raise Unsupported(f"MLX has no setting {name}; leave it out")
        layers = settings.get("gpu_layers")
        if layers == 0:
            return mx.Device(mx.cpu)
        if layers and backend() == "CPU":
            raise Unsupported("this MLX computes on the CPU; set gpu_layers to 0")
        return mx.default_device()

    def _parameters(self):
        return [array for _, array in tree_flatten(self.model.parameters())]

    def _dtype(self, wanted):
        """What the model is converted to; None: nothing.

        MLX's CPU back end computes with 16-bit floats, and with the 16-bit scales of quantised
        weights, many times slower than with 32-bit ones. The conversion is exact.
        """
        if wanted is not None:
            if wanted not in DTYPES:
                raise Unsupported(f"MLX has no dtype {wanted}; use {', '.join(DTYPES)}")
            return wanted
        on_cpu = self.device.type == mx.DeviceType.cpu
        slow = self._quantisation() is not None or any(
            array.dtype == mx.float16 for array in self._parameters()
        )
        return "float32" if on_cpu and slow else None

    def _quantisation(self):
        keys = self.config.get("quantization")
        if not keys:
            return None
        return f"{keys.get('mode', 'affine')}-{keys['bits']}bit-g{keys['group_size']}"

    def report(self):
        floats = {mx.float16: "float16", mx.bfloat16: "bfloat16", mx.float32: "float32"}
        found = {floats[a.dtype] for a in self._parameters() if a.dtype in floats}
        on_cpu = self.device.type == mx.DeviceType.cpu
        effective = {
            "device": "cpu" if on_cpu else "gpu",
            "dtype": "+".join(sorted(found)),
            "quantisation": self._quantisation() or "none",
            "batch_tokens": str(self.prompt_step),
        }
        if len(found) == 1:
            short = {"float16": "f16", "bfloat16": "bf16", "float32": "f32"}
            # mlx-lm's cache has the type of what is computed with.
            effective["kv_type"] = short[min(found)]
        return {
            "weights_bytes": sum(array.nbytes for array in self._parameters()),
            "bits_per_weight": compute_bits_per_weight(self.model),
            "effective": effective,
        }

    def trial(self, requests, schedule):
        """Runs the requests once: samples with the arrival of every token, and MLX's own peak."""
        gc.collect()
        with wired_limit(self.model, [self.stream]):
            if schedule == "lockstep" and len(requests) == 1:
                samples, peak = self._stream(requests[0])
            else:
                samples, peak = self._batch(requests, schedule)
        age_ns = time.perf_counter_ns() - self._started
        return {"samples": samples, "engine_peak_bytes": peak, "age_ns": age_ns}

    def _stream(self, request):
        """One sequence, by `generate_step`."""
        cache = make_prompt_cache(self.model)
        self._fill(cache, request.get("context") or [])
        output = request["output"]
        sampler = Outputs()
        sampler.add(output)
        prompt = mx.array(request["prompt"])
        mx.eval(prompt)
        stamps = []
        mx.synchronize()
        mx.reset_peak_memory()
        epoch = self._started = time.perf_counter_ns()
        steps = generate_step(
            prompt,
            self.model,
            self.stream,
            max_tokens=len(output),
            sampler=sampler,
            prompt_cache=cache,
            prefill_step_size=self.prompt_step,
        )
        for _ in steps:
            stamps.append(time.perf_counter_ns() - epoch)
        # The step that mlx-lm has started beyond the last token ends outside the clock, and before
        # another engine's turn.
        mx.synchronize(self.stream)
        return [{**sample(request), "token_ns": stamps}], mx.get_peak_memory()

    def _fill(self, cache, tokens):
        with mx.stream(self.stream):
            for start in range(0, len(tokens), self.prompt_step):
                part = mx.array(tokens[start : start + self.prompt_step])
                self.model(part[None], cache=cache)
                mx.eval([layer.state for layer in cache])

    def _batch(self, requests, schedule):
        """Several sequences, by mlx-lm's batch generator: it decides what goes into each step."""
        lockstep = schedule == "lockstep"
        if not lockstep and any(request.get("context") for request in requests):
            raise Unsupported("a depth in the cache of requests that start one after the other")
        if lockstep and len(requests) > self.slots:
            raise Unsupported(f"a batch of {len(requests)} in {self.slots} slots")
        if lockstep and len({len(request.get("context") or []) for request in requests}) > 1:
            raise Unsupported("MLX's batch generator fills caches of one length together only")
        sampler = Outputs()
        generator = BatchGenerator(
            self.model,
            sampler=sampler,
            completion_batch_size=self.slots,
            # In lockstep all prompts come before the first token.
            prefill_batch_size=self.slots if lockstep else min(PROMPT_BATCH, self.slots),
            prefill_step_size=self.prompt_step,
            stream=self.stream,
        )
        try:
            return self._run(generator, sampler, requests, lockstep)
        finally:
            mx.synchronize(self.stream)
            generator.close()

    def _run(self, generator, sampler, requests, lockstep):
        waiting = queue.Waiting(requests)
        samples = [sample(request) for request in requests]
        # mlx-lm numbers its sequences in the order in which they enter.
        entered = []

        def enter(places):
            for place in places:
                request = requests[place]
                sampler.add(request["output"])
                # A segment ends where the clock starts: the caches are full and merged by then.
                segments = [request.get("context") or [], request["prompt"]]
                generator.insert_segments([segments], max_tokens=[len(request["output"])])
            entered.extend(places)

        in_cache = len(requests[0].get("context") or []) if lockstep else 0
        if in_cache:
            enter(waiting.take(0, len(requests), samples))
            done = 0
            while done < in_cache:
                progress, _ = generator.next()
                done = progress[0].progress[0]
        active = len(entered)
        mx.synchronize(self.stream)
        mx.reset_peak_memory()
        epoch = self._started = time.perf_counter_ns()
        while active or waiting:
            now = time.perf_counter_ns() - epoch
            places = waiting.take(now, self.slots - active, samples)
            enter(places)
            active += len(places)
            if active:
                _, responses = generator.next()
                came = time.perf_counter_ns() - epoch
                for response in responses:
                    place = entered[response.uid]
                    samples[place]["token_ns"].append(came)
                    if response.finish_reason is not None:
                        active -= 1
                        waiting.ended(place, came)
            elif waiting:
                time.sleep(max(waiting.next_at() - now, 0) / 1e9)
        return samples, mx.get_peak_memory()

    def logits(self, tokens):
        """The logits after each token, from an empty cache."""
        rows = self.model(mx.array(tokens)[None])[0].astype(mx.float32)
        mx.eval(rows)
        return rows.tolist()


def sample(request):
    return {
        "intended_ns": request.get("start_ns", 0),
        "sent_ns": 0,
        "prompt_tokens": len(request["prompt"]),
        "token_ns": [],
    }
