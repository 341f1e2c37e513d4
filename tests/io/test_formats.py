"""Round trips: what a format holds comes back as it was."""

import json

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from irjax.io.coco import read_coco
from irjax.io.formats import read_annotation
from irjax.io.headers import image_size
from irjax.io.predictions import read_predictions
from irjax.labels import (
    ImageLabels,
    Labels,
    box_centres,
    format_voc,
    format_yolo,
    label_mask,
    parse_labelme,
    parse_voc,
    parse_yolo,
    parse_yolo_labels,
    read_coco_labels,
    read_points_labels,
    write_coco_labels,
    write_points_labels,
)

QUICK = hypothesis.settings(
    max_examples=40, deadline=None, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
MASKS = st.lists(hnp.arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12))), min_size=1, max_size=3)


@st.composite
def boxes_in_an_image(draw):
    height, width = draw(st.integers(1, 2000)), draw(st.integers(1, 2000))
    edges = []
    for _ in range(draw(st.integers(0, 4))):
        x = sorted(draw(st.lists(st.integers(0, width), min_size=2, max_size=2, unique=True)))
        y = sorted(draw(st.lists(st.integers(0, height), min_size=2, max_size=2, unique=True)))
        edges.append([x[0], y[0], x[1], y[1]])
    return np.array(edges, np.int64).reshape(-1, 4), (height, width)


def images_of(masks):
    return [ImageLabels(f"im.{n}", label_mask(mask), mask.shape) for n, mask in enumerate(masks)]


@QUICK
@hypothesis.given(MASKS)
def test_mask_to_coco_and_back(tmp_path, masks):
    images, path = images_of(masks), tmp_path / "a.json"
    write_coco_labels(path, images)
    found = read_coco_labels(path)
    assert [image.name for image in found] == [image.name for image in images]
    points = read_coco(path).by_name
    for before, after in zip(images, found, strict=True):
        assert after.size == before.size and after.file_name == f"{before.name}.png"
        for field in ("points", "boxes", "areas"):
            one, two = getattr(before.labels, field), getattr(after.labels, field)
            np.testing.assert_array_equal(one, two)
            assert one.dtype == two.dtype
        # The other readers of the package see the same points.
        np.testing.assert_array_equal(points[before.name][0], before.labels.points)
        seen = read_predictions(path).predictions[after.file_name]
        np.testing.assert_array_equal(seen.points.astype(np.float32), before.labels.points)


@QUICK
@hypothesis.given(MASKS)
def test_csv_and_back(tmp_path, masks):
    images, path = images_of(masks), tmp_path / "p.csv"
    write_points_labels(path, images)
    sized = read_points_labels(path, {image.name: image.size for image in images})
    for before, after in zip(images, sized, strict=True):
        np.testing.assert_array_equal(before.labels.points, after.labels.points)
        assert after.labels.points.dtype == np.float32 and after.size == before.size
    rows = {image.name: image.labels.points for image in read_points_labels(path)}
    assert rows.keys() == {image.name for image in images if len(image.labels)}


@QUICK
@hypothesis.given(boxes_in_an_image())
def test_yolo_and_back(case):
    boxes, size = case
    text = format_yolo(boxes, size)
    np.testing.assert_array_equal(parse_yolo(text, size, "f"), boxes)
    moved = np.clip(boxes + 0.25, 0, [size[1], size[0]] * 2)
    np.testing.assert_allclose(parse_yolo(format_yolo(moved, size), size, "f"), moved, rtol=0, atol=1e-9)


@QUICK
@hypothesis.given(boxes_in_an_image())
def test_voc_and_back(case):
    boxes, size = case
    before = ImageLabels("a", Labels(box_centres(boxes), boxes), size, "a.tif")
    after = parse_voc(format_voc(before), "a", "a.xml")
    np.testing.assert_array_equal(after.labels.boxes, boxes)
    np.testing.assert_array_equal(after.labels.points, before.labels.points)
    assert after.size == size and after.file_name == "a.tif" and after.labels.boxes.dtype == np.int64


