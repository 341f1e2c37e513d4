"""Every protocol on made inputs, against values that were recorded once: for those who do not have ../shared.

`recorded.json` holds what `irjax.metrics` returned on 2026-11-30, by a commit at which test_golden.py and
test_golden_table.py passed against the outputs of the published programs. It guards against change; that the values are
those of the published programs is what the golden tests show. ``python tests/metrics/test_recorded.py`` writes it anew,
after a change that is meant and that the golden tests agree with.
"""

import json
import pathlib

import numpy as np
import pytest

from irjax.metrics import PROTOCOLS, PointPredictions, evaluate_images

FILE = pathlib.Path(__file__).with_name("recorded.json")
SIZE = (64, 80)


def image(*parts, base=0.0):
    """An image [64, 80] of `base`, with boxes (x, y, width, height, value)."""
    values = np.full(SIZE, base)
    for x, y, width, height, value in parts:
        values[y : y + height, x : x + width] = value
    return values


def texture(number, low, high):
    """Values between two limits that look like noise, by whole numbers, so that they are the same everywhere."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    return low + (high - low) * ((x * x * 73 + y * y * 151 + x * y * 31 + number * 97) % 1009) / 1008


# (probabilities, mask in levels of 8 bits): what each protocol treats in its own way.
SCENES = {
    "found": (image((10, 10, 3, 3, 0.9), (50, 40, 2, 4, 0.7)), image((10, 10, 3, 3, 255), (50, 40, 2, 4, 255))),
    "nothing": (image(), image()),
    "a false alarm without truth": (image((30, 30, 4, 4, 0.8)), image()),
    "missed": (image((60, 5, 2, 2, 0.4)), image((60, 5, 2, 2, 255))),
    "2, 3 and 4 px away": (
        image((12, 10, 3, 3, 0.9), (33, 30, 3, 3, 0.6), (60, 54, 3, 3, 0.51)),
        image((10, 10, 3, 3, 255), (30, 30, 3, 3, 255), (60, 50, 3, 3, 255)),
    ),
    "touching by a corner": (
        image((20, 20, 3, 3, 0.9), (23, 23, 3, 3, 0.8)),
        image((20, 20, 3, 3, 255), (23, 23, 3, 3, 255)),
    ),
    "one region on two targets": (image((40, 20, 9, 3, 0.9)), image((40, 20, 3, 3, 255), (46, 20, 3, 3, 255))),
    "one detection between two targets": (
        image((20, 20, 3, 3, 0.95), (20, 24, 3, 3, 0.9)),
        image((20, 18, 3, 3, 255), (20, 22, 3, 3, 255)),
    ),
    "a false region as large as a found one": (
        image((10, 10, 3, 3, 0.9), (60, 50, 3, 3, 0.85), (70, 10, 2, 5, 0.75)),
        image((10, 10, 3, 3, 255)),
    ),
    "corners and borders": (
        image((0, 0, 1, 1, 0.9), (77, 61, 3, 3, 0.6)),
        image((0, 0, 1, 1, 255), (77, 61, 3, 3, 255)),
    ),
    "a faint map": (image((30, 30, 3, 3, 0.02), (60, 9, 2, 2, 0.012)), image((30, 30, 3, 3, 255))),
    "gray rims": (
        image((19, 19, 5, 5, 0.55), (60, 40, 2, 2, 0.65)),
        image((18, 18, 7, 7, 60), (19, 19, 5, 5, 140), (20, 20, 3, 3, 255), (60, 40, 2, 2, 254)),
    ),
    "a texture": (texture(1, 0.0, 0.62), image((5, 50, 4, 4, 255))),
    "a texture around targets": (
        np.maximum(texture(2, 0.1, 0.505), image((40, 30, 4, 4, 0.95), (8, 8, 2, 2, 0.8))),
        image((41, 31, 4, 4, 255), (8, 8, 2, 2, 255)),
    ),
}
POINTS = {
    name: PointPredictions(points, scores)
    for name, (points, scores) in {
        "found": ([(11, 11), (50.5, 41.5), (70, 60)], [0.9, 0.7, 0.4]),
        "a false alarm without truth": ([(31.5, 31.5)], [0.8]),
        "2, 3 and 4 px away": ([(13, 11), (34, 31), (61, 56)], [0.9, 0.6, 0.51]),
        "one detection between two targets": ([(21, 21), (21, 25)], [0.95, 0.9]),
        "corners and borders": ([(0, 0), (78, 62)], [0.9, 0.6]),
    }.items()
}


def measured():
    """{kind of input: {protocol: {metric: value}}}."""
    maps = [probability for probability, _ in SCENES.values()]
    masks = [mask.astype(np.uint8) for _, mask in SCENES.values()]
    logits = [np.log(np.clip(p, 1e-6, 1 - 1e-6) / (1 - np.clip(p, 1e-6, 1 - 1e-6))) for p in maps]
    no_points = PointPredictions([])
    points = [POINTS.get(name, no_points) for name in SCENES]
    of_points = [name for name, spec in PROTOCOLS.items() if not spec.needs_maps]
    found = {
        "probabilities": evaluate_images(maps, masks, list(PROTOCOLS)),
        "binary masks": evaluate_images([p > 0.5 for p in maps], [m >= 128 for m in masks], list(PROTOCOLS)),
        "logits": evaluate_images(logits, masks, list(PROTOCOLS), logits=True),
        "points": evaluate_images(points, masks, of_points),
    }
    return {
        kind: {name: {metric: float(value) for metric, value in one.metrics().items()} for name, one in each.items()}
        for kind, each in found.items()
    }


@pytest.fixture(scope="module")
def values():
    return measured()


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_metric_of_every_protocol(values, name):
    recorded = json.loads(FILE.read_text())
    assert len(PROTOCOLS) == 17 and recorded.keys() == values.keys()
    kinds = [kind for kind in recorded if kind != "points" or not PROTOCOLS[name].needs_maps]
    for kind in kinds:
        want, got = recorded[kind][name], values[kind][name]
        assert got.keys() == want.keys() == set(PROTOCOLS[name].metrics)
        for metric, value in want.items():
            assert got[metric] == pytest.approx(value, rel=1e-6, abs=0), f"{kind}: {metric}"


def test_the_inputs_tell_protocols_apart():
    """Two protocols with one row of numbers would hide a change of one of them into the other."""
    recorded = json.loads(FILE.read_text())["probabilities"]
    rows = {name: tuple(sorted(row.items())) for name, row in recorded.items()}
    alike = {frozenset(name for name in rows if rows[name] == rows[other]) for other in rows}
    # These are one program under two names.
    assert {names for names in alike if len(names) > 1} == {
        frozenset({"basicirstd", "lesps"}),
        frozenset({"dnanet", "mshnet", "scale_loss"}),
    }


if __name__ == "__main__":
    FILE.write_text(json.dumps(measured(), indent=1) + "\n")
