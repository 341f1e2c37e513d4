"""Which images are frames of sequences, and which files hold several images."""

import pathlib

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from irjax.errors import UserError
from irjax.io.images import Frame
from irjax.io.lists import Resolver, read_list
from irjax.io.names import frame_key, match_names, without_container
from irjax.io.sequences import Place, expand, file_name, index_images, places, places_of_names


def found(*names):
    return {name: (place.sequence, place.frame) for name, place in places_of_names(names).items()}


@pytest.mark.parametrize(
    ("one", "other"), [("41", "100"), ("a", "b"), ("seq_a", "seq_b"), ("seqA", "seqB"), ("v1", "v2")]
)
def test_folders_are_counted_by_numbers_or_letters(one, other):
    names = [f"{folder}/{number:05d}" for folder in (one, other) for number in (0, 1, 2)]
    assert {place.sequence for place in places_of_names(names).values()} == {one, other}


def test_folders_that_count_their_images():
    assert found("1/0001", "1/0002", "2/0001", "2/0002") == {
        "1/0001": ("1", 1),
        "1/0002": ("1", 2),
        "2/0001": ("2", 1),
        "2/0002": ("2", 2),
    }
    assert found("41/1(297)", "41/2(297)", "42/1(88)", "42/2(88)")["42/2(88)"] == ("42", 2)
    assert found("a/seq1_00", "a/seq1_10", "b/seq2_00", "b/seq2_01")["a/seq1_10"] == ("a", 10)
    assert found("day/s1/f9.png", "day/s1/f10.png", "night/s1/f9.png", "night/s1/f11.png")["day/s1/f10.png"] == (
        "day/s1",
        10,
    )


@pytest.mark.parametrize(
    "names",
    [
        ("0001", "0002", "0003"),  # one folder
        ("targets/Misc_1", "targets/Misc_3", "backgrounds/Misc_2", "backgrounds/Misc_4"),  # classes of one set
        ("NUDT/000001", "NUDT/000002", "IRSTD/XDU1", "IRSTD/XDU2"),  # sets of different names
        ("sky/cloud", "sky/sun", "sea/wave", "sea/ship"),
        ("a/1", "b/1"),  # nothing is counted
        ("targets/1", "targets/2", "backgrounds/1", "backgrounds/2"),  # classes
        ("sky/0001", "sky/0002", "sea/0001", "sea/0002"),
        ("cats/img1", "cats/img2", "dogs/img1", "dogs/img2"),
        ("a/1_1", "a/2_2", "b/1_1", "b/2_2"),  # two numbers vary
    ],
)
def test_folders_that_are_no_sequences(names):
    assert found(*names) == {}


def test_pages_are_frames_whatever_they_are_called(tmp_path):
    files = {f"clip_{page + 1:04d}.mp4": Frame("in/clip.mp4", page) for page in range(2)}
    files |= {"a.png": pathlib.Path("in/a.png"), "one.mat": Frame("in/one.mat", -1, "img")}
    assert places(files) == {
        "clip_0001.mp4": Place("clip.mp4", 1, "in/clip.mp4"),
        "clip_0002.mp4": Place("clip.mp4", 2, "in/clip.mp4"),
    }
    assert file_name("x/clip_0002", Frame("in/clip.mp4", 1)) == "clip_0002.mp4"


def test_every_folder_where_it_is_said():
    files = {f"{name}.png": pathlib.Path("walk", f"{name}.png") for name in ("t9 x", "t10 y", "t1 z")}
    assert places(files) == {}
    assert {name: place.frame for name, place in places(files, folders=True).items()} == {
        "t9 x.png": 2,
        "t10 y.png": 3,
        "t1 z.png": 1,
    }
    assert {place.sequence for place in places(files, folders=True).values()} == {"walk"}
    numbered = {f"{number}.png": pathlib.Path("walk", f"{number}.png") for number in (5, 12)}
    assert [place.frame for place in places(numbered, folders=True).values()] == [5, 12]


@given(
    st.lists(st.integers(0, 10**6), min_size=2, max_size=9, unique=True), st.sampled_from(["{}", "f{:06d}", "{}(7)"])
)
def test_numbers_are_those_of_the_names(numbers, form):
    names = [f"{folder}/{form.format(number)}" for folder in "ab" for number in numbers]
    assert [frame for _, frame in found(*names).values()] == numbers * 2


def test_files_with_several_images(tmp_path):
    tifffile.imwrite(tmp_path / "clip.tif", np.zeros((3, 20, 24), np.uint8), photometric="minisblack")
    Image.fromarray(np.zeros((20, 24), np.uint8)).save(tmp_path / "still.png")
    pages = {f"clip_{page + 1:04d}": Frame(str(tmp_path / "clip.tif"), page) for page in range(3)}
    assert index_images(tmp_path) == {**pages, "still": tmp_path / "still.png"}
    assert list(expand(tmp_path / "clip.tif", "x/clip.tif")) == [f"x/clip_{page:04d}.tif" for page in (1, 2, 3)]
    Image.fromarray(np.zeros((20, 24), np.uint8)).save(tmp_path / "clip_0002.png")
    with pytest.raises(UserError, match=r"two images have one name: .*clip\.tif, page 2 and .*clip_0002\.png"):
        index_images(tmp_path)


def test_lists_name_frames_and_whole_sequences(tmp_path):
    names = ["Sequence1/00001", "Sequence1/00002", "Sequence10/00001", "Sequence10/00002"]
    find = Resolver(names, {name: name.partition("/")[0] for name in names})
    lines = [
        "Sequence10/Mix/00002.mat",
        r"D:\set\Sequence1\images\00001.png",
        "masks/Sequence1/00002.png",
        "Sequence10",
    ]
    (tmp_path / "train.txt").write_text("\n".join(lines))
    assert read_list(tmp_path / "train.txt", find).names == (names[3], names[0], names[1], names[2], names[3])
    (tmp_path / "train.txt").write_text("Sequence2\n")
    assert "no image is called Sequence2" in next(iter(read_list(tmp_path / "train.txt", find).problems.values()))


def test_predictions_belong_to_the_frame_of_their_sequence():
    assert without_container("Sequence1/images/00001") == "Sequence1/00001" == without_container("Sequence1/00001")
    assert without_container("images/00001") == "images/00001"
    assert frame_key("clip_0001") == frame_key("clip/masks/00001") == "clip/1"
    truth = [f"Sequence{sequence}/{frame:05d}" for sequence in (1, 2, 11) for frame in (1, 2, 11)]
    forms = {
        "data/Sequence{}/images/{:05d}.png",
        "Sequence{}/Mix/{:05d}.mat",
        "Sequence{}/{}.png",
        "Sequence{}_{:04d}.mp4",
        "out/Sequence{}_{:05d}.png",
    }
    for form in forms:
        given = [form.format(sequence, frame) for sequence in (1, 2, 11) for frame in (1, 2, 11)]
        assert dict(match_names(given, truth).prediction_of) == dict(zip(truth, given, strict=True))
    assert match_names(["x_001.png"], ("x_1", "y/x_001")).prediction_of == {"y/x_001": "x_001.png"}
    with pytest.raises(UserError, match="could belong to several images: clip_0001, clip/01"):
        match_names(["clip/1.png"], ("clip_0001", "clip/01"))
