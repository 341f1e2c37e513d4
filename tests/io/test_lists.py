"""What the lines of a split list mean."""

import codecs

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irjax.errors import UserError
from irjax.io.lists import Resolver, index_files, read_lines, read_list

FLAT = Resolver(["a_1", "b_2", "c.d", "with space", "ähre", "#hash"])
NESTED = Resolver(["41/1", "41/2", "42/1", "x/7"])


def read(tmp_path, text, images=FLAT, masks=None):
    path = tmp_path / "list.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_list(path, images, masks)


@pytest.mark.parametrize(
    "line",
    [
        *("a_1", "a_1.png", "a_1.bmp", "images/a_1.png", "./images/a_1", r"images\a_1.png", r"D:\NUDT\images\a_1.png"),
        *("D:/x/a_1", "/home/me/a_1.tif", "../a_1.png", "A_1.PNG", "  a_1\t", "my data/a_1.png", r"C:\a b, c\a_1"),
    ],
)
def test_paths_of_one_image(tmp_path, line):
    assert read(tmp_path, line).names == ("a_1",)


def test_dots_spaces_and_other_letters(tmp_path):
    found = read(tmp_path, "c.d\nc.d.png\nimages/with space.png\nähre\na\u0308hre.png\n")
    assert found.names == ("c.d", "c.d", "with space", "ähre", "ähre") and not found.problems


@pytest.mark.parametrize(
    ("line", "name"), [("41/1", "41/1"), ("/41/1.png", "41/1"), ("set/42/1", "42/1"), ("7", "x/7"), ("41_2", "41/2")]
)
def test_folders_tell_images_apart(tmp_path, line, name):
    assert read(tmp_path, line, NESTED).names == (name,)


def test_lines_without_an_image_are_named(tmp_path):
    found = read(tmp_path, "41/1\n\n43/1.png\n1\nx/1\n", NESTED)
    assert found.names == ("41/1", "43/1", "1", "x/1")
    assert found.problems["43/1"] == f"{tmp_path / 'list.txt'}, line 3: no image is called 43/1.png"
    assert "line 4: 1 could mean 41/1 or 42/1" in found.problems["1"] and "line 5" in found.problems["x/1"]


def test_case_decides_where_it_must(tmp_path):
    both = Resolver(["a", "A"])
    assert read(tmp_path, "A.png\na\n", both).names == ("A", "a")
    with pytest.raises(UserError, match="could mean"):
        Resolver(["ab", "AB"])("Ab")


def test_an_image_whose_name_ends_as_a_file_does(tmp_path):
    find = Resolver(["a", "a.png", "b.tif", "x/c.png", "c"])
    assert [find(text) for text in ("a.bmp", "a.png.png", "b.tif", "b.tif.png", "c.png", "x/c.png")] == [
        *("a", "a.png", "b.tif", "b.tif", "c", "x/c.png")
    ]
    for text in ("a.png", "images/a.png"):
        with pytest.raises(UserError, match=f"{text} could mean a or a.png"):
            find(text)


@pytest.mark.parametrize("between", [" ", "\t", ", ", ";", "   "])
def test_pairs_of_image_and_mask(tmp_path, between):
    masks = Resolver(["a_1", "b_2_mask", "other", "with space"])
    text = between.join(("images/a_1.png", "masks/a_1.png"))
    assert read(tmp_path, text, masks=masks).masks == {"a_1": "a_1"}
    text = between.join(("img/b_2.png", r"D:\m\b_2_mask.png"))
    assert read(tmp_path, text, masks=masks).masks == {"b_2": "b_2_mask"}
    text = between.join(("img/b_2.png", "m/other.png"))  # no image is called other: the line says whose mask it is
    assert read(tmp_path, text, masks=masks).masks == {"b_2": "other"}
    text = between.join(("img/with space.png", "m/with space.png"))
    assert read(tmp_path, text, masks=masks).masks == {"with space": "with space"}


@pytest.mark.parametrize("line", ["images/zz.png masks/b_2.png", "images/a_1.png masks/zz.png", "a_1.png,zz.png"])
def test_half_a_pair_means_nothing(tmp_path, line):
    assert len(read(tmp_path, line, masks=Resolver(["a_1", "b_2"])).problems) == 1


def test_a_pair_with_an_annotation_of_another_kind(tmp_path):
    found = read(tmp_path, r"images\a_1.png labels\a_1.txt" + "\nimages/a_1.png labels/b_2.txt\n")
    assert found.names[0] == "a_1" and not found.masks and "line 2" in next(iter(found.problems.values()))


