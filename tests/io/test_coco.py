"""COCO files as programs write them: which images they mean, and what is refused."""

import codecs
import json

import numpy as np
import pytest

from irjax.errors import Note, UserError
from irjax.io.coco import load_coco, read_coco
from irjax.io.points import read_points_csv


def image(number, file, **more):
    return {"id": number, "file_name": file, "height": 20, "width": 24, **more}


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def point(image_id, x=3, y=4, **more):
    return {"image_id": image_id, "keypoints": [x, y, 2], **more}


@pytest.mark.parametrize("slash", ["/", "\\"])
def test_folders_tell_images_apart(tmp_path, slash):
    files = [slash.join(parts) for parts in (("41", "1.png"), ("41", "2.png"), ("42", "1.png"))]
    content = {"images": [image(n, file) for n, file in enumerate(files)], "annotations": [point(2)]}
    found = read_coco(write(tmp_path / "a.json", content))
    assert found.names == ("41/1", "41/2", "42/1") and found.files["42/1"] == "42/1.png"
    assert [len(points) for points, _ in found.by_name.values()] == [0, 0, 1]
    assert found.resolve([(1, "42/1.png"), (2, "41\\2.png")], "list") == ("42/1", "41/2")
    with pytest.raises(UserError, match="2.png could mean|1.png could mean"):
        found.resolve([(1, "1.png")], "list")


@pytest.mark.parametrize("folder", ["", "images/", "./images/", "D:\\set\\images\\", "/home/me/"])
def test_folders_that_all_share_are_left_out(tmp_path, folder):
    content = {"images": [image(1, f"{folder}a.png"), image(2, f"{folder}b.c.png")], "annotations": []}
    assert read_coco(write(tmp_path / "a.json", content)).names == ("a", "b.c")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings(tmp_path, encoding):
    content = json.dumps({"images": [image(1, "目标.png")], "annotations": []}, ensure_ascii=False)
    assert read_coco(write(tmp_path / "a.json", content.encode(encoding))).names == ("目标",)


def test_ids_are_text_or_numbers(tmp_path):
    content = {
        "images": [image(1.0, "a.png"), image("b7", "b.png")],
        "annotations": [point(1), point("b7"), point(1.0)],
    }
    found = read_coco(write(tmp_path / "a.json", content))
    assert [len(points) for points, _ in found.by_name.values()] == [2, 1]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([image(1, "a.png"), image(1, "b.png")], r"images\[1\] repeats the id 1"),
        ([image(1, "x/a.png"), image(2, "x\\a.png")], r"images\[1\] repeats .* the file name a"),
        ([{"id": 1, "file_name": "a.png"}], r"images\[0\] needs id, file_name, height and width"),
        ([[1]], r"images\[0\] needs id"),
    ],
)
def test_bad_images(tmp_path, images, message):
    path = write(tmp_path / "a.json", {"images": images, "annotations": []})
    with pytest.raises(UserError, match=rf"a\.json: {message}"):
        load_coco(path)


def test_images_that_differ_in_their_ending_keep_it(tmp_path):
    content = {"images": [image(1, "s/a.png"), image(2, "s/a.bmp"), image(3, "s/b.png")], "annotations": [point(2)]}
    found = read_coco(write(tmp_path / "a.json", content))
    assert found.names == ("a.png", "a.bmp", "b") and len(found.by_name["a.bmp"][0]) == 1


def test_scores_are_no_labels_and_said(tmp_path):
    content = {"images": [image(1, "a.png")], "annotations": [point(1, score=0.5), point(1)]}
    with pytest.warns(Note, match=r"1 scores are left out: .*irjax evaluate --predictions reads them"):
        assert len(read_coco(write(tmp_path / "a.json", content)).by_name["a"][0]) == 2
    (tmp_path / "p.csv").write_text("name,x,y,score\na,3,4,0.5\n")
    with pytest.warns(Note, match="1 scores are left out"):
        read_points_csv(tmp_path / "p.csv")


def test_a_labelme_file_is_recognised(tmp_path):
    with pytest.raises(UserError, match="a LabelMe file, not COCO; give the folder"):
        load_coco(write(tmp_path / "a.json", {"shapes": []}))


def test_results_of_programs(tmp_path):
    """What `read_coco` refuses and predictions are written as: no images, no sizes, other names of the list."""
    bare = write(tmp_path / "bare.json", [point("41\\1.png"), point(7), {"file_name": "b.png"}])
    found = load_coco(bare, results=True)
    assert not found.lists_images and [found.file_of(number) for number in range(3)] == ["41/1.png", "7", "b.png"]
    listed = {
        "images": [{"id": 1, "file_name": "x/a.png"}, {"id": "2"}, image(3, "c.png")],
        "results": [point(1), point(2)],
    }
    found = load_coco(write(tmp_path / "a.json", listed), results=True)
    assert [found.file_of(number) for number in range(2)] == ["x/a.png", "2"] and found.lists_images
    assert found.sizes == {"c": (20, 24)}
    found = load_coco(write(tmp_path / "a.json", listed | {"results": [point(9), {}, point("x/a.png")]}), results=True)
    assert found.file_of(2) == "x/a.png"
    for number, message in ((0, "image 9, which is not among"), (1, "needs image_id or file_name")):
        with pytest.raises(UserError, match=rf"annotations\[{number}\].*{message}"):
            found.file_of(number)
    with pytest.raises(UserError, match="a list of annotations, or an object with one is wanted"):
        load_coco(write(tmp_path / "a.json", {"boxes": []}), results=True)
    with pytest.raises(UserError, match="lists named 'images' and 'annotations' are wanted"):
        load_coco(bare)


def test_numbers_that_are_not_finite(tmp_path):
    content = b'{"images": [{"id": 1, "file_name": "a", "height": 9, "width": 9}],'
    content += b'"annotations": [{"image_id": 1, "keypoints": [NaN, 2, 2]}]}'
    with pytest.raises(UserError, match=r"annotations\[0\]: keypoints must be finite, got nan"):
        read_coco(write(tmp_path / "a.json", content))


def test_names_in_tables(tmp_path):
    path = tmp_path / "p.csv"
    path.write_bytes(codecs.BOM_UTF16_LE + "name,x,y\r\nset\\41\\1.png,3,4\r\n41_1,5,6\r\n".encode("utf-16-le"))
    (points,) = read_points_csv(path, frozenset(["41/1", "42/1"])).values()
    np.testing.assert_array_equal(points, [[3, 4], [5, 6]])
    path.write_text("name,x,y\n43/1,3,4\n")
    with pytest.raises(UserError, match=r"p\.csv, line 2: there is no image for the name '43/1'"):
        read_points_csv(path, frozenset(["41/1", "42/1"]))


def test_cases_of_users(shared):
    folder = shared / "cases/coco_voc"
    if not folder.is_dir():
        pytest.skip("needs ../shared/cases")
    for file in ("nested", "win"):
        found = read_coco_names(folder / f"{file}.json")
        assert found == ("41/00001", "41/00002", "42/00001")


def read_coco_names(path):
    return tuple(load_coco(path).files)
