import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from irjax.errors import UserError
from irjax.io import images

RNG = np.random.default_rng(0)
GRAY8 = RNG.integers(0, 256, (20, 24), dtype=np.uint8)
GRAY16 = RNG.integers(0, 65536, (20, 24), dtype=np.uint16)


def png16(path, values, channels):
    """Writes 16-bit samples [H, W, C], which Pillow cannot; every second row uses the filter `Up`."""
    height, width = values.shape[:2]
    rows = values.reshape(height, -1).astype(">u2").view(np.uint8)
    data, above = b"", np.zeros(rows.shape[1], np.uint8)
    for number, row in enumerate(rows):
        data += (b"\2" + (row - above).tobytes()) if number % 2 else (b"\0" + row.tobytes())
        above = row
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(data)), (b"IEND", b"")
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in chunks)
    )


@pytest.mark.parametrize("ending", ["png", "bmp", "tif"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_8_bit_lossless_formats(tmp_path, ending, mode):
    path = tmp_path / f"a.{ending}"
    Image.fromarray(GRAY8).convert(mode).save(path)
    image = images.read_image(path)
    assert image.dtype == np.uint8 and images.image_depth(path) == 8
    np.testing.assert_array_equal(image, GRAY8)


def test_jpeg_webp_rgba_and_palette(tmp_path):
    smooth = np.tile(np.arange(24, dtype=np.uint8) * 8, (20, 1))
    Image.fromarray(smooth).convert("RGB").save(tmp_path / "a.jpg", quality=95)
    assert np.abs(images.read_image(tmp_path / "a.jpg").astype(int) - smooth).max() <= 4
    Image.fromarray(GRAY8).save(tmp_path / "a.webp", lossless=True)
    np.testing.assert_array_equal(images.read_image(tmp_path / "a.webp"), GRAY8)
    assert images.image_depth(tmp_path / "a.webp") == 8
    alpha = np.dstack([GRAY8, GRAY8, GRAY8, 255 - GRAY8])
    Image.fromarray(alpha).save(tmp_path / "b.png")
    np.testing.assert_array_equal(images.read_image(tmp_path / "b.png"), GRAY8)
    Image.fromarray(GRAY8).convert("P").save(tmp_path / "c.png")
    np.testing.assert_array_equal(images.read_image(tmp_path / "c.png"), GRAY8)


def test_colours_become_rec_601_luma(tmp_path):
    colours = RNG.integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(colours).save(tmp_path / "a.png")
    wanted = np.rint(colours.astype(float) @ [0.299, 0.587, 0.114])
    np.testing.assert_array_equal(images.read_image(tmp_path / "a.png"), wanted)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bit_png_keeps_its_depth(tmp_path, channels):
    values = np.repeat(GRAY16[..., None], channels, axis=2)
    if channels in (2, 4):
        values[..., -1] = 1234  # alpha
    png16(tmp_path / "a.png", values, channels)
    image = images.read_image(tmp_path / "a.png")
    assert image.dtype == np.uint16 and images.image_depth(tmp_path / "a.png") == 16
    np.testing.assert_array_equal(image, GRAY16)


@pytest.mark.parametrize(
    ("colour", "options"),
    [(colour, options) for colour in (False, True) for options in ({}, {"byteorder": ">"}, {"compression": "zlib"})]
    + [(True, {"planarconfig": "separate"})],
)
def test_16_bit_tiff_keeps_its_depth(tmp_path, colour, options):
    separate = "planarconfig" in options
    values = np.repeat(GRAY16[..., None], 3, axis=2) if colour else GRAY16
    values = np.moveaxis(values, -1, 0) if separate else values
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb" if colour else "minisblack", **options)
    image = images.read_image(tmp_path / "a.tif")
    assert image.dtype == np.uint16 and image.dtype.isnative and images.image_depth(tmp_path / "a.tif") == 16
    np.testing.assert_array_equal(image, GRAY16)


@pytest.mark.parametrize("values", [GRAY8, GRAY16])
def test_tiff_of_a_compression_that_only_pillow_knows(tmp_path, values):
    Image.fromarray(values).save(tmp_path / "a.tif", compression="tiff_lzw")
    image = images.read_image(tmp_path / "a.tif")
    assert image.dtype == values.dtype
    np.testing.assert_array_equal(image, values)


def test_white_is_zero_tiff_is_turned_over(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", GRAY8, photometric="miniswhite")
    np.testing.assert_array_equal(images.read_image(tmp_path / "a.tif"), 255 - GRAY8)


@pytest.mark.parametrize("ending", ["png", "bmp", "jpg", "webp", "tif"])
def test_truncated_file_is_named(tmp_path, ending):
    path = tmp_path / f"broken.{ending}"
    Image.fromarray(GRAY8).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=f"broken.{ending}"):
        images.read_image(path)


@pytest.mark.parametrize("content", [b"", b"text", b"\x89PNG\r\n\x1a\n", b"II*\0", b"II*\0" + bytes(30)])
def test_no_image_is_named(tmp_path, content):
    (tmp_path / "no.png").write_bytes(content)
    with pytest.raises(ValueError, match="no.png"):
        images.read_image(tmp_path / "no.png")
    with pytest.raises(ValueError, match="no.png"):
        images.read_mask(tmp_path / "no.png")


def test_other_sample_types_small_images_and_absent_files_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "f.tif", GRAY8.astype(np.float32))
    with pytest.raises(ValueError, match=r"f\.tif.*float32"):
        images.read_image(tmp_path / "f.tif")
    Image.fromarray(GRAY8[:15]).save(tmp_path / "small.png")
    with pytest.raises(ValueError, match=r"small\.png.*24x15"):
        images.read_image(tmp_path / "small.png")
    with pytest.raises(FileNotFoundError, match="absent.png"):
        images.read_image(tmp_path / "absent.png")


@pytest.mark.parametrize(
    ("values", "rule", "targets"),
    [
        (np.array([[True, False]]), "binary", [[True, False]]),
        (np.array([[0, 1]], np.uint8), "zero_one", [[False, True]]),
        (np.array([[0, 0]], np.uint8), "zero_one", [[False, False]]),
        (np.array([[1, 2, 127, 128, 255]], np.uint8), "threshold_128", [[False, False, False, True, True]]),
        (np.array([[1, 32895, 32896]], np.uint16), "threshold_32896", [[False, False, True]]),
        (np.array([[[255, 0, 0], [0, 0, 0]]], np.uint8), "threshold_128", [[True, False]]),
        (np.array([[[255, 255, 255, 0], [0, 0, 0, 255]]], np.uint8), "threshold_128", [[True, False]]),
    ],
)
def test_mask_rules(values, rule, targets):
    mask, applied = images.binarise(values)
    assert applied == rule and mask.dtype == np.bool_
    np.testing.assert_array_equal(mask, targets)


def test_one_bit_mask_file(tmp_path):
    Image.fromarray(GRAY8 > 100).save(tmp_path / "m.png")
    mask, rule = images.read_mask(tmp_path / "m.png")
    assert rule == "binary"
    np.testing.assert_array_equal(mask, GRAY8 > 100)


def test_gray_masks_are_told_from_binary_ones(tmp_path):
    binary = np.zeros((20, 24), np.uint8)
    binary[3:5, 4:6] = 255
    red = np.stack([binary, 0 * binary, 0 * binary], axis=2)
    gray = binary.copy()
    gray[3, 4] = 127
    path = tmp_path / "mask.png"
    for values, expected in ((binary, False), (binary // 255, False), (0 * binary, False), (red, False), (gray, True)):
        Image.fromarray(values).save(path)
        assert images.has_gray(path) is expected
    Image.fromarray(binary).save(tmp_path / "mask.jpg")
    assert images.has_gray(tmp_path / "mask.jpg")


@pytest.mark.parametrize("ending", [".png", ".tif", ".bmp", ".jpg", ".webp"])
def test_damaged_files_name_themselves_whatever_the_libraries_raise(tmp_path, ending):
    path, rng = tmp_path / f"damaged{ending}", np.random.default_rng(0)
    Image.fromarray(GRAY8).save(path)
    whole = path.read_bytes()
    for _ in range(40):
        damaged = bytearray(whole[: rng.integers(1, len(whole) + 1)])
        damaged[rng.integers(min(len(damaged), 64))] = rng.integers(256)
        path.write_bytes(damaged)
        for read in (images.read_image, images.read_mask, images.image_depth):
            try:
                read(path)
            except UserError as error:
                assert f"damaged{ending}" in str(error)


def test_pictures_without_pixels_or_with_far_too_many(tmp_path, monkeypatch):
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(b""))
    packed = (struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in chunks)
    (tmp_path / "large.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))
    with pytest.raises(UserError, match=r"large\.png: not a readable image file \(DecompressionBombError"):
        images.read_image(tmp_path / "large.png")
    for samples in (np.zeros(7, np.uint8), np.zeros((20, 0), np.uint8), np.zeros((1, 20, 20, 3), np.uint8)):
        monkeypatch.setattr(images, "_decode_pillow", lambda data, samples=samples: samples)
        with pytest.raises(UserError, match=r"large\.png: samples of shape .*; one image"):
            images.read_image(tmp_path / "large.png")
