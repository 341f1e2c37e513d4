"""Converting SPIRE's checkpoints: exact both ways, and clear about what does not fit. Values are random."""

import pathlib
import pickle

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from irjax import convert
from irjax.models import HRPE


def random_state(channels=3, seed=0):
    """A state_dict with the published names and shapes and random values."""
    images = jnp.zeros((1, 32, 32, channels))
    shapes = jax.eval_shape(HRPE().init, jax.random.key(0), images)
    rng = np.random.default_rng(seed)
    return convert.to_torch("spire", jax.tree.map(lambda s: rng.normal(size=s.shape).astype(np.float32), shapes))


@pytest.fixture(scope="module", params=[1, 3])
def state(request):
    return random_state(request.param)


def test_round_trip_is_exact(state):
    variables = convert.from_torch("spire", state)
    assert set(variables) == {"params", "batch_stats"}
    again = convert.to_torch("spire", variables)
    assert again.keys() == state.keys()
    for key, value in state.items():
        np.testing.assert_array_equal(again[key], value)
        assert again[key].dtype == value.dtype


def test_layouts(state):
    variables = convert.from_torch("spire", state)
    stem = variables["params"]["stem1"]["conv"]["kernel"]
    assert stem[1, 2, 0, 5] == state["conv1.weight"][5, 0, 1, 2]
    depthwise = variables["params"]["stage1_refinement"]["refine"]["kernel"]
    assert depthwise.shape == (3, 3, 1, 16)
    assert depthwise[1, 2, 0, 5] == state["stage2.branches.0.1.local_attention.weight"][5, 0, 1, 2]
    assert variables["batch_stats"]["stem1"]["norm"]["var"][3] == state["bn1.running_var"][3]


def test_every_variable_comes_from_another_key():
    state = random_state()
    numbered = {key: np.full_like(value, i) for i, (key, value) in enumerate(state.items())}
    flat = flax.traverse_util.flatten_dict(convert.from_torch("spire", numbered))
    assert len({float(value.flat[0]) for value in flat.values()}) == len(flat)


@pytest.mark.parametrize("wrapped", [lambda s: {"model": s, "epoch": 3}, lambda s: {f"module.{k}": s[k] for k in s}])
def test_wrappings(wrapped):
    state = random_state()
    ours = convert.from_torch("spire", wrapped(state))
    np.testing.assert_array_equal(ours["params"]["head"]["bias"], state["final_layer.bias"])


def test_all_problems_are_listed():
    state = random_state()
    del state["bn1.weight"]
    state["other.weight"] = np.zeros(3, np.float32)
    state["conv2.weight"] = np.zeros((64, 64, 5, 5), np.float32)
    wanted = r"1 missing: bn1\.weight; 1 extra: other\.weight; 1 misshaped: conv2\.weight \(64, 64, 5, 5\) instead of"
    with pytest.raises(ValueError, match=wanted):
        convert.from_torch("spire", state)


def test_other_checkpoints_are_refused():
    with pytest.raises(ValueError, match="not a spire checkpoint: .* missing.* extra: backbone.weight"):
        convert.from_torch("spire", {"backbone.weight": np.zeros((3, 3), np.float32)})
    with pytest.raises(ValueError, match=r"\(1, 3\) channels, conv1.weight has 5"):
        convert.from_torch("spire", {**random_state(), "conv1.weight": np.zeros((64, 5, 3, 3), np.float32)})
    with pytest.raises(ValueError, match="a state_dict .* was expected"):
        convert.from_torch("spire", {"epoch": 3})
    with pytest.raises(ValueError, match="unknown|no converter .* known: mshnet, spire"):
        convert.from_torch("yolo", {})


def test_variables_of_another_network_are_refused():
    with pytest.raises(ValueError, match="no published counterpart for the variable params/stem3/conv/kernel"):
        convert.to_torch("spire", {"params": {"stem3": {"conv": {"kernel": np.zeros((3, 3, 64, 64))}}}})


def test_files(tmp_path: pathlib.Path):
    torch = pytest.importorskip("torch", reason="reading a .pth needs PyTorch")
    state = random_state()
    path = tmp_path / "a.pth"
    torch.save({"model": {key: torch.from_numpy(np.asarray(value)) for key, value in state.items()}, "epoch": 1}, path)
    variables = convert.from_torch("spire", path)
    np.testing.assert_array_equal(
        variables["params"]["stem1"]["conv"]["kernel"][0, 0, 0], state["conv1.weight"][:, 0, 0, 0]
    )
    assert convert.published_settings("spire", variables)["channels"] == 3

    with pytest.raises(FileNotFoundError, match=r"absent\.pth"):
        convert.from_torch("spire", tmp_path / "absent.pth")
    for name, data in (("text.pth", b"no checkpoint"), ("cut.pth", path.read_bytes()[:2000]), ("empty.pth", b"")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match=name):
            convert.from_torch("spire", tmp_path / name)


class Payload:
    def __reduce__(self):
        return pathlib.Path.touch, (pathlib.Path("ran"),)


def test_a_file_cannot_run_code(tmp_path, monkeypatch):
    pytest.importorskip("torch", reason="reading a .pth needs PyTorch")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.pth").write_bytes(pickle.dumps(Payload(), protocol=2))
    with pytest.raises(ValueError, match="evil.pth"):
        convert.from_torch("spire", "evil.pth")
    assert not (tmp_path / "ran").exists()


def test_published_checkpoint(shared):
    pytest.importorskip("torch", reason="reading a .pth needs PyTorch")
    variables = convert.from_torch("spire", shared / "golden/SPIRE-SIRST4-512-epoch230-lr0.005.pth")
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == 294_753
    again = convert.from_torch("spire", convert.to_torch("spire", variables))
    jax.tree.map(np.testing.assert_array_equal, again, variables)
