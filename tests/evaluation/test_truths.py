import functools
import pathlib
import pickle

import numpy as np
import pytest
import tifffile
from PIL import Image

from irjax.data import open_source
from irjax.evaluation.evaluate import Options, evaluate_files
from irjax.evaluation.truths import MaskFiles, SourceTruths, as_truths, open_truths, split_images
from irjax.io.images import Depth
from irjax.metrics import PointTruth
from irjax.types import Example

MASK = np.zeros((20, 30), np.uint8)
MASK[4:6, 7:9] = 255


def save(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return path


def test_a_folder_of_masks(tmp_path):
    save(tmp_path / "a_mask.png", MASK)
    save(tmp_path / "b_mask.png", MASK * 0)
    (tmp_path / "notes.txt").write_text("")
    truths = pickle.loads(pickle.dumps(open_truths(tmp_path)))
    assert truths.names == ("a_mask", "b_mask") and truths.image(0) is None
    np.testing.assert_array_equal(truths.read(0), MASK > 0)
    assert truths.read(0).dtype == bool and not truths.read(1).any() and truths.size(0) == (20, 30)
    with pytest.raises(ValueError, match="a folder of masks, which has no split 'test'"):
        open_truths(tmp_path, "test")
    with pytest.raises(ValueError, match="a folder of masks, without images of which white 4095 could be"):
        open_truths(tmp_path, depth=Depth(bits=12))


def test_gray_levels_reach_the_protocols(tmp_path):
    """Published protocols read gray masks in different ways, so they must not be split at 128 on reading."""
    gray = MASK.copy()
    gray[4, 7] = 100
    save(tmp_path / "a.png", gray)
    save(tmp_path / "b.png", MASK // 255)
    save(tmp_path / "c.bmp", np.stack([MASK, MASK * 0, MASK * 0], -1))
    truths = open_truths(tmp_path)
    np.testing.assert_array_equal(truths.read(0), gray)
    for index in (1, 2):  # values 0 and 1; red targets
        np.testing.assert_array_equal(truths.read(index), MASK > 0)


def test_a_layout_reads_masks_alone(tmp_path):
    save(tmp_path / "images/a.png", MASK + 3)
    save(tmp_path / "masks/a.png", MASK)
    truths = open_truths(tmp_path)
    assert isinstance(truths, MaskFiles)
    np.testing.assert_array_equal(truths.read(0), MASK > 0)
    np.testing.assert_array_equal(truths.image(0), MASK + 3)
    save(tmp_path / "images/a.png", MASK[:18])
    with pytest.raises(ValueError, match=r"masks.a\.png is 30x20 pixels, its image .*images.a\.png 30x18"):
        truths.read(0)


def test_points_and_sources_in_memory(tmp_path):
    save(tmp_path / "images/a.png", MASK)
    (tmp_path / "points.csv").write_text("name,x,y\na,7.5,4.5\n")
    truth = open_truths(tmp_path).read(0)
    assert isinstance(truth, PointTruth) and truth.points.tolist() == [[7.5, 4.5]]
    assert (truth.height, truth.width) == (20, 30)

    class Scene:
        names = ("x",)

        def __getitem__(self, index):
            return Example("x", MASK, np.zeros((0, 2), np.float32), MASK > 0)

    truths = as_truths(Scene())
    assert isinstance(truths, SourceTruths) and truths.read(0).dtype == bool and truths.size(0) == (20, 30)


def test_mistakes_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        open_truths(tmp_path / "absent")
    with pytest.raises(ValueError, match="in no known layout"):
        open_truths(tmp_path)
    save(tmp_path / "a.png", MASK).write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"a\.png: not a readable image"):
        open_truths(tmp_path).read(0)
    save(tmp_path / "a.bmp", MASK)
    with pytest.raises(ValueError, match="several masks are called a"):
        open_truths(tmp_path)


def test_an_image_without_a_mask_has_no_targets(tmp_path):
    save(tmp_path / "images/targets/a.png", MASK)
    save(tmp_path / "images/backgrounds/b.png", MASK * 0 + 9)
    save(tmp_path / "annotations/masks/a_pixels0.png", MASK)
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits/val_full.txt").write_text("a\nb\n")
    truths = as_truths(open_source(tmp_path, "val_full"))
    assert truths.read(0).sum() == 4 and not truths.read(1).any() and truths.size(1) == (20, 30)


def test_the_depth_of_a_data_set_is_found_or_said(tmp_path):
    """Images beside maps, and the files of a split, are read as training reads them."""
    for name, white in (("a", 4000), ("b", 2000)):
        save(tmp_path / f"images/{name}.png", MASK.astype(np.uint16) // 255 * white)
        save(tmp_path / f"masks/{name}.png", MASK)
    truths = pickle.loads(pickle.dumps(open_truths(tmp_path)))
    assert truths.image(0).max() == round(4000 / 4095 * 65535) and truths.image(1).max() == round(2000 / 4095 * 65535)
    said = Depth(range=(0, 2000))
    assert open_truths(tmp_path, depth=said).image(1).max() == 65535
    files, depth = split_images(tmp_path, "all")
    assert [pathlib.Path(file).name for file in files] == ["a.png", "b.png"] and depth == Depth(bits=12)
    assert split_images(tmp_path, "all", depth=said)[1] == said
    with pytest.raises(ValueError, match="no split 'test'"):
        split_images(tmp_path, "test")


def test_signed_images_beside_maps_are_read_by_a_range(tmp_path):
    values = MASK.astype(np.int16) - 200
    (tmp_path / "images").mkdir()
    tifffile.imwrite(tmp_path / "images/a.tif", values)
    save(tmp_path / "masks/a.png", MASK)
    save(tmp_path / "maps/a.png", MASK)
    report = functools.partial(evaluate_files, tmp_path / "maps", tmp_path, printer=str)
    with pytest.raises(ValueError, match="say which are black and white: --range LOW HIGH"):
        report(options=Options(out_dir=tmp_path / "out"))
    found = report(options=Options(out_dir=tmp_path / "out"), depth=Depth(range=(-200, 55)))
    assert found["protocols"]["irjax"]["metrics"]["IoU"] == 1 and found["curves"]["scr_gain"]["targets"] == 1
