import os
import pathlib
import tempfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irjax.io.coco import relative_names
from irjax.io.images import IMAGE_SUFFIXES
from irjax.io.lists import Resolver
from irjax.io.names import file_of, flat, image_names, match_names, name_of, posix, without_ending

PART = st.text(st.characters(exclude_characters="/\\", exclude_categories=("Cs", "Cc")), min_size=1, max_size=12)
FILE = st.lists(PART, min_size=1, max_size=3).map("/".join).filter(lambda name: name == posix(name))
NAMES = st.lists(FILE, min_size=1, max_size=6, unique=True)


def test_names_with_and_without_folder_ending_and_suffix():
    images = ("Misc_1", "Misc_11", "XDU0", "000001", "v1.5_scene")
    given = [
        "out/Misc_1.png",
        "Misc_11_pixels0.png",
        "XDU0_mask.TIFF",
        "v1.5_scene.npy",
        "C:\\x\\000001.bmp",
        "other.png",
    ]
    matched = match_names(given, images)
    assert dict(matched.prediction_of) == dict(zip(
        ("Misc_1", "Misc_11", "XDU0", "v1.5_scene", "000001"), given[:5], strict=True))  # fmt: skip
    assert matched.unknown == ("other.png",) and matched.without_prediction == ()


def test_the_whole_name_comes_first():
    matched = match_names(["a/1.png", "b/1.png"], ("a/1.png", "b/1.png", "c"))
    assert dict(matched.prediction_of) == {"a/1.png": "a/1.png", "b/1.png": "b/1.png"}
    assert matched.without_prediction == ("c",)


def test_ambiguity_is_refused():
    with pytest.raises(ValueError, match="'1.png' could belong to several images: a/1.png, b/1.png"):
        match_names(["1.png"], ("a/1.png", "b/1.png"))
    with pytest.raises(ValueError, match="image '1' has two predictions: '1.png' and '1.bmp'"):
        match_names(["1.png", "1.bmp"], ("1",))


def test_names_are_paths_below_the_folder_without_ending():
    files = ["seq1\\0001.png", "seq1/0002.PNG", "a.png", "a.bmp", "v1.5", "./x/y.tif"]
    assert image_names(files) == ["seq1/0001", "seq1/0002", "a.png", "a.bmp", "v1.5", "x/y"]


@pytest.mark.parametrize("ending", [*IMAGE_SUFFIXES, ".npz", ".mat", ".xml", ".txt", ".json"])
def test_one_rule_of_endings_for_names_lists_and_annotations(ending):
    for name in ("a.b", "seq/v1.5"):
        assert without_ending(name + ending) == without_ending(name + ending.upper()) == without_ending(name) == name
        assert image_names([name + ending]) == relative_names([name + ending, "z"])[:1] == [name]
        assert Resolver([name])(name + ending) == name
    assert without_ending(ending) == ending and without_ending(f"a/{ending}") == f"a/{ending}"


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("1(1)", "1(1)"),
        ("frame 02", "frame 02"),
        ("目标_3", "目标_3"),
        ("a#b", "a#b"),
        ("50%", "50%25"),
        ("a:b?", "a%3Ab%3F"),
        ("seq/01", "seq/01"),
        ("../x", "%2E%2E/x"),
        ("end.", "end%2E"),
    ],
)
def test_files_of_names(name, file):
    assert file_of(name) == file and name_of(file) == name


@settings(max_examples=200, deadline=None)
@given(NAMES)
def test_what_is_written_is_read_and_matched(names):
    """Files on a real disk, whatever the names; the disk tells upper from lower case."""
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        for name in names:
            path = root / f"{file_of(name)}.png"
            if len(os.fsencode(path.name)) > 255:
                return
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name)
        found = {
            name_of(path.relative_to(root).with_suffix("")): path for path in root.rglob("*.png") if path.is_file()
        }
        assert {name: path.read_text() for name, path in found.items()} == {name: name for name in names}
        matched = match_names(found, names)
        assert dict(matched.prediction_of) == {name: name for name in names}


@given(NAMES)
def test_different_names_have_different_files(names):
    assert len({file_of(name) for name in names}) == len(names) == len(set(image_names(names)))


def test_other_programs_join_folders_drop_them_or_change_the_case():
    assert dict(match_names(["41_1.png", "42_1.png"], ("41/1", "42/1")).prediction_of) == {
        "41/1": "41_1.png",
        "42/1": "42_1.png",
    }
    assert match_names(["misc_1.BMP"], ("Misc_1",)).prediction_of["Misc_1"] == "misc_1.BMP"
    assert match_names(["out/Misc_1.png.png"], ("Misc_1.png", "Misc_1.bmp")).prediction_of["Misc_1.png"]
    assert flat("seq/1:2.png") == "seq_1%3A2.png"
