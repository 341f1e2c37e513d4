import contextlib
import dataclasses
import functools
import io
import json
import pathlib
import types

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import irjax
from irjax.commands.models import Models
from irjax.data.augment import AugmentConfig
from irjax.data.cache import cut, load_cache
from irjax.data.clutter import SceneConfig
from irjax.data.splits import DataConfig
from irjax.data.synthetic import SyntheticSource
from irjax.detector import weights
from irjax.errors import Note
from irjax.experiments import command, mshnet, ship
from irjax.losses.scale import VARIANTS
from irjax.methods.detector_config import DetectorConfig
from irjax.methods.mshnet import METHOD, LossConfig, ModelConfig, objective
from irjax.metrics import evaluate
from irjax.models import MSHNet
from irjax.training.checkpoints import load_variables
from irjax.training.optimizers import OptimizerConfig
from irjax.training.state import TrainState
from irjax.training.steps import make_train_step
from irjax.types import SegmentationLogits

SCENES = SceneConfig(height=64, width=64, targets=(1, 3), scr=(8.0, 12.0))
TINY = ModelConfig(widths=(4, 8), depths=(1, 1))
SMALL = [
    *("--data.size", "64", "--data.synthetic-train", "12", "--data.synthetic-val", "4", "--data.max-points", "8"),
    *(
        "--data.scenes.height",
        "64",
        "--data.scenes.width",
        "64",
        "--model.widths",
        "4",
        "8",
        "--model.depths",
        "1",
        "1",
    ),
    *("--loop.steps", "4", "--loop.batch-size", "4", "--loop.steps-per-dispatch", "2", "--loop.devices", "1"),
    *("--augment.crop", "48", "--loop.no-tensorboard"),
]


