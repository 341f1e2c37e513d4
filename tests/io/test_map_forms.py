"""Forms in which other programs save maps: pictures, axes of length 1, stacks, raw responses, side by side."""

import pickle

import numpy as np
import pytest
import scipy.io
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from irjax.errors import UsageError, UserError
from irjax.io.maps import ROUNDING, SCALES, MapFiles, find_maps, read_rule

LEVELS = np.zeros((20, 24), np.uint8)
LEVELS[6:9, 10:13] = 255
FLOATS = np.linspace(0, 1, 20 * 24, dtype=np.float32).reshape(20, 24)


def one(folder, values, **options):
    np.save(folder / "a.npy", values)
    return find_maps(folder, **options)


@pytest.mark.parametrize("ending", ["bmp", "jpg", "jpeg", "webp"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_pictures_of_other_formats(tmp_path, ending, mode):
    Image.fromarray(LEVELS).convert(mode).save(tmp_path / f"a.{ending}", quality=80)
    maps = find_maps(tmp_path)
    np.testing.assert_array_equal(maps[0] > 0.5, LEVELS > 127)
    assert ("lossy" in read_rule(maps)) == (ending != "bmp") and maps.shape(0) == (20, 24) and maps.clipped() == []


def test_a_colour_jpeg_is_no_map(tmp_path):
    Image.fromarray(np.stack([LEVELS, LEVELS // 2, LEVELS * 0], -1)).save(tmp_path / "a.jpg")
    with pytest.raises(UserError, match="a colour picture"):
        find_maps(tmp_path)[0]


def test_pictures_beside_maps_are_left_out_and_said(tmp_path):
    for name in ("a", "b"):
        np.save(tmp_path / f"{name}.npy", FLOATS)
        Image.fromarray(LEVELS).save(tmp_path / f"{name}.jpg")
    maps = find_maps(tmp_path)
    assert maps.names == ("a.npy", "b.npy") and maps.left_out == ("a.jpg", "b.jpg")
    Image.fromarray(LEVELS).save(tmp_path / "c.png")
    with pytest.raises(UserError, match="maps of different kinds"):
        find_maps(tmp_path)


@pytest.mark.parametrize("shape", [(1, 1, 20, 24), (20, 24, 1), (1, 20, 24, 1), (1, 20, 24)])
def test_axes_of_length_one(tmp_path, shape):
    np.testing.assert_array_equal(one(tmp_path, FLOATS.reshape(shape))[0], FLOATS)


@pytest.mark.parametrize("ending", ["npy", "mat"])
@pytest.mark.parametrize("axis", [0, 2])
def test_stacks(tmp_path, ending, axis):
    stack = np.stack([FLOATS, FLOATS.T.reshape(20, 24), FLOATS * 0], axis)
    path = tmp_path / f"all.{ending}"
    np.save(path, stack) if ending == "npy" else scipy.io.savemat(path, {"T": stack})
    for where in (path, tmp_path):
        maps = find_maps(where, names=["x", "y", "z"])
        assert maps.names == ("x", "y", "z") and len(maps) == 3 and maps.shape(1) == (20, 24)
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(maps))[1], FLOATS.T.reshape(20, 24))
        assert "_stack" not in maps.__getstate__()  # workers read the file themselves
    assert read_rule(maps) == "float32, p = value, 3 maps in one array"
    with pytest.raises(UserError, match=r"all\..*: a map must be \[H, W\], got shape .*--names FILE"):
        find_maps(tmp_path)[0]
    with pytest.raises(UserError, match=r"4 names need an array \[4, H, W\] or \[H, W, 4\], got shape"):
        find_maps(tmp_path, names=list("abcd"))


def test_the_axis_of_a_stack_that_could_be_two(tmp_path):
    cube = np.random.default_rng(0).random((5, 20, 5))
    np.save(tmp_path / "a.npy", cube)
    scipy.io.savemat(tmp_path / "a.mat", {"T": cube})
    np.testing.assert_array_equal(find_maps(tmp_path / "a.npy", names=list("abcde"))[2], cube[2])
    np.testing.assert_array_equal(find_maps(tmp_path / "a.mat", names=list("abcde"))[2], cube[..., 2])


def test_names_are_for_one_file(tmp_path):
    np.save(tmp_path / "b.npy", FLOATS)
    one(tmp_path, FLOATS)
    with pytest.raises(UserError, match="2 names are for the maps of one file, and there are 2 files"):
        find_maps(tmp_path, names=["x", "y"])


RAW = np.array([[0, 3], [6, 12]])


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.uint8, np.int32])
@pytest.mark.parametrize(
    ("scale", "offset", "expected"), [("max", 0, RAW / 12), ("minmax", 3, RAW / 12), ("255", 0, RAW / 255)]
)
def test_raw_responses(tmp_path, dtype, scale, offset, expected):
    maps = one(tmp_path, (RAW + offset).astype(dtype), scale=scale)
    np.testing.assert_allclose(maps[0], expected, atol=1e-6)
    assert read_rule(maps) == f"{np.dtype(dtype)}, p = {SCALES[scale]}"
    np.testing.assert_array_equal(one(tmp_path, (RAW * 0).astype(dtype), scale=scale)[0], 0)


def test_raw_responses_that_a_scale_does_not_take(tmp_path):
    with pytest.raises(UserError, match=r"--scale max gives -0.5 to 1.*--scale minmax takes"):
        one(tmp_path, RAW - 4.0, scale="max")[0]
    with pytest.raises(UserError, match="--scale max needs values above 0"):
        one(tmp_path, RAW - 40.0, scale="max")[0]
    with pytest.raises(UserError, match=r"--scale 255 gives 0 to 12"):
        one(tmp_path, RAW * 255.0, scale="255")[0]
    with pytest.raises(UserError, match=r"got 0 to 12; logits need --logits, raw responses --scale max, minmax, 255"):
        one(tmp_path, RAW * 1.0)[0]
    with pytest.raises(UserError, match="finite"):
        one(tmp_path, np.where(RAW > 6, np.nan, RAW), scale="minmax")[0]
    with pytest.raises(UsageError, match="one of max, minmax, 255, got 'sum'"):
        MapFiles("a", (), scale="sum")
    with pytest.raises(UsageError, match="logits or raw responses"):
        MapFiles("a", (), logits=True, scale="max")


def test_rounding_errors_are_clipped_and_said(tmp_path):
    values = FLOATS.copy()
    values[0, 0], values[1, 1] = -1e-7, 1 + 9e-5
    maps = one(tmp_path, values)
    assert maps[0].min() == 0 and maps[0].max() == 1 and maps.clipped() == ["a.npy"]
    assert one(tmp_path, FLOATS).clipped() == []
    values[0, 0] = -2 * ROUNDING
    with pytest.raises(UserError, match=r"probabilities in \[0, 1\], got -0.0002"):
        one(tmp_path, values)[0]


def test_image_prediction_and_truth_side_by_side(tmp_path):
    for name in ("a", "b"):
        for end, format in (("", "bmp"), ("_Pred", "png"), ("_GT", "png")):
            Image.fromarray(LEVELS).save(tmp_path / f"{name}{end}.{format}")
    maps = find_maps(tmp_path)
    assert maps.names == ("a_Pred.png", "b_Pred.png")
    assert maps.left_out == ("a.bmp", "a_GT.png", "b.bmp", "b_GT.png")
    # A prediction alone is none of a program that saves three files, so nothing is chosen.
    Image.fromarray(LEVELS).save(tmp_path / "c_Pred.png")
    (tmp_path / "a.bmp").unlink(), (tmp_path / "b.bmp").unlink()
    assert len(find_maps(tmp_path)) == 5


@given(arrays.arrays(np.float32, (3, 4), elements=st.floats(-1e6, 1e6, width=32)), st.sampled_from(["max", "minmax"]))
def test_scaling_keeps_the_order_of_values(tmp_path_factory, values, scale):
    folder = tmp_path_factory.mktemp("maps")
    values = values if scale == "minmax" else np.abs(values)
    found = one(folder, values, scale=scale)[0]
    assert found.min() >= 0 and found.max() <= 1
    order = np.argsort(values, axis=None, kind="stable")
    assert (np.diff(found.reshape(-1)[order]) >= 0).all()
