"""The study of the scale losses."""

import csv
import json
import math
import xml.etree.ElementTree

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from irjax.losses import scale_iou_loss
from irjax.losses.scale import VARIANTS
from irjax.studies import scale_loss as analyse
from irjax.studies import scale_loss_report

G = 36.0


@pytest.fixture(scope="module")
def study():
    return analyse.study_scale_loss(G)


def rows(study, case):
    return {row.variant: row for row in study.table if row.case == case}


def test_monotonic_gradients_of_nested_predictions(study):
    found = rows(study, "nested")
    assert list(found) == ["none", *VARIANTS]
    assert {name: row.below.monotonic for name, row in found.items()} == {
        "none": True,
        "variance": False,
        "ratio": True,
        "absdiff": True,
        "diff": True,
        "mobius": True,
    }
    assert all(row.above.monotonic and row.above.kind == "falls" for row in found.values())
    assert found["none"].below.kind == "flat" and found["diff"].below.kind == "falls"
    # g^2 |dL/da| = g (2 a g + g V + V^2) / (g + V)^2 with V = (a - g)^2 / 4, in double precision.
    a = np.linspace(1, 35, 34001)
    v = (a - G) ** 2 / 4
    lowest = a[np.argmin((2 * a * G + G * v + v**2) / (G + v) ** 2)]
    np.testing.assert_allclose(found["variance"].below.turns, [lowest], rtol=1e-2)


def test_a_shift_spoils_them(study):
    """Checked against double precision: where |dL/da| of two variants turns above the true area."""
    found = rows(study, "shifted")
    assert not any(found[name].below.monotonic or found[name].above.monotonic for name in VARIANTS)

    def loss(a, gap):
        r, true_r, d = np.sqrt(a / math.pi), math.sqrt(G / math.pi), 2.0
        angle = np.arccos(np.clip((d**2 + r**2 - true_r**2) / (2 * d * r), -1, 1))
        true_angle = np.arccos(np.clip((d**2 + true_r**2 - r**2) / (2 * d * true_r), -1, 1))
        both = r**2 * (angle - np.sin(2 * angle) / 2) + true_r**2 * (true_angle - np.sin(2 * true_angle) / 2)
        return 1 - (G + gap(a)) / (a + gap(a)) * both / (a + G - both)

    a = np.linspace(36.1, 200, 200001)
    for name, gap in (("variance", lambda a: (a - G) ** 2 / 4), ("absdiff", lambda a: (a - G) / 2)):
        size = np.abs(loss(a + 1e-4, gap) - loss(a - 1e-4, gap)) / 2e-4
        bends = 1 + np.flatnonzero(np.diff(np.sign(np.diff(size[::50]))))
        np.testing.assert_allclose(found[name].above.turns, a[::50][bends], rtol=1e-2)


@pytest.mark.parametrize("true_area", [2.0, 16.0, 36.0, 200.0])
def test_minima_of_the_weights(true_area):
    found = rows(analyse.study_scale_loss(true_area, shift=1.0), "nested")
    wanted = [true_area - 2 * math.sqrt(true_area), true_area + 2 * math.sqrt(true_area)]
    wanted = [area for area in wanted if area > 0]  # the lower one needs g > 4; at 16 it is half of g
    np.testing.assert_allclose(found["variance"].weight_minima, wanted, rtol=1e-3)
    assert not any(row.weight_minima for name, row in found.items() if name != "variance")


def test_limits(study):
    found = rows(study, "nested")
    at_zero = {"none": (1, -1), "variance": (0.9, -0.9), "ratio": (0, 0), "absdiff": (1 / 3, -1 / 3), "diff": (0, 0)}
    at_zero["mobius"] = (1 / 3, -1 / 3)
    kinks = {"none": 1, "variance": 2, "ratio": 2, "absdiff": 2, "diff": 3, "mobius": 1.5}
    for name, row in found.items():
        np.testing.assert_allclose(row.weights, (at_zero[name][0], 1, 1), atol=1e-5)
        wanted = np.array([at_zero[name][1], -kinks[name], kinks[name]]) / G
        np.testing.assert_allclose(row.gradients, wanted, atol=1e-6)
        assert row.best_area == G


