//! Token arrivals to TTFT, ITL, TPOT, tok/s and goodput.
