"""Every architecture is exact or refused in words, never wrong, and docs/models.md says which."""

from pathlib import Path

import pytest

from llmgym.compat import architectures, examine, heading, row

DOCS = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")


def test_the_documentation_has_a_line_for_every_architecture_and_no_other() -> None:
    _, _, rest = DOCS.partition(heading())
    assert rest, "docs/models.md has another table than `python -m llmgym.compat` makes"
    table = rest.partition("\n\n")[0].splitlines()
    assert [line.split("|")[1].strip() for line in table] == architectures()


@pytest.mark.slow
@pytest.mark.parametrize("name", architectures())
def test_an_architecture_is_exact_or_refused_in_words_as_the_documentation_says(name: str) -> None:
    verdicts = examine(name)
    for aspect, verdict in verdicts.items():
        assert verdict.result in ("exact", "refused", "-"), f"{aspect}: {verdict.why}"
        assert bool(verdict.why) == (verdict.result == "refused")
    assert row(name, verdicts) in DOCS
