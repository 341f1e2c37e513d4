import struct
import zlib
from fractions import Fraction

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from irjax.errors import Note, UserError
from irjax.io import images
from irjax.io.headers import frame_count, image_depth
from irjax.io.images import Depth
from irjax.io.masks import read_mask

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
    assert image.dtype == np.uint8 and image_depth(path) == 8
    np.testing.assert_array_equal(image, GRAY8)


def test_jpeg_webp_rgba_and_palette(tmp_path):
    smooth = np.tile(np.arange(24, dtype=np.uint8) * 8, (20, 1))
    Image.fromarray(smooth).convert("RGB").save(tmp_path / "a.jpg", quality=95)
    assert np.abs(images.read_image(tmp_path / "a.jpg").astype(int) - smooth).max() <= 4
    Image.fromarray(GRAY8).save(tmp_path / "a.webp", lossless=True)
    np.testing.assert_array_equal(images.read_image(tmp_path / "a.webp"), GRAY8)
    assert image_depth(tmp_path / "a.webp") == 8
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


def test_halves_of_luma_are_rounded_to_even():
    r, g, b = np.indices((256, 256, 8)).reshape(3, -1)
    thousandths = 299 * r + 587 * g + 114 * b
    halves = thousandths % 1000 == 500
    colours = np.stack([r, g, b], axis=1)[halves].astype(np.uint8)
    wanted = [round(Fraction(int(one), 1000)) for one in thousandths[halves]]
    assert len(wanted) > 100
    np.testing.assert_array_equal(images.to_gray(colours[None])[0], wanted)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bit_png_keeps_its_depth(tmp_path, channels):
    values = np.repeat(GRAY16[..., None], channels, axis=2)
    if channels in (2, 4):
        values[..., -1] = 1234  # alpha
    png16(tmp_path / "a.png", values, channels)
    image = images.read_image(tmp_path / "a.png")
    assert image.dtype == np.uint16 and image_depth(tmp_path / "a.png") == 16
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
    assert image.dtype == np.uint16 and image.dtype.isnative and image_depth(tmp_path / "a.tif") == 16
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
        read_mask(tmp_path / "no.png")


def test_other_sample_types_small_images_and_absent_files_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "f.tif", GRAY8.astype(np.float32))
    with pytest.raises(ValueError, match=r"f\.tif.*float32"):
        images.read_image(tmp_path / "f.tif")
    Image.fromarray(GRAY8[:15]).save(tmp_path / "small.png")
    with pytest.raises(ValueError, match=r"small\.png.*24x15"):
        images.read_image(tmp_path / "small.png")
    with pytest.raises(FileNotFoundError, match="absent.png"):
        images.read_image(tmp_path / "absent.png")


# --- depth ------------------------------------------------------------------------------------------------------------


def test_the_full_scale_is_that_of_the_bits(tmp_path):
    """A frame of 12 bits in a file of 16 is the frame of 8 bits, but for what 8 bits round."""
    deep = (GRAY16 >> 4).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", deep)
    found = images.read_image(tmp_path / "a.tif", Depth(bits=12))
    assert found.dtype == np.uint16
    np.testing.assert_allclose(found / 65535, deep / 4095, atol=1e-5)
    np.testing.assert_array_equal(images.read_image(tmp_path / "a.tif"), deep)
    with pytest.raises(UserError, match=r"a\.tif: the value \d+ does not fit into 10 bits"):
        images.read_image(tmp_path / "a.tif", Depth(bits=10))
    Image.fromarray(GRAY8).save(tmp_path / "b.png")
    np.testing.assert_array_equal(images.read_image(tmp_path / "b.png", Depth(bits=12)), GRAY8)


@pytest.mark.parametrize("kind", [np.int16, np.uint8, np.uint16, np.float32, np.int32])
def test_signed_and_float_files_are_read_by_a_range_or_by_their_own(tmp_path, kind):
    values = np.linspace(20, 120, 16 * 20).reshape(16, 20).astype(kind)
    values = -values if kind in (np.int16, np.float32) else values
    low, high = float(values.min()), float(values.max())
    tifffile.imwrite(tmp_path / "a.tif", values)
    for depth in (Depth(range=(low, high)), Depth(stretch="minmax")):
        found = images.read_image(tmp_path / "a.tif", depth)
        np.testing.assert_allclose(found / 65535, (values.astype(float) - low) / (high - low), atol=1e-5)
    cut = images.read_image(tmp_path / "a.tif", Depth(range=(low + 10, high - 10)))
    assert cut.min() == 0 and cut.max() == 65535
    if kind in (np.int16, np.float32):
        with pytest.raises(UserError, match=rf"a\.tif: {kind.__name__} samples from -120 to -20; .*--range LOW HIGH"):
            images.read_image(tmp_path / "a.tif")


def test_percentiles_leave_a_hot_pixel_out_and_a_target_in(tmp_path):
    values = np.random.default_rng(0).normal(1000, 20, (256, 256)).astype(np.uint16)
    values[100:103, 50:53], values[7, 7] = 1500, 60000
    tifffile.imwrite(tmp_path / "a.tif", values)
    found = images.read_image(tmp_path / "a.tif", Depth(stretch="percentile"))
    assert (found[100:103, 50:53] == 65535).all() and 0.05 < found.mean() / 65535 < 0.3


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"bits": 17}, "bits must be in 1..16, got 17"),
        ({"range": (5, 5)}, "range must be LOW HIGH with LOW below HIGH, got 5 5"),
        ({"bits": 12, "stretch": "minmax"}, "bits and stretch exclude each other"),
        ({"stretch": "log"}, "stretch must be percentile or minmax, got 'log'"),
    ],
)
def test_depths_that_say_nothing(options, said):
    with pytest.raises(UserError, match=said):
        Depth(**options)


