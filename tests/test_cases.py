"""Files of users, through the commands that they used (../shared/cases)."""

import contextlib
import csv
import json

import numpy as np
import pytest
from PIL import Image

from irjax import cli
from irjax.data import open_source
from irjax.data.splits import DataConfig, open_splits
from irjax.io.predictions import read_predictions
from irjax.io.video import available


def run(*arguments):
    cli.main([str(argument) for argument in arguments])


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_frame_of_12_bits_gives_what_its_8_bits_give(shared, tmp_path, capsys):
    case = shared / "cases/depth12"
    run("predict", case / "frame8.png", "--model", "mshnet-sirst", "--out", tmp_path / "eight")
    run("predict", case / "frame12.tif", "--model", "mshnet-sirst", "--bits", 12, "--out", tmp_path / "twelve")
    assert "note:" not in capsys.readouterr().err
    eight, twelve = (table(tmp_path / name / "predictions.csv") for name in ("eight", "twelve"))
    assert len(eight) == len(twelve) == 1
    for column in ("x", "y"):
        assert float(eight[0][column]) == pytest.approx(float(twelve[0][column]), abs=0.5)
    run("predict", case / "frame12.tif", "--model", "tophat", "--out", tmp_path / "unsaid")
    assert "say --bits 12" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["inst", "palette_dark", "v1", "v100", "v127", "v16_255", "rgba_alpha_only"])
def test_masks_of_every_form_have_their_targets(shared, tmp_path, form):
    run("labels", shared / "cases/mask_forms" / form, "--to", "points", "--out", tmp_path / "points.csv")
    found = sorted((float(row["x"]), float(row["y"])) for row in table(tmp_path / "points.csv"))
    np.testing.assert_allclose(found, [(20, 30), (45, 12)], atol=0.6)


def test_training_sees_the_targets_of_masks_of_127(shared):
    root = shared / "cases/train_mask127/d127"
    train, _, _ = open_splits(DataConfig(root=(str(root),)))
    assert sum(len(train[index].points) for index in range(len(train))) >= len(train)


def test_own_masks_are_matched_whatever_the_names(shared, tmp_path, capsys):
    case = shared / "cases/names_brackets"
    run("predict", case / "images", "--model", "tophat", "--out", tmp_path / "out")
    run("evaluate", "--predictions", tmp_path / "out/masks", "--truth", case / "masks")
    run("evaluate", "--predictions", tmp_path / "out/predictions.json", "--truth", case / "masks")
    assert "3 images" in capsys.readouterr().out


def test_two_images_never_write_one_file(shared, tmp_path):
    run("predict", shared / "cases/names_collide/images", "--model", "tophat", "--out", tmp_path / "out")
    names = {path.name for path in (tmp_path / "out/masks").iterdir()}
    assert names == {"1(1).png", "1_1_.png", "a.bmp.png", "a.png.png"}


def test_frames_in_folders(shared, tmp_path, capsys):
    case = shared / "cases/nested_predictions"
    run("evaluate", "--predictions", case / "pred", "--truth", case / "data")
    run("predict", case / "data/images", "--recursive", "--model", "tophat", "--out", tmp_path / "out")
    for predictions in ("predictions.json", "masks"):
        run("evaluate", "--predictions", tmp_path / "out" / predictions, "--truth", case / "data")
    assert capsys.readouterr().out.count("4 images") >= 3


def test_more_targets_than_the_limit(shared, tmp_path, capsys):
    case = shared / "cases/many_targets"
    run("predict", case / "images", "--model", "tophat", "--out", tmp_path / "out")
    found = read_predictions(tmp_path / "out/predictions.json").predictions
    assert [len(points) for points in found.values()] == [64] * len(found)
    run("predict", case / "images", "--model", "tophat", "--max-detections", 32, "--out", tmp_path / "out")
    assert "reached the limit of 32 detections and may hold more; --max-detections raises it" in capsys.readouterr().err


def test_every_page_is_an_image_and_what_is_skipped_is_said(shared, tmp_path, capsys):
    case = shared / "cases/sequence_files"
    run("predict", case / "seq.tif", "--model", "tophat", "--out", tmp_path / "out")
    content = json.loads((tmp_path / "out/predictions.json").read_text())
    assert [image["file_name"] for image in content["images"]] == [f"seq_{page:04d}.tif" for page in range(1, 6)]
    capsys.readouterr()
    with pytest.raises(SystemExit) if available() else contextlib.nullcontext():  # v.avi holds no video
        run("predict", case, "--model", "tophat", "--out", tmp_path / "out")
    read = {image["file_name"] for image in json.loads((tmp_path / "out/predictions.json").read_text())["images"]}
    assert {path.suffix for path in map(type(case), read)} >= {".tif", ".gif", ".pgm", ".webp", ".jp2", ".npy", ".mat"}
    said = capsys.readouterr().err
    assert "left out: 1 without ending" in said
    assert ("v.avi: not a readable video" if available() else "1 videos are left out") in said


@pytest.mark.slow
def test_three_targets_in_4096_pixels(tmp_path, capsys):
    y, x = np.mgrid[:4096, :4096]
    image = 90 + np.random.default_rng(0).normal(0, 3, y.shape)
    targets = [(400, 500), (2048, 2048), (3000, 3500)]
    for column, row in targets:
        image += 140 * np.exp(-((x - column) ** 2 + (y - row) ** 2) / 2.9)
    Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(tmp_path / "big.png")
    run("predict", tmp_path / "big.png", "--out", tmp_path / "out")
    assert "scaled down to fit 512 pixels, by up to 8" in capsys.readouterr().err
    run("predict", tmp_path / "big.png", "--native", "--out", tmp_path / "out")
    found = sorted((float(row["x"]), float(row["y"])) for row in table(tmp_path / "out/predictions.csv"))
    np.testing.assert_allclose(found, targets, atol=3)
    assert "note:" not in capsys.readouterr().err


def test_a_split_of_masks_without_two_levels_is_refused(tmp_path):
    for folder, value in (("images", 10), ("masks", 255)):
        (tmp_path / folder).mkdir()
        Image.fromarray(np.full((20, 24), value, np.uint8)).save(tmp_path / folder / "a.png")
    with pytest.raises(ValueError, match="every pixel of the masks is 255; background and target must be two levels"):
        open_source(tmp_path, "all")[0]


def test_truth_in_two_folders_of_any_names(tmp_path, capsys):
    rng, mask = np.random.default_rng(0), np.zeros((40, 48), np.uint8)
    mask[10:13, 20:23] = 255
    for folder, values in (("frames", rng.integers(0, 90, mask.shape, np.uint8)), ("truth", mask), ("maps", mask)):
        for name in "ab":
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(values).save(tmp_path / folder / f"{name}.png")
    (tmp_path / "truth/b.png").write_bytes(b"damaged")
    options = ("--predictions", tmp_path / "maps", "--truth", tmp_path, "--images", "frames", "--masks", "truth")
    with pytest.raises(SystemExit):
        run("evaluate", *options)
    assert "--skip-bad" in capsys.readouterr().err
    run("evaluate", *options, "--skip-bad", "--allow-missing")
    found = capsys.readouterr()
    assert "1 images" in found.out and "1 of 2 images are left out" in found.err
