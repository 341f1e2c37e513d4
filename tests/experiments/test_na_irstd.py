"""The Na-IRSTD experiment at a tiny size: both stages through the command, what stays frozen, its ablations."""

import contextlib
import dataclasses
import io
import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import irjax
from irjax import cli
from irjax.data.splits import DataConfig
from irjax.errors import UserError
from irjax.experiments import na_irstd
from irjax.losses.na_irstd import mask_loss
from irjax.methods.na_irstd import objective, relevance_objective
from irjax.models.na_irstd import NaIrstdOutputs
from irjax.studies.relevance import analyse_relevance, relevance_scores, selection_curve
from irjax.training.checkpoints import load_variables
from irjax.training.configs import replace_parts

SMALL = [
    *("--data.size", "64", "--data.synthetic-train", "12", "--data.synthetic-val", "4"),
    *("--data.scenes.height", "64", "--data.scenes.width", "64"),
    *("--model.native-width", "4", "--model.widths", "16", "16", "16", "16", "--model.depths", "0", "0", "0", "0"),
    *("--model.decoder-width", "16", "--model.decoder-hidden", "16", "--model.selected", "2"),
    *("--relevance.steps", "2", "--loop.steps", "4", "--loop.batch-size", "4", "--loop.steps-per-dispatch", "2"),
    *("--loop.devices", "1", "--loop.no-tensorboard"),
]


def run_command(*arguments):
    source, out = DataConfig.open, io.StringIO()
    with contextlib.redirect_stdout(out), pytest.MonkeyPatch.context() as patch:
        patch.setattr(DataConfig, "open", lambda self, split: source(self, "val" if split == "test" else split))
        na_irstd.main([*SMALL, *arguments])
    return out.getvalue()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    run = tmp_path_factory.mktemp("na_irstd") / "run"
    return run, run_command("--stage", "1", "--run", str(run)), run_command("--stage", "2", "--run", str(run))


@pytest.mark.slow
def test_both_stages_log_the_selection_and_the_second_reports(trained):
    run, first, second = trained
    assert "go on with --stage 2" in first and "IoU" not in first
    assert "Na-IRSTD IoU" in " ".join(second.split()) and "top-hat F1" in " ".join(second.split())
    assert "false regions an image (na_irstd)" in second
    for folder, step in ((run / "stage1", "2"), (run, "4")):
        validation = json.loads((folder / "validation.json").read_text())[step]
        assert 0 <= validation["recall"] <= 1 and 0 <= validation["coverage"] <= 1
    assert "miou" in validation


@pytest.mark.slow
def test_the_scorer_is_frozen_and_the_rest_learns(trained):
    run = trained[0]
    first, second = (load_variables(folder)["params"] for folder in (run / "stage1", run))
    chex.assert_trees_all_equal(first["scorer"], second["scorer"])  # bit for bit
    for part in ("backbone", "native", "injection", "decoder"):
        pairs = zip(jax.tree.leaves(first[part]), jax.tree.leaves(second[part]), strict=True)
        assert any((np.asarray(a) != np.asarray(b)).any() for a, b in pairs), part


@pytest.mark.slow
def test_the_first_stage_teaches_the_native_branch_and_the_scorer_alone(trained):
    config = na_irstd.first_stage(na_irstd.parse([*SMALL]).config)
    network = relevance_objective(config).model
    images = jnp.zeros((1, 64, 64, 1))
    learnt = load_variables(trained[0] / "stage1")
    start = jax.eval_shape(network.init, jax.random.key(0), images)
    assert jax.tree.structure(start["params"]) == jax.tree.structure(learnt["params"])
    outputs = jax.jit(network.apply)(learnt, images)
    assert outputs.logits is None and outputs.scores.shape == (1, 2, 2)


@pytest.mark.slow
def test_the_run_loads_as_a_detector(trained):
    detector = irjax.load(str(trained[0]))
    assert detector.module.selected == 2 and not detector.module.only_scores
    found = detector(np.random.default_rng(0).integers(0, 255, (2, 50, 64), np.uint8))
    chex.assert_shape(found.masks, (2, 50, 64))
    assert detector.kept_patches(np.zeros((64, 64), np.uint8)).mean() == 0.5  # 2 of 4 patches


@pytest.mark.slow
def test_what_it_selects_is_measured_and_drawn(trained, two_images, tmp_path, capsys):
    out = tmp_path / "out"
    cli.main(["analyse", "relevance", str(two_images), "--model", str(trained[0]), "--split", "all", "--out", str(out)])
    assert "all images" in capsys.readouterr().out
    assert {path.name for path in out.iterdir()} == {
        ".irjax-written.json", "01_small.png", "02_wide.png", "selection.png", "selection.json"
    }  # fmt: skip
    found = json.loads((out / "selection.json").read_text())
    assert found["images"] == 2 and found["all"]["recall"][-1] == 1.0  # all four patches
    assert found["all"] == found["few"]


@pytest.mark.slow
def test_measured_scores_are_those_of_the_detector(trained):
    detector = irjax.load(str(trained[0]))
    stored = np.random.default_rng(0).integers(0, 256, (1, 64, 64), np.uint8)
    scores = relevance_scores(detector, detector.variables, jnp.asarray(stored))
    seen = lambda module, variables, inputs: jnp.repeat(  # noqa: E731
        jnp.repeat(module.apply(variables, inputs, train=False).scores[:, None], 32, 2), 32, 3
    )
    np.testing.assert_allclose(scores.reshape(2, 2), detector.inner_maps(stored[0], seen)[0, ::32, ::32], atol=1e-5)
    assert np.ptp(scores) > 1e-3


