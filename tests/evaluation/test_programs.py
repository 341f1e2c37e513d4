"""Predictions as other programs save them, evaluated whole: raw responses, canvases, padding, detectors."""

import csv
import json

import numpy as np
import pytest
import scipy.io
from PIL import Image

from irjax.errors import UsageError, UserError
from irjax.evaluation.compare import compare_files
from irjax.evaluation.evaluate import Options, evaluate_files
from irjax.evaluation.scoring import deviations_of
from irjax.io.predictions import write_predictions
from irjax.metrics import PROTOCOLS, PointPredictions, evaluate_images, protocol
from irjax.ops.resize import resize_mask


def save(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, values) if path.suffix == ".npy" else Image.fromarray(values).save(path)


def evaluated(predictions, truth, **options):
    """Returns the report and the printed text."""
    lines = []
    named = {name: options.pop(name) for name in ("key", "logits") if name in options}
    report = evaluate_files(predictions, truth, options=Options(**options), printer=lines.append, **named)
    return report, "\n".join(lines)


# --- raw responses ----------------------------------------------------------------------------------------------------


@pytest.fixture
def responses(tmp_path):
    """Responses of any scale to two images each with a strong target and a weak one, and the data set of them."""
    rng = np.random.default_rng(0)
    for name, factor in (("a", 5.0), ("b", 300.0)):
        mask, response = np.zeros((40, 60), bool), rng.random((40, 60)) * 0.05
        mask[10:13, 10:13] = mask[30:32, 40:43] = True
        response[10:13, 10:13], response[30:32, 40:43] = 1, 0.4
        save(tmp_path / f"raw/{name}.npy", response * factor)
        save(tmp_path / f"data/masks/{name}.png", mask.astype(np.uint8) * 255)
        save(
            tmp_path / f"data/images/{name}.png",
            np.rint(120 + rng.normal(0, 5, mask.shape) + 40 * mask).astype(np.uint8),
        )
    return tmp_path


def test_raw_responses_are_refused_with_the_way_out(responses):
    with pytest.raises(UserError, match=r"a\.npy: .*got .* to 5; .*raw responses --scale max, minmax, 255"):
        evaluated(responses / "raw", responses / "data")


@pytest.mark.parametrize("scale", ["max", "minmax"])
def test_raw_responses_are_scaled_each_by_itself(responses, scale):
    report, text = evaluated(responses / "raw", responses / "data", scale=scale)
    assert report["protocols"]["irjax"]["metrics"]["Pd"] == 0.5  # the weak target is below half of the maximum
    assert "maximum" in report["map_rule"] and report["map_rule"] in text


def test_an_adaptive_threshold_is_that_of_each_response(responses):
    report, text = evaluated(responses / "raw", responses / "data", scale="max", threshold_rule="adaptive:3",
                             protocols=["irjax", "rpcanet", "centroid"], out_dir=responses / "out",
                             html=responses / "out.html")  # fmt: skip
    raw = [np.load(responses / f"raw/{name}.npy") for name in "ab"]
    masks = [np.asarray(Image.open(responses / f"data/masks/{name}.png")) > 0 for name in "ab"]
    expected = evaluate_images([r > r.mean() + 3 * r.std() for r in raw], masks, ["irjax", "rpcanet", "centroid"])
    for name, column in report["protocols"].items():
        assert column["metrics"] == expected[name].metrics() and column["metrics"]["Pd"] == 1
        assert column["threshold"] is None and column["criterion"] == "p > mean + 3 standard deviations of each map"
    assert "2 images, 4 targets; p > mean + 3 standard deviations of each map" in text
    # Curves are over thresholds of the scaled response, as without the rule.
    plain, _ = evaluated(responses / "raw", responses / "data", scale="max", out_dir=responses / "out2")
    assert report["curves"] == plain["curves"]
    assert "mean + 3 standard deviations" in (responses / "out.html").read_text()


