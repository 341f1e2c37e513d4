import json

import numpy as np
import pytest
from PIL import Image

from irjax.data import layouts

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
    assert source.mask_rule(0) == "threshold_128" and source.mask_rule(1) is None
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
    assert source.names == ("3_1(2)", "41_1(297)") and source[1].points.shape == (2, 2)
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
