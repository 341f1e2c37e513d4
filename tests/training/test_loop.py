import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
from unittest.mock import ANY

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import monitoring

import irjax
from irjax.errors import TrainingError
from irjax.training import loop as training
from irjax.training.checkpoints import CheckpointError, Checkpoints, load_variables, saved_steps
from irjax.training.configs import LoopConfig


def log_of(run):
    """Steps, groups and values of metrics.jsonl, without times."""
    timed = ("minutes", "seconds", "steps_per_second", "data_wait")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in timed} for line in lines]


def validations_of(run):
    history = json.loads((run / "validation.json").read_text())
    return {step: {k: v for k, v in metrics.items() if k != "seconds"} for step, metrics in history.items()}


def final_state(run):
    manager = Checkpoints(run, read_only=True)
    tree, _ = manager._read(manager.steps()[-1])  # the record is the time it took
    manager.close()
    return tree


@pytest.fixture(scope="module", params=["device", "host"])
def cache(request):
    return request.param


@pytest.fixture(scope="module")
def uninterrupted(tiny, tmp_path_factory):
    """Finished runs, one for each feed: {cache: (run, result)}."""
    runs = {}
    for cache in ("device", "host"):
        run = tmp_path_factory.mktemp(cache) / "run"
        runs[cache] = run, tiny.fit(run, tiny.changed(data={"cache": cache}))
    return runs


def assert_same_run(run, wanted):
    chex.assert_trees_all_equal(final_state(run), final_state(wanted))
    assert saved_steps(run) == saved_steps(wanted)
    assert log_of(run) == log_of(wanted)
    assert validations_of(run) == validations_of(wanted)


# --- what a run leaves ------------------------------------------------------------------------------------------------


def test_what_a_run_leaves(tiny, uninterrupted, cache):
    run, result = uninterrupted[cache]
    assert result.run == run and result.best_step in saved_steps(run) and 12 in saved_steps(run)
    lines = log_of(run)
    assert [line["step"] for line in lines if line["group"] == "train"] == [2, 4, 5, 7, 9, 10, 12]
    assert [line["step"] for line in lines if line["group"] == "val"] == [5, 10, 12]
    assert all(np.isfinite(line["loss"]) for line in lines)
    config = json.loads((run / "config.json").read_text())
    assert config["config"]["loop"]["steps"] == 12 and config["config"]["loop"]["seed"] == 0
    assert config["data"]["train"]["examples"] == 18 and len(config["data"]["val"]["sha256_of_names"]) == 64
    assert config["versions"]["jax"] == jax.__version__
    history = validations_of(run)
    assert list(history) == ["5", "10", "12"]
    assert {**result.best, "select": result.best["f1"]} == {**history[str(result.best_step)], "seconds": ANY}
    rank = lambda step: (history[step]["f1"] or 0.0, -history[step]["loss"])  # noqa: E731
    assert str(result.best_step) == max(history, key=rank)
    chex.assert_trees_all_equal(result.variables, load_variables(run))


def test_the_two_feeds_train_alike(uninterrupted):
    device, host = (log_of(uninterrupted[cache][0]) for cache in ("device", "host"))
    assert [line["step"] for line in device] == [line["step"] for line in host]
    np.testing.assert_allclose([x["loss"] for x in device], [x["loss"] for x in host], rtol=1e-3)


def test_only_the_host_feed_waits_for_data(uninterrupted):
    assert uninterrupted["device"][1].data_wait == 0
    assert 0 < uninterrupted["host"][1].data_wait < 1


def test_a_finished_run_is_not_trained_again(tiny, uninterrupted, cache, monkeypatch):
    run, first = uninterrupted[cache]
    monkeypatch.setattr(training.Runner, "advance", None)
    before = {path: path.read_bytes() for path in run.glob("*.json*")}
    again = tiny.fit(run, tiny.changed(data={"cache": cache}))
    assert (again.best_step, again.best) == (first.best_step, first.best)
    chex.assert_trees_all_equal(again.variables, first.variables)
    assert {path: path.read_bytes() for path in run.glob("*.json*")} == before


# --- resuming ---------------------------------------------------------------------------------------------------------


