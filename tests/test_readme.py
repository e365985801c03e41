"""What the README shows is what runs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import llmgym

ROOT = Path(__file__).parent.parent


def python_blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)


def test_the_custom_environment_is_the_examples_own_code() -> None:
    example = (ROOT / "examples" / "custom_env.py").read_text(encoding="utf-8")
    (block,) = [block for block in python_blocks() if "class HighCard" in block]
    assert block.strip() in example


def test_the_custom_scorer_scores() -> None:
    (block,) = [block for block in python_blocks() if "register_scorer" in block]
    namespace: dict[str, object] = {}
    exec(block, namespace)
    env = llmgym.envs.aiops.AIOpsTriage(scorer="brief")
    env.reset(seed=0)
    env.step("a")
    assert env.step("b" * 100)[1] == 0.5


def test_what_the_page_on_environments_shows_runs() -> None:
    page = (ROOT / "docs" / "environments" / "libraries.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    program = "\n".join(blocks)
    assert all(word in program for word in ("make_vec", "wrappers", "reset_mask", "step_some", '"async"', "GymEnv"))
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True)


@pytest.mark.parametrize(("name", "shown"), [("reliability.md", 30), ("security.md", 15)])
def test_the_tests_that_a_page_names_are_there(name: str, shown: int) -> None:
    page = (ROOT / "docs" / name).read_text(encoding="utf-8")
    tables = [table.splitlines() for table in page.split("\n\n") if table.startswith("|") and "shown by" in table]
    rows = [row for table in tables for row in table[2:]]
    assert len(rows) > shown
    assert all(re.search(r"`(?:tests/.+\.py|test_\w+)`|the same", row.split("|")[-2]) for row in rows)
    there = "\n".join(file.read_text(encoding="utf-8") for file in ROOT.glob("tests/**/test_*.py"))
    for test in re.findall(r"`(tests/.+?\.py|test_\w+)`", page):
        assert (ROOT / test).exists() if test.endswith(".py") else f"def {test}(" in there, test


def test_the_links_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *ROOT.glob("docs/**/*.md"), ROOT / "CONTRIBUTING.md"]:
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert link.startswith("https://") or (page.parent / link).exists(), f"{page.name}: {link}"
