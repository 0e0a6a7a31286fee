//! Memory, power, clocks and throttling of a process tree while it runs.
