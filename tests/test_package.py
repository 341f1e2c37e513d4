"""What the package promises: its outward names, light imports, and dependencies that any machine can have."""

import importlib
import pathlib
import re
import subprocess
import sys
import tomllib

import pytest

import irjax

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def names(requirements):
    return {re.match(r"[\w-]+(\[\w+\])?", requirement).group() for requirement in requirements}


def test_outward_names():
    from irjax import convert, detector, metrics, models, targets

    for owner, name in (
        (irjax, "load"),
        (convert, "from_torch"),
        (detector, "Detector"),
        (detector.Detector, "module"),
        (detector.Detector, "predict_fn"),
        (metrics, "evaluate"),
        (models, "HRPE"),
        (targets, "prps"),
    ):
        assert hasattr(owner, name), f"{owner} has no {name}"


# What other programs import: a name that goes from here breaks them.
PUBLIC = {
    "irjax.baselines": "BASELINES aadcdd customary_threshold decode_response detect lef tllcm tophat",
    "irjax.convert": "from_torch to_torch",
    "irjax.data": "FolderSource Order PixelCache TfdsSource carve_validation check_disjoint concatenate cut "
    "detect_layout host_batches letterbox_example list_splits load_cache network_views open_layout open_source "
    "read_image read_mask split_hash",
    "irjax.detector": "Detector DetectorConfig load",
    "irjax.labels": "FORMATS KINDS Conversion ImageLabels Labels box_centres coarse_points convert find_kind "
    "format_voc format_yolo label_mask name_rng parse_labelme parse_voc parse_yolo parse_yolo_labels point_mask "
    "read_coco_labels read_labels read_points_labels target_mask write_coco_labels write_labels write_points_labels",
    "irjax.losses": "binary_cross_entropy dice focal heatmap_mse location_loss scale_dynamic_loss scale_iou_loss "
    "scale_weight soft_iou",
    "irjax.methods": "DetectorConfig InputConfig MaskDecodeConfig Method Objective find_method mask_inputs mask_score "
    "method_names network_of options_of register",
    "irjax.metrics": "PROTOCOLS Comparison Counts Curve Evaluation Matching PixelCurve PointPredictions PointTruth "
    "Protocol ScoreHistogram Sweep SweepPoint average_precision bootstrap_intervals centroid_sweep compare count_image "
    "distinct_scores evaluate evaluate_images from_detections match protocol score_histogram sweep",
    "irjax.models": "ADSNet HRPE MSHNet NaIRSTD",
    "irjax.targets": "prps relevance",
    "irjax.types": "Batch Detections Example ImageLabels Labels SegmentationLogits Source",
}


@pytest.mark.parametrize("place", sorted(PUBLIC))
def test_public_names(place):
    module, wanted = importlib.import_module(place), PUBLIC[place].split()
    assert [name for name in wanted if not hasattr(module, name)] == []
    if hasattr(module, "__all__"):
        assert sorted(module.__all__) == sorted(wanted)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("irjax.inference:Detector", "irjax.detector:Detector"),
        ("irjax.inference:DetectorConfig", "irjax.detector:DetectorConfig"),
        ("irjax.inference:load", "irjax.detector:load"),
        ("irjax.inference:predict", "irjax.detector.inference:predict"),
        ("irjax.weights:load_weights", "irjax.detector.weights:load_weights"),
        ("irjax.weights:names", "irjax.detector.weights:names"),
        ("irjax.reports.evaluate:evaluate_files", "irjax.evaluation.evaluate:evaluate_files"),
        ("irjax.reports.evaluate:Options", "irjax.evaluation.evaluate:Options"),
        ("irjax.reports.relevance:selection_curve", "irjax.studies.relevance:selection_curve"),
        ("irjax.experiments.spire:spire_method", "irjax.methods.spire:objective"),
        ("irjax.experiments.mshnet:mshnet_method", "irjax.methods.mshnet:objective"),
        ("irjax.experiments.adsnet:adsnet_method", "irjax.methods.adsnet:objective"),
        ("irjax.experiments.na_irstd:na_irstd_method", "irjax.methods.na_irstd:objective"),
        ("irjax.experiments.na_irstd:relevance_method", "irjax.methods.na_irstd:relevance_objective"),
    ],
)
def test_names_at_their_old_places_warn(old, new):
    found = []
    for place in (old, new):
        module, _, name = place.partition(":")
        if place == old:
            with pytest.warns(DeprecationWarning, match=f"{name} is .* now"):
                found.append(getattr(importlib.import_module(module), name))
        else:
            found.append(getattr(importlib.import_module(module), name))
    assert found[0] is found[1]
    with pytest.raises(AttributeError):
        importlib.import_module(old.partition(":")[0]).no_such_name  # noqa: B018


