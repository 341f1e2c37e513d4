"""Points of detectors: COCO boxes, YOLO files with confidence, and irjax's own CSV; no score is lost."""

import csv
import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from irjax.errors import UserError
from irjax.io.predictions import in_pixels, read_predictions

BOXES = [
    {"image_id": 3, "category_id": 1, "bbox": [10, 20, 3, 5], "score": 0.9},
    {"image_id": 3, "category_id": 7, "bbox": [0, 0, 1, 1], "score": 0.25},
    {"image_id": 4, "category_id": 1, "bbox": [30.5, 2, 2, 2], "score": 0.5},
]


def rows(file):
    return {
        name: [(*p, s) for p, s in zip(found.points.tolist(), found.scores.tolist(), strict=True)]
        for name, found in file.predictions.items()
    }


def saved(folder, content, name="results.json"):
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return folder / name


def test_boxes_are_points_at_their_centres(tmp_path):
    # Pixel centres are at integers: a box of pixels 10, 11, 12 has its centre at 11.
    file = read_predictions(saved(tmp_path, BOXES))
    assert rows(file) == {"3": [(11, 22, 0.9), (0, 0, 0.25)], "4": [(31, 2.5, 0.5)]}
    assert not file.lists_images and file.notes == ()


def test_ids_of_boxes_by_the_file_of_the_truth(tmp_path):
    images = [{"id": 3, "file_name": "a.png"}, {"id": 4, "file_name": "b.png"}, {"id": 5, "file_name": "c.png"}]
    truth = saved(tmp_path, {"images": images, "annotations": []}, "truth.json")
    file = read_predictions(saved(tmp_path, BOXES), images=truth)
    # The truth's images may be more than those of the split, so they say nothing of images without detections.
    assert rows(file) == {"a.png": [(11, 22, 0.9), (0, 0, 0.25)], "b.png": [(31, 2.5, 0.5)]}
    assert not file.lists_images
    with pytest.raises(UserError, match=r"results\.json: annotations\[0\] is for image 9, which is not among"):
        read_predictions(saved(tmp_path, [{**BOXES[0], "image_id": 9}]), images=truth)
    with pytest.raises(UserError, match=r"truth2\.json: not a COCO file"):
        read_predictions(saved(tmp_path, BOXES), images=saved(tmp_path, [], "truth2.json"))
    with pytest.raises(UserError, match="lists its images itself"):
        read_predictions(truth, images=truth)


def test_keypoints_come_before_their_box(tmp_path):
    entry = {"image_id": 1, "bbox": [0, 0, 9, 9], "keypoints": [5, 6, 2], "num_keypoints": 1, "score": 0.5}
    assert rows(read_predictions(saved(tmp_path, [entry]))) == {"1": [(5, 6, 0.5)]}
    assert rows(read_predictions(saved(tmp_path, [{**entry, "keypoints": []}]))) == {"1": [(4, 4, 0.5)]}


def test_boxes_without_scores(tmp_path):
    bare = [{key: value for key, value in entry.items() if key != "score"} for entry in BOXES]
    file = read_predictions(saved(tmp_path, bare))
    assert [score for found in rows(file).values() for *_, score in found] == [1, 1, 1]
    assert file.notes == ("the predictions have no scores: each counts as 1",)
    with pytest.raises(UserError, match=r"annotations\[1\] \(3\): the target has no score, and others have one"):
        read_predictions(saved(tmp_path, [BOXES[0], bare[1]]))


@pytest.mark.parametrize(
    ("box", "message"),
    [([1, 2, 3], "must be x, y, width, height"), ([1, 2, -3, 4], "sides of at least 0"), ([1, 2, "3", 4], "numbers"),
     ([1, 2, float("nan"), 4], "finite")],
)  # fmt: skip
def test_boxes_that_are_none(tmp_path, box, message):
    with pytest.raises(UserError, match=rf"results\.json: annotations\[0\] \(3\): bbox .*{message}"):
        read_predictions(saved(tmp_path, [{**BOXES[0], "bbox": box}]))


# Three pixels by three from (4, 3) without their middle, as pycocotools 2.0.11 packs them, and the plain counts.
RING = {"size": [12, 16], "counts": "c139NH082Y3"}
RING_COUNTS = {"size": [12, 16], "counts": [51, 3, 9, 1, 1, 1, 9, 3, 114]}


