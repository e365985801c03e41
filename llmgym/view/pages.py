"""The files of the front end, which the package brings, and the rules that a browser is given with them."""

from importlib.resources import files

TYPES = {
    "index.html": "text/html; charset=utf-8",
    "style.css": "text/css; charset=utf-8",
    "view.js": "text/javascript; charset=utf-8",
}
"""The type of each file that pages are made of, by its name."""

RULES = "default-src 'none'; base-uri 'none'; form-action 'none'"
"""What a page may do besides what its script, style and connections are allowed: nothing."""

_SCRIPTS = ("dom", "source", "curves", "table", "tokens", "episode", "compare", "main")


def content(name: str) -> str:
    """Return a file of the front end; the script is all of its parts, one after another."""
    static = files("llmgym.view").joinpath("static")
    if name != "view.js":
        return static.joinpath(name).read_text(encoding="utf-8")
    parts = [static.joinpath("script", f"{part}.js").read_text(encoding="utf-8") for part in _SCRIPTS]
    return '"use strict";\n(() => {\n' + "\n".join(parts) + "})();\n"
