import pickle

import numpy as np
import pytest
import scipy.io
import tifffile
from PIL import Image

from irjax.errors import UserError
from irjax.io.maps import find_maps, map_file_shape, read_map, read_rule

LEVELS = np.arange(20 * 24, dtype=np.uint8).reshape(20, 24)  # 0 to 255 and on
FLOATS = np.linspace(0, 1, 20 * 24, dtype=np.float32).reshape(20, 24)


def write(path, values, **options):
    if path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix == ".npz":
        np.savez(path, **options or {"scores": values})
    elif path.suffix == ".mat":
        scipy.io.savemat(path, options or {"T": values})
    elif path.suffix in (".tif", ".tiff"):
        tifffile.imwrite(path, values)
    else:
        Image.fromarray(values).save(path)
    return path


@pytest.mark.parametrize("ending", [".png", ".tif", ".tiff", ".npy", ".npz", ".mat"])
def test_eight_bit_maps_of_every_format(tmp_path, ending):
    write(tmp_path / f"a{ending}", LEVELS)
    maps = find_maps(tmp_path)
    np.testing.assert_allclose(maps[0], LEVELS / 255, rtol=1e-6)
    assert maps.names == (f"a{ending}",) and read_rule(maps) == "uint8, p = value / 255"
    assert map_file_shape(maps.paths[0]) == (20, 24)


@pytest.mark.parametrize("ending", [".png", ".tif", ".npy"])
def test_sixteen_bit_maps(tmp_path, ending):
    write(tmp_path / f"a{ending}", LEVELS.astype(np.uint16) * 257)
    np.testing.assert_allclose(find_maps(tmp_path)[0], LEVELS / 255, rtol=1e-6)


@pytest.mark.parametrize("ending", [".tif", ".npy", ".npz", ".mat"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_floats_are_taken_as_they_are(tmp_path, ending, dtype):
    write(tmp_path / f"a{ending}", FLOATS.astype(dtype))
    values = find_maps(tmp_path)[0]
    assert values.dtype == dtype
    np.testing.assert_array_equal(values, FLOATS.astype(dtype))


def test_big_endian_tiff(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", FLOATS.astype(">f4"), byteorder=">")
    np.testing.assert_array_equal(find_maps(tmp_path)[0], FLOATS)


def test_zeros_and_ones_are_decided_over_the_set(tmp_path):
    write(tmp_path / "a.png", (LEVELS == 3).astype(np.uint8))
    maps = find_maps(tmp_path)
    assert maps[0].dtype == bool and maps[0].sum() == 2 and read_rule(maps) == "integers 0 and 1"
    write(tmp_path / "b.png", LEVELS)
    assert find_maps(tmp_path)[0].max() == np.float32(1 / 255)
    assert read_rule(find_maps(tmp_path)) == "uint8, p = value / 255"


def test_one_bit_and_gray_colour_pictures(tmp_path):
    Image.fromarray(LEVELS > 99).save(tmp_path / "a.png")
    np.testing.assert_array_equal(find_maps(tmp_path)[0] > 0.5, LEVELS > 99)
    Image.fromarray(np.stack([LEVELS] * 3, -1)).save(tmp_path / "a.png")
    np.testing.assert_allclose(find_maps(tmp_path)[0], LEVELS / 255, rtol=1e-6)


def test_logits(tmp_path):
    write(tmp_path / "a.npy", FLOATS * 40 - 20)
    maps = find_maps(tmp_path, logits=True)
    np.testing.assert_array_equal(maps[0], FLOATS * 40 - 20)
    assert read_rule(maps) == "float32, logits"
    write(tmp_path / "a.npy", LEVELS)
    with pytest.raises(ValueError, match=r"a\.npy: logits must be floats, got uint8"):
        find_maps(tmp_path, logits=True)[0]


def test_a_batch_axis_of_one_is_dropped(tmp_path):
    write(tmp_path / "a.npy", FLOATS[None])
    assert find_maps(tmp_path)[0].shape == (20, 24)


def test_worker_processes_can_read(tmp_path):
    write(tmp_path / "a.npy", FLOATS)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(find_maps(tmp_path)))[0], FLOATS)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("a.npy", FLOATS * 2, r"probabilities in \[0, 1\], got 0 to 2; logits need --logits"),
        ("a.npy", FLOATS - 0.5, r"got -0.5 to 0.5"),
        ("a.npy", np.where(FLOATS > 0.5, np.nan, FLOATS), "must be finite, got NaN"),
        ("a.tif", np.where(FLOATS > 0.5, np.inf, FLOATS), "must be finite"),
        ("a.npy", LEVELS.astype(np.int32) * 2, r"int32 values must lie in 0\.\.255, got 0 to 510"),
        ("a.npy", LEVELS.astype(np.int16) - 5, r"int16 values must lie in 0\.\.255, got -5 to 250"),
        ("a.npy", FLOATS[0], r"must be \[H, W\], got shape \(24,\)"),
        ("a.npy", np.stack([FLOATS] * 2), r"got shape \(2, 20, 24\)"),
        ("a.npy", FLOATS.astype(complex), "must hold numbers, got complex128"),
        ("a.tif", np.stack([LEVELS] * 2), "2 pages; one is wanted"),
        ("a.png", np.stack([LEVELS, LEVELS, LEVELS.T.reshape(20, 24)], -1), "colour picture"),
    ],
)
def test_what_is_no_map_is_refused_by_name(tmp_path, name, values, message):
    path = write(tmp_path / name, np.ascontiguousarray(values))
    with pytest.raises(ValueError, match=message) as found:
        find_maps(tmp_path)[0]
    assert str(found.value).count(str(path)) == 1 and str(found.value).startswith(f"{path}: ")


