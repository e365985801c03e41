"""An environment is played by hand in the terminal, or by its expert."""

import io
import json
from collections.abc import Iterator

import gymnasium
import pytest

import llmgym
from llmgym import cli


class Echo(llmgym.TextEnv):
    """Say the same twice."""

    system_prompt = "You are an echo."
    top_score = 1.0

    def begin(self) -> str:
        self.word = f"word {self.np_random.integers(100)} \x1b[2J [bold]"
        return f"Say {self.word!r}"

    def respond(self, action: str) -> llmgym.types.Outcome:
        done = len(self.episode.turns) == 2
        return llmgym.types.Outcome("Bye." if done else "Again.", reward=0.25, over=done)

    def score(self, episode: llmgym.Episode) -> dict[str, float] | llmgym.types.Score:
        if "none" in episode.actions:
            return llmgym.types.Score(None, error="said none \x07")
        return {"same": 0.5 * (len(set(episode.actions)) == 1)}

    def expert(self) -> Iterator[str]:
        yield from ["[red]same", "[red]same"]


@pytest.fixture(autouse=True)
def echo() -> Iterator[None]:
    llmgym.register_env("acme/Echo-v0")(Echo)
    yield
    del gymnasium.registry["acme/Echo-v0"]
    llmgym.registry._IDS.remove("acme/Echo-v0")


def typed(text: str, monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    return cli.main(["play", "acme/Echo-v0", *words])


def test_replies_end_with_an_empty_line_and_the_score_is_shown_with_its_parts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert typed("one\ntwo\n\n\none\ntwo\n\n", monkeypatch) == 0
    said = capsys.readouterr().out
    assert "system  You are an echo." in said
    assert "reward 0.25" in said
    assert "Again." in said
    assert said.index("Bye.") < said.index("terminated after 2 turns, reward 1")
    assert "    same  0.5" in said


def test_what_others_say_cannot_take_over_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert typed("none\n\nnone", monkeypatch) == 0
    said = capsys.readouterr().out
    assert "\x1b[2J" not in said
    assert "\x07" not in said
    assert "[bold]" in said
    assert "no score: said none \\x07" in said


def test_the_result_alone_is_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert typed("a\n\nb", monkeypatch, "--json", "--seed", "3") == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {
        "env": "acme/Echo-v0",
        "seed": 3,
        "row": None,
        "ending": "terminated",
        "turns": 2,
        "reward": 0.5,
        "error": None,
        "parts": {"success": 0.0, "same": 0.0},
    }
    assert "Say 'word" in err


def test_replies_that_run_out_leave_the_episode_without_a_score(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert typed("a\n", monkeypatch) == 1
    assert "Left after 1 turn, before the end: no score." in capsys.readouterr().out


def test_the_expert_is_shown_as_it_plays(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["play", "acme/Echo-v0", "--expert"]) == 0
    said = capsys.readouterr().out
    assert said.count("assistant  [red]same") == 2
    assert "reward 1" in said


def test_where_there_is_no_expert_to_show_the_reason_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["play", "KuhnPoker", "--env-kwargs", "opponent=self", "--expert"]) == 2
    assert "an expert shows how to play one" in capsys.readouterr().err


def test_a_row_of_an_environment_without_rows_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["play", "acme/Echo-v0", "--row", "3"]) == 2
    assert "--row: acme/Echo-v0 does not play the rows of a data set" in capsys.readouterr().err


def test_every_seat_is_played_and_told_what_it_is_told_first(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("bet\n\nfold\n\n" * 4))
    assert cli.main(["play", "KuhnPoker", "--env-kwargs", "opponent=self"]) == 0
    said = capsys.readouterr().out
    assert "seat 0" in said
    assert "seat 1" in said
