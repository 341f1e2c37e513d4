"""Turns; times themselves are not tested."""

import functools
import threading

import pytest

from irjax.benchmarks.timing import Turns, in_turns, once_each


def test_turns():
    order = []
    runs = {name: functools.partial(order.append, name) for name in "ab"}
    once_each(runs)
    seconds = in_turns(runs, 7)
    assert {name: len(times) for name, times in seconds.items()} == {"a": 7, "b": 7}
    assert "".join(order) == "ab" + "a" * 6 + "b" * 6 + "a" * 3 + "b" * 3
    with pytest.raises(ValueError, match="repeats"):
        in_turns({}, 0)


def test_who_times_waits_for_those_who_compile(tmp_path):
    pytest.importorskip("fcntl")
    order = []

    def time_it():
        with Turns(tmp_path / "turns") as one, one.alone():
            order.append("timed")

    thread = threading.Thread(target=time_it)
    with Turns(tmp_path / "turns"):
        thread.start()
        thread.join(0.2)
        order.append("the other compiled")
    thread.join()
    assert order == ["the other compiled", "timed"]
    with Turns().alone():
        pass
