"""The situations of ../shared/cases on made inputs of a few kilobytes, for those who do not have that folder.

`CASES` says of every folder there which tests show what is right; those that take the whole way from files to files are
here, the others beside the part that they test.
"""

import csv
import pathlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from irjax import cli
from irjax.data.splits import DataConfig, open_splits
from irjax.evaluation.evaluate import Options, evaluate_files
from irjax.io.predictions import read_predictions

HERE = pathlib.Path(__file__).parent
CASES = {
    "ckpt_mshnet": {"convert/test_read_checkpoint.py": "test_what_lies_beside_the_weights_does_not_matter"},
    "coco_voc": {
        "io/test_coco.py": "test_folders_tell_images_apart",
        "io/test_formats.py": "test_voc_without_a_size test_voc_in_encodings test_labelme",
        "labels/test_conversion.py": "test_images_in_folders_stay_two test_labelme_folders",
    },
    "depth12": {"test_cases_made.py": "test_depth12"},
    "detector_boxes": {
        "io/test_predictions_detectors.py": "test_boxes_are_points_at_their_centres test_yolo_files_with_confidence",
        "labels/test_conversion.py": "test_confidences_are_left_out_and_said",
        "test_cases_made.py": "test_detector_boxes",
    },
    "large": {
        "detector/test_limits.py": "test_what_is_shrunk_is_said",
        "test_cases.py": "test_three_targets_in_4096_pixels",
    },
    "layout_names": {
        "data/test_layouts.py": "test_folders_of_other_names test_masks_beside_their_images test_two_folders_said"
    },
    "list_forms": {
        "io/test_lists.py": "test_paths_of_one_image test_pairs_of_image_and_mask test_encodings_and_line_ends"
    },
    "many_targets": {
        "test_cases_made.py": "test_many_targets",
        "detector/test_limits.py": "test_what_is_cut_is_counted",
    },
    "mask_forms": {"io/test_masks.py": "test_two_targets_in_every_form", "test_cases_made.py": "test_mask_forms"},
    "names_brackets": {"test_cases_made.py": "test_names"},
    "names_collide": {"detector/test_files.py": "test_every_image_has_a_file_of_its_own"},
    "nested_predictions": {"test_cases_made.py": "test_names", "evaluation/test_programs.py": "test_maps_in_folders"},
    "pred_forms": {"io/test_map_forms.py": "test_pictures_of_other_formats test_axes_of_length_one test_stacks"},
    "response_maps": {"evaluation/test_programs.py": "test_raw_responses_are_scaled_each_by_itself"},
    "roc_out": {"studies/test_roc.py": "test_out_is_a_folder_or_a_picture"},
    "roc_picture": {"studies/test_roc.py": "test_the_table_says_what_is_drawn"},
    "sequence_files": {"test_cases_made.py": "test_sequence_files"},
    "stale_out": {"detector/test_files.py": "test_a_second_model_leaves_nothing_of_the_first"},
    "train_mask127": {"test_cases_made.py": "test_train_mask127"},
    "yolo_dataset": {"data/test_layouts.py": "test_yolo_trees test_yolo_with_lists_and_what_has_no_image"},
}
TARGETS = [(20, 30), (45, 12)]


@pytest.mark.parametrize("case", CASES)
def test_every_case_has_its_tests(case):
    for file, named in CASES[case].items():
        text = (HERE / file).read_text()
        assert all(f"def {test}(" in text for test in named.split()), file


def test_every_folder_of_users_is_listed(shared):
    assert {path.name for path in (shared / "cases").iterdir() if path.is_dir()} == CASES.keys()


def frame(seed=0, size=(48, 64), targets=TARGETS):
    """A scene of 8 bits with targets of 3x3 pixels, brightest in their middle, on an even ground; and its mask."""
    image, mask = np.full(size, 60 + seed, np.uint8), np.zeros(size, bool)
    for x, y in targets:
        mask[y - 1 : y + 2, x - 1 : x + 2] = True
        image[y - 1 : y + 2, x - 1 : x + 2] = 200
        image[y, x] = 250
    return image, mask


