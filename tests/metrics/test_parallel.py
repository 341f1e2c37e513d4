import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from irjax.metrics import PointPredictions, PointTruth, evaluate_images, parallel, protocol, sweep

SPECS = ("irjax", "basicirstd", "sctransnet")


class Files:
    """Arrays of a folder, loaded when asked; it notes which processes did."""

    def __init__(self, folder, load=np.load):
        self.folder, self.load = folder, load

    def __len__(self):
        return len(list(self.folder.glob("*.npy")))

    def __getitem__(self, index):
        (self.folder / f"loaded by {os.getpid()}").touch()
        return self.load(self.folder / f"{index:02}.npy")

    def loaders(self):
        return {int(path.name.split()[-1]) for path in self.folder.glob("loaded by *")}


class Ends(Files):
    """Its images end the process that loads them."""

    def __getitem__(self, index):
        os._exit(3)


def scene(number=18):
    random = np.random.default_rng(1)
    masks = random.random((number, 20, 22)) < 0.03
    return list(random.random(masks.shape, np.float32) * np.where(masks, 1, 0.51)), list(masks)


def saved(folder, maps):
    for number, scores in enumerate(maps):
        np.save(folder / f"{number:02}.npy", scores)
    return Files(folder)


def evaluated(*args, **options):
    return {name: (e.rows, e.names, e.mask_rules) for name, e in evaluate_images(*args, **options).items()}


def test_processes_give_the_same_in_the_same_order():
    maps, masks = scene()
    alone = evaluated(maps, masks, SPECS, processes=1)
    assert len({repr(row) for row in alone["irjax"][0]}) > 1
    assert evaluated(maps, masks, SPECS, processes=2) == alone == evaluated(maps, masks, SPECS)


def test_an_image_that_fails_in_a_worker_is_named():
    maps, masks = scene()
    maps[13] = np.full((20, 22), np.nan)
    names = [f"scene {number}" for number in range(len(maps))]
    with pytest.raises(ValueError, match="image scene 13: a predicted map must be finite"):
        evaluate_images(maps, masks, SPECS, names=names, processes=2)


def test_the_workers_load_files(tmp_path):
    maps, masks = scene()
    files = saved(tmp_path, maps)
    assert evaluated(files, masks, SPECS, processes=2) == evaluated(maps, masks, SPECS)
    assert os.getpid() not in files.loaders() and 1 <= len(files.loaders()) <= 2


def test_what_a_worker_cannot_load_is_sent(tmp_path):
    maps, masks = scene()
    files = saved(tmp_path, maps)
    files.load = lambda path: np.load(path)  # a function without a name cannot be pickled
    assert evaluated(files, masks, SPECS, processes=2) == evaluated(maps, masks, SPECS)
    assert files.loaders() == {os.getpid()}


def test_a_worker_that_ends_is_said(tmp_path):
    maps, masks = scene()
    saved(tmp_path, maps)
    with pytest.raises(RuntimeError, match="worker process ended with status 3 at the images 0 to 7"):
        evaluate_images(Ends(tmp_path), masks, processes=2)


def test_a_script_without_a_guarded_main_part(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import numpy as np\n"
        "from irjax.metrics import evaluate\n"
        "class Lazy:\n"
        "    def __len__(self):\n"
        "        return 9\n"
        "    def __getitem__(self, index):\n"
        "        return np.eye(8, dtype=bool)\n"
        "print(evaluate(Lazy(), [np.eye(8, dtype=bool)] * 9, processes=2)['irjax']['IoU'])\n"
    )
    root = pathlib.Path(parallel.__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, env=environment, timeout=120)
    assert (done.stdout, done.stderr) == ("1.0\n", "")


def test_small_sets_and_points_stay_in_this_process(monkeypatch):
    monkeypatch.setattr(parallel, "_shared", lambda *_: pytest.fail("workers were started"))
    maps, masks = scene()
    evaluate_images(maps, masks, SPECS)
    evaluate_images(maps, masks, SPECS, processes=1)
    points = [PointPredictions([(1, 1)])] * 2000
    evaluate_images(points, [PointTruth([(1, 1)], 9, 9)] * 2000, "centroid")


def test_large_sets_are_shared(monkeypatch):
    class Shared(Exception):
        pass

    def shared(job, predictions, truths, names, processes):
        raise Shared(processes)

    monkeypatch.setattr(parallel, "_shared", shared)
    monkeypatch.setattr(parallel, "processors", lambda: 7)
    large = np.broadcast_to(np.zeros((1, 1), np.float32), (5000, 512, 512))
    with pytest.raises(Shared, match="7"):
        evaluate_images(large, large, ("irjax", "basicirstd"))
    with pytest.raises(Shared, match="3"):
        evaluate_images(large, large, processes=3)
    with pytest.raises(ValueError, match="processes must be at least 1, got 0"):
        evaluate_images(large, large, processes=0)


def test_the_scale_of_integer_maps_is_that_of_the_whole_set():
    faint = np.zeros((4, 4), np.uint8)
    faint[1, 1] = 1
    truth = [faint] * 10
    assert evaluate_images([faint] * 10, truth, processes=2)["irjax"].total.matched == 10
    bright = [faint] * 9 + [faint * 255]
    assert [row.predictions for row in evaluate_images(bright, truth, processes=2)["irjax"].rows] == [0] * 9 + [1]


def test_a_sweep_in_processes():
    maps, masks = scene()
    one, two = (sweep(maps, masks, [0.3, 0.5], protocol("irjax"), processes=number) for number in (1, 2))
    np.testing.assert_array_equal(one.matched, two.matched)
    np.testing.assert_array_equal(one.false_alarms, two.false_alarms)
