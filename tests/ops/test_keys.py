"""No two things that irjax draws share a key."""

import collections
import pathlib
import re

import jax
import numpy as np
import pytest

import irjax
from irjax.data.augment import AugmentConfig, augment
from irjax.data.layouts import carve_validation
from irjax.models.adsnet import decision_key
from irjax.ops.keys import purpose_generator, purpose_key
from irjax.training.steps import example_keys

EVERYTHING = AugmentConfig(
    crop=40, zoom=(0.8, 1.2), flips=True, rotations=True, gain=0.2, offset=0.1, noise=0.02, inject=2
)
DRAWS = ("uniform", "normal", "bernoulli", "categorical", "gumbel")


def bits(key):
    return tuple(np.asarray(jax.random.key_data(key)).ravel().tolist())


@pytest.fixture
def used(monkeypatch):
    """What was done with each key: {key: Counter of draws and derivations}."""
    uses = collections.defaultdict(collections.Counter)

    def watch(name, label):
        plain = getattr(jax.random, name)

        def watched(key, *args, **kwargs):
            uses[bits(key)][label(args)] += 1
            return plain(key, *args, **kwargs)

        monkeypatch.setattr(jax.random, name, watched)

    for name in DRAWS:
        watch(name, lambda args: "drawn")
    watch("split", lambda args: "split")
    watch("fold_in", lambda args: ("folded", int(args[0])))
    return uses


def test_every_draw_of_a_run_has_a_key_of_its_own(used):
    steps = purpose_key(jax.random.key(0), "steps")
    examples = [jax.random.fold_in(jax.random.fold_in(steps, step), index) for step, index in ((0, 0), (0, 1), (1, 2))]
    used.clear()
    image = np.random.default_rng(0).uniform(0.2, 0.5, (64, 64)).astype(np.float32)
    for key in examples:
        augment(key, image, np.full((1, 2), 30.0, np.float32), np.ones(1, bool), config=EVERYTHING)
        for level in (3, 2):
            jax.random.gumbel(decision_key(key, level), (2,))
    drawn = [key for key, kinds in used.items() if kinds["drawn"]]
    # 7 of the geometry, 4 of the photometry, 4 of the injection, 2 of the decisions.
    assert len(drawn) == 17 * len(examples)
    for kinds in used.values():
        derivations = [kind for kind in kinds if isinstance(kind, tuple)]
        assert max(kinds.values()) <= 2 and kinds["split"] == 0
        assert kinds["drawn"] in (0, 1) and not (kinds["drawn"] and derivations)
    assert not {bits(key) for key in examples} & set(drawn)


def test_purposes_are_not_places_or_numbers():
    key = jax.random.key(3)
    names = ("init", "steps", "geometry", "injection", "photometry", "gumbel")
    purposes = {bits(purpose_key(key, name)) for name in names}
    places = {bits(one) for count in range(1, 8) for one in jax.random.split(key, count)}
    numbers = {bits(jax.random.fold_in(key, number)) for number in range(100)}
    assert len(purposes) == len(names) and not purposes & (places | numbers)
    # What made them share: the noise of ADSNet's decisions at level 2 was the key of the photometry.
    assert bits(jax.random.split(key, 3)[2]) == bits(jax.random.fold_in(key, 2))
    assert bits(decision_key(key, 2)) != bits(jax.random.split(key, 3)[2])


def test_keys_of_examples_are_folded_from_step_and_index():
    steps = jax.random.key(1)
    keys = example_keys(steps, 4, np.array([7, 9], np.int32))
    for key, index in zip(keys, (7, 9), strict=True):
        assert bits(key) == bits(jax.random.fold_in(jax.random.fold_in(steps, 4), index))


def test_keys_are_derived_in_few_places():
    """Nothing is split, and only what counts is folded with a number."""
    root = pathlib.Path(irjax.__file__).parent
    found = {"split": set(), "fold_in": set()}
    for path in root.rglob("*.py"):
        for name in re.findall(r"random\.(split|fold_in)\(", re.sub(r"``.*?``", "", path.read_text())):
            found[name].add(str(path.relative_to(root)))
    assert found == {
        "split": set(),
        "fold_in": {"ops/keys.py", "training/steps.py", "models/adsnet.py", "studies/patches.py"},
    }


def test_generators_of_the_host_differ():
    """numpy pads seeds with zeros, so the plain seeds (5,) and (5, 0) are one."""
    assert np.random.default_rng([5]).random() == np.random.default_rng([5, 0]).random()
    seeds = [("order",), ("order", 5), ("order", 5, 0), ("order", 5, 1), ("order", 0), ("injected", 5, 0), ("draw", 5)]
    first = {purpose_generator(*seed).random() for seed in seeds}
    assert len(first) == len(seeds) and np.random.default_rng(5).random() not in first
    names = tuple(f"{i:03d}" for i in range(60))
    drawn = [names.index(name) for name in carve_validation(names, 0.2, 5)[1]]
    assert sorted(purpose_generator("order", 5, 0).permutation(60)[:12].tolist()) != drawn
