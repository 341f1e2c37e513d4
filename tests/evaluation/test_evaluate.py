import csv
import json

import numpy as np
import pytest
import scipy.special
from PIL import Image

from irjax.evaluation.evaluate import Options, evaluate_files, evaluate_point_file, report_points
from irjax.io.files import whole_folder
from irjax.io.predictions import write_predictions
from irjax.metrics import PROTOCOLS, PointPredictions, evaluate_images, protocol, sweep
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


def read_csv(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def quiet(text):
    pass


def test_the_whole_report(tmp_path):
    strays = PointPredictions([(60, 1), (1, 40)], [0.9, 0.2])
    path = predictions_file(tmp_path, {"a.png": strays, "b.png": found(1), "c.png": found(2, 9), "d.png": found(3)})
    lines = []
    report = evaluate_point_file(
        path, Scenes(), threshold=0.5, out_dir=tmp_path / "out", overlays=5, printer=lines.append
    )
    # a: 1 false of 0; b: 1 of 1; c: shifted by 9 px each way, of which one lies near the second target; d: 3 of 3.
    assert {k: report["metrics"][k] for k in ("TP", "FP", "FN")} == {"TP": 5, "FP": 2, "FN": 1}
    assert report["metrics"]["Fa"] == 2 / (4 * 48 * 64)
    low, high = report["intervals"]["Precision"]
    assert low <= report["metrics"]["Precision"] <= high
    assert [row["name"] for row in report["worst"]] == ["c", "a"]
    assert "4 images, 6 targets; score >= 0.5" in lines[0] and "Recall (Pd)" in lines[0]

    out = tmp_path / "out"
    assert sorted(p.name for p in out.iterdir()) == [
        ".irjax-written.json",
        "evaluation.csv", "evaluation.json", "overlays", "per_image.csv", "pr.csv", "precision_recall.png", "roc.csv",
        "roc.png", "thresholds.png"]  # fmt: skip
    assert sorted(p.name for p in (out / "overlays").iterdir()) == ["01_c.png", "02_a.png"]
    stored = json.loads((out / "evaluation.json").read_text())
    assert stored["protocols"]["centroid"]["metrics"] == report["metrics"] and len(stored["curves"]["sweep"]) == 19
    rows = read_csv(out / "per_image.csv")
    assert [(r["name"], r["FP"], r["FN"]) for r in rows] == [
        ("c", "1", "1"), ("a", "1", "0"), ("b", "0", "0"), ("d", "0", "0")]  # fmt: skip
    # The curve of points is over every score: at the lowest all seven predictions count, the stray of 0.2 included.
    assert [(row["threshold"], row["TP"], row["FP"]) for row in read_csv(out / "pr.csv")] == [
        ("0.2", "5", "3"), ("0.9", "5", "2")]  # fmt: skip
    assert {row["level"] for row in read_csv(out / "roc.csv")} == {"target"}


def test_images_without_detections_count_their_misses(tmp_path):
    # A bare list cannot name an image without detections.
    entries = [{"image_id": "b", "keypoints": [8, 8, 2], "score": 0.9}]
    (tmp_path / "list.json").write_text(json.dumps(entries))
    lines = []
    report = evaluate_point_file(tmp_path / "list.json", Scenes(), printer=lines.append)
    assert report["metrics"]["TP"] == 1 and report["metrics"]["FN"] == 5
    assert report["images_without_prediction"] == ["a", "c", "d"]
    assert "3 images without a prediction (their targets count as missed): a, c, d" in lines[0]
    assert report["files"] == {}


def test_names_on_one_side_are_an_error_unless_allowed(tmp_path):
    path = predictions_file(tmp_path, {"b": found(1), "elsewhere": found(2)})
    with pytest.raises(ValueError, match="1 predictions are of no image.*elsewhere; 3 images.*no prediction: a, c, d"):
        evaluate_point_file(path, Scenes(), printer=quiet)
    report = evaluate_point_file(path, Scenes(), allow_missing=True, printer=quiet)
    assert (report["metrics"]["TP"], report["metrics"]["FN"], report["metrics"]["FP"]) == (1, 5, 0)
    assert report["unknown_predictions"] == ["elsewhere"]
    path = predictions_file(tmp_path, {"x": found(1), "y": found(2)})
    with pytest.raises(ValueError, match="none of its 2 images is in the data set; it has x, y, the data set a, b"):
        evaluate_point_file(path, Scenes(), allow_missing=True, printer=quiet)


def test_an_empty_list_is_all_misses(tmp_path):
    (tmp_path / "none.json").write_text("[]")
    report = evaluate_point_file(tmp_path / "none.json", Scenes(), out_dir=tmp_path / "out", overlays=0, printer=quiet)
    assert report["metrics"]["Recall"] == 0 and report["best"]["f1"] == 0
    assert (
        json.loads((tmp_path / "out" / "evaluation.json").read_text())["protocols"]["centroid"]["metrics"]["Precision"]
        is None
    )


def test_predictions_of_another_size(tmp_path):
    path = predictions_file(tmp_path, {n: found(i) for i, n in enumerate("abcd")}, {"c": (96, 128)})
    with pytest.raises(ValueError, match="image c: the predictions are for 96x128, the data set's image is 48x64"):
        evaluate_point_file(path, Scenes(), printer=quiet)


def test_protocols_and_names_that_cannot_be():
    with pytest.raises(ValueError, match="'irjax' cannot score points"):
        report_points({}, Scenes(), protocol="irjax", printer=quiet)
    with pytest.raises(ValueError, match="the truth is empty"):
        report_points({}, Scenes(()), printer=quiet)
    with pytest.raises(ValueError, match="not unique: a"):
        report_points({}, Scenes(("a", "a")), printer=quiet)
    with pytest.raises(ValueError, match="no image of the data set: z"):
        report_points({"z": found(1), "a": found(0)}, Scenes(), printer=quiet)
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


# --- maps -------------------------------------------------------------------------------------------------------------


def scene(seed, height=40, width=56):
    """A mask with up to three targets, and a map that finds most of them and some clutter."""
    rng = np.random.default_rng(seed)
    mask, scores = np.zeros((height, width), bool), rng.random((height, width)) * 0.04
    for _ in range(seed % 4):
        y, x = rng.integers(2, height - 4), rng.integers(2, width - 4)
        mask[y : y + 2, x : x + 3] = True
        scores[y : y + 3, x : x + 2] += rng.random() * 0.95
    y, x = rng.integers(0, height), rng.integers(0, width)
    scores[y, x] += rng.random() * 0.95
    return mask, np.rint(scores * 255).astype(np.uint8)


def save(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


@pytest.fixture
def folders(tmp_path):
    """Nine images as a data set of masks and a folder of PNG maps, which are named otherwise."""
    for seed in range(9):
        mask, scores = scene(seed)
        save(tmp_path / f"truth/images/s{seed}.png", np.full(mask.shape, 10 + seed, np.uint8))
        save(tmp_path / f"truth/masks/s{seed}.png", mask.astype(np.uint8) * 255)
        save(tmp_path / f"maps/s{seed}_pred.png", scores)
    return tmp_path


ALL = [name for name, spec in PROTOCOLS.items() if spec.canvas == "native"]


def test_every_protocol_gives_what_the_library_gives(folders):
    report = evaluate_files(folders / "maps", folders / "truth", options=Options(protocols=ALL), printer=quiet)
    masks, maps = zip(*map(scene, range(9)), strict=True)
    found = evaluate_images([m / np.float32(255) for m in maps], masks, ALL)
    for name in ALL:
        np.testing.assert_equal(report["protocols"][name]["metrics"], found[name].metrics())


def test_a_report_of_maps(folders):
    lines, options = [], Options(protocols=["basicirstd", "centroid"], out_dir=folders / "out", overlays=2)
    report = evaluate_files(folders / "maps", folders / "truth", options=options, printer=lines.append)
    table = lines[0].splitlines()
    assert table[1].split() == ["basicirstd", "centroid"]
    assert "[" in next(line for line in table if line.startswith("IoU"))
    assert "[" not in next(line for line in table if line.startswith("F1"))  # intervals are for the first
    assert "known flaw of basicirstd: Matching is greedy" in lines[0] and "known flaw of centroid" not in lines[0]
    assert "truth masks: 9 two levels" in lines[0] and "maps: uint8, p = value / 255" in lines[0]
    # A protocol with flaws is no measure for curves; the first without any is.
    assert report["curves"]["protocol"] == "centroid"
    out = folders / "out"
    assert len(list((out / "overlays").iterdir())) == 2 and (out / "roc.png").stat().st_size > 5000
    assert report["files"]["evaluation.json"] == out / "evaluation.json"


def test_curves_are_matched_again_at_each_threshold(folders):
    report = evaluate_files(
        folders / "maps", folders / "truth", options=Options(out_dir=folders / "out"), printer=quiet
    )
    masks, maps = zip(*map(scene, range(9)), strict=True)
    thresholds = [step["threshold"] for step in report["curves"]["sweep"]]
    expected = sweep([m / np.float32(255) for m in maps], masks, thresholds)
    rows = read_csv(folders / "out/pr.csv")
    assert len(rows) == 19 and report["curves"]["average_precision"] == expected.average_precision
    for index, row in enumerate(rows):
        point = expected.at(index)
        assert [int(row[name]) for name in ("TP", "FP", "FN")] == [point.tp, point.fp, point.fn]
        assert float(row["fa"]) == point.fa
    at_half = report["curves"]["sweep"][9]
    assert at_half["threshold"] == 0.5
    assert at_half["tp"] == report["protocols"]["irjax"]["metrics"]["TP"]


def test_the_pixel_roc_is_that_of_the_pixels(folders):
    evaluate_files(folders / "maps", folders / "truth", options=Options(out_dir=folders / "out"), printer=quiet)
    masks, maps = (
        np.concatenate([part.ravel() for part in parts]) for parts in zip(*map(scene, range(9)), strict=True)
    )
    rows = [row for row in read_csv(folders / "out/roc.csv") if row["level"] == "pixel"]
    assert len(rows) == 259
    for row in rows[1:-1:16]:
        above = maps / 255 > float(row["threshold"])
        assert float(row["detection_rate"]) == pytest.approx(above[masks].mean())
        assert float(row["false_alarm_rate"]) == pytest.approx(above[~masks].mean())
    ends = [(row["threshold"], row["false_alarm_rate"], row["detection_rate"]) for row in (rows[0], rows[-1])]
    assert ends == [("", "1.0", "1.0"), ("", "0.0", "0.0")]


@pytest.mark.parametrize("ending", [".npy", ".logits"])
def test_other_formats_give_the_same(folders, ending):
    expected = evaluate_files(folders / "maps", folders / "truth", printer=quiet)
    (folders / "other").mkdir()
    for seed in range(9):
        scores = scene(seed)[1] / 255
        with np.errstate(divide="ignore"):
            values = scores if ending == ".npy" else np.maximum(scipy.special.logit(scores), -40)
        np.save(folders / f"other/s{seed}_mask.npy", values)
    report = evaluate_files(folders / "other", folders / "truth", logits=ending == ".logits", printer=quiet)
    assert report["protocols"]["irjax"]["metrics"] == expected["protocols"]["irjax"]["metrics"]


def test_processes_do_not_change_the_result(folders):
    results = []
    for processes in (1, 2):
        options = Options(protocols=["irjax", "sctransnet"], processes=processes, out_dir=folders / f"out{processes}",
                          overlays=0)  # fmt: skip
        report = evaluate_files(folders / "maps", folders / "truth", options=options, printer=quiet)
        results.append((report["protocols"], report["curves"]))
    np.testing.assert_equal(results[0], results[1])


def test_a_threshold_replaces_that_of_every_protocol(folders):
    options = Options(protocols=["irjax", "basicirstd"], threshold=0.3)
    report = evaluate_files(folders / "maps", folders / "truth", options=options, printer=quiet)
    masks, maps = zip(*map(scene, range(9)), strict=True)
    for name, column in report["protocols"].items():
        expected = evaluate_images([m / np.float32(255) for m in maps], masks, name, threshold=0.3)[name]
        assert column["metrics"] == expected.metrics() and column["threshold"] == 0.3
    assert report["protocols"]["irjax"]["metrics"]["TP"] > 0


def test_maps_of_another_size(folders):
    with Image.open(folders / "maps/s5_pred.png") as image:
        half = image.resize((28, 20))
    half.save(folders / "maps/s5_pred.png")
    with pytest.raises(ValueError, match=r"maps.s5_pred\.png: the map is 20x28, the truth of image s5 is 40x56"):
        evaluate_files(folders / "maps", folders / "truth", printer=quiet)
    lines = []
    report = evaluate_files(folders / "maps", folders / "truth", options=Options(resize=True), printer=lines.append)
    assert report["resized"] == {"s5": {"height": 20, "width": 28}}
    assert "1 maps of another size (20x28) were resized to the truth's, bilinearly" in lines[0]


def test_canvas_is_for_protocols_that_resize(folders):
    reports = {}
    for canvas in (None, "pad", "resize"):
        options = Options(protocols=["dnanet", "irjax"], canvas=canvas)
        reports[canvas] = evaluate_files(folders / "maps", folders / "truth", options=options, printer=quiet)
    fa = {canvas: report["protocols"]["dnanet"]["metrics"]["Fa"] for canvas, report in reports.items()}
    assert fa[None] == fa["resize"] != fa["pad"]
    assert reports["pad"]["protocols"]["irjax"] == reports[None]["protocols"]["irjax"]
    options = Options(protocols=["dnanet"], canvas="pad", canvas_size=512)
    larger = evaluate_files(folders / "maps", folders / "truth", options=options, printer=quiet)["protocols"]["dnanet"]
    assert larger["metrics"]["Fa"] == pytest.approx(fa["pad"] / 4) and larger["canvas_size"] == 512
    with pytest.raises(ValueError, match="a canvas is for protocols that resize: dnanet, mshnet"):
        evaluate_files(folders / "maps", folders / "truth", options=Options(canvas="pad"), printer=quiet)


def test_a_missing_map_counts_as_nothing_found(folders):
    before = evaluate_files(folders / "maps", folders / "truth", printer=quiet)["protocols"]["irjax"]["metrics"]
    (folders / "maps/s3_pred.png").unlink()
    with pytest.raises(ValueError, match=r"maps: 1 images of the data set have no prediction: s3\. .*--allow-missing"):
        evaluate_files(folders / "maps", folders / "truth", printer=quiet)
    save(folders / "maps/extra.png", scene(1)[1])
    lines = []
    report = evaluate_files(
        folders / "maps", folders / "truth", options=Options(allow_missing=True), printer=lines.append
    )
    after = report["protocols"]["irjax"]["metrics"]
    assert after["TP"] + after["FN"] == before["TP"] + before["FN"] and after["TP"] < before["TP"]
    assert "1 predictions left out, of no image of the data set: extra.png" in lines[0]
    assert "1 images without a prediction (their targets count as missed): s3" in lines[0]


def test_a_folder_of_masks_needs_no_images(folders):
    expected = evaluate_files(folders / "maps", folders / "truth", printer=quiet)
    options = Options(out_dir=folders / "out", html=folders / "r.html", overlays=1)
    report = evaluate_files(folders / "maps", folders / "truth/masks", options=options, printer=quiet)
    assert report["protocols"] == expected["protocols"]
    assert "Shown is the predicted map: there is no image." in (folders / "r.html").read_text()


def test_maps_against_points(tmp_path, folders):
    (folders / "truth/points.csv").write_text("name,x,y\ns1,10,10\n")
    report = evaluate_files(folders / "maps", folders / "truth", layout="points", printer=quiet)
    assert list(report["protocols"]) == ["centroid"]
    with pytest.raises(ValueError, match="'irjax' cannot score points, and the data set has points and no masks"):
        options = Options(protocols=["irjax"])
        evaluate_files(folders / "maps", folders / "truth", layout="points", options=options, printer=quiet)


def test_gray_masks_are_read_as_each_protocol_does(folders):
    mask = scene(3)[0].astype(np.uint8) * 255
    mask[np.argwhere(mask)[0][0]] //= 2
    save(folders / "truth/masks/s3.png", mask)
    lines, options = [], Options(protocols=["irjax", "basicirstd"])
    report = evaluate_files(folders / "maps", folders / "truth", options=options, printer=lines.append)
    assert "truth masks (irjax): 1 gray, >= 128; 8 two levels" in lines[0]
    assert report["protocols"]["basicirstd"]["mask_rules"]["gray, = 255, >= 128 or > 0"] == 1


@pytest.mark.parametrize("processes", [1, 2])
def test_a_corrupt_file_in_the_middle_leaves_nothing(folders, processes):
    bad = folders / "maps/s4_pred.png"
    bad.write_bytes(bad.read_bytes()[:60])
    options = Options(out_dir=folders / "out", html=folders / "report.html", processes=processes)
    with pytest.raises(ValueError, match=r"s4_pred\.png: not a readable image file"):
        evaluate_files(folders / "maps", folders / "truth", options=options, printer=quiet)
    assert not (folders / "out").exists() and not (folders / "report.html").exists()


def test_an_earlier_report_is_replaced_whole(folders):
    out = folders / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    for number in (3, 1):
        options = Options(out_dir=out, overlays=number)
        evaluate_files(folders / "maps", folders / "truth", options=options, printer=quiet)
    assert len(list((out / "overlays").iterdir())) == 1 and (out / "mine.txt").read_text() == "mine"
    stored = (out / "evaluation.json").read_text()
    with pytest.raises(RuntimeError), whole_folder(out) as temporary:
        (temporary / "evaluation.json").write_text("half")
        raise RuntimeError
    assert (out / "evaluation.json").read_text() == stored and not list(out.glob(".irjax-unfinished-*"))
    with pytest.raises(RuntimeError), whole_folder(folders / "new/deep"):
        raise RuntimeError
    assert not (folders / "new").exists()


def test_two_predictions_of_one_image(folders):
    save(folders / "maps/s3.png", scene(3)[1])
    with pytest.raises(ValueError, match=r"maps: image 's3' has two predictions: 's3\.png' and 's3_pred\.png'"):
        evaluate_files(folders / "maps", folders / "truth", printer=quiet)


def test_points_outside_their_image_are_noticed():
    lines = []
    predictions = {"b": PointPredictions([(8, 8), (8, 60)]), "c": found(2)}
    report_points(predictions, Scenes(), printer=lines.append)
    assert "1 images with points outside of them (x and y swapped?): b" in lines[0]


def test_options_that_are_none():
    with pytest.raises(ValueError, match="overlays must not be negative, got -1"):
        Options(overlays=-1)
