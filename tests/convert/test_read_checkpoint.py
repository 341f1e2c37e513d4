"""Checkpoints of other programs are read, whatever lies around and beside the weights, and no code is run."""

import argparse
import collections
import datetime
import pathlib
import runpy
import sys
import tarfile
import types
import warnings

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from irjax import convert
from irjax.convert.files import read_file
from irjax.errors import UserError
from irjax.models import HRPE, MSHNet


def numbered(method="spire"):
    """A state_dict with the published names and shapes, and its number in every value of an entry."""
    module = {"spire": HRPE, "mshnet": MSHNet}[method]()
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    state = convert.to_torch(method, jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes))
    return {key: np.broadcast_to(value.dtype.type(i), value.shape) for i, (key, value) in enumerate(state.items())}


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="writes checkpoints (extra torch)")


@pytest.fixture(scope="module")
def state(torch):
    """SPIRE's, as tensors that take a few bytes each in a file."""
    return {
        key: torch.tensor(value.flat[0] if value.ndim else value[()]).expand(value.shape)
        for key, value in numbered().items()
    }


def assert_is_state(read, state):
    method, variables = read
    assert method == "spire"
    again = convert.to_torch("spire", variables)
    assert {key: value.flat[0] for key, value in again.items() if not key.endswith("tracked")} == {
        key: float(value.flatten()[0]) for key, value in state.items() if not key.endswith("tracked")
    }


BESIDE = {
    "epoch": 3,
    "iou": np.float64(0.67),
    "best": np.int32(7),
    "flag": np.bool_(True),
    "name": np.str_("SIRST"),
    "history": np.arange(3.0),
    "when": np.datetime64("2024-01-01"),
    "args": argparse.Namespace(lr=0.1, root=pathlib.PurePosixPath("data"), seed=np.int64(3), until=datetime.date.max),
    "config": types.SimpleNamespace(sizes=(256, 256), names=frozenset({"a"})),
    "log": collections.defaultdict(list, {"loss": [0.5]}),
    "last": collections.deque([1, 2], maxlen=2),
    "order": collections.OrderedDict(a=collections.Counter("aab")),
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("wrapper", [None, "model", "state_dict", "net", "model_state_dict", "net_state_dict"])
def test_what_lies_beside_the_weights_does_not_matter(torch, state, tmp_path, wrapper, zipped):
    optimiser = torch.optim.Adam([torch.nn.Parameter(torch.ones(2))])
    optimiser.param_groups[0]["params"][0].sum().backward()
    optimiser.step()
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimiser, [1, 2])
    beside = {**BESIDE, "optimizer": optimiser.state_dict(), "scheduler": scheduler.state_dict()}
    beside["torch"] = torch.__version__
    whole = {wrapper: state, **beside} if wrapper else state
    allowed = set(torch.serialization.get_safe_globals())
    torch.save(whole, tmp_path / "a.pth.tar", _use_new_zipfile_serialization=zipped)
    assert_is_state(convert.read_checkpoint(tmp_path / "a.pth.tar"), state)
    assert set(torch.serialization.get_safe_globals()) == allowed  # only while irjax reads is more allowed


def test_values_of_numpy_1(torch, state, tmp_path):
    """It had another name for the module of scalars and arrays."""
    path = tmp_path / "a.pkl"
    torch.save({"net": state, **BESIDE}, path, _use_new_zipfile_serialization=False)
    written = path.read_bytes()
    old = written.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert old != written
    path.write_bytes(old)
    assert_is_state(convert.read_checkpoint(path), state)


def test_values_beside_are_left_unread(torch, tmp_path):
    torch.save(BESIDE, tmp_path / "a.pth")
    read = read_file(tmp_path / "a.pth")
    assert read.keys() == BESIDE.keys() and read["epoch"] == 3 and read["log"] == {"loss": [0.5]}
    assert not isinstance(read["iou"], np.generic) and not hasattr(read["args"], "lr")


