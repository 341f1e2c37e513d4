"""The ADSNet experiment at a tiny size: training through the command, what it logs, variants of its ablations."""

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
from irjax.data import network_views, open_source
from irjax.data.splits import DataConfig
from irjax.detector.weights import load_weights
from irjax.experiments import adsnet
from irjax.io.files import json_values
from irjax.methods.adsnet import objective
from irjax.ops.normalize import normalize, to_unit
from irjax.studies.patches import compare_masks
from irjax.training.configs import differences

SMALL = [
    *("--data.size", "64", "--data.synthetic-train", "12", "--data.synthetic-val", "4"),
    *("--data.scenes.height", "64", "--data.scenes.width", "64"),
    *("--model.width", "8", "--model.widths", "4", "8", "8"),
    *("--loop.steps", "4", "--loop.batch-size", "4", "--loop.steps-per-dispatch", "2", "--loop.devices", "1"),
    *("--augment.crop", "48", "--loop.no-tensorboard"),
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    run, out = tmp_path_factory.mktemp("adsnet") / "run", io.StringIO()
    source = DataConfig.open
    with contextlib.redirect_stdout(out), pytest.MonkeyPatch.context() as patch:
        patch.setattr(DataConfig, "open", lambda self, split: source(self, "val" if split == "test" else split))
        adsnet.main([*SMALL, "--run", str(run)])
    return run, out.getvalue()


def test_the_command_trains_logs_recall_and_reports(trained):
    run, printed = trained
    assert "recall3" in printed and "ADSNet   IoU" in printed and "(basicirstd)" in printed and "top-hat  F1" in printed
    validation = json.loads((run / "validation.json").read_text())["4"]
    assert 0 <= validation["recall2"] <= validation["recall3"] <= 1
    assert json.loads((run / "config.json").read_text())["config"]["model"]["dropped"] == [0.25, 0.5]


def test_the_run_loads_as_a_detector_that_computes_kept_patches(trained):
    detector = irjax.load(str(trained[0]))
    assert detector.module.mode == "gather_sparse" and not detector.module.heads
    found = detector(np.random.default_rng(0).integers(0, 255, (2, 50, 64), np.uint8))
    chex.assert_shape(found.masks, (2, 50, 64))
    pure = jax.jit(detector.predict_fn)(detector.variables, jnp.zeros((1, 64, 64)))
    chex.assert_shape(pure.masks, (1, 64, 64))


def test_pictures_of_kept_patches(trained, two_images, tmp_path, capsys):
    cli.main(["analyse", "patches", str(two_images), "--model", str(trained[0]), "--out", str(tmp_path / "out")])
    printed = capsys.readouterr().out
    assert "2 pictures" in printed and "of targets 2" in printed
    assert sorted(path.name for path in (tmp_path / "out").glob("[!.]*")) == ["01_small.png", "02_wide.png"]
    detector = irjax.load(str(trained[0]))
    kept = detector.kept_patches(np.zeros((64, 64), np.uint8))
    assert kept.shape == (2, 64, 64) and kept[0].mean() == 0.75 and kept[1].mean() == 0.5
    assert (kept[1] <= kept[0]).all()
    with pytest.raises(ValueError, match="HRPE drops no patches"):
        irjax.load("spire-sirst").kept_patches(np.zeros((64, 64), np.uint8))


def test_masks_of_prediction_and_of_training_are_compared(trained, two_images, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["analyse", "patches", str(two_images), "--model", str(trained[0]), "--out", str(out)]
    cli.main([*arguments, "--number", "0", "--as-trained", "2"])
    assert [path.name for path in out.glob("[!.]*")] == ["masks.json"]
    assert "decided with noise, mean of 2" in capsys.readouterr().out
    found = json.loads((out / "masks.json").read_text())
    assert set(found) == {"ranked", "decided", "decided with noise 0", "decided with noise 1", "all kept"}
    assert (found["ranked"]["kept3"], found["ranked"]["kept2"]) == (0.75, 0.5)
    assert found["all kept"]["kept2"] == found["all kept"]["recall2"] == 1
    assert all(row["kept2"] <= row["kept3"] and row["recall2"] <= row["recall3"] for row in found.values())
    assert found["decided with noise 0"] != found["decided with noise 1"]

    (drawn,) = [row for name, row in found.items() if name == "decided"]
    detector, kept = irjax.load(str(trained[0])), []
    source = open_source(two_images, "all")
    for index in range(len(source)):  # as training decides, without noise
        (view,) = network_views(source[index], 64, 32)
        inputs = normalize(to_unit(view["images"][None]), "imagenet", 1)
        module = detector.module.clone(heads=True, selection="decided")
        outputs = module.apply(detector.variables, inputs)
        wins = [np.asarray(decision[..., 0] >= decision[..., 1]) for decision in outputs.decisions]
        kept.append([wins[0].mean(), (wins[0] & wins[1]).mean()])
    np.testing.assert_allclose([drawn["kept3"], drawn["kept2"]], np.mean(kept, axis=0), atol=1e-6)


@pytest.mark.parametrize(
    ("model", "seeds", "said"), [("spire-sirst", 1, "no ADSNet"), ("adsnet-sirst", 0, "at least 1")]
)
def test_masks_that_cannot_be_compared(model, seeds, said, two_images, tmp_path):
    with pytest.raises(ValueError, match=said):
        compare_masks(tmp_path, model, two_images, split="all", seeds=seeds)


@pytest.mark.parametrize(
    ("name", "count"), [("attention", 4), ("distribution", 3), ("score", 2), ("grid", 4), ("ratios", 5)]
)
def test_variants_of_the_ablations(name, count):
    base = adsnet.quick()
    variants = adsnet.EXPERIMENT.ablation(name, base)
    assert len(variants) == count and base in variants.values()
    assert len({str(config) for config in variants.values()}) == count
    for config in variants.values():
        model = objective(config).model
        images = jax.ShapeDtypeStruct((1, 128, 128, 1), jnp.float32)
        output, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), images)
        assert output.logits.shape == (1, 128, 128)


