"""Validation runs over images one after the other, whatever they are cut into."""

import dataclasses
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from irjax.data.sources import MemorySource, concatenate
from irjax.data.splits import DataConfig, parts_of
from irjax.training.validation import Validation
from irjax.types import Example

SIZES = ((40, 90), (20, 30), (64, 64), (32, 32), (70, 33))


def images(number=5):
    rng = np.random.default_rng(0)

    def one(index):
        size = SIZES[index % len(SIZES)]
        return Example(f"n{index}", rng.integers(1, 255, size, np.uint8), np.float32([[3, 4]]), rng.random(size) < 0.1)

    return MemorySource(tuple(map(one, range(number))))


def validation(tiny, source, score, batch_size, devices=1, **data):
    """Of a method whose loss and prediction of a square are its mean and its pixels."""
    objective = dataclasses.replace(
        tiny.objective(),
        model=Pixels(),
        prepare=lambda batch, keys: (batch.images.astype(jnp.float32) / 255, batch.mask),
        loss=lambda outputs, target: jnp.mean(outputs, axis=(1, 2)),
        decode=lambda outputs, target: {"pixels": outputs, "targets": jnp.sum(target, axis=(1, 2))},
        score=score,
    )
    config = DataConfig(size=32, enlarge=False, **data)
    return Validation(
        objective, source, config, batch_size=batch_size, with_masks=True, devices=jax.devices()[:devices]
    )


@pytest.mark.parametrize("batch_size", [1, 3])
def test_data_sets_weigh_the_same_whatever_their_sizes(tiny, batch_size):
    def score(found):
        names = [example.name for example, _ in found]
        return {"f1": float(names[0][1:]) / 10, "tp": len(names), "recall": float("nan") if "n0" in names else 0.5}

    run = validation(tiny, images(5), score, batch_size)
    run._parts = {"A": 1, "B": 4}
    metrics = run({"gain": jnp.float32(1.0)})
    assert (metrics["f1 A"], metrics["f1 B"]) == (0, 0.1) and metrics["f1"] == pytest.approx(0.05)
    assert metrics["tp"] == 5 and metrics["recall"] == 0.5


def test_parts_have_the_names_of_their_folders():
    one, two = images(2), images(3)
    both = concatenate([one, two])
    assert parts_of(both, DataConfig(root=("/a/X", "/b/Y"), train=("t",), val=("v",))) == {"X": 2, "Y": 3}
    assert parts_of(both, DataConfig(root=("/a/X", "/b/X"), train=("t",), val=("v",))) == {"X-0": 2, "X-1": 3}
    assert parts_of(one, DataConfig()) == {"synthetic": 2}


class Pixels:
    def apply(self, variables, inputs, train):
        return inputs * variables["gain"]


@pytest.mark.parametrize("batch_size, devices", [(1, 1), (4, 1), (64, 1), (4, 2), (6, 8)])
@pytest.mark.parametrize("slide", [False, True])
def test_every_image_comes_once_with_all_its_squares(tiny, batch_size, devices, slide):
    seen = []

    def score(found):
        seen.extend(found)
        return {"images": len(seen)}

    run = validation(tiny, images(), score, batch_size, devices, slide=slide)
    metrics = run({"gain": jnp.float32(1.0)})
    assert [example.name for example, _ in seen] == [f"n{i}" for i in range(5)]
    assert [len(one["pixels"]) for _, one in seen] == ([8, 1, 9, 1, 6] if slide else [1] * 5)
    squares = np.concatenate([one["pixels"] for _, one in seen])
    np.testing.assert_allclose(metrics["loss"], squares.mean(axis=(1, 2)).mean(), rtol=1e-5)
    assert metrics["images"] == 5 and metrics["seconds"] > 0
    whole, one = seen[3]  # the image that is a square
    np.testing.assert_allclose(one["pixels"][0] * 255, whole.image, rtol=1e-6)
    assert one["targets"][0] == whole.mask.sum()


def test_images_are_read_when_their_turn_comes(tiny):
    """Read and scored one after the other, memory does not grow with their number."""
    kept, ahead, read = images(80), [], set()

    class Counting:
        names, dtype = kept.names, kept.dtype

        def __len__(self):
            return len(kept)

        def __getitem__(self, index):
            read.add(index)
            return kept[index]

    def score(found):
        for number, _ in enumerate(found):
            ahead.append(len(read) - number)
        return {}

    validation(tiny, Counting(), score, 4)({"gain": jnp.float32(1.0)})
    assert len(ahead) == 80 and max(ahead) <= 2 * 4 + 2 * (os.cpu_count() or 1) + 2
