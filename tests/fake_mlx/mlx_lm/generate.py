import contextlib
import time

from mlx import faults

BatchGenerator = GenerationBatch = object


@contextlib.contextmanager
def wired_limit(_model, _streams):
    yield


def generate_step(_prompt, _model, _stream, max_tokens, **_):
    for _ in range(max_tokens):
        faults.at("trial")
        time.sleep(0.001)
        yield 0, None
