"""Metrics of a run in TensorBoard and Weights & Biases, and profiles of its steps."""

import os
import subprocess
import sys
import types

import pytest

from irjax.errors import MissingPackageError, Note, UserError
from irjax.training.configs import LoopConfig
from irjax.training.writers import WandB, open_writers


def test_tensorboard_files(tiny, tmp_path):
    pytest.importorskip("tensorboardX")
    tiny.fit(tmp_path / "run", tiny.changed(loop={"steps": 2, "tensorboard": True}))
    (events,) = (tmp_path / "run" / "tensorboard").iterdir()
    content = events.read_bytes()
    assert b"train/loss" in content and b"val/f1" in content


class FakeWandb(types.ModuleType):
    """wandb, as far as irjax calls it; remembers what was asked."""

    class errors:
        class Error(Exception):
            pass

    def __init__(self):
        super().__init__("wandb")
        self.inits, self.logged, self.metrics, self.finished, self.refuses = [], [], [], 0, False

    def Settings(self, **options):
        return options

    def init(self, **options):
        if self.refuses:
            raise self.errors.Error("no API key configured")
        self.inits.append(options)
        return self

    def define_metric(self, name, **options):
        self.metrics.append((name, options))

    def log(self, values):
        self.logged.append(values)

    def finish(self):
        self.finished += 1


@pytest.fixture
def wandb(monkeypatch):
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


def test_wandb_gets_every_line_and_a_resumed_run_is_the_same(tiny, tmp_path, wandb):
    for steps in (10, 12):
        config = tiny.changed(loop={"minutes": 0.0, "steps": 12, "wandb": "targets"})
        if steps == 10:  # ended before its end, and resumed without the flag having been there
            with pytest.raises(KeyboardInterrupt):
                tiny.fit(tmp_path / "run", config, objective_for=_interrupted_by(tiny, wandb))
        else:
            tiny.fit(tmp_path / "run", config)
    first, second = wandb.inits
    assert first["project"] == "targets" and first["name"] == "run" and first["dir"] == str(tmp_path / "run")
    assert first["resume"] == "allow" and first["id"] == second["id"] and len(first["id"]) == 16
    assert first["config"]["loop"]["wandb"] == "targets" and first["settings"] == {"console": "off"}
    assert ("*", {"step_metric": "step"}) in wandb.metrics and wandb.finished == 2
    assert wandb.logged[-1]["step"] == 12 and "val/f1" in wandb.logged[-1]
    assert [one["step"] for one in wandb.logged if "train/loss" in one][:2] == [2, 4]


def _interrupted_by(tiny, wandb):
    """An objective as usual; W&B's third line interrupts the run."""
    log = wandb.log

    def interrupting(values):
        log(values)
        if len(wandb.logged) == 3:
            wandb.log = log
            raise KeyboardInterrupt

    wandb.log = interrupting
    return lambda axis_name: tiny.objective(axis_name)


def test_watching_does_not_make_another_run(tiny, tmp_path, wandb):
    run = tmp_path / "run"
    tiny.fit(run, tiny.changed(loop={"steps": 2}))
    tiny.fit(run, tiny.changed(loop={"steps": 2, "wandb": "targets"}))  # resumed, not refused
    assert len(wandb.inits) == 1
    with pytest.raises(UserError, match="written with other settings"):
        tiny.fit(run, tiny.changed(loop={"steps": 4, "wandb": "targets"}))


def test_wandb_that_refuses_or_is_missing(tmp_path, wandb, monkeypatch):
    wandb.refuses = True
    with pytest.raises(UserError, match="^--loop.wandb targets: no API key configured; WANDB_MODE=offline needs no"):
        WandB(tmp_path, "targets", {})
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingPackageError, match=r"^--loop.wandb needs wandb: pip install 'irjax\[wandb\]'$"):
        open_writers(tmp_path, 0, LoopConfig(tensorboard=False, wandb="targets"), {})


def test_wandb_offline(tmp_path):
    """The real package writes files alone, in a process of its own."""
    pytest.importorskip("wandb", reason="writes a run of it (extra wandb)")
    code = (
        "import pathlib; from irjax.training.writers import WandB\n"
        f"writer = WandB(pathlib.Path({str(tmp_path)!r}), 'targets', {{'steps': 2}})\n"
        "writer.write(2, {'train/loss': 0.5}); writer.write(2, {'val/f1': 0.25}); writer.close()"
    )
    keep = {"WANDB_MODE": "offline", "HOME": str(tmp_path / "home"), "WANDB_CACHE_DIR": str(tmp_path / "cache")}
    keep |= {"WANDB_CONFIG_DIR": str(tmp_path / "config"), "WANDB_ERROR_REPORTING": "false"}
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, **keep}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    content = file.read_bytes()
    assert b"train/loss" in content and b"val/f1" in content


def test_profile_of_warm_steps(tiny, tmp_path):
    run = tmp_path / "run"
    tiny.fit(run, tiny.changed(loop={"steps": 8, "profile": 4}))
    (place,) = (run / "profile/plugins/profile").iterdir()  # one recording
    assert [path for path in place.iterdir() if path.name.endswith(".xplane.pb") and path.stat().st_size]
    for steps, message in ((2, "before its steps were warm"), (6, "ended before the 40 steps")):
        with pytest.warns(Note, match=message):
            tiny.fit(tmp_path / f"run{steps}", tiny.changed(loop={"steps": steps, "profile": 40}))
    with pytest.raises(UserError, match="loop.profile must not be negative"):
        LoopConfig(profile=-1)
