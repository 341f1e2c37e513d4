"""Turns; times themselves are not tested."""

import functools

import pytest

from irjax.benchmarks.timing import in_turns


def test_turns():
    order = []
    seconds = in_turns({name: functools.partial(order.append, name) for name in "ab"}, 7)
    assert {name: len(times) for name, times in seconds.items()} == {"a": 7, "b": 7}
    assert "".join(order) == "ab" + "a" * 6 + "b" * 6 + "a" * 3 + "b" * 3
    with pytest.raises(ValueError, match="repeats"):
        in_turns({}, 0)
