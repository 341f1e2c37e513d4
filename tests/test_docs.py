"""The documentation site: every page and module is in it, and pages name what exists."""

import importlib.util
import json
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
DOCS = ROOT / "docs"
if not DOCS.is_dir():
    pytest.skip("the documentation is in the repository alone", allow_module_level=True)
PAGES = sorted(path for path in DOCS.rglob("*.md") if "node_modules" not in path.parts)


@pytest.fixture(scope="module")
def hooks():
    for package in ("mkdocs", "griffe"):
        pytest.importorskip(package, reason="builds the site (extra docs)")
    spec = importlib.util.spec_from_file_location("irjax_docs_hooks", DOCS / "hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_page_is_in_the_navigation():
    nav = set(re.findall(r"^ +- [^:\n]+: (\S+\.(?:md|ipynb))$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    assert {page.relative_to(DOCS).as_posix() for page in PAGES} - {"browser/README.md"} <= nav
    assert {"tutorial.ipynb", "browser.md", "datasets/README.md"} <= nav
    outside = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("experiments/*/README.md")}
    assert outside and outside <= nav


def test_the_notebook_is_stored_without_outputs():
    cells = json.loads((DOCS / "tutorial.ipynb").read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert len(code) > 5 and not any(cell["outputs"] or cell["execution_count"] for cell in code)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_and_pictures_exist(page):
    for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_every_module_is_in_the_reference(hooks):
    shown = [module.path for found in hooks.reference_pages().values() for module in found]
    files = [path.relative_to(ROOT).with_suffix("") for path in (ROOT / "irjax").rglob("*.py")]
    modules = {".".join(path.parts).removesuffix(".__init__") for path in files}
    missing = {name for name in modules - set(shown) if "._" not in name}
    assert len(shown) == len(set(shown))
    assert missing == {"irjax.inference", "irjax.weights", "irjax.moved"}


def test_names_of_the_reference(hooks):
    package = hooks.package()
    own, elsewhere = hooks.names(package["metrics"])
    assert own == [] and {"evaluate", "PROTOCOLS", "Sweep"} <= set(elsewhere)
    own, elsewhere = hooks.names(package["data.synthetic"])
    assert "SyntheticSource" in own and elsewhere == []
    assert "SceneConfig" not in own  # imported


@pytest.mark.parametrize(
    ("source", "link", "wanted"),
    [
        ("data.md", "formats.md#masks", "formats.md#masks"),
        ("index.md", "../experiments/spire/README.md", "experiments/spire/README.md"),
        ("methods/spire.md", "../../experiments/spire/README.md", "../experiments/spire/README.md"),
        ("methods/spire.md", "../images/spire.png", "../images/spire.png"),
        ("experiments/mshnet/README.md", "../../docs/scale-loss.md", "../../scale-loss.md"),
        ("browser.md", "../data.md", "data.md"),
        ("data.md", "browser/README.md", "browser.md"),
        ("data.md", "../README.md", "index.md"),
        ("data.md", "https://arxiv.org/abs/1", "https://arxiv.org/abs/1"),
        ("data.md", "nowhere.md", "nowhere.md"),  # mkdocs warns
    ],
)
def test_links_of_the_repository_become_links_of_the_site(hooks, source, link, wanted):
    known = {"data.md", "formats.md", "index.md", "scale-loss.md", "browser.md", "images/spire.png", *hooks.OUTSIDE}
    assert hooks.rewrite(f"[a]({link})", source, known.__contains__) == f"[a]({wanted})"


@pytest.mark.parametrize(
    ("html", "found"),
    [
        ('<script src="https://unpkg.com/x.js"></script>', 1),
        ("<img alt=a src=//example.org/a.png>", 1),
        ('<link rel="stylesheet" href="https://fonts.example/css">', 1),
        ('<a href="https://arxiv.org/abs/1">paper</a> <script src="assets/a.js"></script> <img src="a.png">', 0),
    ],
)
def test_what_pages_load_from_other_hosts_is_found(hooks, html, found):
    assert len(hooks.from_elsewhere(html)) == found