def save(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def run(*arguments):
    cli.main([str(argument) for argument in arguments])


def scores(predictions, truth, **options):
    """The number of images, and the metrics of the protocol centroid."""
    report = evaluate_files(predictions, truth, options=Options(protocols=["centroid"], **options), printer=str)
    return report["images"], report["protocols"]["centroid"]["metrics"]


def rows(path):
    with path.open(newline="") as file:
        return [(row["name"], float(row["x"]), float(row["y"])) for row in csv.DictReader(file)]


def test_depth12(tmp_path, capsys):
    image, _ = frame()
    save(tmp_path / "frame8.png", image)
    tifffile.imwrite(tmp_path / "frame12.tif", np.rint(image / 255 * 4095).astype(np.uint16))
    run("predict", tmp_path / "frame8.png", "--model", "tophat", "--out", tmp_path / "eight")
    run("predict", tmp_path / "frame12.tif", "--model", "tophat", "--bits", 12, "--out", tmp_path / "twelve")
    assert "note:" not in capsys.readouterr().err
    eight, twelve = (rows(tmp_path / name / "predictions.csv") for name in ("eight", "twelve"))
    np.testing.assert_allclose([row[1:] for row in sorted(eight)], TARGETS, atol=0.6)
    np.testing.assert_allclose([row[1:] for row in twelve], [row[1:] for row in eight], atol=0.1)
    run("predict", tmp_path / "frame12.tif", "--model", "tophat", "--out", tmp_path / "unsaid")
    assert "say --bits 12" in capsys.readouterr().err
    # Of a data set the bits are found, in predicting as in training.
    (tmp_path / "set/images").mkdir(parents=True)
    (tmp_path / "frame12.tif").rename(tmp_path / "set/images/a.tif")
    save(tmp_path / "set/masks/a.png", frame()[1])
    run("predict", tmp_path / "set", "--split", "all", "--model", "tophat", "--out", tmp_path / "split")
    assert [row[1:] for row in rows(tmp_path / "split/predictions.csv")] == [row[1:] for row in twelve]
    assert "note:" not in capsys.readouterr().err


@pytest.mark.parametrize("upper", [1, 100, 127, 255, "instances", "16 bits"])
def test_mask_forms(tmp_path, upper):
    _, mask = frame()
    values = {
        "instances": mask * (1 + (np.arange(48)[:, None] < 20)).astype(np.uint8),
        "16 bits": mask * np.uint16(255),
    }
    save(tmp_path / "masks/a.png", values[upper] if upper in values else mask * np.uint8(upper))
    run("labels", tmp_path / "masks", "--to", "points", "--out", tmp_path / "points.csv")
    assert sorted(row[1:] for row in rows(tmp_path / "points.csv")) == TARGETS


def test_train_mask127(tmp_path):
    for number in range(4):
        image, mask = frame(number)
        save(tmp_path / f"images/{number}.png", image)
        save(tmp_path / f"masks/{number}.png", mask * np.uint8(127))
    for name, listed in (("train", "0\n1\n2\n"), ("val", "3\n")):
        (tmp_path / f"{name}.txt").write_text(listed)
    train, val, _ = open_splits(DataConfig(root=(str(tmp_path),)))
    assert [len(train[index].points) for index in range(3)] == [2, 2, 2] and val[0].mask.sum() == 18


@pytest.mark.parametrize("names", [("1(1)", "frame 02", "目标_3", "50%"), ("41/1", "41/2", "42/1")])
def test_names(tmp_path, names):
    """What predict writes, evaluate matches: masks, points, and the maps of another program."""
    for number, name in enumerate(names):
        image, mask = frame(number)
        save(tmp_path / f"data/images/{name}.png", image)
        save(tmp_path / f"data/masks/{name}.png", mask)
        save(tmp_path / f"maps/{name}.png", mask * np.uint8(255))
    run("predict", tmp_path / "data/images", "--recursive", "--model", "tophat", "--out", tmp_path / "out")
    assert len(list((tmp_path / "out/masks").rglob("*.png"))) == len(names)
    for predictions in ("out/masks", "out/predictions.json", "out/predictions.csv", "maps"):
        images, found = scores(tmp_path / predictions, tmp_path / "data")
        assert images == len(names) and found["F1"] == 1 and found["TP"] == 2 * len(names)


def test_many_targets(tmp_path, capsys):
    grid = [(8 + 16 * column, 8 + 16 * row) for row in range(8) for column in range(8)]
    image, _ = frame(size=(128, 128), targets=grid)
    save(tmp_path / "a.png", image)
    run("predict", tmp_path / "a.png", "--model", "tophat", "--out", tmp_path / "out")
    (found,) = read_predictions(tmp_path / "out/predictions.json").predictions.values()
    assert len(found) == 64 and "note:" not in capsys.readouterr().err
    run("predict", tmp_path / "a.png", "--model", "tophat", "--max-detections", 32, "--out", tmp_path / "out")
    (found,) = read_predictions(tmp_path / "out/predictions.json").predictions.values()
    assert len(found) == 32
    assert "1 images reached the limit of 32 detections and may hold more; --max-detections" in capsys.readouterr().err


def test_sequence_files(tmp_path, capsys):
    frames = [frame(number, targets=[(20 + number, 30)])[0] for number in range(3)]
    (tmp_path / "in").mkdir()
    tifffile.imwrite(tmp_path / "in/seq.tif", np.stack(frames), photometric="minisblack")
    save(tmp_path / "in/one.pgm", frames[0])
    np.save(tmp_path / "in/array.npy", frames[1])
    (tmp_path / "in/notes.doc").write_text("no image")
    run("predict", tmp_path / "in", "--model", "tophat", "--out", tmp_path / "out")
    found = rows(tmp_path / "out/predictions.csv")
    assert [name for name, *_ in found] == ["array.npy", "one.pgm", *(f"seq_{page:04d}.tif" for page in (1, 2, 3))]
    np.testing.assert_allclose([x for _, x, _ in found], [21, 20, 20, 21, 22], atol=0.6)
    assert "1 .doc" in capsys.readouterr().err


def test_detector_boxes(tmp_path):
    """Boxes of a detector, by name, and by the ids of the COCO file of the truth."""
    _, mask = frame()
    save(tmp_path / "masks/a.png", mask)
    boxes = [{"image_id": "a", "category_id": 1, "bbox": [x - 1, y - 1, 3, 3], "score": 0.9} for x, y in TARGETS]
    text = str(boxes).replace("'", '"')
    (tmp_path / "boxes.json").write_text(text)
    (tmp_path / "ids.json").write_text(text.replace('"image_id": "a"', '"image_id": 7'))
    (tmp_path / "truth.json").write_text('{"images": [{"id": 7, "file_name": "a.png"}]}')
    (tmp_path / "yolo").mkdir()
    lines = (f"0 {(x + 0.5) / 64} {(y + 0.5) / 48} {3 / 64} {3 / 48} 0.9\n" for x, y in TARGETS)
    (tmp_path / "yolo/a.txt").write_text("".join(lines))
    for predictions, more in (("boxes.json", {}), ("ids.json", {"names": tmp_path / "truth.json"}), ("yolo", {})):
        _, found = scores(tmp_path / predictions, tmp_path / "masks", **more)
        assert (found["TP"], found["FP"], found["FN"]) == (2, 0, 0)