def test_ablations_that_there_are_not():
    with pytest.raises(ValueError, match="no ablation 'width'"):
        adsnet.EXPERIMENT.ablation("width", adsnet.quick())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model.dropped", "0.5", "0.2"], "level 2 cannot keep more patches than level 3"),
        (["--model.cell", "12"], "a cell must be a power of two"),
        (["--loss.recall-weight", "-1"], "must not be negative"),
        (["--loss.segmentation", "focal", "focal"], "loss.segmentation must have one or several different ones"),
    ],
)
def test_wrong_arguments(arguments, said, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        adsnet.main([*SMALL, *arguments, "--run", str(tmp_path / "run")])
    line = str(stopped.value)
    assert said in line and capsys.readouterr().err.splitlines() == [line]


def test_the_terms_of_the_loss_reach_the_method():
    losses, images = [], jnp.zeros((1, 64, 64, 1))
    network = objective(adsnet.parse(SMALL).config).model
    outputs = jax.jit(lambda key: network.apply(network.init(key, images), images))(jax.random.key(0))
    for terms in (("focal",), ("focal", "soft_iou")):
        flags = ["--loss.segmentation", *terms]
        config = adsnet.parse([*SMALL, *flags]).config
        assert config.loss.segmentation == terms
        trained = objective(config)
        losses.append(float(trained.loss(outputs, jnp.zeros((1, 64, 64), bool))[0]))
    assert 0.5 < losses[1] - losses[0] <= 1  # the soft IoU of nothing with little


def test_no_config_of_before_is_one_of_now():
    """Where L_seg was named by a word, the soft IoU was added to it unsaid: such a run must not go on as another."""
    for recipe in adsnet.RECIPES.values():
        now = recipe()
        for before in ("focal", "cross_entropy"):
            saved = json_values(dataclasses.asdict(now))
            saved["loss"]["segmentation"] = before
            assert differences(saved, now)
            del saved["loss"]["segmentation"]
            assert differences(saved, now)


def test_the_recipe_of_the_shipped_weights_keeps_their_loss():
    assert adsnet.sirst().loss.segmentation == ("cross_entropy", "soft_iou")
    last = load_weights(irjax.detector.weights.names()["adsnet-sirst"])[2]["recipe"]["stages"][-1]
    assert last["loss"] == {"segmentation": "cross_entropy", "sparsity_weight": 2.0, "recall_weight": 1.0}


def test_the_official_recipe_is_the_papers():
    config = adsnet.official()
    assert config.loss.segmentation == ("focal",)
    rate = config.optimizer.learning_rate(config.loop.steps, 34)
    np.testing.assert_allclose(
        [rate(4000), rate(29_000), rate(31_000), rate(41_000)], [0.02, 0.02, 2e-3, 2e-4], rtol=1e-3
    )
