"""MLX as a runner of bench."""
