"""What the runner names of `mlx.core`."""

import contextlib
from enum import Enum
from types import SimpleNamespace

from mlx import faults

faults.at("start")

__version__ = "0.0.1"
metal = SimpleNamespace(is_available=lambda: False)
cuda = metal
float16, bfloat16, float32 = "float16", "bfloat16", "float32"


class DeviceType(Enum):
    cpu = 0


cpu = DeviceType.cpu


class Device:
    def __init__(self, kind):
        self.type = kind


def default_device():
    return Device(cpu)


def device_info():
    return {"architecture": "none"}


def get_peak_memory():
    return 4096


@contextlib.contextmanager
def stream(_):
    yield


def nothing(*_):
    pass


eval = synchronize = clear_cache = reset_peak_memory = set_default_device = nothing
new_thread_local_stream = array = nothing