def test_what_the_files_say(tmp_path):
    """The conventions, on one target of 3x2 pixels at columns 4-6 and rows 7-8 of an image of 20x10."""
    mask = np.zeros((10, 20), bool)
    mask[7:9, 4:7] = True
    image = ImageLabels("a", label_mask(mask), mask.shape)
    write_points_labels(tmp_path / "p.csv", [image])
    assert (tmp_path / "p.csv").read_text() == "name,x,y\na,5.0,7.5\n"
    assert format_yolo(image.labels.boxes, image.size) == "0 0.275 0.8 0.15 0.2\n"
    text = format_voc(image)
    for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), (5, 8, 7, 9), strict=True):
        assert f"<{tag}>{value}</{tag}>" in text
    write_coco_labels(tmp_path / "a.json", [image])
    content = json.loads((tmp_path / "a.json").read_text())
    assert content["images"] == [{"id": 1, "file_name": "a.png", "height": 10, "width": 20}]
    assert content["annotations"] == [
        {"id": 1, "image_id": 1, "category_id": 1, "keypoints": [5, 7.5, 2], "num_keypoints": 1,
         "bbox": [4, 7, 3, 2], "area": 6, "iscrowd": 0}
    ]  # fmt: skip


def test_the_xml_files_of_sirst_v2(shared):
    """Their boxes, by their convention, are those of the masks."""
    from irjax.data import read_mask

    root = shared / "data/SIRST-v2/annotations"
    names = sorted(path.stem for path in (root / "bboxes").glob("*.xml"))[:40]
    targets = 0
    for name in names:
        path = root / f"bboxes/{name}.xml"
        found = parse_voc(path.read_bytes(), name, path, "sirst_v2").labels.boxes
        wanted = label_mask(read_mask(root / f"masks/{name}_pixels0.png")[0]).boxes
        assert sorted(found.tolist()) == sorted(wanted.tolist()), name
        targets += len(wanted)
    assert targets >= 40


def coco(path, annotations, images=(("a.png", 10, 20),)):
    listed = [{"id": n, "file_name": name, "height": h, "width": w} for n, (name, h, w) in enumerate(images)]
    path.write_text(json.dumps({"images": listed, "annotations": [{"image_id": 0, **a} for a in annotations]}))
    return path


def test_coco_of_other_programs(tmp_path):
    path = coco(tmp_path / "a.json", [{"bbox": [4, 7, 3, 2], "area": 5.5}, {"bbox": [0.5, 1, 2, 2], "keypoints": []}])
    (found,) = read_coco_labels(path)
    np.testing.assert_array_equal(found.labels.points, [[5, 7.5], [1, 1.5]])
    np.testing.assert_array_equal(found.labels.boxes, [[4, 7, 7, 9], [0.5, 1, 2.5, 3]])
    assert found.labels.areas is None
    # One annotation for all targets, as SPIRE publishes them: its box is of none of them.
    path = coco(tmp_path / "b.json", [{"keypoints": [1, 2, 2, 3, 4, 2, 0, 0, 0], "bbox": [0, 0, 9, 9]}])
    (found,) = read_coco_labels(path)
    np.testing.assert_array_equal(found.labels.points, [[1, 2], [3, 4]])
    assert found.labels.boxes is None
    # Unlabelled keypoints leave the box.
    path = coco(tmp_path / "c.json", [{"keypoints": [0, 0, 0], "bbox": [2, 2, 1, 1]}])
    np.testing.assert_array_equal(read_coco_labels(path)[0].labels.points, [[2, 2]])


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        ({"bbox": [18, 7, 3, 2]}, r"a.json: annotations\[0\]: the box \(18, 7, 21, 9\) is empty or outside.*20x10"),
        ({"bbox": [1, 2, 0, 2]}, "empty or outside"),
        ({"bbox": [1, 2, 3]}, "bbox must be x, y, width, height"),
        ({"keypoints": [20, 3, 2]}, r"annotations\[0\]: the point \(20, 3\) is outside"),
        ({"keypoints": [1, 2]}, "triples"),
        ({"image_id": 7, "bbox": [1, 2, 3, 2]}, "image 7, which is not among the images"),
        ({}, "needs keypoints"),
    ],
)
def test_bad_coco(tmp_path, annotation, message):
    with pytest.raises(ValueError, match=message):
        read_coco_labels(coco(tmp_path / "a.json", [annotation]))


