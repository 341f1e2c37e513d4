import doctest
import pathlib

from irjax.metrics import PROTOCOLS

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "metrics.md"


def test_the_examples_run():
    results = doctest.testfile(str(PAGE), module_relative=False)
    assert results.attempted > 20 and results.failed == 0


def test_every_protocol_is_in_the_table():
    rows = [line.split("|")[1] for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    assert sorted(name.strip(" `") for row in rows for name in row.split(",")) == sorted(PROTOCOLS)
