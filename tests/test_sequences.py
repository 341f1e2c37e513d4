"""Sequences through the command line: videos, pages and folders of frames, predicted, written and scored."""

import csv
import json

import numpy as np
import pytest
import scipy.io
import tifffile
from PIL import Image

from irjax import cli
from irjax.io import video
from irjax.io.video import available, frame_rate, video_writer

SIDE = 64
needs_video = pytest.mark.skipif(not available(), reason="needs imageio and imageio-ffmpeg, of the extra video")


def run(*arguments):
    cli.main([str(argument) for argument in arguments])


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def scene(number, start=8, speed=10):
    """A frame with a target that moves, and its mask."""
    y, x = np.mgrid[:SIDE, :SIDE]
    distance = (x - start - speed * number) ** 2 + (y - 32) ** 2
    image = 60 + 8 * np.sin(x / 9 + y / 13) + 150 * np.exp(-distance / 2)
    return image.clip(0, 255).astype(np.uint8), np.where(distance <= 4, 255, 0).astype(np.uint8)


def save(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def clip(path, frames=5):
    with video_writer(path, 12) as write:
        for number in range(frames):
            write(np.repeat(scene(number)[0][..., None], 3, axis=2))
    return path


def mirsdt(root, sequences=(1, 2, 3), frames=5):
    for sequence in sequences:
        for number in range(frames):
            image, mask = scene(number, 8 + sequence)
            save(root / f"Sequence{sequence}/images/{number + 1:05d}.png", image)
            save(root / f"Sequence{sequence}/masks/{number + 1:05d}.png", mask)
    return root


@needs_video
def test_a_video_is_predicted_and_scored(tmp_path, capsys):
    out = tmp_path / "out"
    run("predict", clip(tmp_path / "clip.mp4"), "--model", "tophat", "--overlays", 1, "--out", out)
    assert "5 detections in 5 of 5 images" in (said := capsys.readouterr()).out and "1 pictures, 1 videos" in said.out
    assert said.err == ""
    rows = table(out / "predictions.csv")
    assert [(row["sequence"], row["frame"]) for row in rows] == [("clip", str(number)) for number in range(1, 6)]
    points = [[float(row["x"]), float(row["y"])] for row in rows]
    np.testing.assert_allclose(points, [[8 + 10 * number, 32] for number in range(5)], atol=1)
    assert frame_rate(out / "overlays/clip.mp4") == 12
    for number in range(5):
        save(tmp_path / f"truth/clip/masks/{number + 1:05d}.png", scene(number)[1])
        save(tmp_path / f"truth/clip/images/{number + 1:05d}.png", scene(number)[0])
        save(tmp_path / f"pages/clip_{number + 1:04d}.png", scene(number)[1])
    tifffile.imwrite(
        tmp_path / "stack.tif", np.stack([scene(number)[1] for number in range(5)]), photometric="minisblack"
    )
    (tmp_path / "stack").mkdir()
    (tmp_path / "stack.tif").rename(tmp_path / "stack/clip.tif")
    for predictions in ("predictions.csv", "predictions.json"):
        for truth in ("truth", "pages", "stack"):
            run("evaluate", "--predictions", out / predictions, "--truth", tmp_path / truth)
            assert "5 images, 5 targets" in (said := capsys.readouterr().out) and "AP 1.0000" in said
    run("evaluate", "--predictions", out / "masks", "--truth", tmp_path / "truth")
    assert "5 images, 5 targets" in capsys.readouterr().out


def test_a_split_of_sequences_is_predicted_and_scored(tmp_path, capsys):
    data = mirsdt(tmp_path / "NUDT-MIRSDT")
    (data / "test.txt").write_text("".join(f"Sequence3/Mix/{number:05d}.mat\n" for number in range(1, 6)))
    (data / "train.txt").write_text("Sequence1\nSequence2\n")
    run("datasets", "list", data)
    assert "layout sequences" in (said := capsys.readouterr().out) and "val              5 images" in said
    run("predict", data, "--split", "test", "--model", "tophat", "--out", tmp_path / "out")
    names = [image["file_name"] for image in json.loads((tmp_path / "out/predictions.json").read_text())["images"]]
    assert names == [f"Sequence3/{number:05d}.png" for number in range(1, 6)]
    for predictions in ("predictions.csv", "predictions.json", "masks"):
        run("evaluate", "--predictions", tmp_path / "out" / predictions, "--truth", data, "--split", "test")
    assert capsys.readouterr().out.count("5 images, 5 targets") == 3
    folders = [data / f"Sequence{sequence}/images" for sequence in (1, 2)]
    run("predict", *folders, "--model", "tophat", "--out", tmp_path / "both")
    rows = table(tmp_path / "both/predictions.csv")
    assert list(dict.fromkeys(row["sequence"] for row in rows)) == ["Sequence1", "Sequence2"]
    for predictions in ("predictions.csv", "predictions.json", "masks"):
        run("evaluate", "--predictions", tmp_path / "both" / predictions, "--truth", data, "--split", "trainval")
    assert capsys.readouterr().out.count("10 images, 10 targets") == 3


def test_inspection_finds_sequences_on_both_sides(tmp_path, capsys):
    data = mirsdt(tmp_path / "data")
    (data / "train.txt").write_text("Sequence1\nSequence2/00001\nSequence2/00002\n")
    (data / "val.txt").write_text("Sequence2/00003\nSequence3/00001\n")
    run("datasets", "inspect", data, "--near", "--out", tmp_path / "out")
    said = capsys.readouterr().out
    assert "1 sequences have frames in two splits that should be apart" in said
    assert "Sequence2/images: 2 frames in train, 1 in val" in said
    found = json.loads((tmp_path / "out/inspect.json").read_text())
    (pair,) = found["near_duplicates"]
    assert pair["splits"] == ["train", "val"] and pair["of"] == 2
    assert f"near duplicates: {pair['images']} of 2 images of val" in said


def test_one_folder_is_a_sequence_where_it_is_said(tmp_path):
    for number in (1, 2, 10):
        save(tmp_path / f"walk/{number}.png", scene(number % 5)[0])
    run("predict", tmp_path / "walk", "--model", "tophat", "--out", tmp_path / "out")
    assert list(table(tmp_path / "out/predictions.csv")[0]) == ["name", "x", "y", "score"]
    run("predict", tmp_path / "walk", "--frames", "--model", "tophat", "--out", tmp_path / "out")
    rows = table(tmp_path / "out/predictions.csv")
    assert list(dict.fromkeys((row["sequence"], row["frame"]) for row in rows)) == [
        ("walk", n) for n in ("1", "2", "10")
    ]


def test_frames_of_matlab(tmp_path, capsys):
    stack = np.stack([scene(number)[0] for number in range(5)], axis=2)
    scipy.io.savemat(tmp_path / "clip.mat", {"frames": stack, "mean": stack.mean(axis=2)})
    with pytest.raises(SystemExit):
        run("predict", tmp_path / "clip.mat", "--model", "tophat", "--out", tmp_path / "out")
    assert "clip.mat: 2 variables could be meant; it has frames, mean; say which with --key" in capsys.readouterr().err
    run("predict", tmp_path / "clip.mat", "--key", "frames", "--model", "tophat", "--out", tmp_path / "out")
    rows = table(tmp_path / "out/predictions.csv")
    assert [(row["name"], row["frame"]) for row in rows] == [(f"clip_{n:04d}.mat", str(n)) for n in range(1, 6)]


def test_without_the_packages(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(video, "available", lambda: False)
    (tmp_path / "in").mkdir()
    (tmp_path / "in/clip.mp4").write_bytes(b"a video")
    for given in (tmp_path / "in", tmp_path / "in/clip.mp4"):
        with pytest.raises(SystemExit) as stopped:
            run("predict", given, "--model", "tophat", "--out", tmp_path / "out")
        (line,) = capsys.readouterr().err.splitlines()[-1:]
        assert stopped.value.code == 1 and "clip.mp4" in line and "pip install 'irjax[video]'" in line
    save(tmp_path / "in/a.png", scene(0)[0])
    run("predict", tmp_path / "in", "--model", "tophat", "--out", tmp_path / "out")
    (line,) = capsys.readouterr().err.splitlines()
    assert (
        line.startswith("note: 1 videos are left out") and "clip.mp4" in line and "pip install 'irjax[video]'" in line
    )
