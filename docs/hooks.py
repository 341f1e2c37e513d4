"""Hooks of mkdocs: pages that lie outside of docs/, and the API reference, one page for each folder of the package.

The same Markdown is read in the repository, so links are those of the repository; here they become links of the site.
"""

import ast
import pathlib
import posixpath
import re

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = pathlib.Path(__file__).resolve().parents[1]
OUTSIDE = ("CONTRIBUTING.md", "CHANGELOG.md", "datasets/README.md", "experiments/*/README.md")
# Pages of another name in the site: README's start is that of the site, and an index.html lies beside the other.
RENAMED = {"README.md": "index.md", "docs/browser/README.md": "browser.md"}
# Of links in text; code, and links to other places and within a page, stay as they are.
_LINK = re.compile(r"\[([^\]]*)\]\((?!https?:|#|mailto:)([^)#\s]+)(#[^)\s]*)?\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fills the navigation's list of API pages."""
    for entry in config.nav:
        if "API" in entry:
            entry["API"] = [{f"irjax.{name}" if name else "irjax": _reference(name)} for name in folders()]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages outside of docs/ and the reference."""
    for pattern in OUTSIDE:
        for path in sorted(ROOT.glob(pattern)):
            name = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, name, abs_src_path=str(path)))
    files.append(File.generated(config, "browser.md", abs_src_path=str(ROOT / "docs/browser/README.md")))
    for name, modules in folders().items():
        title = f"irjax.{name}" if name else "irjax"
        parts = [f"# {title}", *(f"::: {module}" for module in modules)]
        files.append(File.generated(config, _reference(name), content="\n\n".join(parts) + "\n"))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turns links of the repository into links of the site; those to files that are no pages become their text."""
    source = page.file.src_uri
    names = {page: name for name, page in RENAMED.items() if name.startswith("docs/")}
    place = names.get(source, source if (ROOT / source).is_file() else f"docs/{source}")

    def link(found: re.Match) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(place), found[2]))
        known = RENAMED.get(target, target.removeprefix("docs/"))
        if files.get_file_from_path(known) is None and (ROOT / target).exists():
            return found[1]
        relative = posixpath.relpath(known, posixpath.dirname(source) or ".")
        return f"[{found[1]}]({relative}{found[3] or ''})"

    return _LINK.sub(link, markdown)


def folders() -> dict[str, list[str]]:
    """Returns {folder of the package: its public modules}; "" has the modules beside the folders."""
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / "irjax").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        if any(part.startswith("_") for part in parts) or not is_documented(path):
            continue
        folder = parts[1] if len(parts) > 1 and (ROOT / "irjax" / parts[1]).is_dir() else ""
        found.setdefault(folder, []).append(".".join(parts))
    return dict(sorted(found.items()))


def is_documented(path: pathlib.Path) -> bool:
    """Returns whether a module is more than a pointer to where its names moved."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return not (ast.get_docstring(tree) or "").startswith("Moved; see")


def _reference(name: str) -> str:
    return f"reference/{name or 'irjax'}.md"
