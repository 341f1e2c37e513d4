"""What mkdocs does not do by itself: pages from outside docs/, the pages of the reference, a check of what is built.

Markdown keeps the links that work in the repository; they are rewritten here for the site.
"""

from __future__ import annotations

import functools
import logging
import pathlib
import posixpath
import re
from typing import Any

import griffe
from mkdocs.structure.files import File, Files

ROOT = pathlib.Path(__file__).resolve().parents[1]
OUTSIDE = (
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "datasets/README.md",
    *(f"experiments/{name}/README.md" for name in ("spire", "mshnet", "adsnet", "na_irstd", "accelerator")),
)
# The page of a folder whose index.html is another page.
BROWSER = "docs/browser/README.md"
# What is at the places of version 0.1 with a DeprecationWarning, or has no names of its own.
_LEFT_OUT = ("irjax.inference", "irjax.weights", "irjax.moved", "irjax.__main__")
_LINK = re.compile(r"(\]\()([^)\s]+)(\))")
_LOADS = re.compile(r"<(?:script|img|iframe|source|video)\b[^>]*\bsrc=[\"']?((?:https?:)?//[^\"'\s>]+)")
_STYLES = re.compile(
    r"<link\b(?=[^>]*\brel=[\"']?(?:stylesheet|icon|preload|preconnect))[^>]*\bhref=[\"']?(//|https?:)"
)
_MATHJAX = re.compile(r"<!-- Load mathjax -->.*?<!-- End of mathjax configuration -->", re.DOTALL)
_logger = logging.getLogger("mkdocs.hooks.irjax")


@functools.cache
def package() -> griffe.Module:
    """Returns irjax as griffe reads it, without importing it."""
    found = griffe.load("irjax", search_paths=[str(ROOT)], resolve_aliases=True)
    assert isinstance(found, griffe.Module)
    return found


def modules(top: griffe.Module) -> list[griffe.Module]:
    """Returns a module and the public ones below it, depth first."""
    below = [one for one in top.modules.values() if not one.is_alias and not one.name.startswith("_")]
    return [top, *(one for module in below if module.path not in _LEFT_OUT for one in modules(module))]


def names(module: griffe.Module) -> tuple[list[str], list[str]]:
    """Returns the public names that a module defines, and those that it has from other modules of irjax."""
    own, elsewhere = [], []
    for name, member in module.members.items():
        if name.startswith("_") or (module.exports is not None and name not in module.exports):
            continue
        if not member.is_alias and not member.is_module:
            own.append(name)
        elif member.is_alias and module.exports is not None:
            elsewhere.append(name)
    return own, elsewhere


def reference_pages() -> dict[str, list[griffe.Module]]:
    """Returns the modules of each page of the reference by its name: a page for each folder, one for single files."""
    top = package()
    singles, pages = [top], {}
    for module in sorted(modules(top)[1:], key=lambda module: module.path):
        if module.parent is top and not module.is_init_module:
            singles.append(module)
        elif module.parent is top:
            pages[module.path] = modules(module)
    return {"irjax": singles, **pages}


def _text(module: griffe.Module, level: int) -> str:
    own, elsewhere = names(module)
    options = f"    options:\n      heading_level: {level}\n      members: {own or 'false'}\n"
    text = f"::: {module.path}\n{options}\n"
    if elsewhere:
        links = (f"[`{name}`][{module.members[name].canonical_path}]" for name in elsewhere)
        text += f"Names: {', '.join(links)}.\n\n"
    return text


def _index(pages: dict[str, list[griffe.Module]]) -> str:
    rows = []
    for title, found in pages.items():
        first = found[0].docstring.value.splitlines()[0] if found[0].docstring else ""
        rows.append(f"| [`{title}`]({title}.md) | {first} |")
    return (
        "# Reference\n\nEvery public name, from the docstrings.\n\n| module | |\n|---|---|\n" + "\n".join(rows) + "\n"
    )


def on_config(config: Any) -> Any:
    """Adds the reference to the navigation."""
    pages: list[Any] = [{"All modules": "reference/index.md"}]
    pages += [{title: f"reference/{title}.md"} for title in reference_pages()]
    config.nav = [*config.nav, {"Reference": pages}]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages from outside docs/ and those of the reference."""
    for path in OUTSIDE:
        files.append(File.generated(config, path, content=(ROOT / path).read_text(encoding="utf-8")))
    files.append(File.generated(config, "browser.md", content=(ROOT / BROWSER).read_text(encoding="utf-8")))
    pages = reference_pages()
    files.append(File.generated(config, "reference/index.md", content=_index(pages)))
    for title, found in pages.items():
        content = "".join(_text(module, 1 if module is found[0] else 2) for module in found)
        files.append(File.generated(config, f"reference/{title}.md", content=content))
    return files


def rewrite(markdown: str, source: str, known: Any) -> str:
    """Returns a page's text with links of the repository as links of the site.

    Args:
      markdown: the text.
      source: the page's path in the site, such as `experiments/spire/README.md`.
      known: says of a path in the site whether it is there.
    """
    place = BROWSER if source == "browser.md" else source if source in OUTSIDE else f"docs/{source}"
    folder = posixpath.dirname(place)

    def link(match: re.Match) -> str:
        path, mark, anchor = match.group(2).partition("#")
        if not path or ":" in path:
            return match.group()
        target = posixpath.normpath(posixpath.join(folder, path))
        target = {"README.md": "index.md", BROWSER: "browser.md"}.get(target, target.removeprefix("docs/"))
        if not known(target):
            return match.group()  # mkdocs warns
        return f"]({posixpath.relpath(target, posixpath.dirname(source) or '.')}{mark}{anchor})"

    return _LINK.sub(link, markdown)


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Rewrites the links of pages that are in the repository."""
    source = page.file.src_uri
    if source.startswith("reference/"):
        return markdown
    return rewrite(markdown, source, lambda path: files.get_file_from_path(path) is not None)


def from_elsewhere(html: str) -> list[str]:
    """Returns what a page would load from another host."""
    return [match.group() for pattern in (_LOADS, _STYLES) for match in pattern.finditer(html)]


def on_post_page(output: str, page: Any, config: Any) -> str:
    """Takes away what nbconvert adds to render formulas, since the notebook has none and the script is not here."""
    return _MATHJAX.sub("", output)


def on_post_build(config: Any) -> None:
    """Warns, and so ends a strict build, where a built page loads anything from another host."""
    for path in sorted(pathlib.Path(config.site_dir).rglob("*.html")):
        for found in from_elsewhere(path.read_text(encoding="utf-8")):
            _logger.warning("%s loads from another host: %s", path.relative_to(config.site_dir), found)
