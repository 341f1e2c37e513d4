"""Tables of ablations from runs that are not trained here."""

import dataclasses
import functools
import json

import numpy as np
import pytest

from irjax.experiments.ablation import ablate


@dataclasses.dataclass(frozen=True)
class Loop:
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Config:
    bonus: float = 0.0
    loop: Loop = dataclasses.field(default_factory=Loop)


VARIANTS = {"plain one": Config(), "better": Config(bonus=1.0)}


def figures(f1, **others):
    return {"validation": {"metrics": {"f1": f1, **others}}}


def test_mean_and_deviation_and_going_on(tmp_path):
    done = []

    def run_one(config, run):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(run.name)
        return figures(config.bonus + config.loop.seed, fa=None if config.loop.seed else 2.0)

    with pytest.raises(KeyboardInterrupt):
        ablate(VARIANTS, (0, 1), run_one, tmp_path, ("f1", "fa"))
    assert done == ["plain_one-seed0", "plain_one-seed1", "better-seed0"]
    assert not (tmp_path / "ablation.md").exists()
    done[:] = [1]
    text = ablate(VARIANTS, (0, 1), run_one, tmp_path, ("f1", "fa"))
    assert done == [1, "better-seed1"] and "1.5 ± 0.707" in text and "0.5 ± 0.707" in text
    written = json.loads((tmp_path / "ablation.json").read_text())
    better = written["variants"]["validation"]["better"]
    assert written["seeds"] == [0, 1] and better["f1"]["mean"] == 1.5
    np.testing.assert_allclose(better["f1"]["std"], np.sqrt(0.5))
    assert better["fa"]["mean"] is None
    assert (tmp_path / "ablation.md").read_text() == text + "\n"


def test_one_seed_has_intervals_and_every_set_of_images_a_table(tmp_path):
    def run_one(config, run):
        tested = {"metrics": {"IoU": 0.5, "Pd": 0.9}, "intervals": {"IoU": (0.25, 0.75), "Pd": (0.875, 1.0)}}
        return {**figures(0.25), "SIRST val": tested, "NUDT val": tested}

    sets = ("validation", "SIRST val", "NUDT val")
    text = ablate(VARIANTS, (5,), run_one, tmp_path, ("f1", "IoU"), sets)
    tables = text.split("\n\n")
    assert tables[::2] == list(sets)
    assert "| 0.25" in tables[1] and "±" not in text and "[" not in tables[1]
    assert tables[3].count("0.5 [0.25, 0.75]") == 2 and "Pd" not in text


def test_results_of_another_config_are_refused(tmp_path):
    ablate({"a": Config()}, (0,), lambda config, run: figures(1.0), tmp_path, ("f1",))
    with pytest.raises(ValueError, match=r"result\.json is of another config"):
        ablate({"a": Config(bonus=2.0)}, (0,), lambda config, run: figures(2.0), tmp_path, ("f1",))


def test_finished_runs_are_measured_on_what_is_asked_for_later(tmp_path):
    seen = []

    def run_one(config, run, tests=()):
        seen.append(run.name)
        return {**figures(config.bonus), **{test: {"metrics": {"IoU": 0.5}} for test in tests}}

    with_test = functools.partial(run_one, tests=("SIRST val",))
    ablate(VARIANTS, (0,), run_one, tmp_path, ("f1", "IoU"))
    text = ablate(VARIANTS, (0,), with_test, tmp_path, ("f1", "IoU"), ("validation", "SIRST val"))
    assert len(seen) == 4 and "SIRST val" in text
    again = ablate(VARIANTS, (0,), run_one, tmp_path, ("f1", "IoU"))
    assert len(seen) == 4 and "validation" in again and "SIRST val" not in again