PREFIXES = st.lists(st.sampled_from(["module.", "model.", "net.", "network.", "_orig_mod."]), max_size=4)
WRAPPERS = st.lists(st.sampled_from(convert._WRAPPERS), max_size=2)


@hypothesis.given(PREFIXES, WRAPPERS, st.booleans())
def test_prefixes_and_wrappers_come_off(prefixes, wrappers, averaged):
    inner = {"conv.weight": np.ones(2), "module.bias": np.zeros(1)}
    whole = {"".join(prefixes) + key: value for key, value in {**inner, "bn.num_batches_tracked": np.int64(1)}.items()}
    if averaged:
        whole |= {"n_averaged": np.int64(3), "total_ops": np.zeros(1), "module.conv.total_params": np.zeros(1)}
    for wrapper in wrappers:
        whole = {"epoch": 3, wrapper: whole, "optimizer": {"state": {}}}
    assert convert._state_dict(whole, "a.pth").keys() == inner.keys()


@pytest.mark.parametrize("method", ["spire", "mshnet"])
def test_keys_tell_the_method(method):
    state = {f"module.model.{key}": value for key, value in numbered(method).items()}
    assert convert.read_checkpoint({"net": state})[0] == method
    other = {"spire": "mshnet", "mshnet": "spire"}[method]
    with pytest.raises(UserError, match=f"state_dict is not a {other} checkpoint, but one of {method} by its keys"):
        convert.from_torch(other, state)