def test_a_coco_file_with_an_image_twice(tmp_path):
    path = coco(tmp_path / "a.json", [], images=(("a.png", 10, 20), ("a.png", 10, 20)))
    with pytest.raises(ValueError, match=r"a.json: images\[1\] repeats the id 1 or the file name a"):
        read_coco_labels(path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5 0.2", "f, line 2: class, x, y, width, height are wanted"),
        ("0 0.5 half 0.2 0.2", "f, line 2"),
        ("0 nan 0.5 0.2 0.2", "f, line 2"),
        ("0 0.95 0.5 0.2 0.2", r"f, line 2: the box \(17, 4, 21, 6\) is empty or outside"),
        ("0 0.5 0.5 0 0.2", "empty or outside"),
    ],
)
def test_bad_yolo(line, message):
    with pytest.raises(ValueError, match=message):
        parse_yolo(f"0 0.5 0.5 0.1 0.1\n{line}\n", (10, 20), "f")


def test_yolo_with_six_decimals_at_the_border():
    text = "3 0.998375 0.5 0.003251 0.1 0.87\n\n"  # its right edge is at 1.0000005
    boxes = parse_yolo(text, (100, 640), "f")
    assert boxes.shape == (1, 4) and boxes[0, 2] == 640


VOC = "<annotation><size><width>20</width><height>10</height></size><object>{}</object></annotation>"
BOX = "<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox>"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hello", "f.xml: not an XML file"),
        ("<annotation/>", "f.xml: the image's size is wanted"),
        (VOC.format(""), "f.xml: object 1 has no <bndbox> with four numbers"),
        (VOC.format(BOX.format(1, 1, "x", 1)), "object 1 has no"),
        (VOC.format(BOX.format(0, 1, 2, 2)), r"f.xml: the box \(-1, 0, 2, 2\) is empty or outside"),
        (VOC.format(BOX.format(5, 5, 21, 6)), "outside the image of 20x10"),
    ],
)
def test_bad_voc(text, message):
    with pytest.raises(ValueError, match=message):
        parse_voc(text, "f", "f.xml")
    with pytest.raises(ValueError, match="convention must be one of voc, sirst_v2, got 'coco'"):
        parse_voc(text, "f", "f.xml", "coco")


def test_boxes_of_part_pixels_are_widened():
    image = ImageLabels("a", Labels(np.zeros((1, 2), np.float32), np.array([[1.5, 2.0, 3.25, 4.0]])), (10, 20))
    np.testing.assert_array_equal(parse_voc(format_voc(image), "a", "f").labels.boxes, [[1, 2, 4, 4]])
    with pytest.raises(ValueError, match="a: its targets have points only"):
        format_voc(ImageLabels("a", Labels(np.zeros((1, 2), np.float32)), (10, 20)))
    with pytest.raises(ValueError, match="a: the size of the image is not known"):
        format_voc(ImageLabels("a", image.labels))


