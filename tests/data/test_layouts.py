import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from irjax.data import layouts, open_source
from irjax.data.sources import DRAWN
from irjax.data.splits import DataConfig, open_splits
from irjax.errors import Note, UserError
from irjax.io.images import AS_STORED, Depth

RNG = np.random.default_rng(0)


def image(path, size=(20, 24)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(0, 255, size, dtype=np.uint8)).save(path)


def mask(path, points, size=(20, 24)):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.zeros(size, np.uint8)
    for x, y in points:
        values[y, x] = 255
    Image.fromarray(values).save(path)


def listing(path, names):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}\n" for name in names))


def basicirstd(root, names="abcdef", **lists):
    for name in names:
        image(root / "images" / f"{name}.png")
        mask(root / "masks" / f"{name}.png", [(3, 4), (10, 12)])
    for split, listed in lists.items():
        listing(root / "img_idx" / f"{split}_SET.txt", listed)
    return root


def sirst_v2(root):
    for name in ("Misc_1", "Misc_2", "v2_3"):
        image(root / "images" / "targets" / f"{name}.png")
        mask(root / "annotations" / "masks" / f"{name}_pixels0.png", [(3, 4)])
    image(root / "images" / "backgrounds" / "back_1.png")
    listing(root / "splits" / "train_full.txt", ["Misc_1", "back_1"])
    listing(root / "splits" / "val_full.txt", ["Misc_2", "v2_3"])
    listing(root / "splits" / "train_v1.txt", ["Misc_2"])
    return root


def spire(root, **lists):
    for name in ("x1", "x2", "x3"):
        image(root / "images" / f"{name}.png")
    content = {
        "images": [{"id": i, "file_name": f"x{i}.png", "height": 20, "width": 24} for i in (1, 2, 3)],
        "annotations": [
            {"id": 1, "image_id": 1, "keypoints": [3.5, 4, 2, 0, 7, 1, 0, 0, 0]},
            {"id": 2, "image_id": 1, "keypoints": [9, 9, 2]},
            {"id": 3, "image_id": 3, "keypoints": [5, 6, 2]},
        ],
    }
    (root / "annotations").mkdir(parents=True)
    (root / "annotations" / "annotations.json").write_text(json.dumps(content))
    for split, listed in lists.items():
        listing(root / "img_idx" / f"{split}.txt", listed)
    return root


def points_layout(root, text="name,x,y\na,3,4\nb.png,1.5,2\na,5,6\n"):
    for name in "abc":
        image(root / "images" / f"{name}.png")
    (root / "points.csv").write_text(text)
    return root


def test_sirst_v2(tmp_path):
    root = sirst_v2(tmp_path)
    assert layouts.detect_layout(root) == "sirst_v2"
    assert layouts.list_splits(root) == ("train_full", "train_v1", "val_full")
    source = layouts.open_layout(root, "train_full")
    assert source.names == ("Misc_1", "back_1") and len(source) == 2 and source.dtype == np.uint8
    np.testing.assert_array_equal(source[0].points, [[3, 4]])
    # A background without a mask file has no target.
    assert source[1].points.shape == (0, 2) and source[1].mask.shape == (20, 24) and not source[1].mask.any()
    assert source.mask_rule(0).name == "two levels, 0 and 255" and source.mask_rule(1) is None
    # The publication's v1 and full lists overlap; only lists of one family must not.
    assert layouts.open_layout(root, "train_v1").names == ("Misc_2",)
    with pytest.raises(ValueError, match="'test_full'.*train_full, train_v1, val_full"):
        layouts.open_layout(root, "test_full")


def test_sirst_v2_target_without_a_mask_is_refused(tmp_path):
    root = sirst_v2(tmp_path)
    (root / "annotations" / "masks" / "v2_3_pixels0.png").unlink()
    with pytest.raises(ValueError, match=r"no mask for .*v2_3\.png"):
        layouts.open_layout(root, "val_full")


def test_basicirstd_with_lists(tmp_path):
    root = basicirstd(tmp_path, train=["a", "b.png"], val=["c"], test=["e"])
    assert layouts.detect_layout(root) == "basicirstd"
    source = layouts.open_layout(root, "train")
    assert source.names == ("a", "b")
    np.testing.assert_array_equal(source[1].points, [[3, 4], [10, 12]])
    assert layouts.open_layout(root, "validation").names == ("c",)


