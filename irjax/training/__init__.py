"""One training loop for every method: pure steps, data parallelism, checkpoints."""
