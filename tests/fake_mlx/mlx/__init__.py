"""Stands in for MLX in tests: it computes nothing, and misbehaves as FAKE_MLX_FAULT says."""
