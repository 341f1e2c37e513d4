import csv
import json

import numpy as np
import pytest
from PIL import Image

from irjax.errors import UsageError, UserError
from irjax.evaluation.compare import compare_files
from irjax.evaluation.comparison_text import holm
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


def silent(text):
    pass


def test_a_comparison(folders):
    lines = []
    report = compare_files(
        [folders / "good", f"bad={folders / 'worse'}"], folders / "masks", options=Options(out_dir=folders / "out"),
        printer=lines.append,
    )  # fmt: skip
    masks, good, worse = zip(*map(scene, range(12)), strict=True)
    names = [f"{seed:02d}" for seed in range(12)]
    a, b = (evaluate_images([m / np.float32(255) for m in maps], masks, names=names)["irjax"] for maps in (good, worse))
    expected = compare(a, b)
    (pair,) = report["pairs"]
    assert (pair["a"], pair["b"]) == ("good", "bad") and list(report["sets"]) == ["good", "bad"]
    assert report["sets"]["bad"]["metrics"]["Pd"] == b.metrics()["Pd"]
    assert report["sets"]["bad"]["intervals"]["Pd"] == b.intervals(samples=1000, level=0.95, seed=0)["Pd"]
    assert pair["metrics"]["Pd"] == vars(expected["Pd"]) and pair["metrics"]["Pd"]["difference"] > 0
    # Worse misses on 0, 3, 6, 9 and has false alarms on 0, 4, 8; good has one on 5.
    fewer = pair["per_image"]["fewer_errors"]
    assert (fewer["a"], fewer["b"], fewer["equal"]) == (6, 1, 5)
    assert fewer["sign_test_p"] == pytest.approx(2 * 8 / 2**7)
    first = report["most_different"][0]
    assert (first["name"], first["good_FN"], first["bad_FN"], first["bad_errors"]) == ("00", 0, 1, 2)
    assert "12 images, 18 targets; protocol irjax" in lines[0] and "where they differ most" in lines[0]

    with open(folders / "out/per_image.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12 and rows[0]["name"] == "00"
    with open(folders / "out/differences.csv", newline="") as file:
        table = {row["metric"]: row for row in csv.DictReader(file)}
    assert float(table["F1"]["difference"]) == expected["F1"].difference
    with open(folders / "out/table.csv", newline="") as file:
        table = {row["title"]: row for row in csv.DictReader(file)}
    assert float(table["bad"]["IoU"]) == b.metrics()["IoU"]
    assert json.loads((folders / "out/comparison.json").read_text())["pairs"][0]["per_image"] == pair["per_image"]
    shown = f"{b.metrics()['IoU']:.4f}"
    assert f"| bad | {shown} |" in (folders / "out/table.md").read_text()
    assert rf"bad & {shown} &" in (folders / "out/table.tex").read_text()
    assert not (folders / "out/examples.png").exists()  # there are no images


def test_a_set_against_itself(folders):
    report = compare_files([f"a={folders / 'good'}", f"b={folders / 'good'}"], folders / "masks", printer=silent)
    for found in report["pairs"][0]["metrics"].values():
        assert found["difference"] == found["low"] == found["high"] == 0 and found["a_higher"] == 0
    assert report["pairs"][0]["per_image"]["fewer_errors"] == {"a": 0, "b": 0, "equal": 12, "sign_test_p": 1.0}


def test_maps_against_points_are_compared_by_centroids(folders):
    found = {f"{seed:02d}": PointPredictions([(9, 5.5)]) for seed in range(12)}
    write_predictions(folders / "points.json", found)
    report = compare_files([folders / "good", folders / "points.json"], folders / "masks", printer=silent)
    assert report["protocol"] == "centroid" and report["sets"]["points"]["metrics"]["FN"] == 6
    assert "higher_IoU" not in report["pairs"][0]["per_image"]


def test_three_are_compared_in_pairs(folders):
    sets = [f"a={folders / 'worse'}", f"b={folders / 'good'}", f"c={folders / 'worse'}"]
    lines = []
    report = compare_files(sets, folders / "masks", printer=lines.append)
    assert [(pair["a"], pair["b"]) for pair in report["pairs"]] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert report["pairs"][1]["metrics"]["IoU"]["difference"] == 0
    # The smaller p-value of the first's two tests is doubled.
    p = report["pairs"][0]["per_image"]["fewer_errors"]["sign_test_p"]
    assert f"1 : 6, p = {2 * p:.2g}" in lines[0] and "Holm" in lines[0]


def test_p_values_are_corrected():
    """Of Holm's procedure: the smallest times 3, the next times 2, never below an earlier one nor above 1."""
    assert holm([0.02, 0.01, 0.9]) == pytest.approx([0.04, 0.03, 0.9])
    assert holm([0.03, 0.029, 0.6]) == pytest.approx([0.087, 0.087, 0.6]) and holm([0.7, 0.6]) == [1.0, 1.0]


@pytest.fixture
def scenes(tmp_path):
    """A data set of four images of 64 x 64 with one bright target each."""
    rng = np.random.default_rng(0)
    for number in range(4):
        image = rng.normal(90, 4, (64, 64))
        mask = np.zeros((64, 64), np.uint8)
        mask[20 + number : 23 + number, 30:33] = 255
        image[mask > 0] += 120
        save(tmp_path / f"data/images/{number}.png", image.astype(np.uint8))
        save(tmp_path / f"data/masks/{number}.png", mask)
    return tmp_path


def test_detectors_are_compared_with_predictions(scenes):
    """A filter's predictions are those of `irjax predict`: scored from its files they give the same numbers."""
    measured = {}

    def measure(models, image):
        measured.update(models)
        assert image.shape == (64, 64) and image.dtype == np.uint8
        return {title: {"parameters": 2_000_000, "latency": 0.01} for title in models}

    arguments = {"models": ["tophat", "Energy=lef"], "split": "all", "printer": silent}
    report = compare_files([], scenes / "data", options=Options(out_dir=scenes / "out"), measure=measure, **arguments)
    assert list(measured) == list(report["sets"]) == ["tophat", "Energy"] and report["protocol"] == "irjax"
    assert report["sets"]["tophat"]["metrics"]["Pd"] == 1.0
    written = {path.name for path in (scenes / "out").iterdir()}
    assert {"costs.png", "examples.png", "predictions", "table.tex"} <= written
    assert "parameters (M)" in (scenes / "out/table.md").read_text()
    again = compare_files(
        [scenes / "out/predictions/tophat/masks", f"Energy={scenes / 'out/predictions/Energy/masks'}"],
        scenes / "data", split="all", printer=silent,
    )  # fmt: skip
    assert again["pairs"][0]["metrics"] == report["pairs"][0]["metrics"]


def test_a_failure_leaves_the_folder_as_it_was(scenes):
    (scenes / "data/images/2.png").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"2\.png"):
        compare_files(
            [], scenes / "data", models=["tophat", "lef"], split="all", options=Options(out_dir=scenes / "out"),
            printer=silent,
        )  # fmt: skip
    assert not (scenes / "out").exists()


def test_mistakes(folders):
    two = [folders / "good", folders / "worse"]
    for arguments, message in (
        (([folders / "good"] * 2,), "two of those compared are called"),
        (([folders / "good"],), "at least two are compared, of --predictions and --models, got 1"),
        ((two, Options(protocols=["irjax", "pal"])), "a comparison is under one protocol, got 2"),
    ):
        sets, *options = arguments
        with pytest.raises(UsageError, match=message):
            compare_files(sets, folders / "masks", options=options[0] if options else None, printer=silent)
    with pytest.raises(UserError, match="neither the name of shipped weights"):
        compare_files(two, folders / "masks", models=["unknown"], printer=silent)
    (folders / "worse/07.png").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"worse.07\.png: not a readable map"):
        compare_files(two, folders / "masks", options=Options(out_dir=folders / "out"), printer=silent)
    assert not (folders / "out").exists()
