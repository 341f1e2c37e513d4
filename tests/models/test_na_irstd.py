import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from irjax.benchmarks.counting import by_module, count_macs
from irjax.detector.detector import Detector, DetectorConfig
from irjax.layers.tokens import Attention
from irjax.losses.na_irstd import mask_loss
from irjax.methods import find_method
from irjax.models import NaIRSTD
from irjax.models.na_irstd import reparameterize
from irjax.models.na_native import Injection, NativeBranch, PatchScorer
from irjax.ops.patches import mask_of, split_windows

TINY = {
    "selected": 2,
    "native_width": 4,
    "widths": (16, 16, 16, 16),
    "depths": (1, 1, 1, 1),
    "decoder_width": 16,
    "decoder_hidden": 8,
}


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def shapes(model, size=(256, 256), channels=1, batch=1):
    images = jax.ShapeDtypeStruct((batch, *size, channels), jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), images), images


def drawn(init, *inputs):
    """Weights of which nothing is zero or equal by chance, and statistics as after training; nothing is compiled."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        name, value = path[-1].key, rng.normal(size=leaf.shape)
        if name == "kernel":
            value = value * np.prod(leaf.shape[:-1]) ** -0.5
        elif name in ("scale", "var"):
            value = np.exp(0.2 * value)
        else:
            value = 0.2 * value + 0.1 * name.startswith("gate")
        return jnp.asarray(value, jnp.float32)

    return jax.tree.map_with_path(draw, jax.eval_shape(init, jax.random.key(0), *inputs))


@pytest.fixture(scope="module")
def tiny():
    """A small network, its variables, images of 2x3 patches, and what it says of them."""
    images = jnp.asarray(np.random.default_rng(9).normal(size=(2, 64, 96, 1)), jnp.float32)
    model = NaIRSTD(**TINY)
    variables = drawn(model.init, images)
    run = jax.jit(chex.assert_max_traces(lambda v, x: model.apply(v, x), n=1))
    other, output = run(variables, images + 1), run(variables, images)
    assert (np.asarray(other.logits) != np.asarray(output.logits)).any()
    return model, variables, images, output


# --- sizes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "parameters", "giga"),
    [
        (
            {},
            {"backbone": 7.77, "native": 0.10, "scorer": 0.00, "injection": 0.27, "decoder": 3.6},
            {"backbone": 1.74, "native": 4.25, "scorer": 0.00, "injection": 0.22, "decoder": 2.4},
        ),
        ({"native_width": 16}, {"native": 0.03}, {"native": 1.07}),
        ({"decoder_width": 256, "decoder_hidden": 2048}, {"decoder": 14.3}, {"decoder": 9.1}),
        ({"branch": "cnn"}, {"native": 0.07}, {"native": 4.25}),
    ],
)
def test_parameters_in_millions_and_multiply_adds_in_billions(options, parameters, giga, monkeypatch):
    monkeypatch.setattr(Attention, "_absorbs", lambda *_: False)  # as the paper writes it
    model = NaIRSTD(**options)
    variables, images = shapes(model)
    macs = by_module(count_macs(model.apply, variables, images))
    digits = lambda value: 1 if value >= 2 and value not in (7.77, 4.25) else 2  # noqa: E731  figures known
    for name, wanted in parameters.items():
        assert round(count(variables["params"][name]) / 1e6, digits(wanted)) == wanted, name
    for name, wanted in giga.items():
        assert round(macs[name] / 1e9, digits(wanted)) == wanted, name
    if not options:
        assert count(variables["params"]) == 11_792_885  # 11.8 M
        assert sum(macs.values()) / 1e9 == pytest.approx(8.6, abs=0.05)
        assert count(variables["params"]["native"]) == 104_832


def test_injection_takes_half_of_what_its_formula_says():
    variables, images = shapes(NaIRSTD())
    macs = by_module(count_macs(NaIRSTD().apply, variables, images))
    assert macs["injection"] / 1e9 == pytest.approx(0.112, abs=5e-4)  # 0.224 above


@pytest.mark.parametrize("size", [(256, 256), (64, 96), (320, 256)])
def test_shapes_at_other_sizes(size):
    variables, images = shapes(NaIRSTD(), size, channels=3, batch=2)
    output = jax.eval_shape(NaIRSTD().apply, variables, images)
    lattice = (2, size[0] // 32, size[1] // 32)
    chex.assert_shape(output.logits, (2, *size))
    chex.assert_shape(output.coarse, (2, size[0] // 4, size[1] // 4))
    chex.assert_shape(output.scores, lattice)
    chex.assert_shape(output.indices, (2, 5))
    assert [mask.shape for mask in output.selected] == [lattice]
    assert variables["params"]["native"]["stage1"]["mixer"]["positions"].shape == (64, 32)  # of any lattice


def test_bfloat16_computes_and_float32_stays():
    model = find_method("na_irstd").build(dtype="bfloat16", **TINY)
    variables, images = shapes(model, (64, 64))
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}
    output, state = jax.eval_shape(
        lambda v, x: model.apply(v, x, train=True, mutable=["batch_stats"]), variables, images
    )
    assert {x.dtype for x in (output.logits, output.coarse, output.scores)} == {jnp.dtype(jnp.float32)}
    assert {leaf.dtype for leaf in jax.tree.leaves(state)} == {jnp.dtype(jnp.float32)}
    wide = [e for e in jax.make_jaxpr(model.apply)(variables, images).eqns if e.primitive.name == "dot_general"]
    assert sum(e.invars[0].aval.dtype == jnp.bfloat16 for e in wide) > 60


# --- the native branch ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def native():
    images = jnp.asarray(np.random.default_rng(3).normal(size=(2, 64, 96, 1)), jnp.float32)
    model = NativeBranch(width=4)
    return model, drawn(lambda key, x: model.init(key, x, train=False), images), images


def features_of(model, variables, images):
    return jax.jit(lambda v, x: model.apply(v, x, train=False))(variables, images)


def test_patches_meet_in_the_mixer_alone(native):
    model, variables, images = native
    other = images.at[1, 40, 70].add(3.0)  # in patch 5 of the second image
    closed = jax.tree.map(jnp.copy, variables)
    for stage in closed["params"].values():
        stage["mixer"]["out"]["kernel"] *= 0
    before, after = (features_of(model, closed, x) for x in (images, other))
    for one, two in zip(before, after, strict=True):
        changed = (np.asarray(one) != np.asarray(two)).any(axis=(2, 3))
        np.testing.assert_array_equal(changed, [[False] * 6, [False] * 5 + [True]])
    before, after = (features_of(model, variables, x) for x in (images, other))
    for one, two in zip(before, after, strict=True):
        changed = (np.asarray(one) != np.asarray(two)).any(axis=(2, 3))
        np.testing.assert_array_equal(changed, [[False] * 6, [True] * 6])


def test_a_new_mixer_says_nothing():
    images = jnp.zeros((1, 32, 32, 1))
    variables = jax.jit(lambda x: NativeBranch(width=4).init(jax.random.key(0), x, train=False))(images)
    for stage in variables["params"].values():
        assert not np.asarray(stage["mixer"]["out"]["kernel"]).any()


def test_the_mixer_knows_where_patches_lie(native):
    model, variables, images = native
    turned = jnp.concatenate([images[:, 32:], images[:, :32]], axis=1)  # the two rows of patches swapped
    one, two = (features_of(model, variables, x)[-1] for x in (images, turned))
    assert float(jnp.abs(jnp.roll(two, 3, axis=1) - one).max()) > 1e-4


def test_the_convolutional_branch_crosses_patches(native):
    model = native[0].clone(patchwise=False)
    variables = {kind: {k: {m: v for m, v in stage.items() if m != "mixer"} for k, stage in native[1][kind].items()}
                 for kind in ("params", "batch_stats")}  # fmt: skip
    one, two = (features_of(model, variables, x)[-1] for x in (native[2], native[2].at[0, 31, 10].add(3.0)))
    changed = (np.asarray(one) != np.asarray(two)).any(axis=(2, 3))
    np.testing.assert_array_equal(changed, [[True, False, False, True, False, False], [False] * 6])


def test_the_scorer_sees_a_single_pixel():
    features = jnp.zeros((1, 2, 1024, 4)).at[0, 1, 500, 2].set(5.0)
    variables = drawn(PatchScorer().init, [features])
    scores = jax.jit(PatchScorer().apply)(variables, [features])
    assert scores.shape == (1, 1, 2) and float(jnp.abs(scores[0, 0, 0] - scores[0, 0, 1])) > 1e-2


# --- injection --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stages", [1, 4])
def test_exactly_the_selected_windows_change(stages):
    grid = (2, 3)
    maps = [jax.random.normal(jax.random.key(i), (2, 64 >> (i + 2), 96 >> (i + 2), 16)) for i in range(4)]
    native = [jax.random.normal(jax.random.key(9 + i), (2, 6, 1024, 4)) for i in range(4)]
    picks = jnp.array([[[0, 4], [2, 5]], [[1, 2], [0, 3]], [[0, 1], [4, 5]], [[3, 5], [1, 4]]]).swapaxes(0, 1)[
        :, :stages
    ]
    model = Injection()
    run = jax.jit(lambda v, picks: model.apply(v, maps, native, picks, grid))
    variables = drawn(lambda key: model.init(key, maps, native, picks, grid))
    assert variables["params"]["gate1"].shape == ()
    for level, (old, new) in enumerate(zip(maps, run(variables, picks), strict=True)):
        changed = (np.asarray(split_windows(old, grid)) != np.asarray(split_windows(new, grid))).any(axis=-1)
        wanted = np.asarray(mask_of(picks[:, min(level, stages - 1)], grid)).reshape(2, 6) > 0
        np.testing.assert_array_equal(changed.all(axis=-1), wanted)  # one query a window at the last level
        np.testing.assert_array_equal(changed.any(axis=-1), wanted)
    closed = {name: value * (not name.startswith("gate")) for name, value in variables["params"].items()
              if name.startswith("gate")}  # fmt: skip
    shut = {"params": {**variables["params"], **closed}}
    for old, new in zip(maps, run(shut, picks), strict=True):
        np.testing.assert_array_equal(old, new)


def test_all_patches_need_no_selection():
    maps = [jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 6, 16)), jnp.float32)]
    native = [jnp.asarray(np.random.default_rng(9).normal(size=(2, 6, 1024, 4)), jnp.float32)]
    model, everything = Injection(), jnp.tile(jnp.arange(6), (2, 1, 1))
    variables = drawn(lambda key: model.init(key, maps, native, None, (2, 3)))
    dense, taken = (model.apply(variables, maps, native, picks, (2, 3))[0] for picks in (None, everything))
    np.testing.assert_allclose(dense, taken, atol=1e-5)
    assert float(jnp.abs(dense - maps[0]).min(axis=(1, 2, 3)).max()) > 0 and (np.asarray(dense) != maps[0]).all()


# --- the network ------------------------------------------------------------------------------------------------------


def test_the_patches_with_the_highest_scores_are_selected(tiny):
    output = tiny[-1]
    flat = np.asarray(output.scores).reshape(2, 6)
    np.testing.assert_array_equal(output.indices, np.sort(np.argsort(-flat, axis=1)[:, :2], axis=1))
    np.testing.assert_array_equal(output.selected[0], mask_of(output.indices, (2, 3)))
    chex.assert_tree_all_finite(output)


@pytest.mark.slow
def test_gradients(tiny):
    """Of the masks, to all but the scorer; of the scores, to the scorer and the native branch alone."""
    model, variables, images, _ = tiny
    target = jnp.zeros((2, 64, 96), bool).at[:, 10:14, 20:24].set(True)

    def run(params, of_scores):
        out, _ = model.apply({**variables, "params": params}, images, train=True, mutable=["batch_stats"])
        return jnp.sum(jnp.sin(out.scores)) * of_scores + jnp.sum(mask_loss(out, target)) * (1 - of_scores)

    grad = jax.jit(jax.grad(run))
    for of_scores, silent in ((0.0, ("scorer",)), (1.0, ("backbone", "injection", "decoder"))):
        grads = grad(variables["params"], of_scores)
        chex.assert_tree_all_finite(grads)
        for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
            assert (np.abs(leaf).max() == 0) == (path[0].key in silent), f"{of_scores}: {jax.tree_util.keystr(path)}"


@pytest.mark.slow
def test_recomputing_the_native_branch_changes_nothing(native, tiny):
    _, variables, images = native
    found = []
    for remat in (False, True):
        model = NativeBranch(width=4, remat=remat)

        def total(params, model=model):
            out, state = model.apply({**variables, "params": params}, images, train=True, mutable=["batch_stats"])
            return jnp.mean(jnp.sin(out[-1])), state

        found.append(jax.jit(jax.grad(total, has_aux=True))(variables["params"]))
    chex.assert_trees_all_close(*found, atol=1e-5)
    score = lambda v, remat: tiny[0].clone(remat=remat).apply(v, tiny[2]).scores.sum()  # noqa: E731
    jaxprs = [str(jax.make_jaxpr(jax.grad(lambda v, r=remat: score(v, r)))(tiny[1])) for remat in (False, True)]
    plain, remat = (len(re.findall(r"(?:checkpoint|remat2?)\[", jaxpr)) for jaxpr in jaxprs)
    assert remat >= plain + 4  # a stage each; activations are computed again anyway


def test_all_statistics_are_those_of_all_devices(tiny):
    model, variables, images, _ = tiny
    train = lambda x: model.clone(axis_name="batch").apply(variables, x, train=True, mutable=["batch_stats"])  # noqa: E731
    jaxpr = str(jax.make_jaxpr(train, axis_env=[("batch", 2)])(images))
    assert jaxpr.count(" all_gather[") == len(jax.tree.leaves(variables["batch_stats"])) // 2


def test_folded_backbone(tiny):
    model, variables, images, output = tiny
    folded = reparameterize(variables)
    assert "backbone" not in folded["batch_stats"] and count(folded) < count(variables)
    got = jax.jit(model.clone(folded=True).apply)(folded, images).logits
    # Random normalisations enlarge rounding; of the backbone alone see test_repvit.py.
    np.testing.assert_allclose(got, output.logits, atol=2e-3 * float(jnp.abs(output.logits).max()))
    with pytest.raises(ValueError, match="folded already"):
        reparameterize(folded)


@pytest.mark.slow
def test_folded_detector(tiny):
    detector = Detector(DetectorConfig("na_irstd", TINY, size=64, threshold=0.5), tiny[1])
    folded = detector.folded()
    assert folded.config.model["folded"] and "backbone" not in folded.variables["batch_stats"]
    image = np.random.default_rng(0).uniform(size=(64, 64)).astype(np.float32)
    np.testing.assert_allclose(folded(image).masks[0], detector(image).masks[0], atol=2e-3)
    with pytest.raises(ValueError, match="folded already"):
        folded.folded()


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"branch": "none"}, {"backbone", "decoder"}),
        ({"branch": "cnn"}, {"backbone", "decoder", "native", "scorer", "injection"}),
        ({"selected": None}, {"backbone", "decoder", "native", "scorer", "injection"}),
        ({"score_per_stage": True}, {"backbone", "decoder", "native", "scorer", "injection"}),
        ({"stem_stride": 1}, {"backbone", "decoder", "native", "scorer", "injection"}),
    ],
)
def test_switches(options, parts):
    model = NaIRSTD(**{**TINY, **options})
    variables, images = shapes(model, (64, 96))
    output = jax.eval_shape(model.apply, variables, images)
    assert set(variables["params"]) == parts and model.multiple == 32
    chex.assert_shape(output.logits, (1, 64, 96))
    side = 4 if model.stem_stride == 4 else 1
    chex.assert_shape(output.coarse, (1, 64 // side, 96 // side))
    if model.branch == "none":
        assert output.scores is None and output.indices is None and output.selected == ()
    elif model.score_per_stage:
        chex.assert_shape([output.scores, output.indices], [(1, 4, 2, 3), (1, 4, 2)])
        assert len(output.selected) == 4
    else:
        chex.assert_shape([output.scores, output.indices], [(1, 2, 3), (1, model.selected or 6)])
    mixers = [stage for stage in variables["params"].get("native", {}).values() if "mixer" in stage]
    assert len(mixers) == (4 if model.branch == "patch" and "native" in parts else 0)


@pytest.mark.parametrize(
    ("options", "shape", "said"),
    [
        ({}, (64, 64, 1), r"must be \[B, H, W, C\]"),
        ({}, (1, 80, 64, 1), r"multiples of 32, got \(80, 64\)"),
        ({"selected": 0}, (1, 64, 64, 1), r"selected must be in 1\.\.4, the patches of 64x64, got 0"),
        ({"selected": 5}, (1, 64, 64, 1), r"must be in 1\.\.4, .* got 5"),
        ({"branch": "both"}, (1, 64, 64, 1), "branch must be one of"),
        ({"branch": "none", "score_per_stage": True}, (1, 64, 64, 1), "score_per_stage needs a native branch"),
        ({"stem_stride": 2}, (1, 64, 64, 1), "stem_stride must be one of"),
        ({"depths": (1, 1, 1)}, (1, 64, 64, 1), "must be of four stages"),
    ],
)
def test_bad_arguments(options, shape, said):
    model = NaIRSTD(**{**TINY, **options})
    with pytest.raises(ValueError, match=said):
        jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.float32))


def test_a_folded_network_does_not_train(tiny):
    with pytest.raises(ValueError, match="no batch statistics to train with"):
        jax.eval_shape(lambda x: NaIRSTD(**TINY, folded=True).init(jax.random.key(0), x, train=True), tiny[2])
