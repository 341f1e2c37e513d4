import errno
import json
import os
import pathlib

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from irjax.training.checkpoints import CheckpointError, Checkpoints, load_variables, saved_steps
from irjax.training.state import TrainState

TX = optax.adamw(1e-3)


def state(step, *, averaging=True, width=3):
    """A state whose weights tell the step, and its average the step and a half."""
    variables = {
        "params": {"w": jnp.full((2, width), float(step))},
        "batch_stats": {"m": jnp.full(width, -float(step))},
    }
    new = TrainState.create(variables, TX, averaging=averaging)
    average = jax.tree.map(lambda x: x + 0.5, variables) if averaging else None
    return new.replace(step=jnp.int32(step), average=average, skipped=jnp.int32(step % 5))


@pytest.fixture
def checkpoints(tmp_path):
    made = Checkpoints(tmp_path)
    yield made
    made.close()


def save(checkpoints, saved, *, f1=None, loss=1.0, record=None, steady=True):
    """A whole checkpoint, validated if there is an F1."""
    checkpoints.save(saved, record or {}, steady=steady)
    checkpoints.wait()
    if f1 is not None:
        checkpoints.validated(int(saved.step), {"loss": loss, "f1": f1}, "f1")


def save_all(checkpoints, scores):
    for step, (f1, loss) in enumerate(scores, 1):
        save(checkpoints, state(10 * step), f1=f1, loss=loss)


def test_newest_and_best_are_kept(checkpoints):
    save_all(checkpoints, [(0.1, 1.0), (0.7, 0.5), (0.3, 0.1), (0.6, 0.1), (0.2, 0.1), (float("nan"), 0.1)])
    assert checkpoints.steps() == [20, 60] and checkpoints.best_step() == 20
    assert checkpoints.validations()[20] == {"loss": 0.5, "f1": 0.7, "select": 0.7}
    assert sorted(entry.name for entry in checkpoints.folder.iterdir() if not entry.name.isdecimal()) in (
        [],
        ["removed"],
    )


def test_ties_go_to_the_lower_loss_then_to_the_later_step(checkpoints):
    save_all(checkpoints, [(0.5, 0.3), (0.5, 0.2), (0.5, 0.4), (0.1, 0.1)])
    assert checkpoints.best_step() == 20 and checkpoints.steps() == [20, 40]
    save(checkpoints, state(50), f1=0.5, loss=0.2)
    assert checkpoints.best_step() == 50


def test_what_training_may_start_from_stays_beside_newest_and_best(checkpoints):
    for step, steady, f1 in [(10, True, 0.9), (20, True, None), (30, True, None), (40, False, 0.1), (50, False, None)]:
        save(checkpoints, state(step), f1=f1, steady=steady)
    assert checkpoints.steps() == [10, 30, 50] and checkpoints.newest_steady() == 30


def test_without_validation_the_newest_is_best(checkpoints):
    for step in (10, 20):
        save(checkpoints, state(step))
    assert checkpoints.best_step() == 20 and checkpoints.validations() == {}


def test_validations_of_later_steps_are_forgotten(checkpoints):
    save_all(checkpoints, [(0.1, 1.0), (0.2, 1.0), (0.3, 1.0)])
    checkpoints.forget(after=20)
    assert list(checkpoints.validations()) == [10, 20]


def test_a_run_of_the_first_version_is_read(tmp_path, checkpoints):
    """It kept what chooses in the checkpoint, and not in validation.json."""
    save_all(checkpoints, [(0.7, 1.0), (0.2, 1.0)])
    for step, f1 in ((10, 0.7), (20, 0.2)):
        (metrics,) = (checkpoints.folder / str(step) / "metrics").glob("metrics")
        metrics.write_text(json.dumps({"select": f1, "loss": 1.0}))
    path = tmp_path / "validation.json"
    path.write_text(json.dumps({step: {"loss": 1.0, "f1": None} for step in ("10", "20")}))
    chex.assert_trees_all_equal(load_variables(tmp_path), jax.device_get(state(10).average))


def test_the_best_survives_a_new_process(tmp_path):
    for step, select in [(10, 0.9), (20, 0.1), (30, 0.2)]:
        one = Checkpoints(tmp_path)
        save(one, state(step), f1=select)
        one.close()
    assert saved_steps(tmp_path) == [10, 30]
    chex.assert_trees_all_equal(load_variables(tmp_path), jax.device_get(state(10).average))
    chex.assert_trees_all_equal(load_variables(tmp_path, "newest"), jax.device_get(state(30).average))


