"""Experiments: recipe and run, one module a method; `python -m irjax.experiments.spire`."""
