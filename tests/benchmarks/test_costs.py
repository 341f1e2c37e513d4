import jax
import jax.numpy as jnp
import numpy as np

from irjax.benchmarks.costs import measure_costs
from irjax.benchmarks.timing import random_variables
from irjax.detector.detector import Detector
from irjax.detector.named import Named, open_named
from irjax.methods.detector_config import DetectorConfig


def test_costs():
    config = DetectorConfig(method="spire", model={"width": 8, "shuffle_units": 1}, size=64, channels=1)
    detector = Detector(config, random_variables(config.module(), jnp.zeros((1, 64, 64, 1))))
    models = {
        "ours": Named("ours", lambda images, limit: detector(images, max_detections=limit), 0.35, detector),
        "top-hat": open_named("tophat"),
    }
    found = measure_costs(models, np.random.default_rng(0).integers(0, 255, (48, 60)).astype(np.uint8), repeats=2)
    assert found["ours"]["parameters"] == sum(leaf.size for leaf in jax.tree.leaves(detector.variables["params"]))
    # Of the stem alone: 9 taps of 1 channel for 8 features at 32 x 32, then 8 channels at 16 x 16.
    assert found["ours"]["multiply_adds"] > 9 * 8 * 32**2 + 9 * 8 * 8 * 16**2
    assert all(one["latency"] > 0 and one["memory"] > 0 for one in found.values())
    assert found["top-hat"]["parameters"] is found["top-hat"]["multiply_adds"] is None