def test_basicirstd_carves_a_validation_split(tmp_path):
    root = basicirstd(tmp_path, train="abcde", test="f")
    assert layouts.list_splits(root) == ("test", "train", "trainval", "val")
    parts = {split: layouts.open_layout(root, split).names for split in ("train", "val", "trainval", "test")}
    assert parts["trainval"] == tuple("abcde") and len(parts["val"]) == 1
    assert sorted(parts["train"] + parts["val"]) == list("abcde")
    assert parts["val"] == layouts.carve_validation("abcde", 0.2, 0)[1]


def test_several_sets_of_lists_in_one_folder(tmp_path):
    root = basicirstd(tmp_path / "SET", train="ab", val="c")
    listing(root / "img_idx" / "train_OTHER.txt", "d")
    assert layouts.open_layout(root, "train").names == ("a", "b")
    listing(tmp_path / "SET" / "img_idx" / "train_THIRD.txt", "e")
    (tmp_path / "SET").rename(tmp_path / "renamed")
    with pytest.raises(ValueError, match="several lists for 'train'"):
        layouts.open_layout(tmp_path / "renamed", "train")


def test_spire(tmp_path):
    root = spire(tmp_path, train=["1", "2"], test=["x3.png"])
    assert layouts.detect_layout(root) == "spire"
    source = layouts.open_layout(root, "trainval")
    assert source.names == ("x1", "x2")
    # A point at x = 0 counts; one with v = 0 is unlabelled. All annotations of an image count.
    np.testing.assert_array_equal(source[0].points, [[3.5, 4], [0, 7], [9, 9]])
    assert source[1].points.shape == (0, 2) and source[0].mask is None
    assert layouts.open_layout(root, "test").names == ("x3",)
    assert {layouts.open_layout(root, s).names for s in ("train", "val")} == {("x1",), ("x2",)}


def test_folder_and_mask_suffixes(tmp_path):
    for name, suffix in (("a", ""), ("b", "_mask"), ("c", "_gt"), ("d", "_pixels0")):
        image(tmp_path / "images" / f"{name}.png")
        mask(tmp_path / "masks" / f"{name}{suffix}.png", [(1, 2)])
    assert layouts.detect_layout(tmp_path) == "folder"
    source = layouts.open_layout(tmp_path, "all")
    assert source.names == tuple("abcd")
    assert all(len(source[i].points) == 1 for i in range(4))
    train, val = (layouts.open_layout(tmp_path, split).names for split in ("train", "val"))
    assert len(val) == 1 and set(train) | set(val) == set("abcd")


def test_points(tmp_path):
    root = points_layout(tmp_path)
    assert layouts.detect_layout(root) == "points"
    source = layouts.open_layout(root, "all")
    np.testing.assert_array_equal(source[0].points, [[3, 4], [5, 6]])
    np.testing.assert_array_equal(source[1].points, [[1.5, 2]])
    assert source[2].points.shape == (0, 2) and source[2].points.dtype == np.float32


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,x\na,3\n", "y not among"),
        ("", "name, x, y not among"),
        ("name,x,y\nzz,3,4\n", "line 2.*'zz'"),
        ("name,x,y\na,3,4\na,three,4\n", "line 3.*'three'"),
        ("name,x,y\na,3\n", "line 2.*None"),
        ("name,x,y\na,nan,4\n", "line 2.*finite"),
    ],
)
def test_bad_csv(tmp_path, text, message):
    with pytest.raises(ValueError, match=rf"points\.csv.*{message}"):
        layouts.open_layout(points_layout(tmp_path, text), "all")