def kill(run, cache, moment):
    """Runs tiny_run.py until it kills itself."""
    root = str(pathlib.Path(irjax.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": root, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "8"}
    script = pathlib.Path(__file__).with_name("tiny_run.py")
    command = [sys.executable, str(script), str(run), cache, moment]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]


SLOW = [("device", moment) for moment in ("log", "history", "commit")] + [("host", m) for m in ("step", "remove")]


@pytest.mark.parametrize(
    "cache, moment",
    [("device", "step"), ("device", "remove"), ("host", "commit")]
    + [pytest.param(*one, marks=pytest.mark.slow) for one in SLOW],
)
def test_a_killed_run_goes_on_to_the_same_end(tiny, uninterrupted, tmp_path, cache, moment):
    kill(tmp_path / "run", cache, moment)
    reached = {"step": [5], "log": [5], "history": [5, 10], "commit": [5]}
    kept = saved_steps(tmp_path / "run")
    assert kept == reached.get(moment, kept) and kept[-1] < 12
    load_variables(tmp_path / "run")
    result = tiny.fit(tmp_path / "run", tiny.changed(data={"cache": cache}))
    assert_same_run(tmp_path / "run", uninterrupted[cache][0])
    assert result.best_step == uninterrupted[cache][1].best_step


class _Stop(Exception):
    pass


def stopping_after(tiny, config, evaluations):
    """A method whose score stops the program when it is asked once more."""
    calls = []

    def objective_for(axis_name):
        objective = tiny.objective(axis_name, config=config)

        def score(found):
            calls.append(1)
            if len(calls) > evaluations:
                raise _Stop
            return objective.score(found)

        return tiny.objective(axis_name, config=config, score=score)

    return objective_for


def test_a_stopped_run_goes_on_to_the_same_end(tiny, uninterrupted, tmp_path, cache):
    config = tiny.changed(data={"cache": cache})
    run = tmp_path / "run"
    with pytest.raises(_Stop):
        tiny.fit(run, config, objective_for=stopping_after(tiny, config, 1))
    assert saved_steps(run) == [5, 10] and list(validations_of(run)) == ["5"]
    tiny.fit(run, config)
    assert_same_run(run, uninterrupted[cache][0])


def test_a_torn_log_is_mended(tiny, uninterrupted, tmp_path):
    run = tmp_path / "run"
    with pytest.raises(_Stop):
        tiny.fit(run, objective_for=stopping_after(tiny, tiny.CONFIG, 1))
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 10, "gro')
    tiny.fit(run)
    assert_same_run(run, uninterrupted["device"][0])


def test_another_config_is_refused(tiny, uninterrupted):
    run, _ = uninterrupted["device"]
    before = (run / "config.json").read_bytes()
    with pytest.raises(ValueError, match=r"config\.json was written with other settings \(loop\.steps 14, was 12\)"):
        tiny.fit(run, tiny.changed(loop={"steps": 14}))
    with pytest.raises(ValueError, match=r"\(data\.synthetic_train 20, was 18; the images of train\)"):
        tiny.fit(run, tiny.changed(data={"synthetic_train": 20}))
    assert (run / "config.json").read_bytes() == before


def test_a_run_whose_config_lacks_a_field_is_refused(tiny, uninterrupted, tmp_path):
    """It was written by a program that did something else there, and nobody knows whether that was the default."""
    shutil.copytree(uninterrupted["device"][0], tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    record = json.loads(path.read_text())
    del record["config"]["target"]["aggregate"]
    path.write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r'\(target\.aggregate "max", was absent\)'):
        tiny.fit(tmp_path / "run")


def test_a_run_that_never_saved_may_start_anew_with_another_config(tiny, tmp_path):
    with pytest.raises(ValueError, match="multiples of 4"):
        tiny.fit(tmp_path, tiny.changed(augment={"crop": 47}))
    tiny.fit(tmp_path, tiny.changed(loop={"steps": 2}))
    assert json.loads((tmp_path / "config.json").read_text())["config"]["augment"]["crop"] == 48


def test_another_network_is_refused(tiny, uninterrupted):
    other = lambda axis_name: tiny.objective(axis_name, model=tiny.Tiny(axis_name, channels=6))  # noqa: E731
    with pytest.raises(CheckpointError, match="does not fit"):
        tiny.fit(uninterrupted["device"][0], objective_for=other)


def test_no_program_is_compiled_between_dispatches_or_epochs(tiny, tmp_path, cache):
    """The step is traced once, also where dispatches have two lengths: full ones, and the rest before a validation."""
    counts = {}

    def objective_for(axis_name):
        objective = tiny.objective(axis_name)

        def prepare(batch, keys):
            counts[keys is None] = counts.get(keys is None, 0) + 1
            return objective.prepare(batch, keys)

        return tiny.objective(axis_name, prepare=prepare)

    config = tiny.changed(data={"cache": cache})
    compiled = []

    def note(name, *_args, **_kwargs):
        if name.endswith("backend_compile_duration"):
            compiled.append(name)

    late = []
    monitoring.register_event_duration_secs_listener(note)
    write = training.Log.write

    def noting(self, step, values, *, group):
        late.append((step, group, len(compiled)))
        write(self, step, values, group=group)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.Log, "write", noting)
        tiny.fit(tmp_path / "run", config, objective_for=objective_for)
    monitoring.unregister_event_duration_listener(note)
    assert counts == {False: 1, True: 1}
    by_step = {(step, group): number for step, group, number in late}
    assert by_step[10, "val"] == by_step[12, "val"] == by_step[7, "train"]


# --- starting ---------------------------------------------------------------------------------------------------------