@pytest.mark.parametrize("ending", [".png", ".tif", ".npy", ".npz", ".mat"])
@pytest.mark.parametrize("spoil", ["truncated", "text", "empty"])
def test_files_that_cannot_be_read_are_named(tmp_path, ending, spoil):
    path = write(tmp_path / f"a{ending}", LEVELS)
    data = path.read_bytes()
    path.write_bytes({"truncated": data[: len(data) // 2], "text": b"hello, world" * 30, "empty": b""}[spoil])
    with pytest.raises(ValueError, match="not a readable") as found:
        read_map(path)
    assert str(path) in str(found.value)


def test_arrays_by_name(tmp_path):
    write(tmp_path / "a.npz", None, scores=FLOATS, mask=FLOATS > 0.5)
    with pytest.raises(ValueError, match=r"a\.npz: 2 arrays \(scores, mask\); say which with --key"):
        find_maps(tmp_path)[0]
    np.testing.assert_array_equal(find_maps(tmp_path, key="scores")[0], FLOATS)
    with pytest.raises(ValueError, match=r"a\.npz: no array 'x'; it has scores, mask"):
        find_maps(tmp_path, key="x")[0]
    np.save(tmp_path / "b.npy", FLOATS)
    (tmp_path / "b.npy").rename(tmp_path / "a.npz")
    with pytest.raises(ValueError, match="a single array, in spite of its ending"):
        find_maps(tmp_path)[0]


def test_matlab_variables(tmp_path):
    write(tmp_path / "a.mat", None, D=FLOATS, out=FLOATS)
    with pytest.raises(ValueError, match=r"a\.mat: no variable 'T'; it has D, out; say which with --key"):
        find_maps(tmp_path)[0]
    np.testing.assert_array_equal(find_maps(tmp_path, key="out")[0], FLOATS)


def test_folders_without_maps_and_with_mixed_ones(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        find_maps(tmp_path / "absent")
    with pytest.raises(ValueError, match="no predicted maps; .* found nothing"):
        find_maps(tmp_path)
    (tmp_path / "log.txt").write_text("log")
    (tmp_path / "sub").mkdir()
    with pytest.raises(ValueError, match=r"found 1 \.txt; there are folders in it: sub"):
        find_maps(tmp_path)
    for name in ("a.png", "b.png", "c.npy"):
        write(tmp_path / name, LEVELS)
    with pytest.raises(ValueError, match=r"maps of different kinds \(2 \.png, 1 \.npy\), such as c\.npy"):
        find_maps(tmp_path)
    (tmp_path / "c.npy").unlink()
    assert find_maps(tmp_path).names == ("a.png", "b.png")  # the log is not looked at
    with pytest.raises(ValueError, match=r"a key names an array in \.npz and \.mat files, and these are \.png"):
        find_maps(tmp_path, key="T")


@pytest.mark.parametrize("ending", [".png", ".tif", ".npy", ".npz", ".mat"])
def test_damaged_files_name_themselves_whatever_the_libraries_raise(tmp_path, ending):
    path, rng = write(tmp_path / f"damaged{ending}", LEVELS), np.random.default_rng(0)
    whole = path.read_bytes()
    for _ in range(40):
        damaged = bytearray(whole[: rng.integers(1, len(whole) + 1)])
        damaged[rng.integers(min(len(damaged), 128))] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            read_map(path)
        except UserError as error:
            assert f"damaged{ending}" in str(error)