def test_point_outside_the_image(tmp_path):
    root = points_layout(tmp_path, "name,x,y\na,23.4,19\nb,23.5,3\nc,-1,0\n")
    source = layouts.open_layout(root, "all")
    assert len(source[0].points) == 1
    for index in (1, 2):
        with pytest.raises(ValueError, match=r"[bc]\.png.*outside the image of 24x20"):
            source[index]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not a JSON file"),
        ("[]", "not a COCO file"),
        ('{"images": []}', "not a COCO file"),
        ('{"images": [{"id": 1}], "annotations": []}', r"images\[0\]"),
        ('{"images": [], "annotations": [{"image_id": 1, "keypoints": [1, 2, 2]}]}', "image 1, which is not among"),
        ('{"images": [], "annotations": [{"image_id": 1, "bbox": [1, 2, 3, 4]}]}', r"annotations\[0\].*keypoints"),
        ('{"images": [], "annotations": [{"image_id": 1, "keypoints": [1, 2]}]}', r"annotations\[0\].*triples"),
    ],
)
def test_bad_coco(tmp_path, content, message):
    root = spire(tmp_path, train=["1"])
    (root / "annotations" / "annotations.json").write_text(content)
    with pytest.raises(ValueError, match=rf"annotations\.json.*{message}"):
        layouts.open_layout(root, "train")


def test_coco_size_and_list_are_checked(tmp_path):
    root = spire(tmp_path, train=["1", "7"])
    with pytest.raises(ValueError, match=r"train\.txt: 7 is neither"):
        layouts.open_layout(root, "train")
    listing(root / "img_idx" / "train.txt", ["1", "2"])
    image(root / "images" / "x1.png", (30, 40))
    with pytest.raises(ValueError, match=r"x1 is for 24x20.*x1\.png has 40x30"):
        layouts.open_layout(root, "trainval")[0]


def test_mask_of_another_size_names_both(tmp_path):
    root = basicirstd(tmp_path, train="ab", val="c")
    mask(root / "masks" / "b.png", [(1, 1)], (30, 40))
    source = layouts.open_layout(root, "train")
    source[0]
    with pytest.raises(ValueError, match=r"masks/b\.png is for 40x30.*images/b\.png has 24x20"):
        source[1]


def test_bad_lists(tmp_path):
    root = basicirstd(tmp_path, train=["a", "nowhere"], val="b", test=[])
    with pytest.raises(ValueError, match="1 listed names have no image file: nowhere"):
        layouts.open_layout(root, "train")
    with pytest.raises(ValueError, match="split 'test' is empty"):
        layouts.open_layout(root, "test")
    with pytest.raises(ValueError, match="no split 'night'; available: test, train, val"):
        layouts.open_layout(root, "night")
    listing(root / "img_idx" / "train_SET.txt", ["a", "b", "a"])
    with pytest.raises(ValueError, match="a is listed twice"):
        layouts.open_layout(root, "train")
    listing(root / "img_idx" / "train_SET.txt", ["a", "b"])
    for split in ("train", "val"):
        with pytest.raises(ValueError, match="are in both.*: b"):
            layouts.open_layout(root, split)
    listing(root / "img_idx" / "test_SET.txt", ["c", "a"])
    listing(root / "img_idx" / "trainval_SET.txt", ["a", "b"])
    with pytest.raises(ValueError, match="'trainval' and 'test': a"):
        layouts.open_layout(root, "trainval")


def test_missing_or_ambiguous_files(tmp_path):
    root = basicirstd(tmp_path, train="ab", val="c")
    (root / "masks" / "a.png").unlink()
    with pytest.raises(ValueError, match=r"no mask for .*a\.png: looked for a\.\*, a_pixels0\.\*"):
        layouts.open_layout(root, "train")
    mask(root / "masks" / "a_gt.png", [])
    mask(root / "masks" / "a_mask.png", [])
    with pytest.raises(ValueError, match="two masks"):
        layouts.open_layout(root, "train")
    image(root / "images" / "c.bmp")
    with pytest.raises(ValueError, match=r"two files have one name: .*c\.bmp and .*c\.png"):
        layouts.open_layout(root, "val")


def test_unreadable_image_is_named(tmp_path):
    root = basicirstd(tmp_path, train="ab", val="c")
    path = root / "images" / "b.png"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"images/b\.png"):
        layouts.open_layout(root, "train")[1]