def test_initial_weights_are_taken_and_left_alone(tiny, tmp_path):
    variables = tiny.variables(1)
    kept = jax.device_get(variables)
    config = tiny.changed(loop={"steps": 2}, optimizer={"rate": 1e-9, "weight_decay": 0.0})
    result = tiny.fit(tmp_path / "run", config, initial=variables)
    chex.assert_trees_all_equal(jax.device_get(variables), kept)
    chex.assert_trees_all_close(result.variables["params"], kept["params"], atol=1e-6)


def test_weights_are_made_at_the_size_of_the_data(tiny, tmp_path):
    # A crop may be too small for what a network asks of its input, as Na-IRSTD does.
    sides = set()

    class Watched(tiny.Tiny):
        def __call__(self, x, *, train):
            if self.is_initializing():
                sides.add(x.shape[1:3])
            return super().__call__(x, train=train)

    config = tiny.changed(loop={"steps": 1})
    objective_for = lambda axis_name: tiny.objective(axis_name, config=config, model=Watched(axis_name))  # noqa: E731
    tiny.fit(tmp_path / "run", config, objective_for=objective_for)
    assert sides == {(config.data.size, config.data.size)} and config.augment.crop != config.data.size


def test_initial_weights_of_another_network_are_refused(tiny, tmp_path):
    variables = tiny.variables(3)
    with pytest.raises(ValueError, match="initial weights do not fit this Tiny"):
        tiny.fit(tmp_path / "run", initial=variables)


def test_devices_share_the_batch_and_train_alike(tiny, uninterrupted, tmp_path):
    if len(jax.local_devices()) < 4:
        pytest.skip("needs four devices")
    result = tiny.fit(tmp_path / "run", tiny.changed(loop={"devices": 4}))
    found, wanted = log_of(tmp_path / "run"), log_of(uninterrupted["device"][0])
    assert [line["step"] for line in found] == [line["step"] for line in wanted]
    np.testing.assert_allclose([x["loss"] for x in found], [x["loss"] for x in wanted], rtol=1e-2)
    assert result.best_step in saved_steps(tmp_path / "run")


@pytest.mark.parametrize("devices, message", [(3, "4 cannot be shared among 3 devices"), (99, "there are")])
def test_devices_that_cannot_share_the_batch(tiny, tmp_path, devices, message):
    if len(jax.local_devices()) < 3:
        pytest.skip("needs three devices")
    with pytest.raises(ValueError, match=message):
        tiny.fit(tmp_path / "run", tiny.changed(loop={"devices": devices}))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_size": 0},
        {"steps": -1},
        {"epochs": 0},
        {"eval_epochs": 0},
        {"averaging": 1.0},
        {"devices": -1},
        {"seed": -1},
    ],
)
def test_wrong_settings(wrong):
    with pytest.raises(ValueError, match=f"loop.{next(iter(wrong))}"):
        LoopConfig(**wrong)


# --- what goes wrong --------------------------------------------------------------------------------------------------


def test_steps_that_stay_not_finite_stop_the_run(tiny, tmp_path, cache):
    config = tiny.changed(data={"cache": cache}, loop={"max_skipped": 3})
    run = tmp_path / "run"
    with pytest.raises(_Stop):
        tiny.fit(run, config, objective_for=stopping_after(tiny, config, 0))
    before = final_state(run)
    bad = lambda axis_name: tiny.objective(axis_name, loss=lambda out, _: jnp.mean(out, (1, 2)) * jnp.nan)  # noqa: E731
    with pytest.raises(TrainingError, match=r"not finite in 4 steps in a row, to step 9: lower optimizer\.rate"):
        tiny.fit(run, config, objective_for=bad)
    assert saved_steps(run) == [5]
    chex.assert_trees_all_equal(final_state(run), before)
    last = log_of(run)[-1]
    assert last["skipped"] == 4 and last["loss"] is None


def test_a_failing_checkpoint_stops_the_run_and_it_goes_on(tiny, uninterrupted, tmp_path, monkeypatch):
    run = tmp_path / "run"
    save, saves = training.Checkpoints.save, []

    def failing(self, state, *args, **kwargs):
        saves.append(1)
        if len(saves) == 2:
            with monkeypatch.context() as patch:
                patch.setattr(
                    self._manager, "save", lambda *a, **k: (_ for _ in ()).throw(OSError(28, "No space left"))
                )
                save(self, state, *args, **kwargs)
                self._writing[1].exception()  # it is written in a thread
        else:
            save(self, state, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(training.Checkpoints, "save", failing)
        with pytest.raises(CheckpointError, match=r"step 10 .*No space left.*\[5\] are intact"):
            tiny.fit(run)
    tiny.fit(run)
    assert_same_run(run, uninterrupted["device"][0])


def test_a_file_in_place_of_the_run(tiny, tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(CheckpointError, match="cannot write the run directory .*run"):
        tiny.fit(tmp_path / "run")
