"""Experiments: recipes and runs, one module per method; `python -m irjax.experiments.spire`."""