def test_undetectable_and_ambiguous_layouts(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing"):
        layouts.detect_layout(tmp_path / "nothing")
    with pytest.raises(ValueError, match=r"Looked for images/.*points\.csv"):
        layouts.detect_layout(tmp_path)
    root = points_layout(tmp_path)
    (root / "masks").mkdir()
    with pytest.raises(ValueError, match="say layout="):
        layouts.open_layout(root, "all")
    assert len(layouts.open_layout(root, "all", "points")) == 3
    with pytest.raises(ValueError, match="unknown layout 'coco'"):
        layouts.open_layout(root, "all", "coco")


def test_spire_split(tmp_path):
    for split, ids in (("train", (1, 2, 3)), ("test", (4,))):
        for i in ids:
            image(tmp_path / split / f"{split}_images" / f"x{i}.png")
        entries = [{"id": i, "file_name": f"x{i}.png", "height": 20, "width": 24} for i in ids]
        points = [{"id": i, "image_id": i, "keypoints": [i, 4, 2]} for i in ids]
        (tmp_path / split / "annotations").mkdir()
        content = json.dumps({"images": entries, "annotations": points})
        (tmp_path / split / "annotations" / f"{split}.json").write_text(content)
    assert layouts.detect_layout(tmp_path) == "spire_split"
    assert layouts.list_splits(tmp_path) == ("train", "test", "trainval", "val")
    source = layouts.open_layout(tmp_path, "trainval")
    assert source.names == ("x1", "x2", "x3") and source[1].mask is None
    np.testing.assert_array_equal(source[1].points, [[2, 4]])
    assert layouts.open_layout(tmp_path, "test").names == ("x4",)
    (tmp_path / "test" / "annotations" / "test.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"test\.json"):
        layouts.open_layout(tmp_path, "train")


def test_lists_in_several_places(tmp_path):
    root = basicirstd(tmp_path)
    for place, lists in {"": ("abcd", "ef"), "50_50": ("abc", "def"), "idx_6": ("abcd", "ef")}.items():
        listing(root / place / "trainval.txt", lists[0])
        listing(root / place / "test.txt", lists[1])
    (root / "readme.txt").write_text("not a list")
    assert layouts.detect_layout(root) == "lists"
    parts = {split: layouts.open_layout(root, split).names for split in layouts.list_splits(root)}
    assert parts["trainval"] == tuple("abcd") and parts["test"] == tuple("ef")
    assert parts["trainval_50_50"] == tuple("abc") and parts["test_50_50"] == tuple("def")
    for family in ("", "_50_50"):
        assert sorted(parts[f"train{family}"] + parts[f"val{family}"]) == sorted(parts[f"trainval{family}"])
    listing(root / "idx_6" / "test.txt", "f")
    with pytest.raises(ValueError, match=r"several lists for 'test', .*idx_6.*test\.txt"):
        layouts.open_layout(root, "test")


def test_split_folders_number_alike(tmp_path):
    for split in ("train", "test"):
        for name in ("0", "1"):
            image(tmp_path / split / "images" / f"{name}.png")
            mask(tmp_path / split / "masks" / f"{name}.png", [(3, 4)])
    assert layouts.detect_layout(tmp_path) == "split_folders"
    one, other = (layouts.open_layout(tmp_path, split) for split in ("trainval", "test"))
    assert one.names == other.names == ("0", "1") and not set(one.images) & set(other.images)
    (tmp_path / "test").rename(tmp_path / "training")  # no name of a split
    assert layouts.list_splits(tmp_path) == ("train", "trainval", "val")


def test_subfolders_become_part_of_the_name(tmp_path):
    names = ["3/1(2)", "41/1(297)", "41/1(5)"]
    root = basicirstd(tmp_path, names, train=[f"/{name}" for name in names[:2]], val=["/41/1(5)"])
    source = layouts.open_layout(root, "train")
    assert source.names == ("3/1(2)", "41/1(297)") and source[1].points.shape == (2, 2)
    (root / "masks" / "41" / "1(297).png").unlink()
    with pytest.raises(ValueError, match=r"no mask for .*41/1\(297\)\.png"):
        layouts.open_layout(root, "train")


def test_every_layout_is_in_the_table():
    rows = [line.split("`")[1] for line in layouts.__doc__.splitlines() if line.startswith("| `")]
    assert tuple(rows) == layouts.LAYOUTS


def test_carve_validation():
    names = [f"n{i}" for i in range(50)]
    train, val = layouts.carve_validation(names, 0.2, 3)
    assert len(val) == 10 and not set(train) & set(val) and set(train) | set(val) == set(names)
    assert list(val) == [n for n in names if n in val]
    assert set(layouts.carve_validation(names[::-1], 0.2, 3)[1]) == set(val)
    assert set(layouts.carve_validation(names, 0.2, 4)[1]) != set(val)
    assert [len(part) for part in layouts.carve_validation("ab", 0.01)] == [1, 1]
    with pytest.raises(ValueError, match="two names"):
        layouts.carve_validation("a")
    with pytest.raises(ValueError, match="between 0 and 1"):
        layouts.carve_validation("ab", 1.0)


def test_published_counts(shared):
    data = shared / "data"
    counts = {"train_full": 431, "val_full": 228, "train_v1": 192, "val_v1": 61, "trainval_v1": 253}
    for split, count in counts.items():
        assert len(layouts.open_layout(data / "SIRST-v2", split)) == count
    for split, count in {"train": 530, "val": 133, "trainval": 663}.items():
        assert len(layouts.open_layout(data / "NUDT-SIRST", split)) == count
    source = layouts.open_layout(data / "SIRST-v2", "val_v1")
    example = source[source.names.index("Misc_163")]
    assert example.mask.shape == example.image.shape and len(example.points) >= 1


def pair(root, images, masks, names="abcd"):
    for name in names:
        image(root / images / f"{name}.png")
        mask(root / masks / f"{name}.png", [(3, 4)])
    return root


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("img", "mask"),
        ("images", "labels"),
        ("images", "gt"),
        ("imgs", "labels"),
        ("image", "label"),
        ("Images", "Masks"),
        ("JPEGImages", "SegmentationClass"),
        ("IRSTD1k_Img", "IRSTD1k_Label"),
    ],
)
def test_folders_of_other_names(tmp_path, images, masks):
    root = pair(tmp_path / "alone", images, masks)
    assert layouts.detect_layout(root) == "folder"
    source = layouts.open_layout(root, "all")
    assert source.names == tuple("abcd") and len(source[0].points) == 1
    listing(root / "ImageSets/Main/train.txt", "abc")
    listing(root / "ImageSets/Main/test.txt", "d")
    assert layouts.detect_layout(root) == "lists" and layouts.open_layout(root, "test").names == ("d",)
    inner = tmp_path / "inner"
    for split in ("Train", "Test"):
        pair(inner / split, images, masks, split)
    assert layouts.detect_layout(inner) == "split_folders"
    assert layouts.open_layout(inner, "test").names == tuple(sorted("Test"))
    outer = tmp_path / "outer"
    for split in ("train", "test"):
        pair(outer, f"{images}/{split}", f"{masks}/{split}", split)
    assert layouts.open_layout(outer, "test").names == tuple(sorted({*"test"}))


