"""The built wheel: what it holds, and that it works on its own."""

import os
import pathlib
import subprocess
import sys
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parents[1]


def environment(**changes):
    """The environment without this checkout on Python's path."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    return {**kept, **changes}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    for needed in ("build", "hatchling"):
        pytest.importorskip(needed, reason="builds the wheel (extra test)")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, env=environment(), cwd=folder)
    (path,) = folder.glob("*.whl")
    return path


def test_it_holds_only_the_package(wheel):
    infos = zipfile.ZipFile(wheel).infolist()
    files = [info.filename for info in infos]
    assert {name.split("/")[0].split("-")[0] for name in files} == {"irjax"}
    assert not [name for name in files if "/__pycache__/" in name or "test" in pathlib.PurePath(name).stem.split("_")]
    endings = {pathlib.PurePath(name).suffix for name in files if name.startswith("irjax/")}
    assert endings <= {".py", ".typed", ".safetensors", ".md", ".bib", ".txt"}
    tracked = {path.relative_to(ROOT).as_posix() for path in (ROOT / "irjax").rglob("*.py")}
    assert tracked <= set(files)
    for name in (
        "py.typed",
        "datasets/sirst_v2/README.md",
        "datasets/sirst_v2/CITATIONS.bib",
        "datasets/sirst_v2/TAGS.txt",
    ):
        assert f"irjax/{name}" in files
    for path in (ROOT / "irjax/weights").glob("*.safetensors"):
        assert {f"irjax/weights/{path.name}", f"irjax/weights/{path.stem}.md"} <= set(files)
    assert [name for name in files if name.endswith("licenses/LICENSE")]
    sizes = {info.filename: info.compress_size for info in infos}
    weights = {name: size for name, size in sizes.items() if name.endswith(".safetensors")}
    assert max(weights.values()) < 25e6
    assert wheel.stat().st_size - sum(weights.values()) < 1e6  # all that is not weights


def test_it_runs_outside_the_repository(wheel, tmp_path):
    target = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(target)]
    subprocess.run([*install, str(wheel)], check=True, env=environment(), cwd=tmp_path)

    def run(*arguments):
        command = [sys.executable, *arguments]
        env = environment(PYTHONPATH=str(target))
        return subprocess.run(command, check=True, capture_output=True, text=True, env=env, cwd=tmp_path).stdout

    assert run("-c", "import irjax; print(irjax.__file__)").strip() == str(target / "irjax" / "__init__.py")
    assert "--recipe" in run("-m", "irjax.experiments.spire", "--help")
    assert "predict" in run("-m", "irjax", "--help")
    listed = run("-m", "irjax", "models")
    for path in (ROOT / "irjax/weights").glob("*.safetensors"):
        assert path.stem in listed
