"""Words that read like a translation, and what to write instead; part of `make lint`.

    python -m tools.words [FILE ...]

Looks at comments, docstrings, messages, names of tests, and pages. The glossary in CONTRIBUTING.md says which
words the project uses for what.
"""

import argparse
import itertools
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
INSTEAD = {
    r"(?<!token )\bby token\b": "per token",
    r"\bat the most\b": "at most",
    r"\bat the least\b": "at least",
    r"\bin the place of\b": "in place of",
    r"\bbeside each other\b": "side by side",
    r"\bbehind (each|one an)other\b|\bone behind the other\b": "one after another",
    r"(?<!service )\bbehind (the|its|any|a|an|every|each|it|them|some|those|these)\b"
    r"(?! (API|engine protocol|attention interface)\b)": "after",
    r"\bstands? (in|at|behind|beside|before|there|together|once|where|with)\b": "is, are",
    r"\b(one|idea|once|ms|nats|rows) an? (file|line|row|token|turn|device|micro-batch)\b": "per file, per row",
    r"\bdear(er)?\b": "expensive, costs more",
    r"\bwhat (\w+ )?needs to know\b": "options of",
    r"\bfor want of\b": "because there is no",
    r"\bin the same way as\b": "like",
    r"\bto be had\b": "available",
}
"""A regular expression for each, and what is written instead."""


def findings(path: Path) -> Iterator[str]:
    """Yield a line for every such word of a file: where it is, and what to write instead."""
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, (line, following) in enumerate(itertools.pairwise([*lines, ""]), start=1):
        if line.startswith("def test_"):
            line = line.replace("_", " ")  # a test's name is a sentence
        text = f"{line} {following.lstrip(' #')}"  # what is looked for may go on in the next line
        for pattern, instead in INSTEAD.items():
            if (match := re.search(pattern, text, re.IGNORECASE)) is not None and match.start() < len(line):
                yield f"{path.relative_to(ROOT)}:{number}: {match[0]!r}: write {instead!r}"


def texts() -> list[Path]:
    """Return the files that people read."""
    folders = [ROOT / name for name in ("llmgym", "docs", "examples", "tests", "benchmarks")]
    inside = [path for folder in folders for kind in ("*.py", "*.md") for path in folder.rglob(kind)]
    ours = [path for path in inside if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)]
    return sorted([*ours, ROOT / "README.md", ROOT / "CONTRIBUTING.md"])


def main() -> int:
    """Print the findings; returns the exit code, 1 if there are some."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, help="all that people read, unless given")
    files = [path.resolve() for path in parser.parse_args().files] or texts()
    found = [line for path in files for line in findings(path)]
    print(*found, sep="\n", end="\n" if found else "")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