def test_two_folders_that_could_both_be_meant(tmp_path):
    root = pair(tmp_path, "img", "mask")
    pair(root, "img", "gt")
    with pytest.raises(ValueError, match="has mask and gt, which could both be meant: .*--images DIR --masks DIR"):
        layouts.detect_layout(root)
    assert len(layouts.open_layout(root, "all", images="img", masks="gt")) == 4
    pair(root, "images", "masks")  # these are the names of publications
    assert layouts.open_layout(root, "all").images[0].endswith("images/a.png")


def test_sequences_in_splits(tmp_path):
    for sequence in ("000001", "000002"):
        pair(tmp_path / "val" / sequence, "img", "mask", "ab")
    source = layouts.open_layout(tmp_path, "val")
    assert source.names == ("000001/a", "000001/b", "000002/a", "000002/b") and len(source[3].points) == 1


def test_masks_beside_their_images(tmp_path):
    for name, suffix in (("a", "_mask"), ("b", "_pixels0"), ("c", "_gt")):
        image(tmp_path / f"{name}.png")
        mask(tmp_path / f"{name}{suffix}.png", [(3, 4)])
    assert layouts.detect_layout(tmp_path) == "flat"
    source = layouts.open_layout(tmp_path, "all")
    assert source.names == tuple("abc") and all(len(example.points) == 1 for example in source)
    assert layouts.open_layout(tmp_path, "all", images=".", masks=".").masks == source.masks
    listing(tmp_path / "train.txt", ["a", "b"])
    listing(tmp_path / "test.txt", ["c.png c_gt.png"])
    assert layouts.open_layout(tmp_path, "test").names == ("c",)


