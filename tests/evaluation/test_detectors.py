import dataclasses

import numpy as np
import pytest
from PIL import Image

from irjax.data.clutter import SceneConfig
from irjax.data.synthetic import SyntheticSource
from irjax.detector.detector import DetectorConfig
from irjax.errors import UserError
from irjax.evaluation import detectors
from irjax.evaluation.detectors import detect_source, tophat_reference
from irjax.evaluation.evaluate import Options, evaluate_files
from irjax.experiments import adsnet, mshnet, na_irstd
from irjax.types import Detections


def test_detect_source_keeps_names_sizes_and_order():
    source = SyntheticSource(SceneConfig(height=40, width=50), 0, 35)

    def detector(images):
        points = np.stack([np.full((1, 2), image[0, 0], np.float32) for image in images])
        return Detections(points, np.ones((len(images), 1), np.float32), np.ones((len(images), 1), bool))

    found, sizes = detect_source(detector, source)
    assert tuple(found) == source.names and set(sizes.values()) == {(40, 50)}
    for index in (0, 31, 34):
        assert found[source.names[index]].points[0, 0] == source[index].image[0, 0]


@dataclasses.dataclass(frozen=True)
class Renamed:
    """Scenes under names that files cannot all have."""

    source: SyntheticSource
    names: tuple[str, ...]

    def __len__(self):
        return len(self.names)

    def __getitem__(self, index):
        return dataclasses.replace(self.source[index], name=self.names[index])


class Perfect:
    """Answers with the true masks, of which the first image's is one column to the right, and with their centroids."""

    config = DetectorConfig(method="mshnet", threshold=0.5)

    def __init__(self, source):
        self.examples = [source[index] for index in range(len(source))]

    def __call__(self, images):
        masks = [example.mask.astype(np.float32) for example in self.examples]
        masks[0] = np.roll(masks[0], 1, axis=1)
        points, valid = np.zeros((len(images), 8, 2), np.float32), np.zeros((len(images), 8), bool)
        for row, example in enumerate(self.examples):
            points[row, : len(example.points)], valid[row, : len(example.points)] = example.points, True
        return Detections(points, valid.astype(np.float32), valid, np.stack(masks))


def test_masks_are_written_and_scored_by_the_names_of_their_images(tmp_path, capsys):
    scenes = SyntheticSource(SceneConfig(height=64, width=64, targets=(1, 3)), 0, 4)
    source = Renamed(scenes, ("a/b", "a b", "a_b", "scene.1"))
    report = detectors.evaluate_masks(Perfect(source), source, tmp_path / "test", title="perfect", overlays=1)
    folder = tmp_path / "test" / "masks"
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files == {"a/b.png", "a b.png", "a_b.png", "scene.1.png"}
    with Image.open(tmp_path / "test" / "masks" / "scene.1.png") as image:
        np.testing.assert_array_equal(np.asarray(image), scenes[3].mask * np.uint8(255))
    masks = [scenes[index].mask for index in range(4)]
    shifted = np.roll(masks[0], 1, axis=1)
    both, either = (np.sum(f(shifted, masks[0])) + sum(m.sum() for m in masks[1:]) for f in (np.minimum, np.maximum))
    np.testing.assert_allclose(report["metrics"]["IoU"], both / either)
    assert report["protocol"] == "irjax" and report["metrics"]["Pd"] == 1
    np.testing.assert_allclose(report["protocols"]["basicirstd"]["metrics"]["IoU"], both / either)
    low, high = report["intervals"]["IoU"]
    assert low <= report["metrics"]["IoU"] <= high == 1
    assert report["points"]["metrics"]["F1"] == 1
    printed = capsys.readouterr().out
    assert "nIoU" in printed and "basicirstd" in printed and "perfect, points" in printed
    # Masks of another, smaller data set take the place of these.
    detectors.evaluate_masks(Perfect(scenes), scenes, tmp_path / "test", title="again", overlays=0)
    assert {path.stem for path in (tmp_path / "test" / "masks").iterdir()} == set(scenes.names)


class Faint(Perfect):
    """Answers with the true masks so near to its threshold that 8 bits cannot tell targets from background."""

    config = DetectorConfig(method="mshnet", threshold=0.35)

    def __call__(self, images):
        masks = np.stack([np.where(example.mask, 0.3505, 0.3495) for example in self.examples]).astype(np.float32)
        return super().__call__(images).replace(masks=masks)


def test_figures_are_those_of_the_maps_in_memory_and_of_the_pictures(tmp_path):
    source = SyntheticSource(SceneConfig(height=64, width=64, targets=(1, 3)), 0, 4)
    report = detectors.evaluate_masks(Faint(source), source, tmp_path / "test", title="faint", overlays=0)
    assert report["metrics"]["IoU"] == 1 and report["metrics"]["Fa"] == 0
    assert report["map_rule"].startswith("float32")
    names = {path.name for path in (tmp_path / "test").iterdir()}
    assert {"masks", "points", "evaluation.json"} <= names and "maps" not in names
    from_files = evaluate_files(tmp_path / "test" / "masks", source, options=Options(threshold=0.35))
    assert from_files["protocols"]["irjax"]["metrics"] == report["metrics"]


def test_protocols_of_a_paper_are_tabled_and_printed_beside_the_common_ones(tmp_path, capsys):
    scenes = SyntheticSource(SceneConfig(height=64, width=64, targets=(1, 3)), 0, 4)
    detector = Perfect(scenes)
    for own in ((), ("na_irstd",), ("scale_loss",)):
        protocols = (*detectors.MASK_PROTOCOLS, *own)
        report = detectors.evaluate_detector(
            detector, scenes, tmp_path / f"test-{own}", title="perfect", protocols=protocols
        )
        assert tuple(report["protocols"]) == (*detectors.MASK_PROTOCOLS, *own) and report["protocol"] == "irjax"
        lines = detectors.summary("Method", report, detector, {"f1": 0.5})
        for protocol, line in zip(report["protocols"], lines, strict=False):
            values = report["protocols"][protocol]["metrics"]
            assert line.endswith(f"({protocol})") and f"Fa {values['Fa'] * 1e6:.1f}e-6" in line
            assert ("0.000 false regions an image" in line) == (protocol == "na_irstd")
        printed = capsys.readouterr().out
        assert all(name in printed for name in report["protocols"])
    of = {"na_irstd": na_irstd, "scale_loss": mshnet, "adsnet": adsnet}
    for own, module in of.items():
        assert own in module.EXPERIMENT.protocols


def test_top_hat_at_its_best_threshold():
    source = SyntheticSource(SceneConfig(height=64, width=64, targets=(1, 2), scr=(8.0, 10.0)), 0, 8)
    reference = tophat_reference(source)
    assert 0.3 < reference["f1"] <= 1 and reference["tp"] + reference["fn"] == sum(
        len(source[i].points) for i in range(8)
    )


def test_a_folder_in_use_is_refused_before_anything_is_detected(tmp_path):
    scenes = SyntheticSource(SceneConfig(height=64, width=64, targets=(1, 3)), 0, 2)
    (tmp_path / "pr.csv").write_text("the user's own")
    never = type("Never", (), {"config": Perfect.config, "__call__": lambda *_: pytest.fail("detected")})()
    for evaluate in (detectors.evaluate_masks, detectors.evaluate_points):
        with pytest.raises(UserError, match="pr.csv"):
            evaluate(never, scenes, tmp_path, title="never")
    assert (tmp_path / "pr.csv").read_text() == "the user's own"
