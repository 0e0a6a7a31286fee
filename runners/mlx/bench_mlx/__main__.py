"""The program: keeps standard output for the protocol before anything can print to it."""

import os
import sys


def claim_stdout():
    """A private handle of standard output; file descriptor 1 then points to standard error."""
    private = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    return private


def die_with_parent():
    """A runner must not outlive the harness: it would disturb the next measurement."""
    if sys.platform == "linux":
        import ctypes
        import signal

        pr_set_pdeathsig = 1  # linux/prctl.h
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def main():
    out = claim_stdout()
    die_with_parent()
    from bench_mlx import protocol

    return protocol.serve(sys.stdin.buffer, out)


if __name__ == "__main__":
    sys.exit(main())