def test_versions_agree(project):
    """The package says its version; CITATION.cff cannot take it from there."""
    assert project["dynamic"] == ["version"] and "version" not in project
    assert f"## [{irjax.__version__}]\n" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"\nversion: {irjax.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_citation_has_the_papers():
    yaml = pytest.importorskip("yaml", reason="reads CITATION.cff (comes with the extra hub)")
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["cff-version"] == "1.2.0" and cited["license"] == "Apache-2.0"
    found = {one.get("doi", one.get("url", "").rpartition("/")[2]) for one in cited["references"]}
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(found) == 4 and all(name in readme for name in found)
    assert all({"type", "title", "authors"} <= set(one) for one in [cited, *cited["references"]])


@pytest.mark.parametrize("path", sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml")), ids=lambda path: path.stem)
def test_issue_templates(path):
    """They have what forms on GitHub need, and ask for what finding a fault takes."""
    yaml = pytest.importorskip("yaml", reason="reads the forms (comes with the extra hub)")
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    if path.stem == "config":
        assert form == {"blank_issues_enabled": False}
        return
    assert {"name", "description", "body"} <= set(form)
    asked = {one["id"] for one in form["body"] if one["attributes"]["label"] and one["validations"]["required"]}
    wanted = {"bug": {"command", "environment"}, "wrong-number": {"protocol", "predictions", "version"}}
    assert wanted.get(path.stem, set()) <= asked and len(asked) == len(form["body"])


def test_hooks_before_commits_are_local():
    """They run what continuous integration does, with the tools of the environment."""
    yaml = pytest.importorskip("yaml", reason="reads .pre-commit-config.yaml (comes with the extra hub)")
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert repository["repo"] == "local" and {hook["language"] for hook in repository["hooks"]} == {"system"}
    run = (ROOT / ".ci/run").read_text(encoding="utf-8")
    assert len(repository["hooks"]) == 4 and all(hook["entry"] in run for hook in repository["hooks"])


def test_base_dependencies_need_no_accelerator_and_no_tensorflow(project):
    base = names(project["dependencies"])
    assert not base & {"tensorflow", "torch", "jax[cuda]", "jax[tpu]", "jax2onnx"}
    extras = project["optional-dependencies"]
    assert set(extras) >= {"cuda", "tpu", "torch", "onnx", "test"}
    assert names(extras["cuda"]) == {"jax[cuda]"} and names(extras["tpu"]) == {"jax[tpu]"}


def test_importing_irjax_imports_nothing_heavy():
    heavy = ("jax", "flax", "numpy", "torch", "grain", "tensorflow_datasets", "matplotlib", "scipy")
    code = f"import sys, irjax; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_a_machine_with_only_jax_can_train_and_detect():
    """What an accelerator machine may lack is imported where it is used."""
    absent = ("grain", "tensorflow_datasets", "tyro", "tensorboardX", "safetensors", "torch", "tifffile", "tensorflow")
    parts = ("models", "ops.letterbox", "targets", "losses", "training.loop", "detector", "experiments.spire", "cli")
    code = f"import sys; sys.modules.update(dict.fromkeys({absent})); import importlib\n" + "".join(
        f"importlib.import_module('irjax.{part}')\n" for part in parts
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_readme_says_how_tests_are_run():
    """The script of continuous integration takes the command from there."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    command = re.search(r"<!-- test command -->\s+```bash\n(.+?)\n```", readme, re.DOTALL)
    assert command and "pytest" in command.group(1) and "\n" not in command.group(1)
