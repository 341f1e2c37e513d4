"""Sizes from headers are those of the decoded pixels, whichever way a camera was held."""

import warnings

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from irjax.data import open_source
from irjax.errors import MissingFileError
from irjax.evaluation.truths import open_truths
from irjax.io.headers import header_size, image_size
from irjax.io.images import Frame, read_image
from irjax.io.maps import map_file_shape, read_map
from irjax.labels import read_labels

PIXELS = np.random.default_rng(0).integers(0, 255, (20, 32), np.uint8)
FORMATS = ["a.png", "a.jpg", "a.webp", "a.tif", "deep.tif", "float.tif", "palette.tif"]


def save(path, turn, values=PIXELS):
    """Writes values with an orientation; files called deep, float and palette have other samples."""
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = turn
    tags = [(0x0112, 3, 1, turn, True)]
    if path.stem == "palette":
        image = Image.fromarray(values, mode="P")
        image.putpalette(np.repeat(np.arange(256), 3).tolist())
        image.save(path, exif=exif)
    elif path.suffix == ".tif":
        samples = {"deep": values.astype(np.uint16), "float": (values / 255).astype(np.float32)}.get(path.stem, values)
        tifffile.imwrite(path, samples, extratags=tags, photometric="minisblack")
    else:
        Image.fromarray(values).save(path, exif=exif, lossless=True)


@pytest.mark.filterwarnings("ignore::irjax.errors.Note")
@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("name", FORMATS)
def test_the_header_says_the_size_of_the_decoded_pixels(tmp_path, name, turn):
    save(tmp_path / name, turn)
    size = (32, 20) if turn > 4 else (20, 32)
    assert header_size(tmp_path / name) == image_size(tmp_path / name) == size
    read = read_map if name == "float.tif" else read_image
    assert read(tmp_path / name).shape == map_file_shape(tmp_path / name) == size


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("name", ["a.png", "a.tif", "deep.tif", "palette.tif"])
def test_pixels_are_turned_as_the_file_says(tmp_path, name, turn):
    save(tmp_path / name, turn)
    exif = Image.Exif()
    exif[0x0112] = turn
    Image.fromarray(PIXELS).save(tmp_path / "plain.png", exif=exif)
    with Image.open(tmp_path / "plain.png") as image:
        wanted = np.asarray(ImageOps.exif_transpose(image))
    with warnings.catch_warnings(record=True) as noted:
        warnings.simplefilter("always")
        found = read_image(tmp_path / name)
    np.testing.assert_array_equal(found, wanted)
    assert [str(one.message) for one in noted] == (
        [] if turn == 1 else [f"{tmp_path / name}: turned as the EXIF orientation says"]
    )


@pytest.mark.filterwarnings("ignore::irjax.errors.Note")
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif"])
def test_a_turned_image_fits_its_mask_and_its_boxes(tmp_path, name):
    mask = np.zeros((32, 20), np.uint8)
    mask[4:6, 7:9] = 255
    save(tmp_path / "set/images" / name, 6)
    save(tmp_path / "set/masks/a.png", 1, mask)
    save(tmp_path / "maps/a.jpg", 6, np.rot90(mask))  # a map that was saved as its image was
    assert open_truths(tmp_path / "set").size(0) == (32, 20) and open_truths(tmp_path / "set").read(0).sum() == 4
    assert open_source(tmp_path / "set", "all")[0].points.tolist() == [[7.5, 4.5]]
    assert read_map(tmp_path / "maps/a.jpg").shape == (32, 20)
    (tmp_path / "yolo").mkdir()
    (tmp_path / "yolo/a.txt").write_text("0 0.4 0.15625 0.1 0.0625\n")
    (found,) = read_labels(tmp_path / "yolo", "yolo", images=tmp_path / "set/images")
    assert found.size == (32, 20) and found.labels.boxes.tolist() == [[7, 4, 9, 6]]


@pytest.mark.filterwarnings("ignore::irjax.errors.Note")
def test_every_page_has_a_header_of_its_own(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for turn in (1, 6):
            file.write(PIXELS, extratags=[(0x0112, 3, 1, turn, True)], photometric="minisblack", contiguous=False)
    for page, size in enumerate([(20, 32), (32, 20)]):
        frame = Frame(str(tmp_path / "a.tif"), page)
        assert header_size(frame) == image_size(frame) == read_image(frame).shape == size


def test_files_without_a_header(tmp_path):
    for name, content in (("a.npy", None), ("b.png", b"text"), ("c.tif", b"II*\0"), ("d.tif", b"")):
        np.save(tmp_path / name, PIXELS) if content is None else (tmp_path / name).write_bytes(content)
        assert header_size(tmp_path / name) is None
    assert image_size(tmp_path / "a.npy") == (20, 32)
    with pytest.raises(MissingFileError):
        header_size(tmp_path / "absent.png")