def test_an_adaptive_threshold_above_everything_finds_nothing(responses):
    save(responses / "raw/a.npy", np.full((40, 60), 7.0))
    report, _ = evaluated(responses / "raw", responses / "data", scale="max", threshold_rule="adaptive:3")
    assert report["protocols"]["irjax"]["metrics"]["TP"] == 2  # of b alone: a constant map has no pixel above its mean
    report, _ = evaluated(responses / "raw", responses / "data", scale="max", threshold_rule="adaptive:1e6")
    assert report["protocols"]["irjax"]["metrics"]["TP"] == report["protocols"]["irjax"]["metrics"]["FP"] == 0


@pytest.mark.parametrize(
    "rule", ["adaptive", "adaptive:", "adaptive:-1", "adaptive:nan", "otsu", "adaptive:x", "max:3"]
)
def test_threshold_rules_that_are_none(rule):
    with pytest.raises(UsageError, match=r"must be adaptive:K.*got '"):
        Options(threshold_rule=rule)


def test_what_excludes_a_threshold_rule(responses):
    assert deviations_of("adaptive:2.5") == 2.5 and deviations_of(None) is None
    with pytest.raises(UsageError, match="exclude each other"):
        Options(threshold=0.5, threshold_rule="adaptive:3")
    with pytest.raises(UsageError, match="not for logits"):
        evaluated(responses / "raw", responses / "data", logits=True, threshold_rule="adaptive:3")
    write_predictions(responses / "p.json", {"a": PointPredictions([(11, 11)]), "b": PointPredictions([])})
    with pytest.raises(UserError, match=r"p\.json: a threshold rule is for maps"):
        evaluated(responses / "p.json", responses / "data", threshold_rule="adaptive:3")
    with pytest.raises(UserError, match=r"p\.json: --key and --logits are for maps, as is --scale"):
        evaluated(responses / "p.json", responses / "data", scale="max")


def test_maps_and_points_are_compared_by_the_rule_of_maps(responses):
    write_predictions(responses / "p.json", {"a": PointPredictions([(11, 11)]), "b": PointPredictions([])})
    options = Options(scale="max", threshold_rule="adaptive:3")
    report = compare_files([responses / "raw", responses / "p.json"], responses / "data", options=options, printer=str)
    assert [one["metrics"]["TP"] for one in report["sets"].values()] == [4, 1]


