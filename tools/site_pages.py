"""What mkdocs makes the site of: README.md, docs/, and each file that these have links to, where they are.

A page on the site has the path that it has in the repository, so the links work in both places. Sources become pages,
and formulas become MathML, which browsers show without a script.
"""

import html
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
_LINK = re.compile(r"\]\((?![a-z]+:|#)([^)#\s]+)")
_FORMULA = re.compile(r'<(div|span) class="arithmatex">\\([\[(])(.*?)\\[\])]</\1>', re.DOTALL)


def on_config(config: MkDocsConfig) -> None:
    """Put the pages of folders into the navigation, where mkdocs.yml names folders."""
    named = {entry for entry in _entries(config.nav) if not entry.endswith("/*")}
    config.nav = _filled(config.nav, named)


def _entries(nav: Any) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    return [entry for inner in (nav.values() if isinstance(nav, dict) else nav) for entry in _entries(inner)]


def _filled(nav: Any, named: set[str]) -> Any:
    if isinstance(nav, dict):
        return {title: _filled(inner, named) for title, inner in nav.items()}
    if isinstance(nav, list):
        return [_filled(inner, named) for inner in nav]
    if not nav.endswith("/*"):
        return nav
    return sorted({str(path.relative_to(ROOT)) for path in ROOT.glob(f"{nav}.md")} - named)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Replace the files of docs/, whose paths begin there, by all files with their paths in the repository."""
    docs = Path(config.docs_dir)
    for file in [*files]:
        if file.abs_src_path is not None and docs in Path(file.abs_src_path).parents:
            files.remove(file)
    waiting = [ROOT / "README.md", *(path for path in sorted(docs.rglob("*")) if path.is_file())]
    found = set(waiting)
    while waiting:
        path = waiting.pop()
        files.append(_file(path, config))
        if path.suffix == ".md":
            linked = {(path.parent / link).resolve() for link in _LINK.findall(path.read_text(encoding="utf-8"))}
            new = {one for one in linked - found if one.is_file() and ROOT in one.parents}
            found |= new
            waiting += new
    return files


def _file(path: Path, config: MkDocsConfig) -> File:
    name = path.relative_to(ROOT).as_posix()
    if path.suffix in (".md", ".png") or Path(config.docs_dir) in path.parents:
        return File(name, str(ROOT), config.site_dir, config.use_directory_urls)
    fence = "`" * 8
    source = path.read_text(encoding="utf-8")
    text = f"---\nsearch: {{exclude: true}}\n---\n# {name}\n\n{fence}{path.suffix[1:]}\n{source}\n{fence}\n"
    return File.generated(config, f"{name}.md", content=text)


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links to sources to their pages; take GitHub's ``$`...`$`` for the formula that it is."""
    place = (ROOT / page.file.src_uri).parent

    def led(link: re.Match[str]) -> str:
        target = (place / link[1]).resolve()
        source = ROOT in target.parents and files.get_file_from_path(f"{target.relative_to(ROOT).as_posix()}.md")
        return f"{link[0]}.md" if source else link[0]

    return re.sub(r"\$`(.+?)`\$", r"$\1$", _LINK.sub(led, markdown))


def on_page_content(html_text: str, **_: Any) -> str:
    """Make MathML of formulas."""
    return _FORMULA.sub(_mathml, html_text)


def _mathml(formula: re.Match[str]) -> str:
    display = "block" if formula[2] == "[" else "inline"
    return f'<{formula[1]} class="formula">{convert(html.unescape(formula[3]), display=display)}</{formula[1]}>'
