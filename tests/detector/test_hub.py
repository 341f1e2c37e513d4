"""Weights shared on a Hugging Face Hub that runs in the test."""

import importlib.util
import json
import os
import pathlib
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

import irjax
from irjax import cli
from irjax.data.licences import OWN_LICENCE_TEXT
from irjax.detector import hub, weights
from irjax.errors import CommandExit, MissingPackageError, UsageError, UserError

# How huggingface_hub hands the file to its HTTP client.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

FIGURES = {"val": {"images": 3, "metrics": {"IoU": 0.5, "Pd": float("nan")}, "intervals": {}}}
CARD = dict.fromkeys(weights.CARD_FIELDS, "none") | {
    "licence": f"{OWN_LICENCE_TEXT} Licences of the images: mine: MIT.",
    "data": {"sets": ["SIRST-v2"], "train": {"examples": 7}},
    "validation": FIGURES,
}


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A Hub, which huggingface_hub of this process talks to; nothing of the user's is read or written."""
    pytest.importorskip("huggingface_hub", reason="talks to the Hub (extra hub)")
    from huggingface_hub import constants

    spec = importlib.util.spec_from_file_location("fake_hub", pathlib.Path(__file__).with_name("fake_hub.py"))
    fake_hub = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fake_hub)
    with fake_hub.FakeHub().running() as running:
        monkeypatch.setattr(constants, "ENDPOINT", running.url)
        template = f"{running.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # its chunks are for the real one
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.setenv("HF_TOKEN", "hf_test")
        yield running


@pytest.fixture
def mine(tmp_path, detector_of):
    """A weight file with a card."""
    detector = detector_of("mshnet")
    return weights.save_weights(tmp_path / "mine.safetensors", detector.variables, detector.config, CARD)


def push(*words):
    cli.main(["models", "--push", *map(str, words)])


def error_of(*words, status=1):
    with pytest.raises(CommandExit) as stopped:
        cli.main(list(map(str, words)))
    assert stopped.value.code == status
    return str(stopped.value)


def header_of(text):
    import yaml

    return yaml.safe_load(text.split("---\n")[1])


def test_what_is_pushed_is_loaded_bit_for_bit(server, mine, capsys):
    push("me/mine", "--model", mine, "--private")
    printed = capsys.readouterr().out
    assert f"uploading to {server.url}/me/mine, private if it is new" in printed and server.private is True
    ((number, files),) = server.repositories["me/mine"].items()
    assert set(files) == set(hub.FILES) and files["model.safetensors"] == mine.read_bytes()
    for name, content in files.items():
        assert f"  {name}: {len(content):,} bytes" in printed
    for name in ("hf:me/mine", f"hf:me/mine@{number}"):
        detector = irjax.load(name)
        variables, config, _ = weights.load_weights(mine)
        assert detector.config == config
        jax.tree.map(np.testing.assert_array_equal, dict(detector.variables), variables)
    assert irjax.load("hf:me/mine", size=32).config.size == 32
    beside = pathlib.Path(hub.download("hf:me/mine")).parent
    assert sorted(path.name for path in beside.iterdir()) == ["README.md", "model.safetensors"]


def test_card_and_configuration(server, mine, detector_of):
    push("me/mine", "--model", mine)
    files = server.repositories["me/mine"].popitem()[1]
    assert not server.private
    header = header_of(files["README.md"].decode())
    ((metric,),) = ([one["metrics"] for one in header.pop("model-index")[0]["results"]],)
    assert [(one["type"], one["value"]) for one in metric] == [("IoU", 0.5)]  # nan is none
    assert header == {
        "library_name": "irjax",
        "license": "apache-2.0",
        "pipeline_tag": "image-segmentation",
        "tags": ["infrared", "small-target-detection", "jax", "mshnet"],
        "datasets": ["SIRST-v2"],
    }
    assert 'irjax.load("hf:me/mine")' in files["README.md"].decode().replace("'", '"')
    assert "## Licence\n\nThe weights are under irjax's licence." in files["README.md"].decode()
    assert json.loads(files["config.json"]) == json.loads(detector_of("mshnet").config.to_json())


def test_cards_of_others(server, weights_of):
    push("me/points", "--model", weights_of("spire"))
    header = header_of(server.repositories["me/points"].popitem()[1]["README.md"].decode())
    assert header["license"] == "other" and header["license_link"] == "README.md#licence"
    assert header["pipeline_tag"] == "keypoint-detection" and "model-index" not in header


