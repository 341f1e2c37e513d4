import csv
import json

import numpy as np
import pytest

from irjax.metrics import PointPredictions, protocol
from irjax.reports.evaluate import evaluate_points, report_points
from irjax.reports.predictions import write_predictions
from irjax.types import Example


class Scenes:
    """Four images; the targets are on a diagonal."""

    def __init__(self, names=("a", "b", "c", "d")):
        self.names = names

    def __len__(self):
        return len(self.names)

    def __getitem__(self, index):
        points = np.array([(8 + 10 * k, 8 + 10 * k) for k in range(index)], np.float32).reshape(-1, 2)
        return Example(self.names[index], np.full((48, 64), index, np.uint8), points)


def found(index, shift=1.0, score=0.9):
    points = Scenes()[index].points + np.float32(shift)
    return PointPredictions(points, np.full(len(points), score))


def predictions_file(folder, predictions, sizes=None):
    write_predictions(folder / "predictions.json", predictions, sizes)
    return folder / "predictions.json"


def quiet(text):
    pass


def test_the_whole_report(tmp_path):
    strays = PointPredictions([(60, 1), (1, 40)], [0.9, 0.2])
    path = predictions_file(tmp_path, {"a.png": strays, "b.png": found(1), "c.png": found(2, 9), "d.png": found(3)})
    lines = []
    report = evaluate_points(path, Scenes(), threshold=0.5, out_dir=tmp_path / "out", overlays=5, printer=lines.append)
    # a: 1 false of 0; b: 1 of 1; c: shifted by 9 px each way, of which one lies near the second target; d: 3 of 3.
    assert {k: report["metrics"][k] for k in ("TP", "FP", "FN")} == {"TP": 5, "FP": 2, "FN": 1}
    assert report["metrics"]["Fa"] == 2 / (4 * 48 * 64)
    low, high = report["intervals"]["Precision"]
    assert low <= report["metrics"]["Precision"] <= high
    assert [row["name"] for row in report["worst"]] == ["c", "a"]
    assert "score >= 0.5; 4 images, 6 targets" in lines[0] and "Recall (Pd)" in lines[0]

    out = tmp_path / "out"
    assert sorted(p.name for p in out.iterdir()) == [
        "evaluation.csv", "evaluation.json", "overlays", "per_image.csv", "precision_recall.png", "sweep.csv",
        "thresholds.png"]  # fmt: skip
    assert sorted(p.name for p in (out / "overlays").iterdir()) == ["01_c.png", "02_a.png"]
    stored = json.loads((out / "evaluation.json").read_text())
    assert stored["metrics"] == report["metrics"] and len(stored["sweep"]) == 19
    with open(out / "per_image.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["name"], r["FP"], r["FN"]) for r in rows] == [
        ("c", "1", "1"), ("a", "1", "0"), ("b", "0", "0"), ("d", "0", "0")]  # fmt: skip


def test_images_without_detections_count_their_misses(tmp_path):
    # A bare list cannot name an image without detections.
    entries = [{"image_id": "b", "keypoints": [8, 8, 2], "score": 0.9}]
    (tmp_path / "list.json").write_text(json.dumps(entries))
    lines = []
    report = evaluate_points(tmp_path / "list.json", Scenes(), printer=lines.append)
    assert report["metrics"]["TP"] == 1 and report["metrics"]["FN"] == 5
    assert report["images_without_prediction"] == ["a", "c", "d"]
    assert "3 images without an entry" in lines[-1] and report["files"] == {}


def test_names_on_one_side_are_an_error_unless_allowed(tmp_path):
    path = predictions_file(tmp_path, {"b": found(1), "elsewhere": found(2)})
    with pytest.raises(ValueError, match="1 predictions are of no image.*elsewhere; 3 images.*not listed.*a, c, d"):
        evaluate_points(path, Scenes(), printer=quiet)
    report = evaluate_points(path, Scenes(), allow_missing=True, printer=quiet)
    assert (report["metrics"]["TP"], report["metrics"]["FN"], report["metrics"]["FP"]) == (1, 5, 0)
    assert report["unknown_predictions"] == ("elsewhere",)
    path = predictions_file(tmp_path, {"x": found(1), "y": found(2)})
    with pytest.raises(ValueError, match="none of its 2 images is in the data set; it has x, y"):
        evaluate_points(path, Scenes(), allow_missing=True, printer=quiet)


def test_an_empty_list_is_all_misses(tmp_path):
    (tmp_path / "none.json").write_text("[]")
    report = evaluate_points(tmp_path / "none.json", Scenes(), out_dir=tmp_path / "out", overlays=0, printer=quiet)
    assert report["metrics"]["Recall"] == 0 and report["best"]["f1"] == 0
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text())["metrics"]["Precision"] is None


def test_predictions_of_another_size(tmp_path):
    path = predictions_file(tmp_path, {n: found(i) for i, n in enumerate("abcd")}, {"c": (96, 128)})
    with pytest.raises(ValueError, match="image c: the predictions are for 96x128, the data set's image is 48x64"):
        evaluate_points(path, Scenes(), printer=quiet)


def test_protocols_and_names_that_cannot_be():
    with pytest.raises(ValueError, match="'irjax' cannot score points"):
        report_points({}, Scenes(), protocol="irjax", printer=quiet)
    with pytest.raises(ValueError, match="data set is empty"):
        report_points({}, Scenes(()), printer=quiet)
    with pytest.raises(ValueError, match="not unique: a"):
        report_points({}, Scenes(("a", "a")), printer=quiet)
    with pytest.raises(ValueError, match="no image of the data set: z"):
        report_points({"z": found(1)}, Scenes(), printer=quiet)
    assert report_points({}, Scenes(), protocol=protocol("centroid"), printer=quiet)["rule"].endswith("<= 5 px")


def test_recorded_detections_on_real_images(shared):
    """Detections of the published weights, recorded in the golden file, against the data sets they were made on."""
    sources = pytest.importorskip("irjax.data.sources")
    source = sources.open_source(shared / "data" / "SIRST-v2", "trainval_full")
    with np.load(shared / "golden" / "spire_sirst4_512.npz", allow_pickle=False) as file:
        found_by_name = {
            str(file[key]).rsplit(".")[0]: file[key.replace("_name", "_detections_xys")]
            for key in file.files
            if key.endswith("_name")
        }
    index = {name: number for number, name in enumerate(source.names)}
    known = {name: rows for name, rows in found_by_name.items() if name in index}
    assert known, f"none of {list(found_by_name)} is in trainval_full"

    class Part(Scenes):
        def __getitem__(self, number):
            return source[index[self.names[number]]]

    part = Part(tuple(known))
    predictions = {name: PointPredictions(rows[:, :2], rows[:, 2]) for name, rows in known.items()}
    metrics = report_points(predictions, part, printer=quiet)["metrics"]
    assert metrics["F1"] > 0.9
