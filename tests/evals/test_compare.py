"""`llmgym compare`: the same tasks on both sides, what does not match is named, and what flipped is shown."""

import json
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import llmgym
from llmgym.cli import main
from llmgym.data.trajectories import read_trajectories, write_trajectories
from llmgym.engines.base import Completion
from llmgym.evals.stored import in_words
from llmgym.rollout.trajectory import Ending, Trajectory
from llmgym.train.checkpoints import new_checkpoint, series_path
from llmgym.types import Message


def episode(
    seed: int,
    success: float | None = 1.0,
    reply: str = "yes",
    *,
    asked: str | None = None,
    ending: Ending = "terminated",
    **other: Any,
) -> Trajectory:
    """Return an episode of one reply, each of whose characters is a token."""
    one = Trajectory(seed, seed, ending=ending, **other)
    one.observe([1, 2])
    one.act(Completion(0, [ord(char) for char in reply], [-0.5] * len(reply), "stop", weight_version=0))
    one.messages = [Message("user", asked or f"Task {seed}?"), Message("assistant", reply)]
    if success is not None:
        one.score, one.parts = success, {"success": success, "brief": 1 / len(reply)}
    return one


def kept(path: Path, episodes: Iterable[Trajectory], **options: Any) -> str:
    """Keep episodes as an evaluation does."""
    path.mkdir(parents=True)
    (path / "settings.json").write_text(json.dumps({"env_id": "llmgym/Task-v0", **options}))
    write_trajectories(path / "episodes-0000000.parquet", list(episodes))
    return str(path)


