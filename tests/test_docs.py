"""The documentation site: every page and module is in it, and pages name what exists."""

import json
import pathlib
import re
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if "node_modules" not in path.parts)


@pytest.fixture(scope="module")
def hooks():
    pytest.importorskip("mkdocs", reason="builds the site (extra docs)")
    sys.path.insert(0, str(DOCS))
    try:
        import hooks

        return hooks
    finally:
        sys.path.remove(str(DOCS))


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
    listed = [module for modules in hooks.folders().values() for module in modules]
    assert len(listed) == len(set(listed))
    for folder in (ROOT / "irjax").iterdir():
        if (folder / "__init__.py").exists():
            assert f"irjax.{folder.name}" in listed or folder.name in ("weights",), folder
    assert {"irjax.types", "irjax.metrics.evaluation", "irjax.datasets.sirst_v2"} <= set(listed)
    # Places that names have moved away from are not.
    assert not {"irjax.reports.evaluate", "irjax.inference"} & set(listed)


def test_links_of_the_repository_become_links_of_the_site(hooks):
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import File, Files
    from mkdocs.structure.pages import Page

    config = MkDocsConfig()
    config.load_dict({"site_name": "x", "docs_dir": str(DOCS), "use_directory_urls": False})
    config.validate()
    names = ("index.md", "data.md", "methods/spire.md", "browser.md", "experiments/spire/README.md", "images/spire.png")
    files = Files([File(name, str(DOCS), config.site_dir, False) for name in names])

    def turned(source, text):
        return hooks.on_page_markdown(text, Page(None, files.get_file_from_path(source), config), config, files)

    assert turned("data.md", "[a](../README.md), [b](../experiments/spire/README.md#x)") == (
        "[a](index.md), [b](experiments/spire/README.md#x)"
    )
    assert turned("methods/spire.md", "![p](../images/spire.png)") == "![p](../images/spire.png)"
    assert turned("experiments/spire/README.md", "[d](../../docs/data.md) [p](../../pyproject.toml)") == (
        "[d](../../data.md) p"
    )
    assert turned("browser.md", "[x](../data.md) [y](https://a.b/c.md) [z](#z)") == (
        "[x](data.md) [y](https://a.b/c.md) [z](#z)"
    )