def test_coco_polygons(tmp_path):
    outline = [4, 7, 7, 7, 7, 9, 4, 9]
    path = coco(
        tmp_path / "a.json",
        [
            {"segmentation": [outline]},
            {"segmentation": [outline], "bbox": [4, 7, 4, 2]},  # the box decides the point, as without outline
            {"segmentation": [[0, 0, 2, 0, 2, 1, 0, 1], [3, 0, 4, 0, 4, 1, 3, 1]], "area": 3},
            {"segmentation": {"counts": [47, 2, 8, 2, 8, 2, 131], "size": [10, 20]}, "bbox": [4, 7, 3, 2]},
            {"segmentation": {"counts": "_128000k3", "size": [10, 20]}},  # the same pixels
        ],
    )
    (found,) = read_coco_labels(path)
    np.testing.assert_allclose(found.labels.points, [[5, 7.5], [5.5, 7.5], [4 / 3, 0], [5, 7.5], [5, 7.5]])
    np.testing.assert_array_equal(found.labels.boxes, [[4, 7, 7, 9], [4, 7, 8, 9], [0, 0, 4, 1], *[[4, 7, 7, 9]] * 2])
    assert [len(polygons) for polygons in found.labels.polygons] == [1, 1, 2, 1, 1]
    write_coco_labels(tmp_path / "b.json", [found])
    (again,) = read_coco_labels(tmp_path / "b.json")
    np.testing.assert_array_equal(again.labels.points, found.labels.points)
    for one, other in zip(again.labels.polygons, found.labels.polygons, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        (
            {"segmentation": {"counts": "ab", "size": [10, 20]}},
            r"annotations\[0\]: segmentation: run lengths end within a number",
        ),
        ({"segmentation": {"counts": [200], "size": [10, 20]}, "bbox": [1, 1, 2, 2]}, "segmentation has no pixel"),
        ({"segmentation": {"counts": [0, 4], "size": [2, 2]}}, "is for 2x2 pixels, but the image has 20x10"),
        ({"segmentation": {"counts": [0, 200]}}, "segmentation needs size as height, width, and counts"),
        ({"segmentation": {"counts": 4, "size": [10, 20]}}, "segmentation needs size as height, width, and counts"),
        ({"segmentation": [[1, 2, 3, 4]]}, r"annotations\[0\]: a polygon of three corners"),
        ({"segmentation": [[1, 2, 3, 4, 30, 5]]}, "the polygon reaches outside the image of 20x10"),
        ({"segmentation": [[1, 2, 3, 4, 5]]}, "segmentation must be lists of x, y"),
        ({"segmentation": [["a"]]}, "segmentation must be lists of x, y"),
    ],
)
def test_bad_coco_polygons(tmp_path, annotation, message):
    with pytest.raises(ValueError, match=message):
        read_coco_labels(coco(tmp_path / "a.json", [annotation]))


def test_yolo_polygons_and_boxes():
    text = "0 0.2 0.7 0.35 0.7 0.35 0.9 0.2 0.9\n1,0.5,0.5,0.1,0.2\n2 0.5 0.5 0.1 0.2 0.9\n"
    found = parse_yolo_labels(text, (10, 20), "f")
    np.testing.assert_array_equal(found.points, [[5, 7.5], [9.5, 4.5], [9.5, 4.5]])
    np.testing.assert_array_equal(found.boxes, [[4, 7, 7, 9], [9, 4, 11, 6], [9, 4, 11, 6]])
    assert [len(polygons) for polygons in found.polygons] == [1, 0, 0]
    np.testing.assert_array_equal(parse_yolo(text, (10, 20), "f"), found.boxes)
    assert parse_yolo_labels("", (10, 20), "f").polygons is None
    for line in ("0 0.2 0.7 0.35 0.7 0.35 0.9 0.2", "0 0.2 0.7 0.35", "20 30", "0 0.1 0.1 0.2 0.2 1.2 0.3"):
        with pytest.raises(ValueError, match="f, line 1: "):
            parse_yolo_labels(line, (10, 20), "f")


@pytest.mark.parametrize(
    "size", ["", "<size/>", "<size><width/><height/></size>", "<size><width>0</width><height>0</height></size>"]
)
def test_voc_without_a_size(size):
    text = f"<annotation>{size}<object>{BOX.format(5, 8, 7, 9)}</object></annotation>"
    found = parse_voc(text, "a", "f.xml", size=(10, 20))
    assert found.size == (10, 20)
    np.testing.assert_array_equal(found.labels.boxes, [[4, 7, 7, 9]])
    with pytest.raises(ValueError, match=r"f.xml: the image's size is wanted .*\(--images\)"):
        parse_voc(text, "a", "f.xml")
    with pytest.raises(ValueError, match="f.xml is for 20x10 pixels, but the image has 20x11"):
        parse_voc(VOC.format(BOX.format(5, 8, 7, 9)), "a", "f.xml", size=(11, 20))


