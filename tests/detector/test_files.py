"""Results as files: which side of a threshold a pixel is on survives; a folder holds those of one run."""

import csv
import json

import numpy as np
import pytest
import scipy.io
import tifffile
from PIL import Image

from irjax import cli
from irjax.detector.files import find_images, predict_files
from irjax.errors import Note, UserError
from irjax.io.files import whole_folder, write_text
from irjax.io.headers import frame_count
from irjax.io.images import Frame, read_stored
from irjax.io.maps import find_maps, write_map
from irjax.io.predictions import read_predictions
from irjax.io.video import available, frame_rate, video_writer
from irjax.metrics.inputs import predicted_mask
from irjax.types import Detections


@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.35, 0.5, 0.6, 0.999, 1.0])
def test_pixels_of_written_maps_stay_on_their_side_of_the_threshold(tmp_path, threshold):
    p = np.random.default_rng(0).random((512, 512), np.float32)
    cut = np.float32(threshold)
    p[0, :5] = 0, 1, cut, np.nextafter(cut, np.float32(0)), min(np.nextafter(cut, np.float32(1)), 1)
    write_map(tmp_path / "masks" / "a.png", p, threshold)
    (read,) = find_maps(tmp_path / "masks")
    np.testing.assert_array_equal(predicted_mask(read, threshold), p > cut)
    assert np.abs(read - p).max() <= 1 / 255
    with Image.open(tmp_path / "masks" / "a.png") as image:
        assert image.mode == "L"
        np.testing.assert_array_equal(predicted_mask(np.asarray(image), threshold), p > cut)


def test_half_is_between_127_and_128(tmp_path):
    write_map(tmp_path / "a.png", np.array([[0.5, 0.501, 0.4999, 1.0]], np.float32))
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.png")), [[127, 128, 127, 255]])


def detector(masks=True, point=(5.0, 6.0)):
    """Finds one target in every image, with a mask or without."""

    def detect(images):
        number = len(images)
        points = np.tile(np.float32(point), (number, 1, 1))
        found = tuple(np.full(image.shape, 0.7, np.float32) for image in images) if masks else None
        return Detections(points, np.full((number, 1), 0.9, np.float32), np.ones((number, 1), bool), found)

    return detect


