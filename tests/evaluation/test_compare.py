import csv
import json

import numpy as np
import pytest
from PIL import Image

from irjax.evaluation.compare import compare_files
from irjax.evaluation.evaluate import Options
from irjax.io.predictions import write_predictions
from irjax.metrics import compare, evaluate_images
from irjax.metrics.inputs import PointPredictions


def scene(seed):
    """A mask with one or two targets, and what a good and a worse program say."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((32, 48), bool)
    mask[5:7, 8:11] = mask[20:22, 30 : 30 + 2 * (seed % 2)] = True
    good, worse = mask.astype(np.uint8) * 255, mask.astype(np.uint8) * 255
    if seed % 3 == 0:
        worse[5:7] = 0
    if seed % 4 == 0:
        worse[rng.integers(25, 30), 3] = 255
    if seed == 5:
        good[28, 40] = 255
    return mask, good, worse


def save(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


@pytest.fixture
def folders(tmp_path):
    for seed in range(12):
        mask, good, worse = scene(seed)
        for name, values in (("masks", mask.astype(np.uint8) * 255), ("good", good), ("worse", worse)):
            save(tmp_path / name / f"{seed:02d}.png", values)
    return tmp_path


def test_a_comparison(folders):
    lines = []
    report = compare_files(
        [folders / "good", folders / "worse"], folders / "masks", options=Options(out_dir=folders / "out"),
        printer=lines.append,
    )  # fmt: skip
    masks, good, worse = zip(*map(scene, range(12)), strict=True)
    names = [f"{seed:02d}" for seed in range(12)]
    a, b = (evaluate_images([m / np.float32(255) for m in maps], masks, names=names)["irjax"] for maps in (good, worse))
    expected = compare(a, b)
    assert report["metrics"]["Pd"] == vars(expected["Pd"]) and report["metrics"]["Pd"]["difference"] > 0
    # Worse misses on 0, 3, 6, 9 and has false alarms on 0, 4, 8; good has one on 5.
    assert {k: v for k, v in report["per_image"]["fewer_errors"].items() if k != "sign_test_p"} == {
        "A": 6, "B": 1, "equal": 5}  # fmt: skip
    assert report["per_image"]["fewer_errors"]["sign_test_p"] == pytest.approx(2 * 8 / 2**7)
    first = report["most_different"][0]
    assert (first["name"], first["errors_difference"], first["A_FN"], first["B_FN"]) == ("00", -2, 0, 1)
    assert "A good, B worse: 12 images, 18 targets; protocol irjax" in lines[0] and "where they differ most" in lines[0]

    with open(folders / "out/per_image.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12 and rows[0]["name"] == "00"
    with open(folders / "out/comparison.csv", newline="") as file:
        table = {row["metric"]: row for row in csv.DictReader(file)}
    assert float(table["F1"]["difference"]) == expected["F1"].difference
    assert json.loads((folders / "out/comparison.json").read_text())["per_image"] == report["per_image"]


def test_a_set_against_itself(folders):
    report = compare_files([folders / "good"] * 2, folders / "masks", printer=lambda text: None)
    for found in report["metrics"].values():
        assert found["difference"] == found["low"] == found["high"] == 0 and found["a_higher"] == 0
    assert report["per_image"]["fewer_errors"] == {"A": 0, "B": 0, "equal": 12, "sign_test_p": 1.0}


def test_maps_against_points_are_compared_by_centroids(folders):
    found = {f"{seed:02d}": PointPredictions([(9, 5.5)]) for seed in range(12)}
    write_predictions(folders / "points.json", found)
    report = compare_files([folders / "good", folders / "points.json"], folders / "masks", printer=lambda text: None)
    assert report["protocol"] == "centroid" and report["metrics"]["FN"]["b"] == 6
    assert "higher_IoU" not in report["per_image"]


def test_mistakes(folders):
    with pytest.raises(ValueError, match="a comparison is under one protocol, got 2"):
        compare_files(
            [folders / "good"] * 2, folders / "masks", options=Options(protocols=["irjax", "pal"]), printer=print
        )
    (folders / "worse/07.png").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"worse.07\.png: not a readable map"):
        compare_files(
            [folders / "good", folders / "worse"], folders / "masks", options=Options(out_dir=folders / "out"),
            printer=print,
        )  # fmt: skip
    assert not (folders / "out").exists()