def test_where_false_alarms_are_rewarded(study):
    """Closed forms of w' / w > 1 / U in the nested case; U = g for a < g."""
    found = {name: row.rewarded for name, row in rows(study, "nested").items()}
    assert found["none"] == ()
    for name in ("ratio", "diff", "absdiff"):  # (g - a)^2 > 0 for the last, so right up to the true area
        np.testing.assert_allclose(found[name], [(0, G)], rtol=1e-6)
    np.testing.assert_allclose(found["mobius"], [(0, G * (math.sqrt(160) - 10) / 6)], rtol=2e-3)
    a = np.linspace(0.01, 35.99, 3599)
    v = (a - G) ** 2 / 4
    start = a[(G - v) / ((G + v) * (a + v)) > 1 / G].min()
    np.testing.assert_allclose(found["variance"], [(start, G)], rtol=2e-3)


def test_the_reward_beside_a_large_target_is_found():
    """It has about 4 / 3 px whatever the area, since `variance` is no function of ratios."""
    a, g = np.linspace(395, 399.999, 5000), 400.0
    v = (a - g) ** 2 / 4
    start = a[(g - v) / ((g + v) * (a + v)) > 1 / g].min()
    row = rows(analyse.study_scale_loss(g, variants=["variance"]), "nested")["variance"]
    assert len(row.rewarded) == 1 and row.rewarded[0][1] == g
    np.testing.assert_allclose(g - row.rewarded[0][0], g - start, rtol=2e-2)


def test_without_overlap_nothing_is_rewarded_and_no_area_is_best():
    row = rows(analyse.study_scale_loss(4.0, shift=100.0, variants=["diff"]), "shifted")["diff"]
    assert math.isnan(row.best_area) and row.rewarded == () and row.below.kind == "flat"


@settings(max_examples=15, deadline=None)
@given(
    inside=st.floats(0.02, 0.98),
    outside=st.floats(1e-4, 0.6),
    variant=st.sampled_from([*VARIANTS, "none"]),
)
def test_the_loss_of_areas_is_the_loss_of_masks(inside, outside, variant):
    target = jnp.zeros((1, 12, 12)).at[:, 3:9, 2:8].set(1.0)
    p = jnp.where(target > 0, inside, outside)
    wanted, slope = jax.value_and_grad(
        lambda p: scale_iou_loss(
            jnp.log(p) - jnp.log1p(-p), target, variant=None if variant == "none" else variant
        ).sum()
    )(p)
    area, both = jnp.sum(p), jnp.sum(p * target)
    found, background = jax.value_and_grad(analyse.area_loss)(area, both, G, variant)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    np.testing.assert_allclose(background, slope[0, 0, 0], rtol=1e-3, atol=2e-6)


@settings(max_examples=25, deadline=None)
@given(area=st.floats(0.05, 400), true_area=st.floats(0.5, 200), distance=st.floats(0.01, 12))
def test_overlap_of_discs(area, true_area, distance):
    r, true_r = math.sqrt(area / math.pi), math.sqrt(true_area / math.pi)

    def integrated(r):  # of the lens, column by column
        x = np.linspace(max(-true_r, distance - r), min(true_r, distance + r), 20001)
        if x[0] >= x[-1]:
            return 0.0
        x = (x[1:] + x[:-1]) / 2
        half = np.minimum(np.sqrt(np.maximum(true_r**2 - x**2, 0)), np.sqrt(np.maximum(r**2 - (x - distance) ** 2, 0)))
        return float(2 * half.mean() * (min(true_r, distance + r) - max(-true_r, distance - r)))

    value, slope = jax.value_and_grad(analyse.disc_overlap)(area, true_area, distance)
    np.testing.assert_allclose(value, integrated(r), rtol=1e-3, atol=1e-4 * true_area)
    arc = np.linspace(0, 2 * math.pi, 40000, endpoint=False)
    within = ((distance + r * np.cos(arc)) ** 2 + (r * np.sin(arc)) ** 2 < true_r**2).mean()
    np.testing.assert_allclose(slope, within, atol=2e-3)
    step = 1e-3 * area
    numeric = (integrated(math.sqrt((area + step) / math.pi)) - integrated(math.sqrt((area - step) / math.pi))) / (
        2 * step
    )
    np.testing.assert_allclose(slope, numeric, atol=5e-2)