def test_a_pair_of_two_images_is_refused(tmp_path):
    found = read(tmp_path, "images/a_1.png masks/b_2.png", masks=Resolver(["a_1", "b_2"]))
    (problem,) = found.problems.values()
    assert "line 1: " in problem and "pairs a_1 with the mask of b_2" in problem and not found.masks


def test_several_names_on_a_line(tmp_path):
    masks = Resolver(["a_1", "b_2", "c.d"])
    for line in ("a_1,b_2,c.d", "a_1 b_2 c.d", "a_1; b_2.png;c.d"):
        found = read(tmp_path, line, masks=masks)
        assert found.names == ("a_1", "b_2", "c.d") and not found.masks


def test_comments_unless_an_image_is_called_so(tmp_path):
    found = read(tmp_path, "# names\n#\n#hash\na_1\n")
    assert found.names == ("#hash", "a_1") and not found.problems


@pytest.mark.parametrize(
    "data",
    [
        codecs.BOM_UTF8 + b"a_1\r\nb_2\r\n",
        "a_1\nb_2\n".encode("utf-16"),
        codecs.BOM_UTF16_BE + "a_1\nb_2".encode("utf-16-be"),
        "a_1\nb_2".encode("utf-16-le"),
        "a_1\nb_2".encode("utf-16-be"),
        b"a_1\rb_2\r",
    ],
)
def test_encodings_and_line_ends(tmp_path, data):
    assert read(tmp_path, data).names == ("a_1", "b_2")


def test_another_encoding_is_named_with_its_line(tmp_path):
    with pytest.raises(UserError, match=r"list\.txt: not a text file .*\(line 2: .*save it as UTF-8"):
        read(tmp_path, "a_1\n目标".encode("gbk"))
    with pytest.raises(FileNotFoundError, match="no file or folder"):
        read_lines(tmp_path / "absent.txt")


def test_the_files_of_a_folder(tmp_path):
    for name in ("b/1.png", "a/1.PNG", "a/._1.png", "a/1.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert list(index_files(tmp_path)) == ["a/1", "b/1"] and not index_files(tmp_path, nested=False)
    assert list(index_files(tmp_path, (".txt",))) == ["a/1"]
    (tmp_path / "top.bmp").write_bytes(b"")  # images beside the folders are meant
    assert list(index_files(tmp_path)) == ["top"]
    (tmp_path / "top.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"two files have one name: .*top\.bmp and .*top\.png"):
        index_files(tmp_path)


LETTERS = st.characters(codec="utf-8", exclude_characters="/\\:", exclude_categories=("Cs", "Cc", "Zl", "Zp"))
PART = st.text(LETTERS, min_size=1, max_size=5).filter(lambda part: part.strip() == part and part.strip(". "))
NAME = st.lists(PART, min_size=1, max_size=3).map("/".join)


@settings(max_examples=500, deadline=None)
@given(st.lists(NAME, min_size=1, max_size=6, unique=True), st.data())
def test_what_was_written_is_found_again(names, data):
    """An image's path, in whatever form, means that image or, where others fit as well, is refused: never another."""
    name = data.draw(st.sampled_from(names))
    before = data.draw(st.sampled_from(["", "./", "images/", "D:/set/", "/"]))
    line = before + name + data.draw(st.sampled_from([".png", ".PNG", ".bmp"]))
    line = line.replace("/", "\\") if data.draw(st.booleans()) else line
    try:
        found = Resolver(names)(line)
    except UserError as error:
        assert "could mean" in str(error)
    else:
        assert found == name


@settings(max_examples=500, deadline=None)
@given(st.lists(NAME, min_size=1, max_size=6, unique=True), st.data())
def test_no_line_is_paired_wrongly(tmp_path_factory, names, data):
    """A line of a list, with or without the mask, means its image and its mask, or is a problem with its number."""
    name = data.draw(st.sampled_from(names))
    line = data.draw(st.sampled_from(["{0}", "{0}.png", "images/{0}.png", "images/{0}.png{1}masks/{0}.png"]))
    line = line.format(name, data.draw(st.sampled_from([" ", ",", ";", "  "])))
    path = tmp_path_factory.mktemp("lists") / "list.txt"
    path.write_text(f"\n{line}\n", encoding=data.draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16"])))
    found = read_list(path, Resolver(names), Resolver(names))
    if found.problems:
        assert len(found.names) == 1 and f"{path}, line 2: " in found.problems[found.names[0]]
    elif not (line.startswith("#") and not found.names):  # a comment
        assert found.names == (name,) and found.masks in ({}, {name: name})
