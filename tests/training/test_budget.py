import json
import math
import os
import signal

import chex
import numpy as np
import pytest

from irjax.errors import TrainingError
from irjax.training import budget as budgets
from irjax.training import loop as training
from irjax.training.budget import Budget, Clock
from irjax.training.checkpoints import Checkpoints, load_variables, saved_steps
from irjax.training.configs import LoopConfig
from irjax.training.data import CachedFeed

SECOND = 1 / 60


@pytest.fixture
def now(monkeypatch):
    """The time in seconds, as a list of one."""
    time = [100.0]
    monkeypatch.setattr(budgets, "monotonic", lambda: time[0])
    return time


@pytest.fixture
def a_step_a_second(now, monkeypatch):
    """Time as the number of the step that is started: every run then has the same."""
    batches = CachedFeed.batches

    def counted(self, step, count):
        now[0] = float(step)
        return batches(self, step, count)

    monkeypatch.setattr(CachedFeed, "batches", counted)
    validate = training.Validation.__call__
    monkeypatch.setattr(training.Validation, "__call__", lambda *args: {**validate(*args), "seconds": 0.0})


# --- clock and budget -------------------------------------------------------------------------------------------------


def test_the_clock_starts_with_the_first_step_and_goes_on_in_another_process(now):
    clock = Clock()
    now[0] += 50
    assert clock.seconds == 0
    clock.start()
    now[0] += 7
    clock.start()
    assert clock.seconds == 7
    later = Clock(clock.seconds)
    now[0] += 50
    assert later.seconds == 7
    later.start()
    now[0] += 2
    assert later.seconds == 9


def test_the_rate_is_constant_and_falls_in_the_last_fifth(now):
    clock = Clock()
    clock.start()
    budget, found = Budget(100 * SECOND, clock), {}
    for second in (0, 40, 80, 85, 95, 100, 120):
        now[0] = 100.0 + second
        found[second] = (budget.factor(), budget.decaying, budget.used)
    assert found[0] == found[40] == found[80] == (1.0, False, False)
    assert found[85] == (0.5, True, False)
    assert found[95] == (pytest.approx(1 - math.sqrt(0.75)), True, False)
    assert found[100] == found[120] == (0.0, True, True)


@pytest.mark.parametrize("reserved, end", [(5, 95), (10, 90), (70, 90)])
def test_time_for_the_last_validation_is_kept(now, reserved, end):
    clock = Clock()
    clock.start()
    budget = Budget(100 * SECOND, clock)
    budget.reserved = reserved
    now[0] = 100.0 + end - 0.01
    assert 0 < budget.factor() < 0.1 and not budget.used
    now[0] = 100.0 + end
    assert budget.factor() == 0 and budget.used


def test_without_minutes_there_is_no_end(now):
    clock = Clock()
    clock.start()
    now[0] += 1e9
    assert Budget(0, clock).factor() == 1 and not Budget(0, clock).used


def test_minutes_and_steps_exclude_each_other():
    with pytest.raises(ValueError, match=r"loop\.minutes 3 and loop\.steps 5 exclude each other"):
        LoopConfig(minutes=3, steps=5)


# --- runs -------------------------------------------------------------------------------------------------------------


def config_of(tiny, seconds, **loop):
    # An epoch is five steps.
    loop = {"minutes": seconds * SECOND, "steps": 0, "eval_epochs": 1.2, **loop}
    return tiny.changed(loop=loop, optimizer={"plateau_factor": 1.0})


def lines_of(run, group="train"):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["group"] == group]


def final_state(run):
    checkpoints = Checkpoints(run, read_only=True)
    tree, record = checkpoints._read(checkpoints.steps()[-1])
    checkpoints.close()
    return tree, record


def assert_same_until(run, wanted, step):
    """Training and validation, to the bit; later the clocks differ by a first dispatch, which is not counted."""
    for group in ("train", "val"):
        found, whole = (
            {
                line["step"]: (line["loss"], line.get("grad_norm"))
                for line in lines_of(each, group)
                if line["step"] <= step
            }
            for each in (run, wanted)
        )
        assert found == whole and max(found) == step


def test_a_run_of_twenty_seconds(tiny, a_step_a_second, tmp_path):
    result = tiny.fit(tmp_path / "run", config_of(tiny, 20))
    lines = lines_of(tmp_path / "run")
    rates = {line["step"]: line["rate"] for line in lines}
    assert lines[-1]["step"] == 22  # the last step that began in time
    high = rates[6]
    assert all(rate == high for step, rate in rates.items() if 5 < step <= 20)
    assert rates[22] == pytest.approx(high * (1 - math.sqrt(0.5)))
    # Validated by epochs until the rate falls, then at the end.
    assert [line["step"] for line in lines_of(tmp_path / "run", "val")] == [6, 12, 18, 22]
    checkpoints = Checkpoints(tmp_path / "run", read_only=True)
    assert checkpoints.newest_steady() == 20 and checkpoints.steps()[-1] == 22
    checkpoints.close()
    assert result.best_step in saved_steps(tmp_path / "run")


class _Stop(BaseException):
    pass