def test_a_best_area_beyond_the_curves_is_no_number():
    study = analyse.study_scale_loss(1.0, shift=3.0, variants=["variance"])  # it holds the target from 39.9 px on
    assert rows(study, "shifted")["variance"].best_area == 30
    shifted = scale_loss_report.scale_loss_table(study).split("shifted:")[1]
    assert [line.split()[-2] for line in shifted.splitlines() if line.startswith("variance  ")] == [">30"]


def test_everything_is_written_and_says_what_is_reconstructed(tmp_path, capsys):
    out = tmp_path / "new" / "folder"
    study = scale_loss_report.analyse_scale_loss(out, true_area=20.0, shift=1.5, variants=["variance", "diff"])
    names = [f"scale_loss.{end}" for end in ("csv", "json", "png", "svg")]
    assert sorted(path.name for path in out.iterdir()) == [".irjax-written.json", *names]
    text = capsys.readouterr().out
    assert "variance" in text and "absdiff " not in text.split("|dL/da|: ")[0]
    assert "centres 1.5 px from that of a disc of g = 20 px" in text

    content = json.loads((out / "scale_loss.json").read_text())
    assert content["note"] == analyse.NOTE and analyse.NOTE in " ".join(text.split())
    assert [(row["case"], row["variant"]) for row in content["table"]] == [
        (case, name) for case in ("nested", "shifted") for name in ("none", "variance", "diff")
    ]
    assert content["table"][1]["below"]["monotonic"] is False and content["true_area_px"] == 20

    with (out / "scale_loss.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert len(table) == sum(len(curve.area) for curve in study.curves.values())
    mine = [row for row in table if (row["case"], row["variant"]) == ("shifted", "diff")]
    curve = study.curves["shifted", "diff"]
    for column, values in (
        ("area_px", curve.area),
        ("gradient_per_px", curve.gradient),
        ("background_gradient_per_px", curve.background),
    ):
        np.testing.assert_array_equal(np.float32([row[column] for row in mine]), values)

    with Image.open(out / "scale_loss.png") as image:
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    colours = {tuple(colour) for colour in np.unique(pixels, axis=0)}
    assert {(0x00, 0x72, 0xB2), (0xCC, 0x79, 0xA7)} <= colours and (0xD5, 0x5E, 0x00) not in colours
    xml.etree.ElementTree.parse(out / "scale_loss.svg")
    first = (out / "scale_loss.svg").read_bytes()
    scale_loss_report.analyse_scale_loss(out, true_area=20.0, shift=1.5, variants=["variance", "diff"])
    assert (out / "scale_loss.svg").read_bytes() == first


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"true_area": 0.0}, "true_area must be positive.*got 0.0"),
        ({"true_area": math.nan}, "true_area must be positive.*got nan"),
        ({"shift": -2.0}, "shift must be positive.*got -2.0"),
        ({"variants": ["diff", "sls"]}, "variants must be different ones of variance, ratio.*got diff, sls"),
        ({"variants": ["diff", "diff"]}, "variants must be.*got diff, diff"),
        ({"variants": []}, "variants must be.*got none"),
        ({"axis": "cubic"}, "axis must be log or linear, got 'cubic'"),
    ],
)
def test_wrong_arguments_leave_nothing_behind(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        scale_loss_report.analyse_scale_loss(tmp_path / "out", **options)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_in_between_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(scale_loss_report, "curves_csv", lambda study: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        scale_loss_report.analyse_scale_loss(tmp_path / "out", variants=["diff"])
    assert list(tmp_path.iterdir()) == []