def listing(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def images(tmp_path):
    (tmp_path / "in").mkdir()
    for index in range(3):
        pixels = np.random.default_rng(index).integers(0, 99, (24, 32)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"in/{index}.png")
    return find_images([tmp_path / "in"])


def test_a_second_model_leaves_nothing_of_the_first(tmp_path, images):
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    first = predict_files(detector(), images, out, overlays=3)
    assert all(path.is_file() for path in (*first.files, *first.masks)) and len(first.masks) == 3
    last = dict(list(images.items())[2:])
    second = predict_files(detector(masks=False), last, out, overlays=1)
    expected = [".irjax-written.json", "notes.txt", "overlays/0001_2.png", "predictions.csv", "predictions.json"]
    assert listing(out) == expected and not (out / "masks").exists()
    assert sorted(path.relative_to(out).as_posix() for path in second.files) == expected[2:]
    assert len((out / "predictions.csv").read_text().splitlines()) == 2


@pytest.mark.parametrize("mine", ["masks/0.png", "masks/9.png", "overlays/x.txt", "predictions.csv"])
def test_the_users_files_are_found_before_any_image_is_read(tmp_path, images, monkeypatch, mine):
    (tmp_path / "out" / mine).parent.mkdir(parents=True)
    (tmp_path / "out" / mine).write_text("mine")
    monkeypatch.setattr("irjax.detector.files.read_image", lambda path: pytest.fail("read"))
    with pytest.raises(UserError, match=f"holds {mine}, not of an earlier irjax predict"):
        predict_files(detector(masks=False), images, tmp_path / "out")
    assert listing(tmp_path / "out") == [mine] and (tmp_path / "out" / mine).read_text() == "mine"


def test_an_interrupted_run_leaves_the_earlier_one_whole(tmp_path, images):
    out = tmp_path / "out"
    predict_files(detector(), images, out, overlays=1)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    calls = []

    def interrupted(batch):
        calls.append(batch)
        if len(calls) > 1:
            raise KeyboardInterrupt
        return detector()(batch)

    many = {f"{index}.png": path for index, path in enumerate(list(images.values()) * 6)}
    with pytest.raises(KeyboardInterrupt):
        predict_files(interrupted, many, out)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    with pytest.raises(KeyboardInterrupt):
        predict_files(interrupted, many, tmp_path / "new/out")
    assert not (tmp_path / "new").exists()


def test_nothing_is_written_where_no_image_can_be_read(tmp_path, images):
    predict_files(detector(), images, tmp_path / "out")
    (tmp_path / "bad.png").write_text("no image")
    for out in (tmp_path / "out", tmp_path / "new"):
        before = listing(out)
        with pytest.raises(UserError, match=r"1 of 1 images could not be read, nothing is written; .*bad\.png"):
            predict_files(detector(), {"bad.png": tmp_path / "bad.png"}, out)
        assert listing(out) == before
    assert len(json.loads((tmp_path / "out/predictions.json").read_text())["images"]) == 3


def test_an_evaluation_of_the_earlier_predictions_is_not_left_beside_new_ones(tmp_path, images):
    out = tmp_path / "out"
    predict_files(detector(), images, out)
    with whole_folder(out, "irjax evaluate") as new:
        write_text(new / "evaluation.json", "{}")
    with pytest.raises(UserError, match="holds what irjax evaluate wrote"):
        predict_files(detector(), images, out)


def test_predictions_go_to_a_folder(tmp_path, images, capsys):
    with pytest.raises(SystemExit, match=r"a folder is written, and .*found\.csv looks like a file"):
        cli.main(["predict", str(tmp_path / "in"), "--model", "tophat", "--out", str(tmp_path / "found.csv")])
    assert not (tmp_path / "found.csv").exists()


def test_users_case_of_two_models_in_one_folder(shared, tmp_path):
    case = shared / "cases/stale_out"
    if not case.is_dir():
        pytest.skip("needs ../shared/cases")
    out = tmp_path / "so"
    cli.main(["predict", str(case / "images"), "--model", "tophat", "--out", str(out)])
    assert len(list((out / "masks").iterdir())) == 3
    cli.main(["predict", str(case / "images"), "--model", "spire-sirst", "--out", str(out)])
    assert not (out / "masks").exists() and (out / "predictions.json").is_file()
    cli.main(["predict", str(case / "blank"), "--model", "tophat", "--out", str(out)])
    assert not (out / "overlays").exists() and [path.name for path in (out / "masks").iterdir()] == ["0.png"]


# --- names and pages --------------------------------------------------------------------------------------------------


def test_pages_are_images_and_what_is_left_out_is_said(tmp_path):
    tifffile.imwrite(tmp_path / "seq.tif", np.zeros((3, 20, 20), np.uint8), photometric="minisblack")
    Image.fromarray(np.zeros((20, 20), np.uint8)).save(tmp_path / "a.pgm")
    (tmp_path / "clip.raw").write_bytes(b"x")
    with pytest.warns(Note, match="no images of a known kind are left out: 1 .raw"):
        found = find_images([tmp_path])
    assert list(found) == ["a.pgm", "seq_0001.tif", "seq_0002.tif", "seq_0003.tif"]
    assert [getattr(file, "page", None) for file in found.values()] == [None, 0, 1, 2]


def test_every_image_has_a_file_of_its_own(tmp_path):
    """Brackets, spaces, other letters, two endings of one stem, and folders."""
    files = ("1(1).png", "1_1_.png", "a.bmp", "a.png", "目标 3.png", "seq/01.png", "50%.png")
    for number, name in enumerate(files):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((20, 20), 10 * number, np.uint8)).save(path)
    found = find_images([tmp_path / "images"], recursive=True)
    assert set(found) == set(files)
    outcome = predict_files(detector(), found, tmp_path / "out")
    names = {"1(1)", "1_1_", "a.bmp", "a.png", "目标 3", "seq/01", "50%25"}
    written = {path.relative_to(tmp_path / "out/masks").as_posix() for path in outcome.masks}
    assert written == {f"{name}.png" for name in names} and all(path.is_file() for path in outcome.masks)


# --- sequences --------------------------------------------------------------------------------------------------------


def rows(path):
    with path.open(newline="") as file:
        return list(csv.reader(file))


def pixels(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((20, 24), np.uint8)).save(path)


def test_frames_have_sequence_and_number_and_come_in_their_order(tmp_path):
    for sequence in ("a", "b"):
        for number in (1, 2, 10):
            pixels(tmp_path / f"in/{sequence}/{number}.png")
    tifffile.imwrite(tmp_path / "in/clip.tif", np.zeros((2, 20, 24), np.uint8), photometric="minisblack")
    pixels(tmp_path / "in/still.png")
    found = find_images([tmp_path / "in"], recursive=True)
    outcome = predict_files(detector(), found, tmp_path / "out")
    header, *table = rows(tmp_path / "out/predictions.csv")
    assert header == ["name", "x", "y", "score", "sequence", "frame"]
    expected = [(f"{s}/{n}.png", s, str(n)) for s in "ab" for n in (1, 2, 10)]
    expected += [("clip_0001.tif", "clip", "1"), ("clip_0002.tif", "clip", "2"), ("still.png", "", "")]
    assert [(row[0], row[4], row[5]) for row in table] == expected
    assert {name: (place.sequence, place.frame) for name, place in outcome.places.items()} == {
        name: (sequence, int(number)) for name, sequence, number in expected[:-1]
    }
    assert {tuple(row[1:4]) for row in table} == {("5.0", "6.0", "0.8999999761581421")}
    read = read_predictions(tmp_path / "out/predictions.csv").predictions
    assert list(read) == [row[0] for row in table] and all(len(points) == 1 for points in read.values())