@pytest.mark.parametrize("encoding", ["gbk", "gb2312", "big5", "utf-8", "utf-16"])
def test_voc_in_encodings(encoding):
    text = f'<?xml version="1.0" encoding="{encoding}"?>' + VOC.format("<name>\u76ee</name>" + BOX.format(5, 8, 7, 9))
    np.testing.assert_array_equal(parse_voc(text.encode(encoding), "a", "f").labels.points, [[5, 7.5]])
    with pytest.raises(ValueError, match="not an XML file"):
        parse_voc(b'<?xml version="1.0" encoding="no-such"?><a/>', "a", "f")


def labelme(*shapes, **more):
    content = {"shapes": list(shapes), "imageHeight": 10, "imageWidth": 20, "imagePath": "..\\img\\a.png", **more}
    return json.dumps(content)


def test_labelme():
    text = labelme(
        {"points": [[4, 7], [7, 7], [7, 9], [4, 9]], "label": "x", "shape_type": "polygon"},
        {"points": [[7, 9], [4, 7]], "shape_type": "rectangle"},
        {"points": [[10, 5], [12, 5]], "shape_type": "circle"},
        {"points": [[-0.5, 0], [2, 0], [0, 2]]},
    )
    found = parse_labelme(text, "a", "f.json")
    assert found.size == (10, 20) and found.file_name == "a.png" and len(found.labels.polygons) == 4
    np.testing.assert_allclose(found.labels.points[:3], [[5, 7.5], [5, 7.5], [9.5, 4.5]])
    np.testing.assert_allclose(found.labels.boxes[:3], [[4, 7, 7, 9], [4, 7, 7, 9], [8, 3, 12, 7]])
    assert found.labels.boxes[3, 0] == 0
    points = parse_labelme(labelme({"points": [[3, 4.5]], "shape_type": "point"}), "a", "f.json").labels
    assert points.points.tolist() == [[3, 4.5]] and points.boxes is None and points.polygons is None
    bare = labelme(imageHeight=None, imageWidth=None)
    assert parse_labelme(bare, "a", "f.json", (10, 20)).size == (10, 20)
    assert len(parse_labelme(bare, "a", "f.json", (10, 20)).labels.boxes) == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "f.json: not a LabelMe file"),
        ("[]", "not a LabelMe file"),
        ('{"images": []}', "a list named 'shapes' is wanted"),
        (labelme({"points": [[1, 2], [3, 4]], "shape_type": "line"}), r"shapes\[0\] is a line of 2 points; polygon, "),
        (labelme({"points": [[1, 2], [3, 4]]}), "a polygon of three corners"),
        (labelme({"points": [[20, 3]], "shape_type": "point"}), r"shapes\[0\]: the point \(20, 3\) is outside"),
        (labelme({"points": [[0, 0], [25, 2], [0, 2]]}), r"shapes\[0\]: the polygon reaches outside"),
        (labelme({"shape_type": "polygon"}), "needs points"),
        (labelme(imageHeight=0), r"no imageHeight and imageWidth; give the folder of the images \(--images\)"),
    ],
)
def test_bad_labelme(text, message):
    with pytest.raises(ValueError, match=message):
        parse_labelme(text, "a", "f.json")
    with pytest.raises(ValueError, match="f.json is for 20x10 pixels, but the image has 21x10"):
        parse_labelme(labelme(), "a", "f.json", (10, 21))


def test_annotations_of_users(shared):
    folder = shared / "cases/coco_voc"
    if not folder.is_dir():
        pytest.skip("needs ../shared/cases")
    for name in ("nested", "win", "segonly", "classes"):
        found = read_coco_labels(folder / f"{name}.json")
        assert [image.name for image in found] == ["41/00001", "41/00002", "42/00001"]
        assert all(image.labels.points.tolist() == [[20, 30]] for image in found)
    for name in ("voc_nosize", "voc_size0", "voc_bom", "voc_gbk"):
        found = read_annotation(folder / name / "a.xml", "voc", "a", image_size(folder / "voc_images/a.png"))
        assert found.labels.points.tolist() == [[20, 30]]
    assert read_annotation(folder / "labelme/a.json", "labelme", "a").labels.points.tolist() == [[20, 30]]
