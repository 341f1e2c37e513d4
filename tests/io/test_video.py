"""Videos: every frame once and at full depth, in any order, in little memory; and what happens without the packages."""

import subprocess
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from irjax.errors import MissingPackageError, Note, UserError
from irjax.io import images, sequences, video
from irjax.io.headers import frame_count, image_depth
from irjax.io.images import Frame, read_image

pytest.importorskip("imageio.v2", reason="needs imageio, of the extra video")
ffmpeg = pytest.importorskip("imageio_ffmpeg", reason="needs imageio-ffmpeg, of the extra video")

PIXELS = np.random.default_rng(0).integers(0, 255, (5, 64, 64), np.uint8)


def encode(path, frames, pixels="gray", *options):
    """Writes frames [T, H, W] of a pixel format; as they are with FFV1, unless the options say otherwise."""
    size = f"{frames.shape[2]}x{frames.shape[1]}"
    command = [ffmpeg.get_ffmpeg_exe(), "-v", "error", "-f", "rawvideo", "-pix_fmt", pixels, "-r", "10", "-s", size]
    options = options if "-vcodec" in options else (*options, "-vcodec", "ffv1")
    subprocess.run([*command, "-i", "-", *options, str(path)], input=frames.tobytes(), check=True)
    return path


def test_frames_in_any_order(tmp_path):
    path = encode(tmp_path / "a b%c.avi", PIXELS)
    assert frame_count(path) == 5 and video.frame_rate(path) == 10
    for number in (0, 1, 2, 4, 3, 0, 4):
        np.testing.assert_array_equal(read_image(Frame(str(path), number)), PIXELS[number])
    np.testing.assert_array_equal(read_image(path), PIXELS[0])
    with pytest.raises(UserError, match=r"a b%c\.avi: has 5 frames, no frame 6"):
        read_image(Frame(str(path), 5))


@pytest.mark.parametrize(("ending", "codec"), [("mp4", "libx264"), ("mov", "libx264"), ("webm", "libvpx-vp9")])
def test_lossy_formats(tmp_path, ending, codec):
    slope = np.add.outer(np.arange(64), np.arange(64))
    smooth = np.stack([slope + 10 * number for number in range(5)]).astype(np.uint8)
    encode(tmp_path / f"a.{ending}", smooth, "gray", "-vcodec", codec, "-pix_fmt", "yuv420p")
    found = sequences.index_images(tmp_path)
    assert list(found) == [f"a_{number:04d}" for number in range(1, 6)]
    for frame, expected in zip(found.values(), smooth, strict=True):
        image = read_image(frame)
        assert image.dtype == np.uint8 and np.abs(image.astype(int) - expected).mean() < 4


def test_more_than_8_bits_stay(tmp_path):
    deep = PIXELS.astype(np.uint16) * 257 + np.arange(64, dtype=np.uint16)
    path = encode(tmp_path / "deep.mkv", deep, "gray16le")
    assert image_depth(path) == 16
    np.testing.assert_array_equal(read_image(Frame(str(path), 3)), deep[3])
    ten = encode(tmp_path / "ten.mkv", PIXELS.astype(np.uint16) * 4, "gray10le")  # white of 10 bits becomes white
    np.testing.assert_allclose(read_image(ten), PIXELS[0] * (4 * 65535 / 1023), atol=64)


def test_colours_become_gray_as_in_pictures(tmp_path):
    colours = np.random.default_rng(1).integers(0, 255, (2, 64, 64, 3), np.uint8)
    stored = np.concatenate([colours[..., ::-1], np.zeros((2, 64, 64, 1), np.uint8)], axis=-1)
    encode(tmp_path / "c.mkv", stored, "bgr0")
    np.testing.assert_array_equal(read_image(Frame(str(tmp_path / "c.mkv"), 1)), images.to_gray(colours[1]))


def test_frames_at_uneven_times_are_read_once_each(tmp_path):
    path = encode(tmp_path / "uneven.mkv", PIXELS, "gray", "-vf", "setpts=N*N*3/(10*TB)", "-fps_mode", "vfr")
    assert frame_count(path) == 5
    for number, frame in enumerate(PIXELS):
        np.testing.assert_array_equal(read_image(Frame(str(path), number)), frame)


def test_a_long_clip_takes_little_memory(tmp_path):
    frames = np.arange(400, dtype=np.uint16).astype(np.uint8)[:, None, None] * np.ones((1, 128, 128), np.uint8)
    path = encode(tmp_path / "long.mkv", frames)
    read_image(Frame(str(path), 0))
    tracemalloc.start()
    for number in range(400):
        assert read_image(Frame(str(path), number))[5, 5] == number % 256
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < frames.nbytes / 4


def test_damaged_videos(tmp_path):
    for name, content in {"a.mp4": b"junk", "b.avi": b"RIFF\0\0\0\0AVI LIST".ljust(116, b"\0")}.items():
        (tmp_path / name).write_bytes(content)
        assert frame_count(tmp_path / name) == 1
        with pytest.raises(UserError, match=rf"{name}: not a readable video") as found:
            read_image(tmp_path / name)
        assert "\n" not in str(found.value)


def test_without_the_packages(tmp_path, monkeypatch):
    monkeypatch.setattr(video, "available", lambda: False)
    for name in ("b.mp4", "c.webm"):
        (tmp_path / name).write_bytes(b"a video")
    with pytest.raises(MissingPackageError, match=r"b\.mp4: what reads videos is not installed: pip install 'irjax\[v"):
        read_image(tmp_path / "b.mp4")
    with pytest.raises(MissingPackageError, match=r"2 videos are left out, .*irjax\[video\]'\): b\.mp4, c"):
        sequences.index_images(tmp_path)
    Image.fromarray(PIXELS[0]).save(tmp_path / "a.png")
    with pytest.warns(Note, match=r"2 videos are left out, .*irjax\[video\]'\): b\.mp4, c\.webm"):
        assert list(sequences.index_images(tmp_path)) == ["a"]
