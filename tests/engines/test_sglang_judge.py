"""A judge that a real SGLang serves, on a CPU: `make test-sglang`."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sglang_http import sglang_server

from llmgym import Episode, Score
from llmgym.demo import TINY_TOOLS_PATH
from llmgym.envs.waiting import settled
from llmgym.scorers import ask
from llmgym.scorers.judges.settings import from_file
from llmgym.types import Turn

pytest.importorskip("sglang")
CPU = pytest.importorskip("cpu_options").CPU

PROMPT = "You hold {reply}. Reply with check or bet."


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with sglang_server(TINY_TOOLS_PATH, CPU) as found:
        yield f"{found}/v1"


def test_it_says_what_the_embedded_engine_says_of_the_same_weights(url: str, tmp_path: Path) -> None:
    said = [f"{card}{' ' * spaces}" for card in "JQK" for spaces in range(4)] + ["nothing", ""]
    episodes = [Episode(turns=[Turn("Your card?", one)]) for one in said]
    scores: list[list[Score]] = []
    for model in (f"endpoint: {url}\nmodel: tiny-tools\n", f"model: {TINY_TOOLS_PATH}\n"):
        file = tmp_path / "judge.yaml"
        file.write_text(
            f"{model}prompt: '{PROMPT}'\nread: choice\nchoices: {{check: 0.0, bet: 1.0}}\nmax_tokens: 12\n"
            f"cache: {tmp_path / 'judge.sqlite'}\n"
        )
        scores.append(settled(ask(from_file(str(file)), episodes, [0] * len(episodes))))
        again: list[Score] = settled(ask(from_file(str(file)), episodes, [0] * len(episodes)))
        assert [one.value for one in again] == [one.value for one in scores[-1]], "the cache gives the same run twice"
        assert {one.parts["judge/calls"] for one in again if one.value is not None} == {0.0}
    served, here = scores
    assert {one.value for one in served} & {0.0, 1.0}
    assert all(one.error for one in served if one.value is None)
    assert [one.value for one in served] == [one.value for one in here]
    assert sum(one.parts["judge/tokens"] for one in served) == sum(one.parts["judge/tokens"] for one in here)
