"""Training loop shared by all methods: pure steps, data parallelism and checkpoints."""
