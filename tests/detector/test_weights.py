"""Weight files: what is written is what is read, and nothing is half-written."""

import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from irjax.detector import weights
from irjax.detector.detector import DetectorConfig
from irjax.errors import UserError

CARD = {"data": "d", "licence": "none stated", "recipe": "r", "seed": 0, "command": "c", "validation": {"F1": 0.5}}
CONFIG = DetectorConfig(model={"width": 16, "shuffle_units": 1}, size=64, threshold=0.4)


@pytest.fixture(scope="module")
def variables():
    shapes = jax.eval_shape(CONFIG.module().init, jax.random.key(0), jnp.zeros((1, 64, 64, 1)))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda s: rng.normal(size=s.shape).astype(np.float32), shapes)


def test_round_trip(tmp_path, variables):
    path = weights.save_weights(tmp_path / "a.safetensors", variables, CONFIG, CARD)
    loaded, config, card = weights.load_weights(path)
    jax.tree.map(np.testing.assert_array_equal, loaded, variables)
    assert config == CONFIG and card == CARD
    assert sorted(os.listdir(tmp_path)) == ["a.md", "a.safetensors"]
    text = (tmp_path / "a.md").read_text()
    assert text.startswith("# a\n") and "## Licence\n\nnone stated" in text and '"F1": 0.5' in text


def test_float16_halves_the_file(tmp_path, variables, monkeypatch):
    monkeypatch.setattr(weights, "_SMALL", 100)
    full = weights.save_weights(tmp_path / "a.safetensors", variables, CONFIG, CARD)
    half = weights.save_weights(tmp_path / "b.safetensors", variables, CONFIG, CARD, dtype="float16")
    large = [leaf.size for leaf in jax.tree.leaves(variables) if leaf.ndim > 1 and leaf.size >= 100]
    payload = sum(large)  # the others stay float32
    assert payload > 0
    assert full.stat().st_size - half.stat().st_size == pytest.approx(2 * payload, abs=256)
    loaded, _, _ = weights.load_weights(half)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6), loaded, variables)
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(loaded))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_scalars_stay_scalars(tmp_path, monkeypatch, dtype):
    monkeypatch.setattr("irjax.detector.weights.check_variables", lambda *_: None)
    tree = {"params": {"gate": np.float32(0.25), "kernel": np.arange(6, dtype=np.float32).reshape(3, 2).T}}
    loaded = weights.load_weights(weights.save_weights(tmp_path / "a.safetensors", tree, CONFIG, CARD, dtype=dtype))[0]
    jax.tree.map(np.testing.assert_array_equal, loaded, tree)
    assert loaded["params"]["gate"].shape == ()


def test_small_kernels_keep_32_bits_as_far_as_the_file_stays_small(monkeypatch):
    kernels = {name: np.ones((size, 10), np.float32) for name, size in {"c": 7, "b": 2, "a": 4, "d": 30}.items()}
    tree = {"params": {**kernels, "bias": np.ones(50, np.float32)}}
    types = lambda: {  # noqa: E731
        name: value.dtype.itemsize for name, value in weights.on_disk(tree, "float16")["params"].items()
    }
    monkeypatch.setattr(weights, "_SMALL", 200)
    assert types() == {"a": 4, "b": 4, "c": 4, "d": 2, "bias": 4}
    monkeypatch.setattr(weights, "_LARGEST", 4 * 50 + 2 * 430 + 2 * 60)  # room for b and a
    assert types() == {"a": 4, "b": 4, "c": 2, "d": 2, "bias": 4}
    assert {value.dtype for value in weights.on_disk(tree, "float32")["params"].values()} == {np.dtype("float32")}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"path": "a.bin"}, "ends in .safetensors"),
        ({"dtype": "int8"}, "dtype must be one of"),
        ({"card": {**CARD, "licence": ""}}, r"lacks \['licence'\]"),
        ({"config": DetectorConfig(size=64)}, "not the weights of spire"),
    ],
)
def test_bad_arguments_leave_no_file(tmp_path, variables, change, message):
    arguments = {"config": CONFIG, "card": CARD, "dtype": "float32", **change}
    path = tmp_path / arguments.pop("path", "a.safetensors")
    with pytest.raises(ValueError, match=message):
        weights.save_weights(path, variables, **arguments)
    assert os.listdir(tmp_path) == []


def test_values_that_are_not_finite_are_refused(tmp_path, variables, monkeypatch):
    monkeypatch.setattr(weights, "_SMALL", 0)
    broken = jax.tree.map(lambda leaf: leaf * np.float32(1e6), variables)
    weights.save_weights(tmp_path / "a.safetensors", broken, CONFIG, CARD)
    with pytest.raises(ValueError, match="not finite in float16"):
        weights.save_weights(tmp_path / "b.safetensors", broken, CONFIG, CARD, dtype="float16")


def test_a_failed_write_keeps_the_old_file(tmp_path, variables, monkeypatch):
    path = weights.save_weights(tmp_path / "a.safetensors", variables, CONFIG, CARD)
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        weights.save_weights(path, jax.tree.map(np.zeros_like, variables), CONFIG, CARD)
    assert path.read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["a.md", "a.safetensors"]


def test_unreadable_files(tmp_path, variables):
    import safetensors.numpy

    with pytest.raises(FileNotFoundError, match="absent"):
        weights.load_weights(tmp_path / "absent.safetensors")
    path = weights.save_weights(tmp_path / "a.safetensors", variables, CONFIG, CARD)
    for name, data in (("cut", path.read_bytes()[:5000]), ("text", b"hello")):
        file = tmp_path / f"{name}.safetensors"
        file.write_bytes(data)
        with pytest.raises(ValueError, match=f"{name}.safetensors is not a readable"):
            weights.load_weights(file)
    foreign = tmp_path / "foreign.safetensors"
    safetensors.numpy.save_file({"x": np.zeros(3)}, foreign)
    with pytest.raises(ValueError, match="not an irjax weight file"):
        weights.load_weights(foreign)
    metadata = {"format": "irjax-weights-1", "config": json.dumps({"sise": 3})}
    safetensors.numpy.save_file({"x": np.zeros(3)}, foreign, metadata)
    with pytest.raises(ValueError, match=r"unknown keys \['sise'\]"):
        weights.load_weights(foreign)
    safetensors.numpy.save_file({"x": np.zeros(3)}, foreign, {**metadata, "config": "{}", "card": "{"})
    with pytest.raises(UserError, match=r"foreign\.safetensors: the card is not JSON"):
        weights.load_weights(foreign)


def test_shipped_weights_fit_their_configuration():
    from irjax.detector.loading import load

    for name, path in weights.names().items():
        _, _, card = weights.load_weights(path)
        assert set(weights.CARD_FIELDS) <= set(card)
        assert path.with_suffix(".md").is_file()
        assert load(name).config.method.replace("_", "-") in name