def compared(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    """Return what the command prints as JSON, alone."""
    assert main(["compare", *words, "--json"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    found: dict[str, Any] = json.loads(printed.out)
    return found


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["compare", *words]) == 0
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["compare", *words]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    return printed.err


@pytest.fixture(scope="module")
def evaluations(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return what is kept of two evaluations of the bundled model, at two temperatures."""
    output = tmp_path_factory.mktemp("evals")
    words = ["--model", "tiny", "-n", "16", "--samples", "2", "--max-tokens", "60", "--output-dir", str(output)]
    for temperature in ("1.0", "0.4"):
        assert main(["eval", *words, "--temperature", temperature]) == 0
    both = {json.loads((one / "settings.json").read_text())["temperature"]: one for one in output.iterdir()}
    return [both[1.0], both[0.4]]


@pytest.mark.parametrize("metric", ["success", "reward", "evidence"])
def test_two_evaluations_are_compared_by_the_means_of_their_tasks(
    evaluations: list[Path], capsys: pytest.CaptureFixture[str], metric: str
) -> None:
    found = compared(capsys, *map(str, evaluations), "--metric", metric)
    means = []
    for path in evaluations:
        (file,) = path.glob("*.parquet")
        values = [one.score if metric == "reward" else one.parts[metric] for one in read_trajectories(file)]
        means.append([(values[2 * task] + values[2 * task + 1]) / 2 for task in range(16)])
    apart = [b - a for a, b in zip(*means, strict=True)]
    assert found["difference"] == pytest.approx(sum(apart) / 16)
    assert (found["first"]["mean"], found["second"]["mean"]) == pytest.approx([sum(one) / 16 for one in means])
    assert (found["test"]["won"], found["test"]["lost"]) == (sum(d > 0 for d in apart), sum(d < 0 for d in apart))
    assert found["low"] <= found["difference"] <= found["high"]
    assert (found["tasks"], found["samples"]) == (16, 2)
    assert found["options"] == {"temperature": [1.0, 0.4]}
    assert found["found"] == (found["test"]["p"] < 0.05)
    assert list(found["first"]["pass_at"]) == ["1", "2"]
    said = shown(capsys, *map(str, evaluations), "--metric", metric)
    assert ("pass@2 of success" in said) == (metric != "success")
    assert ("flipped at random)" in said) == (not found["test"]["enumerated"])


def test_the_flips_of_two_evaluations_are_where_their_tokens_part(
    evaluations: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    found = compared(capsys, *map(str, evaluations), "--show", "16")
    episodes = [read_trajectories(next(path.glob("*.parquet"))) for path in evaluations]
    assert len(found["flips"]) == found["test"]["won"] + found["test"]["lost"] > 0
    for flip in found["flips"]:
        place = 2 * int(flip["task"].removeprefix("seed ")) + flip["sample"]
        a, b = (side[place] for side in episodes)
        assert [flip["first"], flip["second"]] == [a.parts["success"], b.parts["success"]]
        part = flip["divergence"]
        at = part["token"] - 1 + a.replies[part["reply"] - 1].start
        assert a.tokens[:at] == b.tokens[:at]
        assert a.tokens[at] != b.tokens[at]
        replies = [[m.content for m in one.messages if m.role == "assistant"][part["reply"] - 1] for one in (a, b)]
        assert [part["before"] + part["first"], part["before"] + part["second"]] == replies


def test_one_sample_per_task_is_mcnemars_and_its_flips_are_side_by_side(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = kept(tmp_path / "a", [episode(s, float(s >= 8), "so yes" if s >= 8 else "so no") for s in range(20)])
    b = kept(tmp_path / "b", [episode(s, float(s != 9), "so yes" if s != 9 else "so \x1b[2J[red]") for s in range(20)])
    found = compared(capsys, a, b)
    assert (found["difference"], found["test"]["won"], found["test"]["lost"]) == (pytest.approx(0.35), 8, 1)
    assert found["test"]["p_exact"] == pytest.approx(2 * (1 + 9) / 2**9)
    assert found["found"]
    flips = {flip["task"]: flip["divergence"] for flip in found["flips"]}
    assert list(flips) == ["seed 9", "seed 0", "seed 1"]
    assert flips["seed 0"] == {"reply": 1, "token": 4, "before": "so ", "first": "no", "second": "yes"}
    said = shown(capsys, a, b)
    assert "B did better at 8 tasks, and A at 1: p = 0.0215, exact p = 0.0391 (McNemar's test)" in said
    assert "seed 9, sample 0: B lost, success 1 and 0. They part at token 4 of reply 1:" in said
    assert "so \\x1b[2J[red]" in said  # what others wrote is neither a terminal's command nor a colour


def test_what_does_not_match_is_left_out_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = kept(tmp_path / "a", [episode(s) for s in range(10)])
    b = kept(tmp_path / "b", [episode(s, 0.0, asked="Another?" if s == 4 else None) for s in range(2, 14)])
    found = compared(capsys, a, b)
    assert found["first"]["alone"] == ["seed 0", "seed 1"]
    assert found["second"]["alone"] == ["seed 10", "seed 11", "seed 12", "seed 13"]
    assert found["unlike"] == ["seed 4"]
    assert (found["tasks"], found["difference"]) == (7, -1.0)
    said = shown(capsys, a, b)
    assert "Left out, because B alone did them: seeds 10 to 13." in said
    assert "Left out, because they begin with different words: seed 4." in said


def test_a_system_prompt_is_not_the_task_s(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prompted = [episode(s, 0.0, "no") for s in range(6)]
    for one in prompted:
        one.messages.insert(0, Message("system", "Be brief."))
    found = compared(capsys, kept(tmp_path / "a", [episode(s) for s in range(6)]), kept(tmp_path / "b", prompted))
    assert (found["tasks"], found["flips"][0]["divergence"]["reply"]) == (6, 1)


def test_pass_at_k_leaves_out_the_tasks_that_the_mean_leaves_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = kept(tmp_path / "a", [episode(s, float(s > 1)) for s in range(8)])
    b = kept(tmp_path / "b", [episode(0, None, ending="env_error"), *(episode(s) for s in range(1, 8))])
    found = compared(capsys, a, b)
    assert found["without_value"] == ["seed 0"]
    assert found["first"]["pass_at"]["1"] == found["first"]["pass_hat"]["1"] == found["first"]["mean"] == 6 / 7


def test_a_missing_verdict_is_no_failure_and_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = kept(tmp_path / "a", [episode(s) for s in range(8) for _ in range(2)])
    missing = [episode(0, None, ending="env_error"), episode(0, None, score_error="it is down"), episode(1, None)]
    b = kept(tmp_path / "b", [*missing, episode(1), *(episode(s) for s in range(2, 8) for _ in range(2))])
    found = compared(capsys, a, b)
    assert (found["second"]["missing"], found["without_value"]) == (3, ["seed 0"])
    assert (found["tasks"], found["difference"], found["second"]["mean"]) == (7, 0.0, 1.0)
    said = shown(capsys, a, b)
    assert "3 episodes of B are without a value, and left out." in said
    assert "Left out, because one of the two has no success: seed 0." in said
    full = kept(tmp_path / "full", [episode(s, None, ending="context") for s in range(8)])
    assert compared(capsys, a, full)["difference"] == -1.0  # a full context is the model's own failure


def test_rows_are_the_same_task_whatever_their_seeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = kept(tmp_path / "a", [episode(s, data_row=50 + s, asked=f"Row {s}") for s in range(6)])
    b = kept(tmp_path / "b", [episode(9 - s, 0.0, "no", data_row=50 + s, asked=f"Row {s}") for s in range(6)])
    found = compared(capsys, a, b)
    assert (found["tasks"], found["flips"][0]["task"]) == (6, "row 50")


def test_it_says_how_many_tasks_a_difference_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = kept(tmp_path / "a", [episode(s, float(s % 2)) for s in range(40)])
    b = kept(tmp_path / "b", [episode(s, float(s % 3 > 0)) for s in range(40)])
    five, ten = (compared(capsys, a, b, "--difference", size)["tasks_needed"] for size in ("0.05", "0.1"))
    assert isinstance(five, int)
    assert five == pytest.approx(4 * ten, rel=0.02)
    sure = compared(capsys, a, b, "--difference", "0.05", "--power", "0.95", "--confidence", "0.99")
    assert sure["tasks_needed"] > 2 * five
    assert f"To see a difference of 0.050 with a probability of 80 % takes {five:,.0f} such tasks" in shown(
        capsys, a, b, "--difference", "0.05"
    )
    same = compared(capsys, a, a)
    assert (same["tasks_needed"], same["found"], same["flips"]) == (None, False, [])


def test_steps_of_two_runs_are_compared_by_the_episodes_that_they_learnt_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for run, won in (("a", 0.0), ("b", 1.0)):
        (tmp_path / run / "trajectories").mkdir(parents=True)
        (tmp_path / run / "config.yaml").write_text(f"learning_rate: {0.1 + won}\nenv: Task\n")
        for step in (1, 2):
            shard = tmp_path / run / "trajectories" / f"step-{step:05d}.parquet"
            write_trajectories(shard, [episode(10 * step + s, won) for s in range(8) for _ in range(4)])
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    found = compared(capsys, f"{a}@2", f"{b}@2")
    assert (found["tasks"], found["samples"], found["difference"]) == (8, 4, 1.0)
    assert found["options"] == {"learning_rate": [0.1, 1.1]}
    said = refused(capsys, f"{a}@1", f"{a}@2")
    assert f"{a}@1' has seeds 10 to 17, and '{a}@2' has seeds 20 to 27; `llmgym eval` plays several models" in said
    for step in (1, 2):
        with new_checkpoint(series_path(Path(a), step), step) as partial:
            partial.mkdir(parents=True)
    said = refused(capsys, f"{a}@1", f"{a}@2")
    assert f"`llmgym eval --model {a}@1 {a}@2` plays the weights after these steps on the same tasks" in said
    said = refused(capsys, a, f"{b}@1")
    assert "of this one those of steps 1 to 2, and not those of its evaluations" in said
    assert f"{a}@3': there is no step 3; this run keeps steps 1 to 2" in refused(capsys, f"{a}@3", f"{b}@1")


def test_two_that_are_the_same_are_told_to_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = (kept(tmp_path / name, [episode(0), episode(1, 0.0)]) for name in "ab")
    assert "A and B are the same episodes." in shown(capsys, a, a)
    assert "A and B came to the same success at every task." in shown(capsys, a, b)


def test_a_context_that_no_conversation_filled_is_no_difference(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    played = [episode(0, reply="four"), episode(1)]  # of two tokens before the reply
    a = kept(tmp_path / "a", played, context_length=7)
    assert compared(capsys, a, kept(tmp_path / "b", played, context_length=9))["options"] == {}
    filled = kept(tmp_path / "c", played, context_length=6)
    assert compared(capsys, a, filled)["options"] == {"context_length": [7, 6]}
    cut = kept(tmp_path / "d", [episode(0, ending="context"), episode(1)], context_length=9)
    assert compared(capsys, a, cut)["options"] == {"context_length": [7, 9]}


def test_mistakes_are_told_in_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = kept(tmp_path / "all" / "a", [episode(s) for s in range(6)], env_kwargs={"hard": 0})
    b = kept(tmp_path / "all" / "b", [episode(s, asked="What?") for s in range(6)], env_kwargs={"hard": 1})
    said = refused(capsys, a, b)
    assert "seeds 0 to 5 begin with different words; what differs is env_kwargs ({'hard': 0} and {'hard': 1})" in said
    assert "Did you mean 'brief'?" in refused(capsys, a, a, "--metric", "breif")
    for name in ("tiny", "nope@4"):
        assert f"{name!r}: there is no such directory" in refused(capsys, name, a)
    assert f"there are {a!r}, {b!r} in it" in refused(capsys, str(tmp_path / "all"), a)
    (tmp_path / "all" / "b" / "episodes-0000000.parquet").write_bytes(b"torn")
    assert "cannot be read" in refused(capsys, a, b)
    (tmp_path / "all" / "b" / "episodes-0000000.parquet").unlink()
    assert f"{b!r}: this evaluation has no episodes yet; repeat its command" in refused(capsys, a, b)
    refusals = {
        "--power": ["1"],
        "--confidence": ["95", f"{1 - 2**-53}"],
        "--difference": ["nan", "1e-160"],
        "--show": ["-1", "9" * 20],
    }
    for words in [[option, value] for option, values in refusals.items() for value in values]:
        with pytest.raises(SystemExit) as ended:
            main(["compare", a, a, *words])
        assert ended.value.code == 2
        assert "expected a" in capsys.readouterr().err


@llmgym.register_env("Unbounded-v0")
class Unbounded(llmgym.TextEnv):
    """The longer, the better; there is no top."""

    top_score = None

    def begin(self) -> str:
        return f"Say something about {self.np_random.integers(100)}."

    def score(self, episode: llmgym.Episode) -> float:
        return float(len(episode.actions[-1]))


def test_where_no_success_is_declared_none_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["eval", "--env", "Unbounded-v0", "--model", "tiny", "-n", "6", "--output-dir", str(tmp_path)]
    for length in ("8", "16"):
        assert main([*words, "--max-tokens", length]) == 0
        assert "the environment declares no success" in capsys.readouterr().out
    a, b = sorted(map(str, tmp_path.iterdir()))
    found = compared(capsys, a, b)
    assert (found["metric"], found["declared"], found["first"]["pass_at"]) == ("reward", False, {})
    assert "Success is not declared on both sides, so there is no pass@k." in shown(capsys, a, b)
    assert "no success is declared; expected one of reward" in refused(capsys, a, b, "--metric", "success")


def test_who_declares_no_success_has_not_failed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = kept(tmp_path / "a", [replace(episode(s), parts={"brief": 0.5}) for s in range(6)])
    b = kept(tmp_path / "b", [episode(s) for s in range(6)])
    found = compared(capsys, a, b)
    assert (found["metric"], found["declared"], found["difference"]) == ("reward", False, 0.0)


def test_help_and_its_parser_load_no_torch() -> None:
    program = "import sys; sys.argv = ['llmgym', 'compare', '--help']\nfrom llmgym.cli import main\n"
    program += "try: main()\nexcept SystemExit: print(*sys.modules)"
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert "RUN@STEP" in output
    assert not {"torch", "transformers"} & set(output.splitlines()[-1].split())


def test_many_tasks_are_named_in_few_words() -> None:
    assert in_words("seed", range(500)) == "seeds 0 to 499"
    assert in_words("seed", range(0, 40, 2)) == "seeds 0, 2, 4, 6, 8 and more"
    assert in_words("seed", []) == ""
