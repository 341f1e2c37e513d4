"""What a tab of the app does, without the page."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from irjax.app.session import Session, nearest
from irjax.data import open_source
from irjax.errors import UserError
from irjax.metrics.inputs import PointPredictions


def picture(*points, size=(40, 48), dtype=np.uint8, noise=0):
    image = np.random.default_rng(noise).normal(60, 1, size)
    rows, cols = np.indices(size)
    for x, y in points:
        image += 150 * np.exp(-((cols - x) ** 2 + (rows - y) ** 2) / 2)
    return image.astype(dtype)


@pytest.fixture
def session():
    made = Session("tophat")
    yield made
    made.close()


def upload(session, **images):
    paths = session.place_for(list(images))
    for path, image in zip(paths, images.values(), strict=True):
        Image.fromarray(image).save(path, "PNG")
    new, refused = session.add(paths)
    assert not refused
    return new


def test_detections_follow_the_threshold_and_corrections_do_not(session, monkeypatch):
    (name,) = upload(session, **{"a.png": picture((10, 12), (30, 25))})
    session.image(name)
    found = session.points(name).points
    np.testing.assert_allclose(sorted(found.tolist()), [[10, 12], [30, 25]], atol=0.5)
    monkeypatch.setattr("irjax.app.session.opened", None)  # the detector is not run again
    session.threshold = 0.01
    assert len(session.points(name)) > 2
    session.threshold = 0.5
    index = nearest(session.points(name).points, 29, 25, 4)
    session.move_point(name, index, 33.2, 20)
    session.add_point(name, 5.4, 30.6)
    session.threshold = 0.01
    np.testing.assert_allclose(
        sorted(session.points(name).points.tolist()), [[5.4, 30.6], [10, 12], [33.2, 20]], atol=0.5
    )
    assert (session.points(name).scores == 1).all()
    assert nearest(session.points(name).points, 20, 35, 4) is None
    session.delete_point(name, nearest(session.points(name).points, 10, 12, 2))
    assert len(session.points(name)) == 2
    with pytest.raises(UserError, match=r"\(60.0, 5.0\) lies outside of a.png, 48 x 40 pixels"):
        session.add_point(name, 60, 5)
    assert len(session.points(name)) == 2
    session.restore(name)
    assert len(session.points(name)) > 2


def test_a_saved_data_set_is_read_again(session, tmp_path):
    first, second, third = upload(
        session, **{"a.png": picture((10, 12)), "b.png": picture(), "c.png": picture((9, 9), dtype=np.uint16)}
    )
    session.image(first), session.image(second)
    session.add_point(first, 20.25, 30.5)
    for index in range(len(session.points(second)), 0, -1):
        session.delete_point(second, index - 1)
    said = session.save_dataset(tmp_path / "set")
    assert said.startswith("2 points in 2 images: ") and "1 that you have not looked at are left out" in said
    source = open_source(tmp_path / "set", "all")
    examples = {example.name: example for example in source}
    assert sorted(examples) == ["a", "b"]
    np.testing.assert_allclose(sorted(examples["a"].points.tolist()), [[10, 12], [20.25, 30.5]], atol=0.1)
    assert len(examples["b"].points) == 0
    np.testing.assert_array_equal(examples["a"].image, picture((10, 12)))
    # 16 bits stay 16 bits.
    session.image(third)
    session.save_dataset(tmp_path / "set")
    with Image.open(tmp_path / "set" / "images" / "c.png") as saved:
        np.testing.assert_array_equal(np.asarray(saved), picture((9, 9), dtype=np.uint16))


def test_saved_predictions_are_those_of_the_command(session, tmp_path):
    upload(session, **{"a.png": picture((10, 12)), "b.png": picture((30, 20))})
    session.save_predictions(tmp_path / "out")
    rows = list(csv.DictReader((tmp_path / "out" / "predictions.csv").read_text().splitlines()))
    assert [row["name"] for row in rows] == ["a.png", "b.png"] and list(rows[0]) == ["name", "x", "y", "score"]
    written = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert [image["file_name"] for image in written["images"]] == ["a.png", "b.png"]


def test_nothing_is_replaced_but_what_this_tab_saved(session, tmp_path):
    with pytest.raises(UserError, match="no images to save"):
        session.save_dataset(tmp_path / "set")
    (name,) = upload(session, **{"a.png": picture((10, 12))})
    session.image(name)
    session.save_dataset(tmp_path / "set")
    session.add_point(name, 30, 30)
    session.save_dataset(tmp_path / "set")  # again, with the correction
    assert len(open_source(tmp_path / "set", "all")[0].points) == 2
    other = Session("tophat")
    upload(other, **{"b.png": picture()})
    other.image("b.png")
    for save in (other.save_dataset, other.save_predictions):
        with pytest.raises(UserError, match="set holds something already"):
            save(tmp_path / "set")
    other.close()
    assert [example.name for example in open_source(tmp_path / "set", "all")] == ["a"]
    with pytest.raises(UserError, match="name a folder"):
        session.save_predictions("  ")


def test_points_outside_of_an_image_are_saved_at_its_border(session, tmp_path, monkeypatch):
    (name,) = upload(session, **{"a.png": picture()})
    session.image(name)
    outside = PointPredictions([(50.2, 10), (-1, 41)], [0.9, 0.8])
    monkeypatch.setattr(session, "points", lambda name: outside)
    session.save_dataset(tmp_path / "set")
    np.testing.assert_allclose(open_source(tmp_path / "set", "all")[0].points, [[47, 10], [0, 39]])


def test_frames_are_in_the_order_of_their_numbers(session):
    assert upload(session, **{f"f{number}.png": picture(noise=number) for number in (10, 2, 1)}) == [
        "f1.png", "f2.png", "f10.png",
    ]  # fmt: skip


def test_frames_of_one_file(session, tmp_path):
    (path,) = session.place_for(["stack.gif"])
    frames = [Image.fromarray(picture((8 + 4 * number, 20), noise=number)) for number in range(3)]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    names, _ = session.add([path])
    assert names == ["stack_0001.gif", "stack_0002.gif", "stack_0003.gif"]
    for number, name in enumerate(names):
        session.image(name)
        np.testing.assert_allclose(session.points(name).points, [[8 + 4 * number, 20]], atol=0.6)
    session.save_predictions(tmp_path / "out")
    assert (tmp_path / "out" / "predictions.csv").read_text().startswith("name,x,y,score,sequence,frame\n")
    session.save_dataset(tmp_path / "set")
    assert len(open_source(tmp_path / "set", "all")) == 3


def test_a_bad_file_changes_nothing(session):
    (name,) = upload(session, **{"a.png": picture((10, 12))})
    session.add_point(name, 5, 5)
    good, bad = session.place_for(["b.png", "broken.png"])
    Image.fromarray(picture()).save(good)
    bad.write_bytes(b"\x89PNG broken")
    new, (refused,) = session.add([bad, good])
    assert new == ["b.png"] and refused.startswith("broken.png: ")
    assert list(session.images) == ["a.png", "b.png"] and list(session.edited) == ["a.png"]
    for name in ("..", "", "a/..", "x\0y"):
        with pytest.raises(UserError, match="is no name of a file"):
            session.place_for([name])
    with pytest.raises(UserError, match=r"two of these files are called a\.png"):
        session.place_for(["one/a.png", "b.png", "two/a.png"])
    (path,) = session.place_for(["../../etc/x.png"])
    assert path.name == "x.png" and path.parent.parent == good.parent.parent


def test_a_file_that_comes_again(session):
    upload(session, **{"a.png": picture((10, 12))})
    session.points("a.png")
    upload(session, **{"a.png": picture((30, 25))})  # is the new one
    np.testing.assert_allclose(session.points("a.png").points, [[30, 25]], atol=0.5)
    session.add_point("a.png", 1, 1)
    (path,) = session.place_for(["a.png"])
    Image.fromarray(picture()).save(path)
    assert session.add([path]) == ([], ["a.png is open already, with corrected points: rename the file"])
    assert len(session.points("a.png")) == 2


def test_an_unknown_detector_leaves_the_one_before(session):
    (name,) = upload(session, **{"a.png": picture((10, 12))})
    with pytest.raises(UserError):
        session.choose("nothing-like-this")
    assert session.model == "tophat" and len(session.points(name)) == 1


def test_the_files_of_a_session_go_with_it(session):
    (path,) = session.place_for(["a.png"])
    path.write_bytes(b"x")
    session.close()
    assert not path.exists()