def yolo(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(lines)


@pytest.mark.parametrize("form", ["{kind}/{split}", "{split}/{kind}"])
def test_yolo_trees(tmp_path, form):
    for split, name in (("train", "a"), ("train", "b"), ("valid", "c"), ("test", "d")):
        image(tmp_path / form.format(kind="images", split=split) / f"{name}.png")
        if name != "b":  # an image without a file has no target
            yolo(tmp_path / form.format(kind="labels", split=split) / f"{name}.txt", "0 0.5 0.5 0.25 0.2\n")
    (tmp_path / form.format(kind="labels", split="train") / "classes.txt").write_text("target\n")
    assert layouts.detect_layout(tmp_path) == "yolo"
    source = layouts.open_layout(tmp_path, "train")
    assert source.names == ("a", "b") and source[0].mask is None and len(source[1].points) == 0
    np.testing.assert_array_equal(source[0].points, [[11.5, 9.5]])
    np.testing.assert_array_equal(source.labels[0].boxes, [[9, 8, 15, 12]])
    assert layouts.open_layout(tmp_path, "val").names == ("c",) and layouts.open_layout(tmp_path, "test").names == (
        "d",
    )


def test_yolo_with_lists_and_what_has_no_image(tmp_path):
    for name in "abc":
        image(tmp_path / "images" / f"{name}.png")
    yolo(tmp_path / "labels/a.txt", "0 0.5 0.5 0.25 0.2 0.9\n")
    listing(tmp_path / "train.txt", ["./images/a.png", r"D:\set\images\b.png"])
    listing(tmp_path / "val.txt", ["images/c.png labels/c.txt"])
    with pytest.warns(Note, match=r"a\.txt: confidences are left out"):
        assert layouts.open_layout(tmp_path, "train").names == ("a", "b")
    yolo(tmp_path / "labels/a.txt", "0 0.5 0.5 0.25 0.2\n")
    assert layouts.open_layout(tmp_path, "val").names == ("c",)
    yolo(tmp_path / "labels/z.txt", "0 0.5 0.5 0.25 0.2\n")
    with pytest.warns(Note, match=r"labels: 1 annotations have no image, such as z\.txt"):
        layouts.open_layout(tmp_path, "train")
    (tmp_path / "labels/z.txt").unlink()
    yolo(tmp_path / "labels/a.txt", "0 0.99 0.5 0.25 0.2\n")
    with pytest.raises(ValueError, match=r"a\.txt, line 1: the box .* outside .*; --skip-bad"):
        layouts.open_layout(tmp_path, "train")
    with pytest.warns(Note, match=r"1 of 2 images are left out: .*a\.txt, line 1"):
        assert layouts.open_layout(tmp_path, "train", skip_bad=True).names == ("b",)


BOX = "<bndbox><xmin>4</xmin><ymin>5</ymin><xmax>6</xmax><ymax>5</ymax></bndbox>"
VOC = f"<annotation>{{}}<object>{BOX}</object></annotation>"


def test_voc(tmp_path):
    (tmp_path / "Annotations").mkdir()
    for name, size in (("a", ""), ("b", "<size><width>0</width><height/></size>"), ("c", "")):
        image(tmp_path / "JPEGImages" / f"{name}.jpg")
        (tmp_path / "Annotations" / f"{name}.xml").write_text(VOC.format(size))
    listing(tmp_path / "ImageSets/Main/trainval.txt", "ab")
    listing(tmp_path / "ImageSets/Main/test.txt", "c")
    assert layouts.detect_layout(tmp_path) == "voc"
    source = layouts.open_layout(tmp_path, "trainval")
    assert source.names == ("a", "b")
    for example, labels in zip(source, source.labels, strict=True):
        np.testing.assert_array_equal(example.points, [[4, 4]])
        np.testing.assert_array_equal(labels.boxes, [[3, 4, 6, 5]])
    (tmp_path / "Annotations/b.xml").unlink()
    with pytest.raises(ValueError, match=r"no annotation for .*b\.jpg: looked for b\.xml in .*; --skip-bad"):
        layouts.open_layout(tmp_path, "trainval")
    (tmp_path / "Annotations/a.xml").write_text(VOC.format("<size><width>9</width><height>20</height></size>"))
    with pytest.raises(ValueError, match=r"a\.xml is for 9x20 pixels, but the image has 24x20"):
        layouts.open_layout(tmp_path, "trainval")


def test_two_folders_said(tmp_path):
    root = pair(tmp_path, "frames", "truth")
    with pytest.raises(ValueError, match=r"no known layout; say the two folders with --images DIR --masks DIR"):
        layouts.detect_layout(root)
    said = {"images": "frames", "masks": root / "truth"}
    assert layouts.list_splits(root, **said) == ("all", "train", "val")
    assert layouts.open_layout(root, "all", **said).names == tuple("abcd")
    listing(root / "train.txt", ["frames/a.png", "frames/b.png"])
    listing(root / "test.txt", ["frames/c.png truth/d.png", "frames/zz.png"])
    assert layouts.open_layout(root, "trainval", **said).names == ("a", "b")
    with pytest.raises(ValueError, match=r"test\.txt, line 1: .* pairs c with the mask of d"):
        layouts.open_layout(root, "test", **said)
    pair(root / "x", "frames/test", "truth/test", "e")
    pair(root / "x", "frames/train", "truth/train", "f")
    inner = {"images": root / "x/frames", "masks": root / "x/truth"}
    assert layouts.open_layout(root, "test", **inner).names == ("e",)
    with pytest.raises(ValueError, match="are given together"):
        layouts.open_layout(root, "all", images="frames")
    with pytest.raises(ValueError, match="take the place of layout 'spire'"):
        layouts.open_layout(root, "all", "spire", **said)
    with pytest.raises(FileNotFoundError, match="no folder nowhere"):
        layouts.open_layout(root, "all", images="frames", masks="nowhere")
    drawn = [
        open_source(root / "y", split, images="i", masks="m").names for split in DRAWN if pair(root / "y", "i", "m")
    ]
    assert sorted(name for names in drawn for name in names) == list("abcd")


def test_a_run_takes_the_two_folders(tmp_path):
    root = pair(tmp_path, "frames", "truth", "abcdefgh")
    (root / "truth/c.png").unlink()
    said = {"root": (str(root),), "images": "frames", "masks": "truth"}
    with pytest.raises(ValueError, match=r"no mask for .*c\.png.*--skip-bad"):
        DataConfig(**said).open("train"), DataConfig(**said).open("val")
    with pytest.warns(Note, match="left out"):
        source = DataConfig(**said, train=("all",), skip_bad=True).open("train")
    assert source.names == tuple("abdefgh")


def test_a_pair_says_whose_mask_it_is(tmp_path):
    image(tmp_path / "images/a.png")
    mask(tmp_path / "masks/label_7.png", [(5, 6)])
    listing(tmp_path / "train.txt", ["images/a.png masks/label_7.png"])
    np.testing.assert_array_equal(layouts.open_layout(tmp_path, "train")[0].points, [[5, 6]])


def test_bad_images_are_left_out_and_named(tmp_path):
    root = basicirstd(tmp_path, train="abcdef")
    (root / "masks/a.png").unlink()
    mask(root / "masks/b.png", [(1, 1)], (30, 40))
    (root / "images/c.png").write_bytes((root / "images/c.png").read_bytes()[:100])
    (root / "masks/d.png").write_bytes(b"no image")
    listing(root / "img_idx/train_SET.txt", [*"abcdef", "zz"])
    with pytest.raises(ValueError, match="zz .*train_SET.txt, line 7: .*; --skip-bad"):
        layouts.open_layout(root, "trainval")
    listing(root / "img_idx/train_SET.txt", "abcdef")
    with pytest.raises(
        ValueError, match=r"no mask for .*a\.png.*; --skip-bad \(skip_bad=True\) leaves such images out$"
    ):
        layouts.open_layout(root, "trainval")
    listing(root / "img_idx/train_SET.txt", [*"bcdef", "zz"])
    with pytest.warns(Note, match=r"4 of 6 images are left out: .*b\.png is for 40x30.*c\.png.*d\.png.*line 6"):
        source = layouts.open_layout(root, "trainval", skip_bad=True)
    assert source.names == ("e", "f") and len(source.skipped) == 4
    assert not any("--skip-bad" in text for text in source.skipped)
    for name, text in zip("bcd", source.skipped, strict=False):
        assert f"{name}.png" in text
    listing(root / "img_idx/train_SET.txt", "bb")
    with pytest.warns(Note), pytest.raises(ValueError, match="none of its images can be used"):
        layouts.open_layout(root, "trainval", skip_bad=True)


def test_masks_without_an_image_are_noted(tmp_path):
    root = pair(tmp_path, "images", "masks")
    mask(root / "masks/z.png", [])
    with pytest.warns(Note, match=r"masks: 1 masks have no image, such as z\.png"):
        assert len(layouts.open_layout(root, "all")) == 4


def test_one_rule_for_the_masks_of_a_data_set(tmp_path):
    root = basicirstd(tmp_path, "abc", train="ab", test="c")
    gray = np.zeros((20, 24), np.uint8)
    gray[3, 3:6] = 60, 100, 150
    Image.fromarray(gray).save(root / "masks/a.png")
    source = layouts.open_layout(root, "trainval")
    assert source.mask_rule(0).name == "above half of 255" and source[0].mask.sum() == 1
    np.testing.assert_array_equal(source[0].points, [[5, 3]])


FORMS = "backslash bom case comma comment crlf dotslash ext extbmp full mac pair prefix trailspace utf16"


@pytest.mark.parametrize("form", FORMS.split())
def test_lists_of_users(shared, form):
    root = shared / "cases/list_forms" / form
    if not root.is_dir():
        pytest.skip("needs ../shared/cases")
    assert layouts.open_layout(root, "trainval").names == ("a_1", "b_2", "c_3")
    assert layouts.open_layout(root, "test").names == ("d_4", "e_5")


WITHOUT_SPLITS = "img_mask images_labels images_gt image_label imgs_labels Images_Masks JPEGImages flat irdst_flat"


@pytest.mark.parametrize(("name", "split"), [*((name, "all") for name in WITHOUT_SPLITS.split()), ("satvideo", "val")])
def test_layouts_of_users(shared, name, split):
    root = shared / "cases/layout_names" / name
    if not root.is_dir():
        pytest.skip("needs ../shared/cases")
    source = layouts.open_layout(root, split)
    assert len(source) == 4 and all(len(example.points) == 1 for example in source)


def test_a_yolo_tree_of_users(shared):
    root = shared / "cases/yolo_dataset"
    if not root.is_dir():
        pytest.skip("needs ../shared/cases")
    for split, names in (("train", ("XDU0", "XDU1", "XDU2")), ("val", ("XDU3", "XDU4", "XDU5"))):
        source = layouts.open_layout(root, split)
        assert source.names == names and all(len(example.points) == 1 for example in source)


# --- depth ------------------------------------------------------------------------------------------------------------


def deep_set(root, bits):
    """Two images of 16 bits, of which one uses the whole range of `bits`."""
    rng = np.random.default_rng(0)
    for name, highest in (("a", 2**bits - 1), ("b", 2 ** (bits - 1))):
        image = rng.integers(0, highest + 1, (20, 24)).astype(np.uint16)
        image[0, 0] = highest
        mask = np.zeros((20, 24), np.uint8)
        mask[4:6, 5:8] = 255
        for folder, values in (("images", image), ("masks", mask)):
            (root / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(root / folder / f"{name}.png")
    return root


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_white_is_that_of_the_whole_data_set(tmp_path, bits):
    source = layouts.open_layout(deep_set(tmp_path, bits), "all")
    first, second = source[0].image, source[1].image
    assert first.dtype == source.dtype == np.uint16
    assert first[0, 0] == 65535 and second.max() == pytest.approx(65535 / 2, rel=0.01)  # not its own white
    assert source.applied_depth == (AS_STORED if bits == 16 else Depth(bits=bits))
    again = layouts.open_layout(tmp_path, "all", depth=Depth(bits=16))
    np.testing.assert_array_equal(again[0].image, np.asarray(Image.open(tmp_path / "images/a.png")))


def test_the_depth_found_is_in_the_record_of_a_run(tmp_path):
    deep_set(tmp_path, 12)
    config = DataConfig(root=(str(tmp_path),), train=("all",), val=("all",))
    _, _, about = open_splits(config, validate=False)
    assert about["train"]["depth"] == ["white 4095"]
    _, _, about = open_splits(dataclasses.replace(config, stretch="minmax"), validate=False)
    assert about["train"]["depth"] == ["each image by its own extremes"]
    with pytest.raises(UserError, match="bits and stretch exclude each other"):
        dataclasses.replace(config, stretch="minmax", bits=12)