def test_still_images_have_the_columns_that_they_always_had(tmp_path, images):
    predict_files(detector(), images, tmp_path / "out")
    assert rows(tmp_path / "out/predictions.csv")[0] == ["name", "x", "y", "score"]
    predict_files(detector(), images, tmp_path / "out", frames=True)
    table = rows(tmp_path / "out/predictions.csv")
    assert table[0][4:] == ["sequence", "frame"] and [row[4:] for row in table[1:]] == [["in", n] for n in "012"]


def test_variables_of_matlab_files(tmp_path, images):
    scipy.io.savemat(tmp_path / "two.mat", {"a": np.zeros((20, 24, 3)), "b": np.zeros((20, 24, 5), np.uint8)})
    assert list(find_images([tmp_path], key="b")) == [f"two_{page:04d}.mat" for page in range(1, 6)]
    assert list(find_images([tmp_path])) == ["two.mat"]
    with pytest.raises(UserError, match=r"--key b names a variable of \.mat files, and none was given"):
        find_images(images.values(), key="b")
    with pytest.raises(UserError, match=r"two\.mat: 2 variables could be meant; it has a, b; say which with --key"):
        predict_files(detector(), find_images([tmp_path]), tmp_path / "out")


@pytest.fixture
def clip(tmp_path):
    """A video of 5 frames, 64x64, with a target that moves by 10 px a frame."""
    if not available():
        pytest.skip("needs imageio and imageio-ffmpeg, of the extra video")
    with video_writer(tmp_path / "in/clip.mp4", 12) as write:
        for number in range(5):
            frame = np.full((64, 64, 3), 60, np.uint8)
            frame[31:34, 10 * number + 9 : 10 * number + 12] = 250
            write(frame)
    return tmp_path / "in/clip.mp4"


def moving(images):
    """Finds the brightest pixel."""
    points = np.array([[np.unravel_index(np.argmax(image), image.shape)[::-1]] for image in images], np.float32)
    return Detections(points, np.full((len(images), 1), 0.9, np.float32), np.ones((len(images), 1), bool), None)


def test_a_video_gets_an_annotated_video(tmp_path, clip):
    outcome = predict_files(moving, find_images([clip.parent]), tmp_path / "out", overlays=2)
    written = ["overlays/0001_clip_0001.png", "overlays/0002_clip_0002.png", "overlays/clip.mp4"]
    assert listing(tmp_path / "out")[1:] == [*written, "predictions.csv", "predictions.json"]
    assert outcome.files[-1] == tmp_path / "out/overlays/clip.mp4"
    video = tmp_path / "out/overlays/clip.mp4"
    assert frame_count(video) == 5 and frame_rate(video) == 12
    for number, row in enumerate(rows(tmp_path / "out/predictions.csv")[1:]):
        assert row[0] == f"clip_{number + 1:04d}.mp4" and row[4:] == ["clip", str(number + 1)]
        np.testing.assert_allclose([float(row[1]), float(row[2])], [10 * number + 10, 32], atol=1.5)
        shown = read_stored(Frame(str(video), number)).astype(int)
        assert shown.shape == (256, 256, 3)
        green = (shown[..., 1] - shown[..., 0]) > 60
        middle = np.argwhere(green).mean(axis=0)[::-1]
        np.testing.assert_allclose(middle, [4 * (10 * number + 10.5) - 0.5, 4 * 32.5 - 0.5], atol=6)
    assert predict_files(moving, find_images([clip]), tmp_path / "out").files[2:] == ()  # no pictures, no video


def test_two_videos_of_one_name(tmp_path, clip):
    (tmp_path / "in/more").mkdir()
    (tmp_path / "in/more/clip.mp4").write_bytes(clip.read_bytes())
    (tmp_path / "in/clip.MOV").write_bytes(clip.read_bytes())
    (tmp_path / "in/bad.mp4").write_bytes(b"junk")
    found = find_images([tmp_path / "in"], recursive=True)
    outcome = predict_files(moving, found, tmp_path / "out", overlays=1)
    assert {path.relative_to(tmp_path / "out/overlays").as_posix() for path in outcome.files[3:]} == {
        "clip.mp4.mp4",
        "clip.MOV.mp4",
        "more/clip.mp4",
    }
    (reason,) = outcome.failures.values()
    assert "bad.mp4: not a readable video" in reason


def test_an_interrupted_video_leaves_nothing(tmp_path, clip):
    def interrupted(images):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_files(interrupted, find_images([clip]), tmp_path / "out", overlays=1)
    assert not (tmp_path / "out").exists()
