//! This machine: CPU, memory, GPUs, drivers, and the probe of its bandwidth and arithmetic speed.
