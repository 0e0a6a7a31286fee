"""The misbehaviours, by the place where they show."""

import os
import signal
import sys
import time

FAULT = os.environ.get("FAKE_MLX_FAULT", "")


def at(place):
    """Misbehaves where the fault is meant for this place: `load-raise` raises on load."""
    where, _, what = FAULT.partition("-")
    if where not in (place, "everywhere"):
        return
    if what == "raise":
        raise RuntimeError("boom")
    if what == "import":
        raise ImportError("libmlx.so: cannot open shared object file")
    if what == "memory":
        raise RuntimeError("[malloc] Unable to allocate 123456 bytes.")
    if what == "python-memory":
        raise MemoryError
    if what == "unsupported":
        raise ValueError("Model type strange not supported.")
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "exit":
        sys.exit(3)
    if what == "vanish":
        os._exit(3)
    if what == "hang":
        time.sleep(1000)
    if what == "print":
        print("a library's greeting")
        sys.stdout.flush()
        os.write(1, b'{"event":"trial","samples":[]}\n')
