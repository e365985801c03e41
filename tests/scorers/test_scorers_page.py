"""docs/scorers.md: every row of what you have and what you write does what it says."""

import asyncio
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from judge_server import JudgeServer
from reward_http import RewardModelServer

import llmgym
from llmgym import Episode, Score
from llmgym.agents import GRPO
from llmgym.agents.reward_model import RewardModel
from llmgym.envs.waiting import settled
from llmgym.scorers import Gated, Weighted, ask, find_scorer
from llmgym.types import Turn

PAGE = (Path(__file__).parents[2] / "docs" / "scorers.md").read_text(encoding="utf-8")
SECTION = PAGE.partition("## What you have, and what you write")[2].partition("\n## ")[0]
ROWS = re.findall(r"^\| (?!you have|---)(.+?) \| (.+) \|$", SECTION, re.MULTILINE)
BLOCKS = re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL)
NAMED = [word for _, cell in ROWS for word in re.findall(r"`(?!--)([\w:.]+)`", cell)]


def episode(said: str, turns: int = 1) -> Episode:
    heard = [Turn("Is 4 even?", said)] * turns
    return Episode(
        turns=heard, task={"answer": "yes", "tests": "assert f(1) == 1"}, scored=Score(1.0, {"success": 1.0})
    )


def scores(scorer: Any, *said: str) -> list[Score]:
    found: list[Score] = settled(ask(scorer, [episode(one, 2) for one in said], [0] * len(said)))
    return found


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put the files in place that the page speaks of."""
    monkeypatch.chdir(tmp_path)
    own = "import llmgym\n\n\n" + next(block for block in BLOCKS if "rewards.py" in block)
    verl = "\n\ndef compute_score(data_source, solution_str, ground_truth, extra_info=None):\n    return 1.0\n"
    (tmp_path / "rewards.py").write_text(own + verl)
    (tmp_path / "schema.json").write_text('{"type": "object"}')
    return tmp_path


def test_no_row_and_no_block_is_longer_than_ten_lines() -> None:
    assert len(ROWS) == 12
    assert len(BLOCKS) == 6
    assert all(len(block.splitlines()) <= 10 for block in BLOCKS)


@pytest.mark.parametrize("name", ["exact", *NAMED])
def test_each_name_of_a_row_is_a_scorer(name: str, there: Path) -> None:
    (score,) = scores(find_scorer(name)(), "yes")
    assert score.value is not None or score.error


@pytest.mark.parametrize("cell", [cell for _, cell in ROWS], ids=[have for have, _ in ROWS])
def test_each_command_of_a_row_trains(cell: str, there: Path) -> None:
    data = there / "train.jsonl"
    data.write_text('{"prompt": "Is 4 even?", "answer": "yes", "tests": "assert f(1) == 1"}\n' * 4)
    server = JudgeServer()
    (there / "judge.yaml").write_text(f"endpoint: {server.url}\nmodel: judge\nrubric: correct\n")
    rewards = RewardModelServer()
    cell = cell.replace("http://127.0.0.1:30000", rewards.url)
    if "reward_model:checkpoint" in cell:
        RewardModel(env="AIOpsTriage", steps=1, examples=8, batch_size=4, held_out=4, output_dir=there).train()
        (checkpoint,) = there.glob("reward_model-*/checkpoint")
        checkpoint.rename(there / "checkpoint")
    for command in re.findall(r"`(--scorer .+?)`", cell):
        _, scorer, *rest = shlex.split(command)
        options = {
            key.removeprefix("--").replace("-", "_"): value for key, value in zip(rest[::2], rest[1::2], strict=True)
        }
        env = {"env": "Countdown"} if "env" in scorer else {"env": "qa", "data": data}
        small = {"prompts_per_step": 2, "group_size": 2, "max_tokens": 8, "eval_episodes": 0, "output_dir": there}
        (metrics,) = GRPO(model="tiny", scorer=scorer, **env, **small, **options).train(steps=1).metrics
        assert metrics["scores_missing"] == 0
    server.close()
    rewards.close()


def test_each_block_scores(there: Path) -> None:
    known: dict[str, Any] = {"llmgym": llmgym, "asyncio": asyncio, "Gated": Gated, "Weighted": Weighted}
    for block in BLOCKS:
        exec(compile(block, "docs/scorers.md", "exec"), known)  # it is our own page
    assert scores(llmgym.FunctionScorer(known["brief"]), "yes", "no")[1].value == 1.0
    assert scores(llmgym.FunctionScorer(known["steps"]), "because")[0].rewards == [0.1, 0.1]
    assert [one.value for one in scores(find_scorer("shorter")(), "a", "bb")] == [1.0, 0.0]
    assert [one.value for one in scores(find_scorer("novel")(), "a b", "b c", "d")] == [0.5, 0.5, 1.0]
    assert scores(known["reward"], "4")[0].value == 0.0
    assert scores(known["reward"], "4")[0].parts["form"] == 1.0

    async def graded() -> list[Score]:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"%d\n" % len((await reader.readline()).strip()))
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        own = next(block for block in BLOCKS if "open_connection" in block).replace("8000", str(port))
        exec(compile(own, "docs/scorers.md", "exec"), known)  # see above
        async with server:
            found = ask(llmgym.FunctionScorer(known["judged"]), [episode("four")], [0])
            return await found  # type: ignore[misc]

    (score,) = asyncio.run(graded())
    assert score.value == 4.0
