import dataclasses

import pytest

from irjax.metrics import PROTOCOLS, protocol
from irjax.metrics.values import METRICS


def test_the_two_protocols():
    irjax, centroid = protocol("irjax"), protocol("centroid")
    assert (irjax.limit, irjax.inclusive, irjax.false_alarm, irjax.empty) == (3.0, False, "area", "skip")
    assert (centroid.limit, centroid.inclusive, centroid.false_alarm, centroid.fa_unit) == (5.0, True, "count", 1e-8)
    assert irjax.rule == "optimal one-to-one, < 3 px" and centroid.rule == "optimal one-to-one, <= 5 px"


def test_unknown_name_lists_the_known():
    with pytest.raises(ValueError, match="'iou'.*irjax, centroid"):
        protocol("iou")


def test_a_protocol_is_its_own_name():
    strict = dataclasses.replace(protocol("irjax"), name="strict", limit=1.0)
    assert protocol(strict) is strict


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"matching": "best"}, "matching must be one of"),
        ({"connectivity": 6}, "connectivity must be one of"),
        ({"empty": "drop"}, "empty must be one of"),
        ({"threshold": 1.5}, "probability"),
        ({"limit": 0.0}, "above 0 pixels"),
        ({"needs_maps": False}, "points have no area"),
    ],
)
def test_impossible_protocols(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(protocol("irjax"), **change)


def test_every_reported_metric_exists():
    assert all(name in METRICS for spec in PROTOCOLS.values() for name in spec.metrics)