@pytest.mark.parametrize("moment", [3, 8, 13, 17, 20])
def test_a_stopped_run_goes_on_with_what_is_left(tiny, a_step_a_second, tmp_path, monkeypatch, moment):
    config = config_of(tiny, 20, save_minutes=3 * SECOND)
    tiny.fit(tmp_path / "whole", config)
    write = training.Log.write

    def stopping(self, step, values, *, group):
        if step >= moment:
            raise _Stop
        write(self, step, values, group=group)

    with monkeypatch.context() as patch:
        patch.setattr(training.Log, "write", stopping)
        with pytest.raises(_Stop):
            tiny.fit(tmp_path / "run", config)
    kept = saved_steps(tmp_path / "run")
    assert moment < 6 or kept[-1] >= moment - 6  # a checkpoint every three seconds, or steps
    tiny.fit(tmp_path / "run", config)
    assert_same_until(tmp_path / "run", tmp_path / "whole", 18)


def test_a_finished_run_with_more_minutes_goes_on_from_where_its_rate_fell(tiny, a_step_a_second, tmp_path):
    tiny.fit(tmp_path / "whole", config_of(tiny, 40))
    run = tmp_path / "run"
    first = tiny.fit(run, config_of(tiny, 20))
    tiny.fit(run, config_of(tiny, 40))
    assert_same_until(run, tmp_path / "whole", 30)
    assert json.loads((run / "config.json").read_text())["config"]["loop"]["minutes"] == 40 * SECOND
    # What the first end had reached is not lost.
    (end,) = run.glob("after-*-minutes")
    assert end.name == "after-0.333333-minutes" and saved_steps(end)[-1] == 22
    assert json.loads((end / "config.json").read_text())["config"]["loop"]["minutes"] == 20 * SECOND
    if first.best_step in saved_steps(end):
        chex.assert_trees_all_equal(load_variables(end), first.variables)


def test_a_resumed_run_keeps_time_for_its_last_validation(tiny, a_step_a_second, tmp_path):
    run, config = tmp_path / "run", config_of(tiny, 20)
    tiny.fit(run, config)
    path = run / "validation.json"
    path.write_text(json.dumps({k: {**v, "seconds": 1.5} for k, v in json.loads(path.read_text()).items()}))
    state = training.TrainState.create(
        load_variables(run), config.optimizer.build(None, 5), averaging=bool(config.loop.averaging)
    )
    progress, _ = training.Progress.resume(run, state, config.loop, config.optimizer)
    progress.checkpoints.close()
    assert progress.budget.reserved == 1.5


def test_fewer_minutes_are_refused(tiny, a_step_a_second, tmp_path):
    tiny.fit(tmp_path / "run", config_of(tiny, 8))
    before = final_state(tmp_path / "run")
    with pytest.raises(ValueError, match=r"other settings \(loop\.minutes .*, was "):
        tiny.fit(tmp_path / "run", config_of(tiny, 6))
    with pytest.raises(ValueError, match=r"other settings \(loop\.averaging"):
        tiny.fit(tmp_path / "run", config_of(tiny, 12, averaging=0.5))
    chex.assert_trees_all_equal(final_state(tmp_path / "run"), before)


@pytest.mark.parametrize("when", ["step", "validation"])
def test_sigterm_saves_and_then_takes_effect(tiny, a_step_a_second, tmp_path, monkeypatch, when):
    config = config_of(tiny, 20)
    tiny.fit(tmp_path / "whole", config)
    came = []
    before = signal.signal(signal.SIGTERM, lambda *_: came.append(saved_steps(tmp_path / "run")))
    write, found = training.Log.write, training.Validation._outputs

    def signalled(self, step, values, *, group):
        if step == 10 and when == "step":
            os.kill(os.getpid(), signal.SIGTERM)
        write(self, step, values, group=group)

    def signalled_outputs(self, *arguments):
        if when == "validation" and lines_of(tmp_path / "run", "val"):  # in the second
            os.kill(os.getpid(), signal.SIGTERM)
        yield from found(self, *arguments)

    try:
        with monkeypatch.context() as patch:
            patch.setattr(training.Log, "write", signalled)
            patch.setattr(training.Validation, "_outputs", signalled_outputs)
            with pytest.raises(TrainingError, match="asked to stop: the checkpoints hold what was reached"):
                tiny.fit(tmp_path / "run", config)
    finally:
        assert signal.signal(signal.SIGTERM, before) is not before
    (saved,) = came  # all was written before the program's own handler was called
    assert saved[-1] == 12
    tiny.fit(tmp_path / "run", config)
    assert_same_until(tmp_path / "run", tmp_path / "whole", 18)


def test_without_validation_the_last_average_is_kept(tiny, tmp_path):
    config = tiny.changed(loop={"validate": False}, data={"val": ("absent",)})
    result = tiny.fit(tmp_path / "run", config)
    assert (result.best_step, result.best) == (12, {}) and lines_of(tmp_path / "run", "val") == []
    chex.assert_trees_all_equal(load_variables(tmp_path / "run"), result.variables)
    assert list(json.loads((tmp_path / "run" / "config.json").read_text())["data"]) == ["train"]


def test_an_epoch_is_a_pass_over_the_images(tiny, tmp_path, monkeypatch):
    """Of windows, too: they are many to an image."""
    schedule = training._Schedule.of(LoopConfig(epochs=3, batch_size=4), 18)
    assert (schedule.per_epoch, schedule.steps, schedule.validation) == (5, 15, 5)


def test_dispatches_of_a_budget_have_one_length(tiny, a_step_a_second, tmp_path):
    config = config_of(tiny, 20, eval_epochs=1)  # five steps are no multiple of the two of a dispatch
    tiny.fit(tmp_path / "run", config)
    steps = [line["step"] for line in lines_of(tmp_path / "run")]
    assert set(np.diff(steps)) == {2} and [line["step"] for line in lines_of(tmp_path / "run", "val")][0] == 6