@pytest.mark.parametrize(
    ("outline", "point"),
    [([[4, 3, 8, 3, 8, 5, 4, 5]], (5.5, 3.5)), ([[4, 3, 5, 3, 5, 4, 4, 4], [6, 3, 7, 3, 7, 4, 6, 4]], (5, 3)),
     (RING, (5, 4)), (RING_COUNTS, (5, 4))],
)  # fmt: skip
def test_outlines_are_points_at_the_centroids_of_their_pixels(tmp_path, outline, point):
    entry = {"image_id": 3, "category_id": 1, "segmentation": outline, "score": 0.5}
    assert rows(read_predictions(saved(tmp_path, [entry]))) == {"3": [(*point, 0.5)]}
    assert rows(read_predictions(saved(tmp_path, [entry | {"bbox": [4, 3, 2, 2]}]))) == {"3": [(4.5, 3.5, 0.5)]}


def test_csv_as_predict_writes_it(tmp_path):
    path = saved(tmp_path, "name,x,y,score\na.png,40,50.5,0.9\na.png,1,2,0.25\nb/c.png,0,0,1\n", "predictions.csv")
    file = read_predictions(path)
    assert rows(file) == {"a.png": [(40, 50.5, 0.9), (1, 2, 0.25)], "b/c.png": [(0, 0, 1)]}
    assert not file.lists_images and file.notes == () and not file.relative
    spaced = saved(tmp_path, "\ufeffscore, name, x, y, comment\n0.9, a, 4, 5, none\n", "other.csv")
    assert rows(read_predictions(spaced)) == {"a": [(4, 5, 0.9)]}
    bare = read_predictions(saved(tmp_path, "name,x,y\na,4,5\n", "bare.csv"))
    assert rows(bare) == {"a": [(4, 5, 1)]} and "no scores" in bare.notes[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,x,score\na,1,1\n", r"columns name, x, y, and of predictions score, are wanted; y not among"),
        ("", "columns name, x, y, and of predictions score, are wanted"),
        ("name,x,y,score\na,1,2,high\n", "line 2: score must be numbers, got 'high'"),
        ("name,x,y,score\na,1,2\n", "line 2: score must be numbers, got None"),
        ("name,x,y,score\na,1,2,1\n,1,2,1\n", "line 3: a name is wanted"),
        ("name,x,y,score\na,1,nan,1\n", "line 2: y must be finite, got nan"),
    ],
)
def test_csv_that_is_none(tmp_path, text, message):
    with pytest.raises(UserError, match=rf"p\.csv.*{message}"):
        read_predictions(saved(tmp_path, text, "p.csv"))


NUMBERS = st.floats(-1e6, 1e6, allow_nan=False)


@given(st.lists(st.tuples(st.text("ab1_ (), \"'é", min_size=1).map(str.strip).filter(bool), NUMBERS, NUMBERS, NUMBERS)))
def test_every_row_of_a_csv_is_read(tmp_path_factory, table):
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([("name", "x", "y", "score"), *table])
    path = tmp_path_factory.mktemp("csv") / "p.csv"
    path.write_text(text.getvalue(), encoding="utf-8", newline="")
    found = rows(read_predictions(path))
    assert sorted((name, *row) for name, own in found.items() for row in own) == sorted(table)


def test_yolo_files_with_confidence(tmp_path):
    saved(tmp_path, "0 0.421875 0.526042 0.03125 0.03125 0.9\n\n3 0.125 0.125 0.04 0.04 0.3\n", "a.txt")
    saved(tmp_path, "", "b.txt")
    file = read_predictions(tmp_path)
    assert list(file.predictions) == ["a.txt", "b.txt"] and file.relative and not file.lists_images
    # Fractions count from the edge of the image, half a pixel before the centre of its first pixel.
    found = in_pixels(file.predictions["a.txt"], (48, 96))
    np.testing.assert_allclose(found.points, [(40, 24.75), (11.5, 5.5)], atol=1e-4)
    assert found.scores.tolist() == [0.9, 0.3] and file.notes == () and not len(file.predictions["b.txt"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 0.5 0.5 0.1 0.1 0.9\n0 0.5 0.5 0.1 0.1\n", "line 2: the box has no confidence, and others have one"),
        ("0 0.5 0.5 0.1\n", "line 1: class, x, y, width, height, confidence are wanted"),
        ("0 0.5 0.5 0.1 0.1 x\n", "line 1: class"),
        ("0 40 50 3 3 0.9\n", "line 1: x and y must be fractions"),
    ],
)
def test_yolo_files_that_are_none(tmp_path, text, message):
    saved(tmp_path, text, "a.txt")
    with pytest.raises(UserError, match=rf"a\.txt, {message}"):
        read_predictions(tmp_path)


def test_yolo_files_without_confidence(tmp_path):
    saved(tmp_path, "0 0.5 0.5 0.1 0.1\n", "a.txt")
    file = read_predictions(tmp_path)
    assert file.predictions["a.txt"].scores.tolist() == [1] and "no scores" in file.notes[0]