def dataset(root, names=8):
    """Scenes as files: images/ with masks/."""
    source = SyntheticSource(SCENES, 5, names)
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for index in range(names):
        example = source[index]
        Image.fromarray(example.image).save(root / "images" / f"im{index}.png")
        Image.fromarray(example.mask.astype(np.uint8) * 255).save(root / "masks" / f"im{index}.png")
    return root


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on files through the command, its data, and what it printed."""
    folder = tmp_path_factory.mktemp("mshnet")
    root, run, out = dataset(folder / "data"), folder / "run", io.StringIO()
    with contextlib.redirect_stdout(out):
        mshnet.main([*SMALL, "--data.root", str(root), "--run", str(run)])
    return run, root, out.getvalue()


# --- method -----------------------------------------------------------------------------------------------------------


def by_hand(logits, target):
    """One minus the plain soft IoU of one mask of one image."""
    p = 1 / (1 + np.exp(-logits))
    both = (p * target).sum()
    return 1 - both / (p.sum() + target.sum() - both)


@pytest.fixture
def masks():
    """Logits of a network with five scales, and targets of which some are one pixel."""
    rng = np.random.default_rng(0)
    sides = tuple(rng.normal(size=(2, 32 >> s, 32 >> s)).astype(np.float32) for s in range(4))
    target = np.zeros((2, 32, 32), bool)
    target[0, 5, 7] = target[0, 20:24, 11:14] = target[1, 31, 31] = True
    return SegmentationLogits(rng.normal(size=(2, 32, 32)).astype(np.float32), sides), target


def test_the_loss_is_the_mean_of_five_on_max_pooled_targets(masks):
    outputs, target = masks
    config = mshnet.MshnetConfig(loss=LossConfig(variant="none", location="none"))
    found = objective(config).loss(outputs, target)
    chex.assert_shape(found, (2,))
    for image in range(2):
        values = [by_hand(outputs.logits[image], target[image])]
        for scale, side in enumerate(outputs.sides):
            pooled = np.zeros(side.shape[1:])
            for y, x in np.argwhere(target[image]):
                pooled[y >> scale, x >> scale] = 1
            values.append(by_hand(side[image], pooled))
        np.testing.assert_allclose(found[image], np.mean(values), rtol=1e-5)


def test_the_warm_loss_is_the_plain_iou_of_the_finest_side(masks):
    outputs, target = masks
    trained = objective(mshnet.official())
    found = trained.warm_loss(outputs, target)
    np.testing.assert_allclose(found, [by_hand(outputs.sides[0][i], target[i]) for i in range(2)], rtol=1e-5)
    assert trained.warm_epochs == 6


@pytest.mark.parametrize(
    "loss",
    [
        *(LossConfig(variant=variant) for variant in VARIANTS),
        *(LossConfig(variant="variance", location=location) for location in ("official", "none")),
        LossConfig(name="dynamic"),
        LossConfig(name="soft_iou"),
    ],
)
def test_all_losses_differ_and_have_finite_gradients(masks, loss):
    outputs, target = masks
    target = target.copy()
    target[1] = False  # an image without targets
    trained = objective(mshnet.MshnetConfig(loss=loss))
    value, gradients = jax.value_and_grad(lambda outputs: jnp.sum(trained.loss(outputs, target)))(outputs)
    chex.assert_tree_all_finite((value, gradients))
    assert all(np.any(g) for g in jax.tree.leaves(gradients))
    plain = objective(mshnet.MshnetConfig(loss=LossConfig(variant="none", location="none")))
    assert abs(value - np.sum(plain.loss(outputs, target))) > 1e-4


def test_targets_follow_the_images_through_augmentation():
    source = SyntheticSource(SCENES, 3, 4)
    batch = cut(load_cache(source, 64, 8, with_masks=True), np.arange(4), np.arange(4))
    # Bright targets on black: afterwards the mask is where the image is bright.
    bright = dataclasses.replace(batch, images=np.where(batch.mask, 255, 1).astype(np.uint8))
    config = mshnet.MshnetConfig(
        model=ModelConfig(normalization="unit"), augment=AugmentConfig(crop=48, flips=True, rotations=True)
    )
    inputs, target = objective(config).prepare(bright, jax.random.split(jax.random.key(1), 4))
    chex.assert_shape(inputs, (4, 48, 48, 1))
    np.testing.assert_array_equal(np.asarray(inputs[..., 0] > 0.5), np.asarray(target))
    assert target.any()
    whole, target = objective(config).prepare(batch, None)
    chex.assert_shape(whole, (4, 64, 64, 1))
    np.testing.assert_array_equal(target, batch.mask)


@functools.cache
def overfitted():
    """70 steps on 2 scenes, of which 20 are warm: (state before, after the warm steps, after all; losses)."""
    config = mshnet.MshnetConfig(
        model=ModelConfig(widths=(8, 16), depths=(1, 1)),
        optimizer=OptimizerConfig(rate=1e-2, warmup_epochs=0, schedule="constant"),
    )
    trained = objective(config)
    batch = cut(load_cache(SyntheticSource(SCENES, 3, 2), 64, 8, with_masks=True), np.arange(2), np.arange(2))
    tx = config.optimizer.build(70, 10)
    variables = jax.jit(functools.partial(trained.model.init, train=False))(
        jax.random.key(0), jnp.zeros((1, 64, 64, 1))
    )
    state = TrainState.create(variables, tx, averaging=False)
    step = jax.jit(make_train_step(trained, tx, seed_key=jax.random.key(1), warm_steps=20))
    states, losses = [state], []
    for number in range(70):
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
        if number == 19:
            states.append(state)
    return [*states, state], losses


@pytest.mark.slow
def test_two_scenes_can_be_learned():
    _, losses = overfitted()
    assert np.isfinite(losses).all()
    assert losses[19] < losses[0] - 0.03  # the warm phase, under its own loss
    assert np.mean(losses[-5:]) < 0.65 * np.mean(losses[20:23])


def test_only_the_finest_side_learns_in_the_warm_phase():
    (before, warm, after), _ = overfitted()
    kernels = [state.variables["params"]["final"]["kernel"] for state in (before, warm, after)]
    np.testing.assert_allclose(kernels[0], kernels[1], atol=1e-4)  # but for the decay of weights
    assert np.abs(kernels[2] - kernels[0]).max() > 0.01
    sides = [state.variables["params"]["side0"]["kernel"] for state in (before, warm)]
    assert np.abs(sides[0] - sides[1]).max() > 0.01


def test_the_network_is_that_of_the_options():
    options = {"orient": "bank", "free_weight": False, "first_layers": "pinwheel", "widths": (4, 8), "depths": (1, 2)}
    model = ModelConfig("gaussian_pinwheel_rotated", **options, channels=3)
    network = objective(mshnet.MshnetConfig(model=model), "batch").model
    assert network == MSHNet("gaussian_pinwheel_rotated", **options, axis_name="batch")
    config = DetectorConfig.of_run(METHOD, mshnet.MshnetConfig(model=model))
    assert (config.channels, config.size, config.threshold) == (3, 256, 0.5)
    assert dataclasses.replace(config.module(), axis_name="batch") == network


# --- end to end -------------------------------------------------------------------------------------------------------


def test_the_command_prints_both_protocols_and_writes_the_report(trained):
    run, _, printed = trained
    assert "step 4: validation" in printed and "miou" in printed
    lines = [line for line in printed.splitlines() if line.startswith("  MSHNet   IoU")]
    assert "nIoU" in lines[0] and "Pd" in lines[0] and "(irjax)" in lines[0] and "(basicirstd)" in lines[1]
    assert "(scale_loss)" in lines[3]
    assert "MSHNet   F1" in printed and "top-hat  F1" in printed and f"irjax.load('{run}')" in printed
    names = {path.name for path in (run / "test").iterdir()}
    assert names >= {"masks", "evaluation.json", "predictions.json", "points", "tophat.json"}
    report = json.loads((run / "test" / "evaluation.json").read_text())
    assert set(report["protocols"]) == {"irjax", "basicirstd", "adsnet", "scale_loss"} and report["kind"] == "maps"
    assert all("IoU" in column["intervals"] for column in report["protocols"].values())
    assert json.loads((run / "test" / "points" / "evaluation.json").read_text())["kind"] == "points"


def test_the_run_loads_as_a_detector_of_masks(trained):
    run, root, _ = trained
    detector = irjax.load(str(run))
    assert detector.config.method == "mshnet" and tuple(detector.config.model["widths"]) == (4, 8)
    chex.assert_trees_all_equal(jax.device_get(detector.variables), load_variables(run))
    source = DataConfig(root=(str(root),), size=64).open("val")
    found = detector([source[index].image for index in range(len(source))])
    assert found.masks.shape == (len(source), 64, 64)
    for name, mask in zip(source.names, found.masks, strict=True):
        with Image.open(run / "test" / "masks" / f"{name}.png") as image:
            np.testing.assert_array_equal(np.asarray(image) >= 128, mask > 0.5)
    # The checkpoint's validation figures are those of its masks, on the same images.
    validation = json.loads((run / "validation.json").read_text())["4"]
    wanted = evaluate(found.masks, [source[index].mask for index in range(len(source))])["irjax"]
    np.testing.assert_allclose([validation["miou"], validation["fa"]], [wanted["IoU"], wanted["Fa"]], rtol=1e-6)


def test_eval_only_and_shipped_weights(trained, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(weights, "_SMALL", 0)  # all kernels of this network are small
    run, root, printed = trained
    mshnet.main([*SMALL, "--data.root", str(root), "--eval-only", str(run)])
    line = next(line for line in printed.splitlines() if "MSHNet   IoU" in line)
    assert line in capsys.readouterr().out
    path = tmp_path / "tiny.safetensors"
    mshnet.main([*SMALL, "--data.root", str(root), "--eval-only", str(run), "--ship", str(path)])
    assert "float16 on disk changes probabilities by" in capsys.readouterr().out
    variables, config, card = weights.load_weights(path)
    chex.assert_trees_all_close(variables, load_variables(run), atol=1e-3, rtol=1e-3)
    assert 0 < card["recipe"]["rounding"] < 1e-3
    assert config == irjax.load(str(run)).config and path.stat().st_size < 40_000  # 2 bytes a value
    assert {"IoU", "nIoU"} <= set(card["validation"]["data val"]["metrics"])
    assert "experiments.mshnet" in card["command"] and "score_factor" not in card["recipe"]

    # what is uploaded of a run is what --ship writes, without figures
    pushed = Models(push="me/mine", model=str(run))
    with pytest.warns(Note, match="its card lacks validation figures"):
        shared, _, card = weights.load_weights(pushed._weights(tmp_path / "push"))
    chex.assert_trees_all_equal(shared, variables)
    assert card["validation"] == "not measured where they were trained" and "--push me/mine" in card["command"]

    # a run that went on from these weights tells of both trainings, one whose start is gone of itself alone
    record = json.loads((run / "config.json").read_text())
    for start, count in ((path, 2), (run, 2), (tmp_path / "gone.safetensors", 1)):
        record["config"]["initial"] = str(start)
        (tmp_path / "config.json").write_text(json.dumps(record))
        stages = ship.card(tmp_path, {}, {"val": {}}, "command")["recipe"]["stages"]
        assert len(stages) == count and stages[-1]["initial"] == "/".join(start.parts[-2:])  # no place of a machine
        assert stages[0]["data"]["root"] == [root.name]


def test_the_subset_of_tiny_targets_takes_some_images(tmp_path):
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for name, side in (("tiny", 4), ("large", 5), ("none", 0)):
        mask = np.zeros((512, 512), np.uint8)
        mask[100 : 100 + 2 * side, 200 : 200 + 2 * side] = 255  # half as large at 256x256
        Image.fromarray(mask).save(tmp_path / "masks" / f"{name}.png")
        Image.fromarray(mask // 2 + 20).save(tmp_path / "images" / f"{name}.png")
    arguments = ["--data.root", str(tmp_path), "--test", "all", "--subset", "irstd-hard"]
    source, what = command._test_source(mshnet.parse(arguments))
    assert source.names == ("tiny",) and source[0].image.shape == (256, 256)
    assert "the 1 images that irstd-hard takes of all of" in what
    (tmp_path / "masks" / "tiny.png").unlink()
    (tmp_path / "images" / "tiny.png").unlink()
    with pytest.raises(ValueError, match="none of 2 images has tiny targets alone"):
        command._test_source(mshnet.parse(arguments))


@pytest.mark.parametrize("name, count", [("loss", 5), ("attention", 4)])
def test_an_ablation_trains_every_variant(name, count, tmp_path):
    base = mshnet.quick()
    variants = mshnet.EXPERIMENT.ablation(name, base)
    assert len(variants) == count and base in variants.values()
    assert len({str(config) for config in variants.values()}) == count
    seen = []

    def train(config, run):
        seen.append((config.loss.variant, config.model.spatial_attention, config.loop.seed))
        assert isinstance(run, pathlib.Path)
        return types.SimpleNamespace(best=dict.fromkeys(("miou", "niou", "pd", "fa", "f1"), float(len(seen))))

    experiment = dataclasses.replace(mshnet.EXPERIMENT, train_stages=train)
    experiment.main([*SMALL, "--ablation", name, "--seeds", "0", "1", "--run", str(tmp_path)])
    assert len(set(seen)) == 2 * count
    written = json.loads((tmp_path / "ablation.json").read_text())["variants"]["validation"]
    assert set(written) == set(variants) and written[next(iter(variants))]["miou"]["mean"] == 1.5


def test_ablations_that_there_are_not():
    with pytest.raises(ValueError, match="no ablation 'width'"):
        mshnet.EXPERIMENT.ablation("width", mshnet.quick())
    base = dataclasses.replace(mshnet.quick(), loss=LossConfig(name="soft_iou"))
    with pytest.raises(ValueError, match="soft_iou has none"):
        mshnet.EXPERIMENT.ablation("loss", base)


def test_the_arms_of_diff_reach_the_loss_from_the_command_line(masks):
    outputs, target = masks
    assert float(jax.nn.sigmoid(outputs.logits).sum()) > target.sum()  # nearly all of it is predicted too large
    losses = {}
    for arms in (("1", "1"), ("3", "1"), ("1", "3")):
        command = mshnet.parse(["--loss.over", arms[0], "--loss.under", arms[1], "--loss.name", "dynamic"])
        assert (command.config.loss.over, command.config.loss.under) == tuple(map(float, arms))
        losses[arms] = np.asarray(objective(command.config).loss(outputs, target))
    assert (losses["3", "1"] > losses["1", "1"]).all()
    assert (losses["3", "1"] > losses["1", "3"]).all()


def test_the_ablation_of_the_loss_keeps_the_arms_for_diff_alone():
    base = dataclasses.replace(mshnet.quick(), loss=LossConfig(over=2.0))
    variants = mshnet.EXPERIMENT.ablation("loss", base)
    assert {name: config.loss.over for name, config in variants.items()} == {
        name: 2.0 if name == "diff" else 1.0 for name in VARIANTS
    }


def test_pinwheel_first_layers_from_the_command_line_to_the_network_and_the_detector():
    config = mshnet.parse([*SMALL, "--model.first-layers", "pinwheel"]).config
    network = objective(config).model
    params = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 64, 64, 1)))["params"]
    assert set(params["stem"]) == {"across", "down", "join"} == set(params["encoder0_0"]["conv1"])
    assert DetectorConfig.of_run(METHOD, config).module().first_layers == "pinwheel"


# --- arguments --------------------------------------------------------------------------------------------------------


def test_help_explains_the_flags(capsys):
    with pytest.raises(SystemExit) as stop:
        mshnet.main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for flag in ("loss.variant", "model.spatial-attention", "loss.warm-epochs", "ship", "ablation", "augment.crop"):
        assert f"--{flag}" in text
    assert "directory of the run" in text and "max-pooled" not in text


@pytest.mark.parametrize("name", sorted(mshnet.RECIPES))
def test_a_recipe_sets_the_defaults(name):
    command = mshnet.parse(["--recipe", name, "--loss.variant", "ratio"])
    wanted = mshnet.RECIPES[name]()
    assert command.config == dataclasses.replace(wanted, loss=dataclasses.replace(wanted.loss, variant="ratio"))
    assert (command.config.augment.crop or command.config.data.size) % 16 == 0


def test_minutes_take_the_place_of_a_recipes_steps():
    command = mshnet.parse(["--recipe", "sirst", "--loop.minutes", "90"])
    assert (command.config.loop.minutes, command.config.loop.steps) == (90, 0)


def test_ablations_count_steps(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        mshnet.main(["--ablation", "loss", "--loop.minutes", "1", "--run", str(tmp_path / "run")])
    assert stop.value.code == 2 and "as long as each other in steps" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--recipe", "paper"], "paper"),
        (["--loss.variant", "square"], "square"),
        (["--loss.name", "dynamic", "--loss.location", "none"], "loss.location"),
        (["--model.widths", "4", "8", "16"], "model.widths"),
        (["--model.widths", "6", "8", "--model.first-layers", "pinwheel"], "multiple of 4"),
        (["--loss.under", "-1"], "must not be negative"),
        (["--loss.over", "2", "--loss.variant", "ratio"], "loss.over and loss.under are of loss.variant diff"),
        (["--data.size", "63"], "multiple of 2"),
        (["--augment.crop", "47"], "multiples of 2"),
        (["--ship", "a.safetensors"], "--eval-only"),
        (["--loop.minutes", "1", "--loop.steps", "4"], "--loop.minutes and --loop.steps exclude each other"),
        (["--loop.steps=4", "--loop.minutes=1"], "--loop.minutes and --loop.steps exclude each other"),
    ],
)
def test_wrong_arguments(arguments, said, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        mshnet.main([*SMALL, "--run", str(tmp_path / "run"), *arguments])
    text = capsys.readouterr().err
    assert stop.value.code in (1, 2) and said in text, text
    assert not list(tmp_path.rglob("checkpoints/[0-9]*"))