def test_commands_take_it(server, mine, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("irjax.training.allocator.keep_freed_memory", lambda: False)
    push("me/mine-v1.5", "--model", mine)
    Image.fromarray(np.zeros((32, 32), np.uint8)).save(tmp_path / "a.png")
    name = "hf:me/mine-v1.5"
    cli.main(["predict", str(tmp_path / "a.png"), "--model", name, "--out", str(tmp_path / "out"), "--size", "32"])
    monkeypatch.chdir(tmp_path)
    cli.main(["export", name, "--platforms", "cpu"])
    assert (tmp_path / "mine-v1.5.stablehlo").is_file()
    capsys.readouterr()
    cli.main(["models", name])
    assert capsys.readouterr().out.startswith(f"{name}: mshnet, ")


def test_no_request_tells_of_this_machine(server, mine):
    push("me/mine", "--model", mine)
    irjax.load("hf:me/mine")
    agents = [headers["user-agent"] for _, _, headers in server.asked if "user-agent" in headers]
    assert len(agents) > 5 and not [agent for agent in agents if "torch" in agent or "numpy" in agent]
    assert not [path for _, path, _ in server.asked if "telemetry" in path]


def test_without_an_answer_the_cache_is_taken(server, mine, monkeypatch):
    from huggingface_hub import constants

    push("me/mine", "--model", mine)
    irjax.load("hf:me/mine")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert irjax.load("hf:me/mine").config.method == "mshnet"
    with pytest.raises(UserError, match=r"hf:me/other: no answer from http\S+, and it is not in the cache"):
        irjax.load("hf:me/other")


def test_repositories_that_cannot_be_loaded(server, mine):
    import safetensors.numpy

    server.repositories |= {"me/empty": {}, "me/foreign": {}}
    server.commit("me/empty", {"pytorch_model.bin": b"\x80\x04."})
    server.commit("me/foreign", {"model.safetensors": safetensors.numpy.save({"x": np.zeros(3)}, {"format": "pt"})})
    for name, message in (
        ("hf:me/absent", "hf:me/absent: http.* has no such repository, or it is private and HF_TOKEN does not open it"),
        ("hf:me/empty", "hf:me/empty: the repository has no model.safetensors, so it holds no weights of irjax"),
        ("hf:me/empty@v1", "hf:me/empty@v1: the repository has no such revision"),
        ("hf:me/foreign", "hf:me/foreign is not an irjax weight file: its format is 'pt'"),
    ):
        with pytest.raises(UserError, match=message) as raised:
            irjax.load(name)
        assert "\n" not in str(raised.value)
    assert "hf:me/absent: http" in error_of("predict", mine, "--model", "hf:me/absent")
    for name in ("hf:mine", "hf:a/b/c", "hf:", "hf:me/mine@"):
        with pytest.raises(UsageError, match="is hf:OWNER/NAME or hf:OWNER/NAME@REVISION, got"):
            irjax.load(name)


def test_what_is_not_pushed(server, mine, tmp_path, detector_of, monkeypatch):
    import safetensors.numpy

    bare, whole = tmp_path / "bare.safetensors", mine.read_bytes()
    config = detector_of("mshnet").config
    metadata = {"format": "irjax-weights-1", "config": config.to_json(), "card": "{}"}
    safetensors.numpy.save_file(safetensors.numpy.load(whole), bare, metadata)
    assert f"the card of {bare} lacks ['data', " in error_of("models", "--push", "me/x", "--model", bare)
    shutil.copy(mine, tmp_path / "a.pth")
    assert "a.pth has no card" in error_of("models", "--push", "me/x", "--model", tmp_path / "a.pth")
    assert "--push needs --model" in error_of("models", "--push", "me/x", status=2)
    assert "--model goes with --push" in error_of("models", "--model", mine, status=2)
    assert "--private goes with --push" in error_of("models", "--private", status=2)
    assert "without a revision" in error_of("models", "--push", "me/x@v1", "--model", mine, status=2)
    assert "--push goes without NAME" in error_of("models", "a", "--push", "me/x", "--model", mine, status=2)
    assert server.asked == []
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert "hf:me/x: http" in error_of("models", "--push", "me/x", "--model", mine)
    assert not server.repositories


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingPackageError, match=r"^hf:me/mine needs huggingface_hub: pip install 'irjax\[hub\]'$"):
        irjax.load("hf:me/mine")


def test_the_environment_says_where_the_hub_is(server, mine, tmp_path):
    """In a process of its own, in which huggingface_hub reads it."""
    push("me/mine", "--model", mine)
    code = "import irjax; print(irjax.load('hf:me/mine').config.method)"
    env = {"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": "hf_test"}
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, **env}, capture_output=True, text=True)
    assert done.stdout == "mshnet\n", done.stderr
    assert list((tmp_path / "home/hub").glob("models--me--mine/snapshots/*/model.safetensors"))
