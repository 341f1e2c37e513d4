"""MATLAB files of both kinds: the variable that is meant, the axes as MATLAB shows them, the frames of a stack."""

import sys

import numpy as np
import pytest
import scipy.io

from irjax.errors import MissingPackageError, UserError
from irjax.io import matlab
from irjax.io.headers import frame_count, image_depth
from irjax.io.images import Depth, Frame, read_image
from irjax.io.maps import find_maps
from irjax.io.masks import read_levels

FRAMES = np.random.default_rng(0).integers(0, 255, (5, 20, 24), np.uint8)  # [T, H, W]
H5PY = "needs h5py, of the extra mat"


def old(path, **variables):
    scipy.io.savemat(path, variables, do_compression=True)


def new(path, **variables):
    """Writes a file as MATLAB's -v7.3 does: HDF5 behind 512 bytes, each array with its axes reversed."""
    h5py = pytest.importorskip("h5py", reason=H5PY)
    classes = {"uint8": "uint8", "uint16": "uint16", "float64": "double", "bool": "logical"}
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, values in variables.items():
            stored = values.T.astype(np.uint8) if values.dtype == bool else values.T
            file[name] = stored
            file[name].attrs["MATLAB_class"] = np.bytes_(classes[values.dtype.name])
        file["text"] = np.array([[104, 105]], np.uint16)
        file["text"].attrs["MATLAB_class"] = np.bytes_("char")
        file.create_group("#refs#")
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")


@pytest.mark.parametrize("write", [old, new])
def test_an_image_is_not_turned(tmp_path, write):
    image = FRAMES[0].astype(np.uint16) * 200
    write(tmp_path / "a.mat", img=image, fps=np.array([[25.0]]), centre=np.array([[3.0, 4.0]]))
    assert frame_count(tmp_path / "a.mat") == 1
    np.testing.assert_array_equal(read_image(tmp_path / "a.mat"), image)
    assert image_depth(tmp_path / "a.mat") == 16


@pytest.mark.parametrize("write", [old, new])
@pytest.mark.parametrize("axis", [0, 2])
def test_every_image_of_a_stack(tmp_path, write, axis):
    """MATLAB's order is [H, W, T]; NUDT-MIRSDT stores [T, H, W]."""
    write(tmp_path / "a.mat", Mix=np.moveaxis(FRAMES, 0, axis))
    assert frame_count(tmp_path / "a.mat") == 5
    for page, frame in enumerate(FRAMES):
        np.testing.assert_array_equal(read_image(Frame(str(tmp_path / "a.mat"), page)), frame)
    np.testing.assert_array_equal(read_image(tmp_path / "a.mat"), FRAMES[0])
    np.testing.assert_array_equal(read_image(Frame(str(tmp_path / "a.mat"), -1)), FRAMES[-1])


@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((64, 80), None),
        ((64, 80, 3), None),
        ((64, 80, 5), 2),
        ((64, 80, 300), 2),
        ((64, 64, 30), 2),
        ((64, 64, 64), 2),
        ((5, 64, 80), 0),
        ((30, 64, 64), 0),
        ((300, 64, 64), 0),
    ],
)
def test_along_which_axis_images_lie(shape, axis):
    assert matlab.frame_axis(shape, 16) == axis


@pytest.mark.parametrize("write", [old, new])
def test_several_variables_are_named(tmp_path, write):
    write(tmp_path / "a.mat", first=FRAMES[0], second=FRAMES[1])
    with pytest.raises(UserError, match=r"a\.mat: 2 variables could be meant; it has first, second; say which with"):
        read_image(tmp_path / "a.mat")
    np.testing.assert_array_equal(read_image(Frame(str(tmp_path / "a.mat"), -1, "second")), FRAMES[1])
    with pytest.raises(UserError, match=r"a\.mat: no array 'third'; it has first, second"):
        read_image(Frame(str(tmp_path / "a.mat"), -1, "third"))
    write(tmp_path / "b.mat", points=np.zeros((3, 2)))
    with pytest.raises(UserError, match=r"b\.mat: no variables could be meant; it has points"):
        read_image(tmp_path / "b.mat")
    write(tmp_path / "c.mat", image=FRAMES[0] / 255)
    with pytest.raises(UserError, match=r"c\.mat: float64 samples from .*--range LOW HIGH"):
        read_image(tmp_path / "c.mat")
    assert read_image(tmp_path / "c.mat", Depth(range=(0, 1))).dtype == np.uint16


@pytest.mark.parametrize("write", [old, new])
def test_maps_and_masks_have_the_same_reader(tmp_path, write):
    mask = FRAMES[0] > 128
    write(tmp_path / "a.mat", T=FRAMES[1] / 255, other=FRAMES[2] / 255)
    write(tmp_path / "b.mat", T=FRAMES[3] / 255)
    np.testing.assert_array_equal(find_maps(tmp_path)[0], FRAMES[1] / 255)
    np.testing.assert_array_equal(find_maps(tmp_path / "a.mat", key="other")[0], FRAMES[2] / 255)
    write(tmp_path / "mask.mat", mask=mask)
    np.testing.assert_array_equal(read_levels(tmp_path / "mask.mat") > 0, mask)
    np.testing.assert_array_equal(find_maps(tmp_path / "mask.mat")[0], mask)  # the only array needs no key


def test_without_h5py(tmp_path, monkeypatch):
    new(tmp_path / "a.mat", img=FRAMES[0])
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingPackageError, match=r"a\.mat: a MATLAB 7\.3 file, .*pip install 'irjax\[mat\]'; or save"):
        read_image(tmp_path / "a.mat")
    with pytest.raises(UserError, match=r"a\.mat: a MATLAB 7\.3 file"):
        find_maps(tmp_path)[0]


def test_damaged_files(tmp_path):
    for name, content in {"a.mat": b"junk", "b.mat": b"MATLAB 5.0 MAT-file".ljust(124) + b"\0\1IM" + b"junk"}.items():
        (tmp_path / name).write_bytes(content)
        assert frame_count(tmp_path / name) == 1
        with pytest.raises(UserError, match=rf"{name}: ") as found:
            read_image(tmp_path / name)
        assert "\n" not in str(found.value)
