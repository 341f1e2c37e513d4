import dataclasses

from irjax.experiments.mshnet import quick
from irjax.io.files import json_values
from irjax.training.configs import differences


def saved():
    return json_values(dataclasses.asdict(quick()))


def test_the_same_config():
    assert differences(saved(), quick()) == []


def test_a_field_that_the_file_lacks_is_not_filled_in():
    """What a program without the field did need not be the field's default."""
    old = saved()
    del old["optimizer"]["groups"], old["decode"]
    assert differences(old, quick()) == [
        "optimizer.groups [], was absent",
        "decode.threshold 0.5, was absent",
        "decode.max_detections 32, was absent",
    ]


def test_what_is_another_config():
    old = saved()
    old["loop"]["steps"] += 1
    assert differences(old, quick()) == ["loop.steps 1000, was 1001"]
    assert differences({**saved(), "unknown": 1}, quick()) == ["unknown absent, was 1"]
    assert differences(None, quick())