@pytest.mark.parametrize("averaging", [True, False])
def test_state_and_record_come_back_to_the_bit(checkpoints, averaging):
    saved = state(10, averaging=averaging)
    saved = saved.replace(rate_scale=jnp.float32(1 / 3), variables=jax.tree.map(lambda x: x / 3, saved.variables))
    record = {"plateau": {"best": float("inf"), "scale": 0.1, "waited": 2}}
    save(checkpoints, saved, record=record)
    restored, found = checkpoints.restore(state(0, averaging=averaging))
    assert found == record
    chex.assert_trees_all_equal(restored, jax.device_get(saved))
    chex.assert_trees_all_equal_shapes_and_dtypes(restored, saved)
    variables = checkpoints.variables()[1]
    chex.assert_trees_all_equal(variables, jax.device_get(saved.eval_variables))
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(variables))


def test_without_checkpoints(tmp_path, checkpoints):
    assert checkpoints.restore(state(0)) is None and checkpoints.steps() == []
    with pytest.raises(CheckpointError, match="no checkpoint in"):
        load_variables(tmp_path)
    with pytest.raises(FileNotFoundError, match="no run directory"):
        load_variables(tmp_path / "absent")
    assert not (tmp_path / "absent").exists()
    with pytest.raises(ValueError, match="'best' or 'newest', got 'last'"):
        checkpoints.variables("last")


def other_optimiser():
    return TrainState.create(state(0).variables, optax.sgd(0.1, momentum=0.9), averaging=True)


def other_network():
    variables = nn.Dense(3).init(jax.random.key(0), jnp.zeros((1, 2)))
    return TrainState.create({**variables, "batch_stats": {}}, TX, averaging=True)


@pytest.mark.parametrize(
    "template",
    [lambda: state(0, width=4), lambda: state(0, averaging=False), other_optimiser, other_network],
    ids=["shape", "averaging", "optimiser", "network"],
)
def test_another_run_is_refused(checkpoints, template):
    save(checkpoints, state(10), f1=1.0)
    with pytest.raises(CheckpointError, match=r"step 10 .*does not fit"):
        checkpoints.restore(template())


def test_a_file_in_place_of_the_folder(tmp_path):
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(CheckpointError, match="cannot write checkpoints to .*checkpoints"):
        Checkpoints(tmp_path)


def test_a_folder_that_vanished_or_was_replaced(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.folder.rmdir()
    checkpoints.folder.write_text("")
    with pytest.raises(CheckpointError, match="could not write the checkpoint of step 10"):
        save(checkpoints, state(10), f1=1.0)


def full_disk(*_args, **_kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("where", ["manager", "rename", "write"])
def test_a_full_disk_leaves_the_previous_checkpoint(tmp_path, monkeypatch, where):
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, state(10), f1=0.5)
    with monkeypatch.context() as patch:
        if where == "manager":
            patch.setattr(checkpoints._manager, "save", full_disk)
        elif where == "rename":
            patch.setattr(os, "rename", full_disk)
            patch.setattr(pathlib.Path, "rename", full_disk)
        else:
            from orbax.checkpoint import JsonCheckpointHandler

            patch.setattr(JsonCheckpointHandler, "async_save", full_disk)
            patch.setattr(JsonCheckpointHandler, "save", full_disk)
        with pytest.raises(CheckpointError, match=r"step 20 .*No space left.*\[10\] are intact"):
            save(checkpoints, state(20), f1=0.9)
    checkpoints.close()
    assert saved_steps(tmp_path) == [10]
    chex.assert_trees_all_equal(load_variables(tmp_path), jax.device_get(state(10).average))
    again = Checkpoints(tmp_path)
    assert int(again.restore(state(0))[0].step) == 10
    save(again, state(20), f1=0.9)
    again.close()
    assert saved_steps(tmp_path)[-1] == 20
    chex.assert_trees_all_equal(load_variables(tmp_path), jax.device_get(state(20).average))


def test_a_damaged_checkpoint_is_named(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, state(10), f1=0.5)
    checkpoints.close()
    for path in (tmp_path / "checkpoints" / "10" / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(b"?")
    with pytest.raises(CheckpointError, match="cannot read the checkpoint of step 10"):
        load_variables(tmp_path)


def test_reading_writes_and_says_nothing(tmp_path, caplog):
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, state(10), f1=0.5)
    checkpoints.close()
    listing = lambda: sorted((p, p.stat().st_mtime_ns) for p in tmp_path.rglob("*"))  # noqa: E731
    before = listing()
    caplog.clear()
    load_variables(tmp_path)
    assert listing() == before and not [one for one in caplog.records if one.levelname != "INFO"]
