"""Folders and files of one format to another: what is found, what is refused, and that nothing is half-written."""

import json

import numpy as np
import pytest
import tifffile
from PIL import Image

from irjax.data import open_source
from irjax.errors import Note
from irjax.io.images import Depth
from irjax.labels import convert, find_kind, label_mask, read_labels, write_labels


def save(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return path


def mask_of(*boxes, shape=(24, 32)):
    mask = np.zeros(shape, bool)
    for x0, y0, x1, y1 in boxes:
        mask[y0:y1, x0:x1] = True
    return mask


MASKS = {"a": mask_of((3, 4, 6, 6), (20, 10, 25, 15)), "b": mask_of(), "c.d": mask_of((0, 0, 1, 1), shape=(20, 40))}


@pytest.fixture
def masks(tmp_path):
    """Three masks, of other types and suffixes."""
    folder = tmp_path / "masks"
    save(folder / "a_pixels0.png", MASKS["a"].astype(np.uint8) * 255)
    save(folder / "b_mask.bmp", MASKS["b"].astype(np.uint8))
    gray = MASKS["c.d"].astype(np.uint8) * 200
    gray[5, 5] = 127
    save(folder / "c.d.tif", gray)
    (folder / "readme.md").write_text("not a mask")
    return folder


@pytest.fixture
def images(tmp_path):
    for name, mask in MASKS.items():
        save(tmp_path / f"images/{name}.png", np.zeros(mask.shape, np.uint8))
    return tmp_path / "images"


def same(found, *, boxes=True, names=("a", "b", "c.d")):
    assert [image.name for image in found] == list(names)
    for image in found:
        wanted = label_mask(MASKS[image.name])
        np.testing.assert_array_equal(image.labels.points, wanted.points)
        assert image.size == MASKS[image.name].shape
        if boxes:
            np.testing.assert_array_equal(image.labels.boxes, wanted.boxes)


def test_masks_are_read_and_the_rule_is_reported(tmp_path, masks):
    assert find_kind(masks) == "masks"
    found = read_labels(masks, "masks")
    same(found)
    assert [image.rule for image in found] == ["two levels, 0 and 255", "all 0: no targets", "above half of 255"]
    done = convert(masks, tmp_path / "out/p.csv", to="points")
    assert (done.images, done.targets, done.empty, done.kind) == (3, 3, 1, "masks")
    assert len(done.rules) == 3 and "1 images without targets" in done.notes[0]


@pytest.mark.parametrize("to", ["coco", "yolo", "voc"])
def test_every_format_with_boxes_comes_back(tmp_path, masks, images, to):
    out = tmp_path / ("new/a.json" if to == "coco" else f"new/{to}")
    assert convert(masks, out, to=to).notes == ()
    assert find_kind(out) == to
    same(read_labels(out, to, **({"images": images} if to == "yolo" else {})))
    assert list((tmp_path / "new").iterdir()) == [out]


def test_points_come_back_and_become_masks(tmp_path, masks, images):
    convert(masks, tmp_path / "p.csv", to="points")
    assert find_kind(tmp_path / "p.csv") == "points"
    same(read_labels(tmp_path / "p.csv", "points", images=images), boxes=False)
    assert [image.name for image in read_labels(tmp_path / "p.csv", "points")] == ["a", "c.d"]
    done = convert(tmp_path / "p.csv", tmp_path / "discs", to="masks", radius=2, images=images)
    assert done.notes == () and sorted(path.name for path in (tmp_path / "discs").iterdir()) == [
        "a.png",
        "b.png",
        "c.d.png",
    ]
    found = read_labels(tmp_path / "discs", "masks")
    np.testing.assert_allclose(found[0].labels.points, label_mask(MASKS["a"]).points, atol=0.51)
    assert np.asarray(Image.open(tmp_path / "discs/a.png")).max() == 255 and found[0].labels.areas.tolist() == [12, 13]
    touching = convert(tmp_path / "p.csv", tmp_path / "large", to="masks", radius=12, images=images)
    assert "1 masks have targets that touch" in touching.notes[0] and "such as a" in touching.notes[0]


@pytest.fixture
def dataset(tmp_path):
    """A data set in the layout basicirstd: train a and b, test c.d."""
    root = tmp_path / "SET"
    for name, mask in MASKS.items():
        save(root / f"images/{name}.png", np.full(mask.shape, 9, np.uint8))
        save(root / f"masks/{name}.png", mask.astype(np.uint8) * 255)
    (root / "img_idx").mkdir()
    (root / "img_idx/train_SET.txt").write_text("b\na\n")
    (root / "img_idx/test_SET.txt").write_text("c.d\n")
    return root


def test_a_data_set_and_its_split(tmp_path, dataset):
    assert find_kind(dataset) == "dataset"
    same(read_labels(dataset, "dataset", split="test"), names=("c.d",))
    convert(dataset, tmp_path / "a.json", to="coco", split="trainval")
    found = read_labels(tmp_path / "a.json", "coco")
    same(found, names=("b", "a"))
    assert [image.file_name for image in found] == ["b.png", "a.png"]
    with pytest.raises(ValueError, match="has no split 'all'; available: test, train, val, trainval|no split 'all'"):
        read_labels(dataset, "dataset")


def test_points_of_a_data_set_without_masks(tmp_path, images):
    (tmp_path / "points.csv").write_text("name,x,y\na,4,5\na,2.5,1\n")
    convert(tmp_path, tmp_path / "out/a.json", to="coco", kind="dataset")
    found = read_labels(tmp_path / "out/a.json", "coco")
    assert found[0].labels.points.tolist() == [[4, 5], [2.5, 1]] and found[0].labels.boxes is None
    assert len(found) == 3
    with pytest.raises(ValueError, match="a: its targets have points only"):
        convert(tmp_path, tmp_path / "out/voc", to="voc", kind="dataset")
    with pytest.raises(ValueError, match="a has points and no mask to draw other points in"):
        read_labels(tmp_path, "dataset", points="coarse")
    # What was written is a data set of the layout spire.
    (tmp_path / "spire/annotations").mkdir(parents=True)
    (tmp_path / "out/a.json").rename(tmp_path / "spire/annotations/annotations.json")
    images.rename(tmp_path / "spire/images")
    assert open_source(tmp_path / "spire", "all", "spire")[0].points.tolist() == [[4, 5], [2.5, 1]]


@pytest.mark.parametrize("rule", ["coarse", "uniform"])
def test_drawn_points_depend_on_seed_and_name_alone(tmp_path, masks, rule):
    def drawn(seed):
        return {i.name: i.labels.points.tolist() for i in read_labels(masks, "masks", points=rule, seed=seed)}

    before = drawn(3)
    (masks / "b_mask.bmp").unlink()
    save(masks / "A_first.png", np.zeros((20, 20), np.uint8))
    after = drawn(3)
    assert all(after[name] == before[name] for name in ("a", "c.d"))
    assert any(drawn(seed)["a"] != before["a"] for seed in range(4))


def test_connectivity(tmp_path):
    mask = mask_of((2, 2, 4, 4), (4, 4, 6, 6))
    save(tmp_path / "m/a.png", mask.astype(np.uint8) * 255)
    assert [convert(tmp_path / "m", tmp_path / f"{c}.csv", to="points", connectivity=c).targets for c in (8, 4)] == [
        1,
        2,
    ]
    with pytest.raises(ValueError, match="connectivity must be 4 or 8"):
        read_labels(tmp_path / "m", "masks", connectivity=5)


def test_an_unreadable_mask_is_named_and_nothing_is_written(tmp_path, masks):
    bad = masks / "z.png"
    bad.write_bytes((masks / "a_pixels0.png").read_bytes()[:60])
    for to, out in (("points", "new/p.csv"), ("voc", "new/voc")):
        with pytest.raises(ValueError, match="z.png: not a readable image"):
            convert(masks, tmp_path / out, to=to)
    assert not (tmp_path / "new").exists()


def test_an_error_while_writing_leaves_nothing(tmp_path, masks):
    found = read_labels(masks, "masks")
    with pytest.raises(ValueError, match="outside the image"):
        points = np.array([[99, 99]], np.float32)
        wrong = type(found[0].labels)(points, np.zeros((1, 4)))
        write_labels(tmp_path / "new/m", [*found, type(found[0])("z", wrong, (9, 9))], "masks")
    assert not (tmp_path / "new").exists()


def test_what_cannot_be_told_apart_is_refused(tmp_path, masks, images):
    (masks / "a.xml").write_text("<annotation/>")
    with pytest.raises(ValueError, match=r"mixes formats: 3 of masks \(a_pixels0.png\) and 1 of voc \(a.xml\)"):
        find_kind(masks)
    assert len(read_labels(masks, "masks")) == 3
    save(masks / "a_gt.png", np.zeros((24, 32), np.uint8))
    with pytest.raises(ValueError, match="two files are for one image, a: .*a_gt.png and .*a_pixels0.png"):
        read_labels(masks, "masks")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no image files .* in .*empty"):
        find_kind(tmp_path / "empty")
    with pytest.raises(ValueError, match="empty is empty: no .png"):
        read_labels(tmp_path / "empty", "masks")
    with pytest.raises(FileNotFoundError, match="no file or folder .*absent"):
        find_kind(tmp_path / "absent")
    with pytest.raises(ValueError, match=r"readme.md: a .json \(COCO\) or .csv"):
        find_kind(masks / "readme.md")
    with pytest.raises(ValueError, match="coco is a file"):
        read_labels(masks, "coco")
    with pytest.raises(FileNotFoundError, match="no file or folder"):
        read_labels(tmp_path / "absent.json", "coco")


def test_yolo_and_points_need_their_images(tmp_path, masks, images):
    convert(masks, tmp_path / "yolo", to="yolo")
    (tmp_path / "yolo/classes.txt").write_text("target\n")
    with pytest.raises(ValueError, match="give the folder of the images"):
        read_labels(tmp_path / "yolo", "yolo")
    (tmp_path / "yolo/b.txt").unlink()  # an image without a file has no target
    same(read_labels(tmp_path / "yolo", "yolo", images=images))
    (tmp_path / "yolo/e.txt").write_text("")
    with pytest.raises(ValueError, match="e.txt: there is no image of that name"):
        read_labels(tmp_path / "yolo", "yolo", images=images)
    (tmp_path / "yolo/e.txt").unlink()
    (tmp_path / "yolo/a.txt").write_bytes(b"\xff\xfe\x80")
    with pytest.raises(ValueError, match="a.txt: not a text file"):
        read_labels(tmp_path / "yolo", "yolo", images=images)
    (tmp_path / "p.csv").write_text("name,x,y\na.png,3,4\na,5,6\n")
    assert read_labels(tmp_path / "p.csv", "points")[0].labels.points.tolist() == [[3, 4], [5, 6]]
    with pytest.raises(ValueError, match="a: the size of the image is not known"):
        convert(tmp_path / "p.csv", tmp_path / "a.json", to="coco")
    (tmp_path / "p.csv").write_text("name,x,y\na,3,24\n")
    with pytest.raises(ValueError, match=r"p.csv, a: the point \(3, 24\) is outside the image of 32x24"):
        read_labels(tmp_path / "p.csv", "points", images=images)
    (tmp_path / "p.csv").write_text("name,x,y\nz,3,4\n")
    with pytest.raises(ValueError, match="p.csv, line 2: there is no image for the name 'z'"):
        read_labels(tmp_path / "p.csv", "points", images=images)


def test_sizes_of_deep_images(tmp_path):
    save(tmp_path / "images/a.tif", np.zeros((20, 31), np.uint16))
    (tmp_path / "p.csv").write_text("name,x,y\na,30,19\n")
    (found,) = read_labels(tmp_path / "p.csv", "points", images=tmp_path / "images")
    assert found.size == (20, 31) and found.file_name == "a.tif"


@pytest.mark.parametrize(
    ("to", "out", "options", "message"),
    [
        ("points", "p.json", {}, "points is written to one .csv file"),
        ("coco", "folder", {}, "coco is written to one .json file"),
        ("voc", "masks", {}, "masks exists already; nothing is replaced: give a new folder"),
        ("points", "file.csv", {}, "file.csv exists already; nothing is replaced: give a new file"),
        ("kitti", "new", {}, "the format must be one of points, coco, yolo, voc, masks, got 'kitti'"),
        ("voc", "new", {"radius": 2}, "a radius is for masks, not for voc"),
        ("voc", "new", {"kind": "kitti"}, "the source must be one of"),
        ("voc", "new", {"points": "middle"}, "points must be one of"),
        ("voc", "new", {"images": "images"}, "images are wanted for yolo, points, voc, labelme and dataset only"),
        ("voc", "new", {"depth": Depth(bits=12)}, "white 4095: that is for the images of a data set, and .* is masks"),
        ("voc", "new", {"box_convention": "sirst_v2"}, "a box convention is for voc"),
        ("masks", "new", {"radius": -1}, "radius must not be negative"),
    ],
)
def test_wrong_arguments(tmp_path, masks, to, out, options, message):
    (tmp_path / "file.csv").write_text("mine")
    with pytest.raises(ValueError, match=message):
        convert(masks, tmp_path / out, to=to, **options)
    assert (tmp_path / "file.csv").read_text() == "mine" and not (tmp_path / "new").exists()


def test_a_place_that_cannot_be_written(tmp_path, masks, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr("irjax.labels.conversion.MaskSet", lambda paths: pytest.fail("read"))
    for to, out in (("points", "file/below/p.csv"), ("voc", "file/voc")):
        with pytest.raises(OSError, match="cannot write .*file is no folder that can be written to"):
            convert(masks, tmp_path / out, to=to)


def test_drawn_points_need_masks(tmp_path):
    (tmp_path / "p.csv").write_text("name,x,y\na,3,4\n")
    with pytest.raises(ValueError, match=r"points='coarse' are drawn inside masks, and .*p.csv \(points\) has none"):
        read_labels(tmp_path / "p.csv", "points", points="coarse")


def read_mask_file(path):
    return np.asarray(Image.open(path)) > 0


def test_boxes_and_polygons_are_filled(tmp_path, masks, images):
    """Boxes of whole pixels come back as they were; masks as a source have their points marked, as before."""
    for to in ("coco", "yolo", "voc"):
        out = tmp_path / ("b.json" if to == "coco" else to)
        convert(masks, out, to=to)
        more = {"images": images} if to == "yolo" else {}
        assert convert(out, tmp_path / f"m-{to}", to="masks", **more).notes == ()
        for name, mask in MASKS.items():
            np.testing.assert_array_equal(read_mask_file(tmp_path / f"m-{to}/{name}.png"), mask)
        convert(out, tmp_path / f"p-{to}", to="masks", radius=0, **more)
        assert read_mask_file(tmp_path / f"p-{to}/a.png").sum() == 2
    convert(masks, tmp_path / "points", to="masks")
    assert read_mask_file(tmp_path / "points/a.png").sum() == 2
    (tmp_path / "poly").mkdir()
    (tmp_path / "poly/a.txt").write_text("0 0.125 0.25 0.25 0.25 0.125 0.5\n")  # (4, 6), (8, 6), (4, 12) px
    convert(tmp_path / "poly", tmp_path / "filled", to="masks", images=images)
    filled = read_mask_file(tmp_path / "filled/a.png")
    assert filled.sum(axis=1)[6:12].tolist() == [4, 3, 2, 2, 1, 0] and filled.sum() == 12
    done = convert(tmp_path / "poly", tmp_path / "voc-of-polygons", to="voc", images=images)
    assert "1 images have polygons, of which only the boxes were written" in done.notes


def labelme(path, *shapes, size=(24, 32)):
    path.parent.mkdir(exist_ok=True)
    content = {"imageHeight": size[0], "imageWidth": size[1], "imagePath": f"{path.stem}.png"}
    path.write_text(json.dumps({"shapes": list(shapes), **content}))


def test_labelme_folders(tmp_path, images):
    box = {"shape_type": "rectangle", "points": [[3, 4], [6, 6]]}
    labelme(tmp_path / "alone/a.json", box, {"shape_type": "point", "points": [[20, 10]]})
    assert find_kind(tmp_path / "alone") == "labelme"
    (found,) = read_labels(tmp_path / "alone", "labelme")
    assert found.labels.points.tolist() == [[4, 4.5], [20, 10]] and found.labels.boxes is None
    convert(tmp_path / "alone", tmp_path / "m", to="masks")
    assert read_mask_file(tmp_path / "m/a.png").sum() == 7
    # Images without a file have no target; sizes that files do not state are the images'.
    labelme(tmp_path / "alone/a.json", box, size=(0, 0))
    found = read_labels(tmp_path / "alone", "labelme", images=images)
    assert [(image.name, len(image.labels), image.size) for image in found] == [
        ("a", 1, (24, 32)),
        ("b", 0, (24, 32)),
        ("c.d", 0, (20, 40)),
    ]
    labelme(images / "a.json", box)  # beside the images, as LabelMe writes them
    assert find_kind(images) == "labelme"
    (images / "a.json").rename(images / "dataset.json")
    assert find_kind(images) == "masks"


def test_images_in_folders_stay_two(tmp_path):
    content = {
        "images": [{"id": n, "file_name": f"{n}\\1.png", "height": 20, "width": 30} for n in (1, 2)],
        "annotations": [{"image_id": 2, "bbox": [4, 5, 3, 2]}],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    for to in ("yolo", "voc", "masks"):
        convert(tmp_path / "a.json", tmp_path / to, to=to)
    assert (
        read_mask_file(tmp_path / "masks/2/1.png").sum() == 6 and not read_mask_file(tmp_path / "masks/1/1.png").any()
    )
    for kind, more in (("yolo", {"images": tmp_path / "masks"}), ("voc", {}), ("masks", {})):
        found = read_labels(tmp_path / kind, kind, **more)
        assert [(image.name, len(image.labels)) for image in found] == [("1/1", 0), ("2/1", 1)]


def test_a_data_set_with_boxes_keeps_them(tmp_path, images):
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/a.txt").write_text("0 0.125 0.25 0.0625 0.25\n")
    convert(tmp_path, tmp_path / "out/a.json", to="coco")
    assert json.loads((tmp_path / "out/a.json").read_text())["annotations"][0]["bbox"] == [3, 3, 2, 6]
    convert(tmp_path, tmp_path / "out/m", to="masks")
    assert read_mask_file(tmp_path / "out/m/a.png").sum() == 12


def test_two_folders_said(tmp_path, masks, images):
    images.rename(tmp_path / "frames")
    done = convert(tmp_path, tmp_path / "p.csv", to="points", images="frames", masks="masks")
    assert (done.kind, done.images, done.targets) == ("dataset", 3, 3)
    with pytest.raises(ValueError, match="a folder of masks goes with one of images and a data set"):
        read_labels(masks, "masks", masks=masks)


def test_bad_images_are_left_out_and_counted(tmp_path, masks, images, dataset):
    (masks / "z.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"z\.png: not a readable image.*; --skip-bad \(skip_bad=True\) leaves such"):
        convert(masks, tmp_path / "p.csv", to="points")
    with pytest.warns(Note, match=r"1 images are left out: .*z\.png: not a readable image"):
        done = convert(masks, tmp_path / "p.csv", to="points", skip_bad=True)
    assert (done.images, len(done.skipped)) == (3, 1)
    convert(tmp_path / "p.csv", tmp_path / "a.json", to="coco", images=images)
    convert(tmp_path / "a.json", tmp_path / "discs", to="masks")
    save(dataset / "masks/a.png", np.zeros((9, 9), np.uint8))
    with pytest.warns(Note, match=r"1 of 2 images are left out: .*a\.png is for 9x9"):
        done = convert(dataset, tmp_path / "q.csv", to="points", split="trainval", skip_bad=True)
    assert (done.images, len(done.skipped)) == (1, 1)
    folder = tmp_path / "yolo"
    folder.mkdir()
    for name, text in (("a", "0 0.5 0.5 0.1 0.1"), ("b", "0 2 2 1 1"), ("gone", "")):
        (folder / f"{name}.txt").write_text(text)
    with pytest.warns(Note, match=r"2 images are left out: .*b\.txt, line 1.*gone\.txt: there is no image"):
        found = read_labels(folder, "yolo", images=images, skip_bad=True)
    assert [image.name for image in found] == ["a", "c.d"]
    with pytest.raises(ValueError, match="is one file, of which no image is left out"):
        read_labels(tmp_path / "a.json", "coco", skip_bad=True)


def test_confidences_are_left_out_and_said(tmp_path, images):
    (tmp_path / "yolo").mkdir()
    (tmp_path / "yolo/a.txt").write_text("0 0.125 0.25 0.0625 0.25 0.9\n")
    with pytest.warns(Note, match=r"a\.txt: confidences are left out: .*irjax evaluate --predictions reads them"):
        found = read_labels(tmp_path / "yolo", "yolo", images=images)
    assert found[0].labels.boxes.tolist() == [[3, 3, 5, 9]]


def test_outlines_of_run_lengths_become_masks_and_polygons(tmp_path):
    ring = {"counts": "c139NH082Y3", "size": [12, 16]}  # 3 pixels by 3 from (4, 3) without their middle
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": 12, "width": 16}],
        "annotations": [{"image_id": 1, "segmentation": ring, "bbox": [4, 3, 3, 3]}],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    convert(tmp_path / "a.json", tmp_path / "m", to="masks")
    mask = read_mask_file(tmp_path / "m/a.png")
    assert mask.sum() == 8 and mask[3:6, 4:7].sum() == 8 and not mask[4, 5]
    convert(tmp_path / "a.json", tmp_path / "b.json", to="coco")
    convert(tmp_path / "b.json", tmp_path / "again", to="masks")
    np.testing.assert_array_equal(read_mask_file(tmp_path / "again/a.png"), mask)


def test_masks_that_are_mostly_target_are_said_and_not_inverted(tmp_path):
    for name in "ab":
        save(tmp_path / f"m/{name}.png", 255 - MASKS["a"].astype(np.uint8) * 255)
    said = r"m: targets cover 1474 of the 1536 pixels of 2 masks \(96%\).*invert the mask files first"
    with pytest.warns(Note, match=said):
        done = convert(tmp_path / "m", tmp_path / "p.csv", to="points")
    assert done.targets == 2
    save(tmp_path / "m/c.png", np.zeros((40, 40), np.uint8))  # less than half of all
    convert(tmp_path / "m", tmp_path / "q.csv", to="points")


def test_the_depth_of_a_data_set_reaches_its_images(tmp_path, dataset):
    for name in ("a", "b"):
        tifffile.imwrite(dataset / f"images/{name}.tif", np.full((24, 32), -5, np.int16))
        (dataset / f"images/{name}.png").unlink()
    with pytest.raises(ValueError, match="say which are black and white: --range LOW HIGH"):
        read_labels(dataset, "dataset", split="trainval")
    found = read_labels(dataset, "dataset", split="trainval", depth=Depth(range=(-10, 10)))
    assert [image.size for image in found] == [(24, 32)] * 2
