import json
import math

import numpy as np
import pytest

from irjax.io.predictions import read_predictions, write_predictions
from irjax.metrics import PointPredictions


def saved(folder, content):
    path = folder / "predictions.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def as_lists(file):
    return {name: [*map(tuple, np.c_[p.points, p.scores].tolist())] for name, p in file.predictions.items()}


def test_round_trip_is_exact(tmp_path):
    random = np.random.default_rng(0)
    points, scores = random.uniform(0, 99, (3, 2)).astype(np.float32), random.uniform(0, 1, 3).astype(np.float32)
    predictions = {"a.png": PointPredictions(points, scores), "b/c.bmp": PointPredictions([])}
    write_predictions(tmp_path / "new" / "p.json", predictions, {"a.png": (10, 20)})
    file = read_predictions(tmp_path / "new" / "p.json")
    assert list(file.predictions) == ["a.png", "b/c.bmp"] and file.lists_images and file.sizes == {"a.png": (10, 20)}
    np.testing.assert_array_equal(file.predictions["a.png"].points, points.astype(np.float64))
    np.testing.assert_array_equal(file.predictions["a.png"].scores, scores.astype(np.float64))
    assert len(file.predictions["b/c.bmp"]) == 0
    coco = json.loads((tmp_path / "new" / "p.json").read_text())
    assert coco["images"][0] == {"id": 1, "file_name": "a.png", "height": 10, "width": 20}
    assert set(coco["annotations"][0]) == {"id", "image_id", "category_id", "keypoints", "num_keypoints", "score"}


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: {"annotations": x}, lambda x: {"predictions": x}])
def test_results_of_any_program(tmp_path, wrap):
    entries = [
        {"image_id": "Misc_1", "category_id": 1, "keypoints": [3, 4.5, 2], "score": 0.5},
        {"image_id": "Misc_1", "keypoints": [0, 7, 0], "score": 1},
        {"file_name": "images/Misc_2.png", "keypoints": [8, 9, 1], "score": 0.25},
    ]
    file = read_predictions(saved(tmp_path, wrap(entries)))
    assert as_lists(file) == {"Misc_1": [(3, 4.5, 0.5), (0, 7, 1)], "images/Misc_2.png": [(8, 9, 0.25)]}
    assert not file.lists_images


def test_files_of_the_published_program(tmp_path):
    # One annotation for each image, the score in the third place, ids that are names, no annotation score.
    content = {
        "images": [
            {"file_name": "Misc_1.png", "height": 8, "width": 9, "id": "Misc_1"},
            {"file_name": "Misc_2.png", "height": 8, "width": 9, "id": "Misc_2"},
        ],
        "annotations": [
            {"id": 1, "image_id": "Misc_1", "keypoints": [3.5, 4, 0.91, 0, 6, 0.4], "num_keypoints": 2},
            {"id": 2, "image_id": "Misc_2", "keypoints": [], "num_keypoints": 0},
        ],
    }
    file = read_predictions(saved(tmp_path, content))
    assert as_lists(file) == {"Misc_1.png": [(3.5, 4, 0.91), (0, 6, 0.4)], "Misc_2.png": []}
    assert file.sizes["Misc_1.png"] == (8, 9) and file.lists_images


def test_visibility_flags_without_scores(tmp_path):
    file = read_predictions(saved(tmp_path, [{"image_id": 7, "keypoints": [1, 2, 2, 5, 6, 1, 0, 0, 0]}]))
    assert as_lists(file) == {"7": [(1, 2, 1), (5, 6, 1)]}


def test_a_point_in_the_corner_is_kept_and_an_absent_one_is_not(tmp_path):
    entries = [
        {"image_id": 1, "keypoints": [0, 0, 2], "score": 0.5},
        {"image_id": 1, "keypoints": [0, 0, 0], "score": 1},
    ]
    assert as_lists(read_predictions(saved(tmp_path, entries))) == {"1": [(0, 0, 0.5)]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not a JSON file"),
        ('[{"image_id": 1, "keypoints": [1, NaN, 2], "score": 1}]', r"\[0\] \(1\): keypoints must be finite"),
        ('[{"image_id": 1, "keypoints": [1, 1e999, 2], "score": 1}]', "must be finite"),
        ('[{"image_id": 1, "keypoints": [1, 2, 2], "score": Infinity}]', "score must be finite"),
        ([{"image_id": 1, "keypoints": [1, 10**400, 2], "score": 1}], "must be finite"),
        ([{"image_id": 1, "keypoints": [1, "2", 2], "score": 1}], "must be numbers, got '2'"),
        ([{"image_id": 1, "keypoints": [1, None, 2], "score": 1}], "must be numbers, got None"),
        ([{"image_id": 1, "keypoints": [1, True, 2], "score": 1}], "must be numbers, got True"),
        ([{"image_id": 1, "keypoints": [1, 2], "score": 1}], r"triples, got \[1, 2\]"),
        ([{"image_id": 1, "keypoints": 5, "score": 1}], "triples, got 5"),
        ([{"image_id": 1, "segmentation": [1, 2], "score": 1}], r"annotations\[0\] .*segmentation must be"),
        ([{"image_id": 1, "score": 1}], r"annotations\[0\] \(1\) needs keypoints .*got None"),
        ([{"keypoints": [1, 2, 2], "score": 1}], "needs image_id or file_name"),
        ([[1, 2]], r"annotations\[0\] needs image_id"),
        ({"loss": 3}, "not a COCO file: a list of annotations, or an object with one is wanted"),
        ({}, "not a COCO file"),
        ("3", "not a COCO file"),
        ({"images": [{"id": 1}, {"id": "1"}], "annotations": []}, "repeats the id 1"),
        (
            {"images": [{"id": 1, "file_name": "a"}, {"id": 2, "file_name": "a"}], "annotations": []},
            "repeats the id 2 or the file name a",
        ),
        ({"images": [{"name": "a"}], "annotations": []}, r"images\[0\] needs id"),
        ({"images": 4, "annotations": []}, "not a COCO file"),
        ({"images": [{"id": 1}], "annotations": [{"image_id": 2, "keypoints": []}]}, "2, which is not among"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_the_file(tmp_path, content, message):
    path = saved(tmp_path, content)
    with pytest.raises(ValueError, match=f"predictions.json: .*{message}"):
        read_predictions(path)


def test_images_of_one_stem_stay_two(tmp_path):
    predictions = {"a.png": PointPredictions([(1, 2)], [0.5]), "a.bmp": PointPredictions([(3, 4)], [0.75])}
    write_predictions(tmp_path / "p.json", predictions)
    assert as_lists(read_predictions(tmp_path / "p.json")) == {"a.png": [(1, 2, 0.5)], "a.bmp": [(3, 4, 0.75)]}


def test_no_file_and_no_text(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent.json"):
        read_predictions(tmp_path / "absent.json")
    (tmp_path / "image.json").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(ValueError, match="image.json: not a JSON file"):
        read_predictions(tmp_path / "image.json")


def test_nothing_is_half_written(tmp_path):
    path = tmp_path / "p.json"
    write_predictions(path, {"a": PointPredictions([(1, 2)], [0.5])})
    before = path.read_text()

    class Failing(dict):
        def items(self):
            yield "a", PointPredictions([(9, 9)], [0.1])
            raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        write_predictions(path, Failing())
    assert path.read_text() == before and [p.name for p in tmp_path.iterdir()] == ["p.json"]
    assert not math.isnan(read_predictions(path).predictions["a"].scores[0])