def test_selection_of_a_network_that_selects_nothing(two_images, tmp_path):
    with pytest.raises(ValueError, match="spire-sirst selects no patches"):
        analyse_relevance(tmp_path, "spire-sirst", two_images, split="all")


def test_coverage_and_recall_against_k():
    scores = np.array([[0.0, 3.0, 1.0, 2.0], [5.0, 1.0, 0.0, 2.0]])
    positive = np.array([[False, True, True, False], [False, False, False, True]])
    coverage, recall = selection_curve(scores, positive)  # hits at ranks 1 and 3; 2
    np.testing.assert_allclose(coverage, [1 / 2, 2 / 4, 3 / 6, 3 / 8])
    np.testing.assert_allclose(recall, [1 / 3, 2 / 3, 1, 1])
    assert np.isnan(selection_curve(scores, np.zeros_like(positive))[1]).all()


@pytest.mark.parametrize(
    ("name", "count"), [("branch", 3), ("stages", 2), ("labels", 2), ("stages-labels", 4), ("k", 6)]
)
def test_variants_of_the_ablations(name, count):
    base = na_irstd.quick()
    variants = na_irstd.EXPERIMENT.ablation(name, base)
    assert len(variants) == count and base in variants.values()
    assert len({str(config) for config in variants.values()}) == count
    for model in {objective(config).model for config in variants.values()}:  # many are of one network
        images = jax.ShapeDtypeStruct((1, 128, 128, 1), jnp.float32)
        output, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), images)
        assert output.logits.shape == (1, 128, 128)


@pytest.mark.parametrize("recipe", sorted(na_irstd.RECIPES))
def test_recipes_can_start(recipe):
    config = na_irstd.RECIPES[recipe]()
    side = config.augment.crop or config.data.size
    for size in {config.data.size, side}:
        images = jax.ShapeDtypeStruct((1, size, size, config.model.channels), jnp.float32)
        jax.eval_shape(objective(config).model.init, jax.random.key(0), images)


def test_the_loss_is_the_configs():
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(2, 64, 64)), jnp.float32)
    outputs = NaIrstdOutputs(logits, logits[:, ::4, ::4])
    target = jnp.zeros((2, 64, 64), bool).at[0, 20:23, 30:32].set(True)
    for form in ("pixels", "targets"):
        config = replace_parts(na_irstd.quick(), loss={"cross_entropy": form})
        wanted = mask_loss(outputs, target, cross_entropy=form)
        np.testing.assert_array_equal(objective(config).loss(outputs, target), wanted)


def test_table_v_is_one_command():
    command = na_irstd.parse(["--ablation", "stages-labels"])
    variants = na_irstd.EXPERIMENT.ablation(command.ablation, command.config)
    assert {name: (config.stages, config.relevance.label) for name, config in variants.items()} == {
        f"{stages} {label}": (stages, label) for stages in ("one", "two") for label in ("hard", "soft")
    }
    assert variants["one hard"].loop == na_irstd.EXPERIMENT.ablation("stages", command.config)["one"].loop
    assert variants["two soft"] == command.config


def test_one_stage_is_as_long_as_two():
    one = na_irstd.EXPERIMENT.ablation("stages", na_irstd.official())["one"]
    assert one.loop.epochs == 2000 and not one.two
    assert na_irstd.EXPERIMENT.ablation("stages", na_irstd.quick())["one"].loop.steps == 450
    for mixed in (
        replace_parts(na_irstd.official(), relevance={"steps": 30}),
        replace_parts(na_irstd.quick(), relevance={"steps": 0}),
    ):
        with pytest.raises(UserError, match="give --loop.steps and --relevance.steps, or neither"):
            na_irstd.EXPERIMENT.ablation("stages", mixed)


def test_minutes_are_shared_between_the_stages(tmp_path, monkeypatch):
    lengths = []

    def note(method, config, run, **_):
        lengths.append((run.name, config.loop.minutes, config.loop.steps))
        (run / "checkpoints" / "7").mkdir(parents=True, exist_ok=True)
        (run / "config.json").write_text(json.dumps({"config": {"loop": {"minutes": config.loop.minutes}}}))

    monkeypatch.setattr(na_irstd.one_run, "train", note)
    config = lambda minutes: na_irstd.parse(["--loop.minutes", str(minutes)]).config  # noqa: E731
    na_irstd.train(config(100), tmp_path / "run")
    assert lengths == [("stage1", 25, 0), ("run", 75, 0)]
    # The second has begun, so that more is all for it.
    na_irstd.train(config(160), tmp_path / "run")
    assert lengths[2:] == [("stage1", 25, 0), ("run", 135, 0)]
    na_irstd.train(dataclasses.replace(config(40), stage=1), tmp_path / "other")
    assert lengths[4:] == [("stage1", 40, 0)]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model.selected", "9"], "selected must be in 1..4, the patches of 64x64"),
        (["--stages", "one", "--stage", "2"], "stage picks one of two stages"),
        (["--stage", "2"], "stage 2 starts from stage 1"),
        (["--relevance.decay", "0"], "must be positive"),
    ],
)
def test_wrong_arguments(arguments, said, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        na_irstd.main([*SMALL, *arguments, "--run", str(tmp_path / "run")])
    line = str(stopped.value)
    assert said in line and capsys.readouterr().err.splitlines() == [line]