def test_clutter_figures_stand_beside_the_roc(responses):
    report, text = evaluated(responses / "raw", responses / "data", scale="max", out_dir=responses / "out")
    with open(responses / "out/clutter.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["a", "a", "b", "b"] and float(rows[0]["scr_gain"]) > 1
    gains = sorted(float(row["scr_gain"]) for row in rows)
    assert report["curves"]["scr_gain"]["median"] == gains[1] and report["curves"]["bsf"]["targets"] == 4
    assert "signal-to-clutter-ratio gain: median of 4 targets" in text and "background suppression factor" in text
    # Masks alone have no image to compare with.
    report, text = evaluated(responses / "raw", responses / "data/masks", scale="max", out_dir=responses / "out2")
    assert "scr_gain" not in report["curves"] and not (responses / "out2/clutter.csv").exists()


# --- forms of maps ----------------------------------------------------------------------------------------------------


def test_stacks_with_a_list(responses):
    stack = np.stack([np.load(responses / f"raw/{name}.npy") for name in "ba"])
    save(responses / "stack/all.npy", stack)
    (responses / "names.txt").write_text("b.png\n\na.png\n")
    expected, _ = evaluated(responses / "raw", responses / "data", scale="max")
    for where in ("stack", "stack/all.npy"):
        for processes in (1, 2):
            report, _ = evaluated(responses / where, responses / "data", scale="max", names=responses / "names.txt",
                                  processes=processes)  # fmt: skip
            assert report["protocols"] == expected["protocols"]
    with pytest.raises(UserError, match=r"--names FILE gives their names"):
        evaluated(responses / "stack", responses / "data", scale="max")
    (responses / "names.txt").write_text("a.png\n")
    with pytest.raises(UserError, match=r"all\.npy: 1 names need an array \[1, H, W\]"):
        evaluated(responses / "stack", responses / "data", scale="max", names=responses / "names.txt")


def test_what_was_clipped_or_left_out_is_said(responses):
    for name in "ab":
        values = np.load(responses / f"raw/{name}.npy")
        save(responses / f"mixed/{name}_Pred.npy", values / values.max() * 0.9999)
        save(responses / f"mixed/{name}.npy", values * 1000)
        save(responses / f"mixed/{name}_GT.npy", values > 1)
    report, text = evaluated(responses / "mixed", responses / "data", protocols=["irjax"])
    expected, _ = evaluated(responses / "raw", responses / "data", scale="max")
    assert report["protocols"]["irjax"]["metrics"] == expected["protocols"]["irjax"]["metrics"]
    assert "4 files beside the maps were left out: a.npy, a_GT.npy, b.npy, b_GT.npy" in text
    assert report["clipped"] == [] and "clipped" not in text
    for name in "ab":
        save(responses / f"mixed/{name}_Pred.npy", np.full((40, 60), -1e-7))
    report, text = evaluated(responses / "mixed", responses / "data")
    assert report["clipped"] == ["a_Pred.npy", "b_Pred.npy"]
    assert "2 maps with values outside of [0, 1] by at most 0.0001 were clipped: a_Pred.npy, b_Pred.npy" in text


def test_maps_in_folders(responses):
    """Frames in folders, as `irjax predict` writes them; others beside the maps are left out and named."""
    for name in "ab":
        for folder in ("x", "y"):
            for kind in ("masks", "images"):
                values = np.asarray(Image.open(responses / f"data/{kind}/{name}.png"))
                save(responses / f"video/{kind}/{folder}/{name}.png", values if folder == "x" else values[::-1])
                if kind == "masks":
                    save(responses / f"maps/{folder}/{name}.png", values if folder == "x" else values[::-1])
    report, _ = evaluated(responses / "maps", responses / "video")
    assert report["images"] == 4 and report["protocols"]["irjax"]["metrics"]["IoU"] == 1.0
    report, _ = evaluated(responses / "maps/x", responses / "data/masks")
    save(responses / "maps/x/drawn/a.png", np.full((40, 60), 255, np.uint8))
    Image.fromarray(np.zeros((40, 60), np.uint8)).save(responses / "maps/x/drawn/b.jpg")
    again, text = evaluated(responses / "maps/x", responses / "data/masks")
    assert again["protocols"] == report["protocols"] and again["unknown_predictions"] == ["drawn/a.png"]
    assert "1 files beside the maps were left out: drawn/b.jpg" in text


# --- canvases ---------------------------------------------------------------------------------------------------------

SIZES = ((512, 512), (480, 640), (256, 256), (200, 300))


@pytest.fixture
def canvases(tmp_path):
    """Masks of several sizes, and the perfect maps of programs that work on 256x256."""
    rng = np.random.default_rng(1)
    for number, (height, width) in enumerate(SIZES):
        mask = np.zeros((height, width), bool)
        for _ in range(3):
            y, x = rng.integers(5, height - 12), rng.integers(5, width - 12)
            mask[y : y + 6, x : x + 6] = True
        save(tmp_path / f"data/masks/{number}.png", mask.astype(np.uint8) * 255)
        save(tmp_path / f"data/images/{number}.png", np.full(mask.shape, 90, np.uint8) + mask)
        small = resize_mask(mask, 256)
        save(tmp_path / f"maps/{number}.png", small.astype(np.uint8) * 255)
        (tmp_path / "mat").mkdir(exist_ok=True)
        scipy.io.savemat(tmp_path / f"mat/{number}.mat", {"T": np.where(small, np.float32(0.9), np.float32(0.01))})
    return tmp_path


PROGRAMS = ["dnanet", "mshnet", "rpcanet", "agpcnet", "scale_loss"]


@pytest.mark.parametrize("maps", ["maps", "mat"])
@pytest.mark.parametrize("processes", [1, 2])
def test_perfect_maps_at_a_programs_canvas_are_perfect(canvases, maps, processes):
    report, text = evaluated(canvases / maps, canvases / "data/masks", protocols=PROGRAMS, processes=processes)
    for column in report["protocols"].values():
        assert column["metrics"]["IoU"] == 1.0 and column["metrics"].get("Pd", 1.0) == 1.0
        assert column["metrics"].get("Fa", 0.0) == 0.0
    assert f"3 maps of 256x256, the canvas of {', '.join(PROGRAMS)}, were taken as they are" in text
    assert report["resized"] == {} and report["protocols"]["rpcanet"]["canvas_size"] == 256


def test_maps_at_a_canvas_have_curves_and_pictures_there(canvases):
    wrong = np.zeros((256, 256), np.uint8)
    wrong[100:103, 200:203] = 255
    save(canvases / "maps/1.png", wrong)
    report, _ = evaluated(canvases / "maps", canvases / "data", protocols=["dnanet"], out_dir=canvases / "out",
                          html=canvases / "out.html")  # fmt: skip
    assert report["curves"]["protocol"] == "irjax at 256x256" and report["worst"][0]["name"] == "1"
    assert {row["pixels"] for row in report["worst"]} == {256 * 256}
    assert len(list((canvases / "out/overlays").iterdir())) == 1 and "scr_gain" not in report["curves"]


def test_a_protocol_at_native_size_needs_maps_of_that_size(canvases):
    other = r"protocols on a canvas of 256x256 take the map as it is: dnanet, mshnet, .*rpcanet"
    with pytest.raises(UserError, match=rf"0\.png: the map is 256x256, .* of image 0 is 512x512.*; --resize.*{other}"):
        evaluated(canvases / "maps", canvases / "data/masks", protocols=["dnanet", "irjax"])
    with pytest.raises(UserError, match=r"1\.png: the map is 256x256, .* 480x640 .*would change the aspect; --crop"):
        evaluated(canvases / "maps", canvases / "data/masks", resize=True)


def test_both_kinds_of_protocols_in_one_table(canvases):
    for number in (1, 3):
        (canvases / f"maps/{number}.png").unlink()
        (canvases / f"data/masks/{number}.png").unlink()
    report, text = evaluated(canvases / "maps", canvases / "data/masks", protocols=["dnanet", "irjax"], resize=True)
    assert list(report["protocols"]) == ["dnanet", "irjax"] and report["protocols"]["dnanet"]["metrics"]["IoU"] == 1.0
    assert 0.7 < report["protocols"]["irjax"]["metrics"]["IoU"] < 1 and list(report["resized"]) == ["0"]
    assert "1 maps of 256x256, the canvas of dnanet, were taken as they are" in text
    assert "1 maps of another size (256x256) were resized" in text


def test_only_the_canvas_of_a_program_is_taken(canvases):
    options = {"protocols": ["mshnet"], "canvas_size": 128}
    with pytest.raises(UserError, match=r"0\.png: the map is 256x256"):
        evaluated(canvases / "maps", canvases / "data/masks", **options)
    for number in range(4):
        mask = np.asarray(Image.open(canvases / f"data/masks/{number}.png")) > 0
        save(canvases / f"maps/{number}.png", resize_mask(mask, 128).astype(np.uint8) * 255)
    report, _ = evaluated(canvases / "maps", canvases / "data/masks", **options)
    assert report["protocols"]["mshnet"]["metrics"]["IoU"] == 1.0


def test_rpcanet_at_native_size_is_as_it_was():
    assert PROTOCOLS["rpcanet"].canvas == "native" and protocol("rpcanet").canvas_size is None


@pytest.mark.parametrize("place", ["corner", "centre"])
def test_padded_maps_are_cropped(canvases, place):
    for number in range(4):
        mask = np.asarray(Image.open(canvases / f"data/masks/{number}.png"))
        below, right = -len(mask) % 32 + 32, -mask.shape[1] % 32 + 64
        half = ((0, below), (0, right)) if place == "corner" else [(p // 2, p - p // 2) for p in (below, right)]
        save(canvases / f"maps/{number}.png", np.pad(mask, half))
    with pytest.raises(UserError, match=r"0\.png: the map is 544x576, .* 512x512 .*; --crop corner or centre"):
        evaluated(canvases / "maps", canvases / "data/masks")
    report, text = evaluated(canvases / "maps", canvases / "data/masks", crop=place, protocols=["irjax", "dnanet"])
    assert [column["metrics"]["IoU"] for column in report["protocols"].values()] == [1.0, 1.0]
    assert len(report["cropped"]) == 4 and report["resized"] == {}
    assert f"were cropped to the image in their {'top left corner' if place == 'corner' else 'centre'}" in text


def test_a_shrunk_image_in_its_padding_is_cropped_and_resized(canvases):
    for number, (height, width) in enumerate(SIZES):
        mask = np.asarray(Image.open(canvases / f"data/masks/{number}.png"))
        scale = min(1, 256 / max(height, width))
        rows, columns = round(height * scale), round(width * scale)
        small = np.asarray(Image.fromarray(mask).resize((columns, rows), Image.Resampling.BILINEAR))
        canvas = np.zeros((256, 256), np.uint8)
        top, left = (256 - rows) // 2, (256 - columns) // 2
        canvas[top : top + rows, left : left + columns] = small
        save(canvases / f"maps/{number}.png", canvas)
    with pytest.raises(UserError, match=r"0\.png: the map is 256x256, .* 512x512 .*; --resize scales"):
        evaluated(canvases / "maps", canvases / "data/masks", crop="centre")
    report, _ = evaluated(canvases / "maps", canvases / "data/masks", crop="centre", resize=True)
    assert report["protocols"]["irjax"]["metrics"]["Pd"] == 1 and report["protocols"]["irjax"]["metrics"]["IoU"] > 0.75
    assert list(report["cropped"]) == list(report["resized"]) == ["0", "1", "3"]
    with pytest.raises(UsageError, match="crop must be corner or centre, got 'left'"):
        Options(crop="left")


# --- detectors --------------------------------------------------------------------------------------------------------


def test_every_format_of_detectors_gives_the_same(responses):
    found = {"a": [(11, 11, 0.9), (50, 5, 0.3)], "b": [(41, 30.5, 0.6)]}
    images = [{"id": number, "file_name": f"{name}.png"} for number, name in enumerate(found)]
    (responses / "truth.json").write_text(json.dumps({"images": images, "annotations": []}))
    boxes = [
        {"image_id": name, "category_id": 1, "bbox": [x - 1, y - 1, 3, 3], "score": score}
        for name, rows in found.items() for x, y, score in rows
    ]  # fmt: skip
    (responses / "boxes.json").write_text(json.dumps(boxes))
    numbered = [{**box, "image_id": "ab".index(box["image_id"])} for box in boxes]
    (responses / "ids.json").write_text(json.dumps(numbered))
    lines = [f"{name}.png,{x},{y},{score}" for name, rows in found.items() for x, y, score in rows]
    (responses / "predictions.csv").write_text("\n".join(["name,x,y,score", *lines]))
    (responses / "yolo").mkdir()
    for name, rows in found.items():
        text = "".join(f"0 {(x + 0.5) / 60!r} {(y + 0.5) / 40!r} 0.05 0.075 {score}\n" for x, y, score in rows)
        (responses / f"yolo/{name}.txt").write_text(text)
    points = {
        f"{name}.png": PointPredictions([r[:2] for r in rows], [r[2] for r in rows]) for name, rows in found.items()
    }
    write_predictions(responses / "keypoints.json", points)

    reports = {}
    for name in ("keypoints.json", "boxes.json", "predictions.csv", "yolo"):
        for threshold in (None, 0.5, 0.8):
            report, _ = evaluated(responses / name, responses / "data", threshold=threshold)
            reports[name, threshold] = report["protocols"]["centroid"]["metrics"]
            assert reports[name, threshold] == reports["keypoints.json", threshold]
    assert [reports["yolo", t]["TP"] + reports["yolo", t]["FP"] for t in (None, 0.5, 0.8)] == [3, 2, 1]
    with pytest.raises(UserError, match="it has 0, 1, the data set a, b; --names FILE gives the COCO file"):
        evaluated(responses / "ids.json", responses / "data")
    report, _ = evaluated(responses / "ids.json", responses / "data", names=responses / "truth.json")
    assert report["protocols"]["centroid"]["metrics"] == reports["yolo", None]
    with pytest.raises(UserError, match="names are for one array of maps, or for the image ids"):
        evaluated(responses / "yolo", responses / "data", names=responses / "truth.json")
    (responses / "notes.doc").write_text("")
    with pytest.raises(UserError, match=r"notes\.doc: predictions are a folder of maps, one array"):
        evaluated(responses / "notes.doc", responses / "data")


def test_points_without_scores_are_said(responses):
    (responses / "bare.csv").write_text("name,x,y\na,11,11\n")
    report, text = evaluated(responses / "bare.csv", responses / "data")
    assert "predictions: the predictions have no scores: each counts as 1" in text and report["notes"]


# --- what users brought -----------------------------------------------------------------------------------------------


@pytest.fixture
def cases(shared):
    folder = shared / "cases"
    if not folder.is_dir():
        pytest.skip("needs ../shared/cases")
    return folder


@pytest.mark.parametrize("form", ["npy", "mat", "pngnorm"])
def test_case_of_raw_responses(cases, form):
    options = {} if form == "pngnorm" else {"scale": "max", "key": "tarImg" if form == "mat" else None}
    folder = cases / "response_maps"
    report, _ = evaluated(folder / form, folder / "masks", protocols=["basicirstd"], **options)
    assert report["protocols"]["basicirstd"]["metrics"]["Pd"] == 1
    report, text = evaluated(folder / form, folder / "masks", threshold_rule="adaptive:5", **options)
    assert report["protocols"]["irjax"]["metrics"]["TP"] == 3 and "mean + 5 standard deviations" in text


@pytest.mark.parametrize("form", ["bmp", "jpg", "npy4", "neg", "stack", "matstack"])
def test_case_of_forms(cases, form, tmp_path):
    (tmp_path / "names.txt").write_text("a.png\nb.png\n")
    options = {"names": tmp_path / "names.txt"} if form.endswith("stack") else {}
    report, text = evaluated(cases / "pred_forms" / form, cases / "pred_forms/truth", **options)
    assert report["protocols"]["irjax"]["metrics"]["IoU"] == 1.0 and ("clipped" in text) == (form == "neg")


@pytest.mark.parametrize(("form", "points"), [("predictions.json", 6), ("yolo", 6), ("pred.csv", 3)])
def test_case_of_detectors(cases, form, points):
    folder = cases / "detector_boxes"
    metrics = evaluated(folder / form, folder / "masks")[0]["protocols"]["centroid"]["metrics"]
    assert metrics["TP"] == 3 and metrics["TP"] + metrics["FP"] == points
    metrics = evaluated(folder / form, folder / "masks", threshold=0.5)[0]["protocols"]["centroid"]["metrics"]
    assert metrics["TP"] == 3 and metrics["FP"] == 0


def test_case_of_nested_maps(cases):
    report, _ = evaluated(cases / "nested_predictions/pred", cases / "nested_predictions/data")
    assert report["images"] == 4 and report["protocols"]["irjax"]["metrics"]["IoU"] == 1.0
