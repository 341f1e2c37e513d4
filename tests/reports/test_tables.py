import numpy as np

from irjax.metrics import PointPredictions, PointTruth, evaluate_images
from irjax.reports import tables


def evaluations():
    mask = np.zeros((100, 100), bool)
    mask[4:6, 4:6] = mask[50:52, 50:52] = True
    return evaluate_images([mask], [mask & (np.arange(100) < 20)], ("irjax", "centroid"), names=["a"])


def test_units_digits_and_missing_values():
    found = evaluations()
    header, rows = tables.metric_rows(found, {"irjax": {"F1": (0.5, 1.0)}})
    table = {row[0]: row[1:] for row in rows}
    assert header == ["", "irjax", "centroid"]
    assert table["IoU"] == ["0.5000", ""] and table["F1"] == ["0.6667 [0.5000, 1.0000]", "0.6667"]
    assert table["Fa (1e-6 false pixels per pixel)"] == ["400.00", ""]
    assert table["Fa (1e-8 false points per pixel)"] == ["", "10000.00"]
    assert table["TP"] == ["1", "1"] and "Pd" not in table and table["Recall (Pd)"] == ["1.0000", "1.0000"]


def test_nan_is_a_dash():
    found = evaluate_images([PointPredictions([])], [PointTruth([], 4, 4)], "centroid")
    assert ["Precision", "-"] in tables.metric_rows(found)[1]


def test_shapes_of_tables():
    header, rows = ["", "a|b"], [["IoU", "0.5"], ["a long name", "12"]]
    assert tables.plain_table(header, rows).splitlines() == [
        "             a|b", "-----------  ---", "IoU          0.5", "a long name   12"]  # fmt: skip
    assert tables.markdown_table(header, rows).splitlines()[:3] == ["|  | a\\|b |", "| --- | ---: |", "| IoU | 0.5 |"]
    assert tables.csv_table(["name", "x"], [["a,b", float("nan")], ["c", 1.5]]) == 'name,x\n"a,b",\nc,1.5\n'


def test_one_number_under_two_names_has_one_row():
    mask = np.zeros((30, 30), bool)
    mask[4:6, 4:6] = True
    found = evaluate_images([mask], [mask], ("basicirstd", "irjax", "dnanet", "rpcanet_overlap"), names=["a"])
    table = {row[0]: row[1:] for row in tables.metric_rows(found)[1]}
    assert table["Recall (Pd)"] == ["1.0000", "1.0000", "1.0000", ""] and "Pd" not in table and "Recall" not in table
    # Areas, whichever the protocol leaves out, are pixels.
    assert table["Fa (1e-6 false pixels per pixel)"] == ["0.00", "0.00", "0.00", ""]
    assert [name for name in table if name.endswith("per background pixel)")]
    legacy = {"basicirstd": found["basicirstd"]}
    assert "Pd" in {row[0] for row in tables.metric_rows(legacy)[1]}
