import dataclasses
import math

import numpy as np
import pytest

from irjax.metrics import Counts, Curve, Evaluation, compare, evaluate_images, protocol


def of(matched, names=None, spec=None, predictions=3):
    rows = [Counts(images=1, pixels=100, truths=3, predictions=predictions, matched=int(m)) for m in matched]
    return Evaluation(spec or protocol("centroid"), None, tuple(names or map(str, range(len(rows)))), tuple(rows), {})


def scores(number=60, seed=0):
    return np.random.default_rng(seed).integers(0, 3, number)


def test_both_sets_are_drawn_alike():
    base = scores()
    better = of(base + (np.arange(60) % 2))
    table = compare(better, of(base), samples=400)
    recall = table["Recall"]
    # One more of three on every other image: on 60 images the gain is 30 / 180.
    assert recall.a - recall.b == recall.difference == pytest.approx(30 / 180)
    assert recall.low < recall.difference < recall.high and recall.low > 0.1 and recall.a_higher == 1
    # Unpaired, the interval of the difference would be that of two independent sets, and cover 0.
    alone = np.subtract(*better.intervals(samples=400)["Recall"])
    assert recall.high - recall.low < -alone
    assert table["Fa"].difference < 0 and table["Fa"].a_higher == 0 and table["TP"].difference == 30


def test_a_set_against_itself():
    table = compare(of(scores()), of(scores()), samples=50)
    assert all((row.difference, row.low, row.high, row.a_higher) == (0, 0, 0, 0) for row in table.values())
    assert table.keys() == dict.fromkeys(protocol("centroid").metrics).keys()


def test_it_is_seeded_and_turns_round():
    a, b = of(scores(seed=1)), of(scores(seed=2))
    table, again, other = compare(a, b), compare(a, b), compare(a, b, seed=1)
    assert table == again and table != other
    turned = compare(b, a)
    for name, row in table.items():
        assert (turned[name].difference, turned[name].low) == pytest.approx((-row.difference, -row.high))
        assert turned[name].a_higher <= 1 - row.a_higher
    narrow = compare(a, b, level=0.5)["F1"]
    assert table["F1"].low < narrow.low < narrow.high < table["F1"].high


def test_the_area_under_a_curve_too():
    random = np.random.default_rng(0)
    masks = random.random((12, 16, 16)) < 0.1
    good, bad = (masks * weight + (1 - weight) * random.random(masks.shape) for weight in (0.6, 0.05))
    spec = dataclasses.replace(protocol("irjax"), name="roc", metrics=("AUC",), curve=Curve.even(32))
    table = compare(*(evaluate_images(maps, masks, spec)["roc"] for maps in (good, bad)), samples=100)
    assert table["AUC"].a > 0.95 > table["AUC"].b and table["AUC"].a_higher == 1 and table["AUC"].low > 0


def test_undefined_values():
    table = compare(of([0, 0]), of([0, 0], predictions=0), samples=20)
    assert all(
        math.isnan(value) for value in (table["Precision"].b, table["Precision"].low, table["Precision"].a_higher)
    )
    assert table["Recall"].difference == 0


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (of([1, 1], "ac"), r"same images.*1 only in the first \(b\) and 1 only in the second \(c\)"),
        (of([1, 1], "ba"), "ordered or repeated otherwise"),
        (of([1], "a"), r"1 only in the first \(b\) and 0 only in the second"),
        (of([1, 1], "ab", protocol("spire")), "one protocol.*'centroid' and 'spire'"),
        (of([1, 1], "ab", dataclasses.replace(protocol("centroid"), limit=3.0)), "'centroid' with other settings"),
    ],
)
def test_what_cannot_be_compared(other, message):
    with pytest.raises(ValueError, match=message):
        compare(of([1, 2], "ab"), other)


def test_bad_options():
    with pytest.raises(ValueError, match="at least one image"):
        compare(of([]), of([]))
    with pytest.raises(ValueError, match="samples=0"):
        compare(of([1]), of([1]), samples=0)
