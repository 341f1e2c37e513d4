"""The built wheel and source archive: what they hold, that an index takes them, and that the wheel works on its own."""

import os
import pathlib
import subprocess
import sys
import tarfile
import zipfile

import pytest

import irjax

ROOT = pathlib.Path(__file__).parents[1]


def environment(**changes):
    """The environment without this checkout on Python's path."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    return {**kept, **changes}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder of the source archive and of the wheel."""
    for needed in ("build", "hatchling"):
        pytest.importorskip(needed, reason="builds the wheel (extra test)")
    folder = tmp_path_factory.mktemp("wheel")
    options = "--sdist --wheel --no-isolation --outdir".split()
    command = [sys.executable, "-m", "build", *options, str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, env=environment(), cwd=folder)
    return folder


@pytest.fixture(scope="module")
def wheel(built):
    (path,) = built.glob("*.whl")
    return path


def listed(*places):
    """The files of the checkout below these places that git does not ignore."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *places]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if found.returncode:
        pytest.skip("needs git and a checkout, to know which files are the project's")
    return {name for name in found.stdout.splitlines() if (ROOT / name).is_file()}


def test_the_index_will_show_them(built):
    pytest.importorskip("twine", reason="checks them (extra test)")
    files = sorted(map(str, built.iterdir()))
    done = subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", *files], capture_output=True, text=True, cwd=built
    )
    assert done.returncode == 0 and done.stdout.count("PASSED") == len(files) == 2, done.stdout + done.stderr


def test_the_source_archive_holds_the_package_and_its_tests(built):
    (path,) = built.glob("*.tar.gz")
    assert path.name == f"irjax-{irjax.__version__}.tar.gz"
    with tarfile.open(path) as archive:
        files = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
    roots = ("README.md", "CHANGELOG.md", "CITATION.cff", "LICENSE", "pyproject.toml")
    assert files - {"PKG-INFO", ".gitignore"} == listed("irjax", "tests", *roots)


def test_it_holds_only_the_package(wheel):
    infos = zipfile.ZipFile(wheel).infolist()
    files = [info.filename for info in infos]
    assert {name.split("/")[0].split("-")[0] for name in files} == {"irjax"}
    assert not [name for name in files if "/__pycache__/" in name or "test" in pathlib.PurePath(name).stem.split("_")]
    endings = {pathlib.PurePath(name).suffix for name in files if name.startswith("irjax/")}
    assert endings <= {".py", ".typed", ".safetensors", ".md", ".bib", ".txt", ".html", ".css", ".js"}
    tracked = {path.relative_to(ROOT).as_posix() for path in (ROOT / "irjax").rglob("*.py")}
    assert tracked <= set(files)
    for name in (
        "py.typed",
        "reports/page/page.html",
        "reports/page/style.css",
        "reports/page/surfaces.js",
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