@given(st.sampled_from([8, 10, 12, 14, 16]), st.integers(0, 2**32 - 1))
def test_order_and_ends_are_kept_at_every_depth(bits, seed):
    values = np.random.default_rng(seed).integers(0, 2**bits, (16, 16)).astype(np.uint16)
    values[0, 0], values[0, 1] = 0, 2**bits - 1
    found = Depth(bits=bits).apply(values, "image")
    assert found[0, 0] == 0 and found[0, 1] == 65535
    order = np.argsort(values, axis=None, kind="stable")
    assert (np.diff(found.ravel()[order].astype(int)) >= 0).all()
    np.testing.assert_array_equal(np.rint(found.astype(float) / 65535 * (2**bits - 1)), values)


def test_nearly_black_images_are_said():
    with pytest.warns(Note, match=r"a\.tif: the highest value is 4095 of 65535.*say --bits 12"):
        images.check_depth(4095, "a.tif")
    images.check_depth(4096, "a.tif")


def test_pixels_without_data_get_the_median(tmp_path):
    values = np.full((16, 20), 10.0, np.float32)
    values[0, 0] = 20
    values[3, 4], values[5, 6] = np.nan, np.inf
    tifffile.imwrite(tmp_path / "a.tif", values)
    with pytest.warns(Note, match=r"a\.tif: pixels without data got the median"):
        found = images.read_image(tmp_path / "a.tif", Depth(range=(0, 20)))
    assert found[3, 4] == found[5, 6] == found[9, 9] == 32768 and found[0, 0] == 65535
    deep = np.full((16, 20), 700, np.uint16)
    deep[2, 2] = 65535
    tifffile.imwrite(tmp_path / "b.tif", deep, extratags=[(42113, "s", 0, "65535", True)])
    with pytest.warns(Note, match="without data"):
        assert (images.read_image(tmp_path / "b.tif") == 700).all()
    tifffile.imwrite(tmp_path / "c.tif", np.full((16, 20), np.nan, np.float32))
    with pytest.raises(UserError, match=r"c\.tif: no pixel has data"):
        images.read_image(tmp_path / "c.tif", Depth(stretch="minmax"))


def test_the_case_of_a_camera_of_12_bits(shared):
    case = shared / "cases/depth12"
    eight, twelve = images.read_image(case / "frame8.png"), images.read_image(case / "frame12.tif", Depth(bits=12))
    np.testing.assert_allclose(twelve / 65535, eight / 255, atol=1 / 255)


@pytest.mark.parametrize("ending", [".png", ".tif", ".bmp", ".jpg", ".webp"])
def test_damaged_files_name_themselves_whatever_the_libraries_raise(tmp_path, ending):
    path, rng = tmp_path / f"damaged{ending}", np.random.default_rng(0)
    Image.fromarray(GRAY8).save(path)
    whole = path.read_bytes()
    for _ in range(40):
        damaged = bytearray(whole[: rng.integers(1, len(whole) + 1)])
        damaged[rng.integers(min(len(damaged), 64))] = rng.integers(256)
        path.write_bytes(damaged)
        for read in (images.read_image, read_mask, image_depth):
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
        monkeypatch.setattr(images, "_decode_pillow", lambda data, indices, page, samples=samples: samples)
        with pytest.raises(UserError, match=r"large\.png: samples of shape .*; one image"):
            images.read_image(tmp_path / "large.png")


# --- pages ------------------------------------------------------------------------------------------------------------


def write_pages(path, pages):
    if path.suffix == ".npy":
        np.save(path, pages)
    elif path.suffix == ".tif":
        tifffile.imwrite(path, pages, photometric="minisblack")
    else:
        first, *others = (Image.fromarray(page) for page in pages)
        first.save(path, save_all=True, append_images=others, **({"lossless": True} if path.suffix == ".webp" else {}))


@pytest.mark.parametrize("ending", [".tif", ".gif", ".webp", ".npy"])
def test_every_page_is_an_image(tmp_path, ending):
    pages = np.stack([GRAY8, GRAY8[::-1], GRAY8[:, ::-1]])
    write_pages(tmp_path / f"a{ending}", pages)
    assert frame_count(tmp_path / f"a{ending}") == 3
    for number, page in enumerate(pages):
        found = images.read_image(images.Frame(str(tmp_path / f"a{ending}"), number))
        np.testing.assert_allclose(found, page, atol=1)
    np.testing.assert_allclose(images.read_image(tmp_path / f"a{ending}"), pages[0], atol=1)


def test_other_files_are_one_image(tmp_path):
    Image.fromarray(GRAY8).save(tmp_path / "a.png")
    (tmp_path / "b.tif").write_bytes(b"damaged")
    np.save(tmp_path / "c.npy", GRAY16)
    assert [frame_count(tmp_path / name) for name in ("a.png", "b.tif", "c.npy")] == [1, 1, 1]
    np.testing.assert_array_equal(images.read_image(tmp_path / "c.npy"), GRAY16)
    with pytest.raises(UserError, match=r"d\.tif, page 2: image of 10x10"):
        write_pages(tmp_path / "d.tif", np.zeros((2, 10, 10), np.uint8))
        images.read_image(images.Frame(str(tmp_path / "d.tif"), 1))