def test_half_of_a_checkpoint_still_tells():
    state = numbered()
    some = dict(list(state.items())[: len(state) * 3 // 4])
    with pytest.raises(UserError, match=r"not a spire checkpoint: \d+ missing"):
        convert.read_checkpoint(some)


@pytest.mark.parametrize(
    ("whole", "said"),
    [
        ({"decoder.0.weight": np.zeros(3)}, "none of the methods mshnet, spire; its keys: decoder.0.weight"),
        ({"conv\x1b[1m.weight": np.zeros(3)}, r"its keys: 'conv\x1b[1m.weight'"),
        ({"epoch": 3, "gen": {"a": np.zeros(3)}}, "the key model, state_dict, net, .*; found epoch (int), gen (dict)"),
        ({"net": {"state": {}}}, "found net (dict)"),
        ({}, "found dict"),
    ],
)
def test_what_was_found_is_said(whole, said):
    with pytest.raises(UserError) as raised:
        convert.read_checkpoint(whole)
    message = str(raised.value)
    assert all(part in message for part in said.split(".*")) and message.isprintable()


def test_a_dict_in_itself(torch, tmp_path):
    whole = {"epoch": 3}
    whole["model"] = whole
    torch.save(whole, tmp_path / "a.pth")
    with pytest.raises(UserError, match=r"a.pth: a state_dict .*; found epoch \(int\), model \(dict\)"):
        convert.read_checkpoint(tmp_path / "a.pth")


@pytest.mark.parametrize("kind", ["sparse", "meta"])
def test_tensors_without_values(torch, kind):
    tensor = torch.zeros(2).to_sparse() if kind == "sparse" else torch.zeros(2, device="meta")
    with pytest.raises(UserError, match="dense tensors with values were expected"):
        convert.read_checkpoint({"conv1.weight": tensor})


# --- no code ----------------------------------------------------------------------------------------------------------

SCRIPT = """
import pathlib, torch

pathlib.Path("imported").touch()

class Config:
    def __setstate__(self, state):
        pathlib.Path("ran").touch()

class Net(torch.nn.Module):
    def __setstate__(self, state):
        pathlib.Path("ran").touch()

class Command:
    def __reduce__(self):
        import os
        return os.system, ("touch ran",)
"""


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("name", "shown"), [("Config", "users_script.Config"), ("Net", "users_script.Net"), ("Command", ".system")]
)
def test_a_class_of_the_users_script_is_refused_by_name(torch, state, tmp_path, monkeypatch, name, shown, zipped):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    pathlib.Path("users_script.py").write_text(SCRIPT)
    import users_script

    thing = getattr(users_script, name)()
    thing.x = 1
    whole = thing if name == "Net" else {"net": state, "config": thing}
    torch.save(whole, "a.pth", _use_new_zipfile_serialization=zipped)
    del sys.modules["users_script"]
    pathlib.Path("imported").unlink()
    with pytest.raises(UserError) as raised:
        convert.read_checkpoint("a.pth")
    message = str(raised.value)
    assert message.startswith("a.pth holds an object of the type '") and shown in message and "state_dict()" in message
    assert message.isprintable() and len(message) < 300
    assert not pathlib.Path("ran").exists() and not pathlib.Path("imported").exists()


def test_names_cannot_reach_the_terminal(torch, tmp_path):
    (tmp_path / "a.pth").write_bytes(b"\x80\x02c\x1b[31mevil\nrun\n)R.")
    with pytest.raises(UserError, match=r"type '\\x1b\[31mevil\.run'"):
        read_file(tmp_path / "a.pth")


# --- files of other kinds ---------------------------------------------------------------------------------------------


def test_a_program_and_an_archive(torch, tmp_path):
    network = torch.nn.Linear(2, 2)
    with warnings.catch_warnings(action="ignore"):  # PyTorch gives up such programs
        torch.jit.save(torch.jit.trace(network, torch.ones(1, 2)), str(tmp_path / "a.pt"))
    with pytest.raises(UserError, match=r"a\.pt is a TorchScript program; a state_dict is wanted"):
        read_file(tmp_path / "a.pt")
    torch.save(network.state_dict(), tmp_path / "b.pth")
    with tarfile.open(tmp_path / "b.pth.tar", "w") as archive:
        archive.add(tmp_path / "b.pth", "b.pth")
    with pytest.raises(UserError, match=r"b\.pth\.tar is not a PyTorch checkpoint but a tar archive: unpack it"):
        read_file(tmp_path / "b.pth.tar")


@pytest.mark.parametrize("zipped", [True, False])
def test_cut_files(torch, tmp_path, zipped):
    path = tmp_path / "a.pth"
    torch.save({"net": {"a": torch.ones(3)}, **BESIDE}, path, _use_new_zipfile_serialization=zipped)
    written = path.read_bytes()
    for length in np.linspace(0, len(written) - 1, 97, dtype=int):
        path.write_bytes(written[:length])
        # A type's name that is cut is another name.
        with pytest.raises(UserError, match=r"a\.pth (is not a PyTorch checkpoint: it is damaged|holds an)") as raised:
            read_file(path)
        assert str(raised.value).isprintable()


def test_an_old_pytorch_is_refused(torch, tmp_path, monkeypatch):
    torch.save({"a": torch.ones(1)}, tmp_path / "a.pth")
    monkeypatch.setattr(torch, "__version__", type(torch.__version__)("2.9.1+cpu"))
    with pytest.raises(ImportError, match=r"a\.pth needs PyTorch 2\.10 or later, .* in 2\.9\.1\+cpu: pip install"):
        read_file(tmp_path / "a.pth")


def test_shared_case(shared, torch, tmp_path, monkeypatch):
    """The files of a public MSHNet training, and of a program that wraps its networks."""
    case = shared / "cases/ckpt_mshnet"
    if not case.is_dir():
        pytest.skip("needs ../shared/cases")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(pathlib.Path(__file__).parents[1] / "models")
    runpy.run_path(str(case / "make.py"))
    read = {path.name: convert.read_checkpoint(path) for path in pathlib.Path("out").iterdir()}
    assert read.keys() == {"weight.pkl", "weight.pth", "checkpoint.pth", "basic.pth.tar"}
    for method, variables in read.values():
        assert method == "mshnet"
        jax.tree.map(np.testing.assert_array_equal, variables, read["weight.pth"][1])
