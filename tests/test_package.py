"""What the package promises: its outward names, light imports, and dependencies that any machine can have."""

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
    from irjax import convert, inference, metrics, models, targets

    for owner, name in (
        (irjax, "load"),
        (convert, "from_torch"),
        (inference, "Detector"),
        (inference.Detector, "module"),
        (inference.Detector, "predict_fn"),
        (metrics, "evaluate"),
        (models, "HRPE"),
        (targets, "prps"),
    ):
        assert hasattr(owner, name), f"{owner} has no {name}"


def test_versions_agree(project):
    assert project["version"] == irjax.__version__
    assert f"## {irjax.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").replace("[", "").replace(
        "]", ""
    )


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
    parts = ("models", "ops.letterbox", "targets", "losses", "training.loop", "inference", "experiments.spire", "cli")
    code = f"import sys; sys.modules.update(dict.fromkeys({absent})); import importlib\n" + "".join(
        f"importlib.import_module('irjax.{part}')\n" for part in parts
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_readme_says_how_tests_are_run():
    """The script of continuous integration takes the command from there."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    command = re.search(r"<!-- test command -->\s+```bash\n(.+?)\n```", readme, re.DOTALL)
    assert command and "pytest" in command.group(1) and "\n" not in command.group(1)
