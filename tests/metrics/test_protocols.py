import dataclasses

import pytest

from irjax.metrics import PROTOCOLS, Curve, protocol
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
        ({"false_alarm": "regions"}, "false_alarm must be one of"),
        ({"canvas": "crop"}, "canvas must be one of"),
        ({"canvas": "pad"}, "needs canvas_size"),
        ({"truth": "gray"}, "truth must be one of"),
        ({"truth": "graded", "false_alarm": "pixels"}, "parts of pixels"),
        ({"metrics": ("AUC",)}, "AUC needs a curve"),
        ({"iou_epsilon": -1.0}, "at least 0"),
        ({"needs_maps": False, "false_alarm": "count", "curve": Curve.even(2)}, "cannot have a curve"),
    ],
)
def test_impossible_protocols(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(protocol("irjax"), **change)


def test_every_reported_metric_exists():
    assert all(name in METRICS for spec in PROTOCOLS.values() for name in spec.metrics)


def test_every_published_convention_is_there_and_says_what_is_wrong_with_it():
    own = {"irjax", "centroid"}
    legacy = {
        *(
            "basicirstd",
            "lesps",
            "dnanet",
            "mshnet",
            "sctransnet",
            "pal",
            "acm",
            "agpcnet",
            "rpcanet",
            "rpcanet_overlap",
        ),
        *("spire", "spire_masks", "na_irstd", "adsnet", "scale_loss"),
    }
    assert PROTOCOLS.keys() == own | legacy
    for name, spec in PROTOCOLS.items():
        assert spec.name == name and bool(spec.flaws) == (name in legacy)
        for flaw in spec.flaws:
            assert flaw[0].isupper() and flaw.endswith(".") and "\n" not in flaw
    point_protocols = {name for name, spec in PROTOCOLS.items() if not spec.needs_maps}
    assert point_protocols == {"centroid", "spire", "spire_masks"}
    assert all(PROTOCOLS[name].fa_unit == (1e-8 if name in point_protocols else 1e-6) for name in PROTOCOLS)


def test_aliases_differ_only_in_name_and_report():
    for alias, of in {"lesps": "basicirstd", "na_irstd": "basicirstd", "scale_loss": "mshnet"}.items():
        one, other = protocol(alias), protocol(of)
        assert dataclasses.replace(one, name=of, summary=other.summary, metrics=other.metrics) == other
