"""Generated preferences: one task, two episodes, and the environment itself says which is worse."""

from collections.abc import Iterator
from pathlib import Path

import gymnasium
import pytest

import llmgym
from llmgym.data.preferences import generate_preferences, main, read_preferences
from llmgym.envs.aiops.scoring import parse_answer
from llmgym.envs.splits import FIRST_TRAINING_SEED
from llmgym.errors import ConfigError, DataError
from llmgym.types import Message


class Sums(llmgym.TextEnv):
    """Add two numbers; has an expert and no mistake of its own."""

    def __init__(self, largest: int = 9, **options: object) -> None:
        super().__init__(**options)
        self.largest = largest

    def reset(self, *, seed: int | None = None, options: dict[str, object] | None = None) -> tuple[str, dict]:
        assert seed is not None
        assert seed >= FIRST_TRAINING_SEED
        return super().reset(seed=seed, options=options)

    def begin(self) -> str:
        a, b = self.np_random.integers(1, self.largest + 1, 2)
        self.episode.task = a + b
        return f"{a} + {b} = "

    def score(self, episode: llmgym.Episode) -> float:
        return float(episode.actions[0] == str(episode.task))

    def expert(self) -> Iterator[str]:
        yield str(self.episode.task)


@pytest.fixture
def sums() -> Iterator[None]:
    llmgym.register_env("Sums-test-v0")(Sums)
    yield
    gymnasium.registry.pop("Sums-test-v0")
    llmgym.registry._IDS.remove("Sums-test-v0")


@pytest.mark.parametrize("options", [{}, {"difficulty": 3, "language": "zh"}], ids=str)
def test_the_rejected_side_is_worse_and_mostly_for_a_name_that_is_in_play(options: dict[str, object]) -> None:
    pairs = generate_preferences("AIOpsTriage", 200, seed=1, **options)
    assert len(pairs) == 200
    assert all(pair.score_chosen == pytest.approx(1.0) and pair.score_rejected < 0.99 for pair in pairs)
    plausible = 0
    for pair in pairs:
        right, wrong = parse_answer(pair.chosen[-1].content), parse_answer(pair.rejected[-1].content)
        assert right
        named = bool(wrong) and all(name in pair.prompt[1].content for name in wrong.values())
        plausible += named and wrong != right
    assert plausible > 150


def test_the_two_sides_differ_from_the_wrong_reply_on() -> None:
    for pair in generate_preferences("AIOpsTriage", 100, seed=2):
        assert pair.prompt[-1].role == "user"
        assert pair.chosen[0] != pair.rejected[0]
        if len(pair.prompt) == 2:  # system and round 1: the mistake is made there
            assert [message.role for message in pair.rejected] == ["assistant", "user", "assistant"]
            assert "root cause is" in pair.rejected[0].content
            assert pair.chosen[2] == pair.rejected[2]
        else:
            assert [message.role for message in pair.prompt] == ["system", "user", "assistant", "user"]


def test_the_same_seed_gives_the_same_pairs_and_another_seed_others() -> None:
    few = generate_preferences("AIOpsTriage", 5, seed=3)
    assert generate_preferences("AIOpsTriage", 8, seed=3)[:5] == few
    assert not set(generate_preferences("AIOpsTriage", 5, seed=4)) & set(few)


@pytest.mark.usefixtures("sums")
def test_where_an_environment_has_no_mistakes_the_answer_to_another_task_is_used() -> None:
    pairs = generate_preferences("Sums-test-v0", 50)
    assert len(pairs) == 50
    for pair in pairs:
        a, b = pair.prompt[0].content.removesuffix(" = ").split(" + ")
        assert pair.chosen == (Message("assistant", str(int(a) + int(b))),)
        assert pair.rejected != pair.chosen
        assert (pair.score_chosen, pair.score_rejected) == (1.0, 0.0)


@pytest.mark.usefixtures("sums")
def test_an_environment_in_which_nothing_is_worse_gives_up_and_says_so() -> None:
    with pytest.raises(DataError, match=r"100 tasks in a row, .*, gave no pair with a worse side"):
        generate_preferences("Sums-test-v0", 1, largest=1)


@pytest.mark.usefixtures("sums")
def test_an_environment_without_an_expert_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(Sums, "expert")
    with pytest.raises(ConfigError, match="Sums has no expert to learn from"):
        generate_preferences("Sums-test-v0", 1)


def test_the_command_writes_what_it_says_and_overwrites_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "made" / "prefs.parquet"
    arguments = ["--env", "AIOpsTriage", "--n", "20", "--out", str(out), "--env-kwargs", "difficulty=0"]
    assert main(arguments) == 0
    assert "20 preferences of AIOpsTriage" in capsys.readouterr().out
    assert read_preferences(out) == generate_preferences("AIOpsTriage", 20, difficulty=0)
    before = out.read_bytes()
    assert main(arguments) == 2
    assert "exists already" in capsys.readouterr().err
    assert out.read_bytes() == before


def test_a_name_that_promises_another_format_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--env", "AIOpsTriage", "--out", str(tmp_path / "prefs.jsonl")]) == 2
    assert "expected a name that ends in .parquet" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--env", "AIOpTriage"], "Did you mean"), (["--n", "0"], "greater than or equal to 1"),
     (["--env", "AIOpsTriage", "--env-kwargs", "dificulty=1"], "dificulty")],
)  # fmt: skip
def test_the_command_explains_what_is_wrong(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--out", str(tmp_path / "x.parquet")]) == 2
    assert message in capsys.readouterr().err


class Dice(Sums):
    """Whatever is said, the environment then says a number that nobody knows."""

    def begin(self) -> str:
        return "Say ok."

    def respond(self, action: str) -> str | None:
        return f"Now {self.np_random.integers(1000)}." if len(self.episode.turns) == 1 else None

    def score(self, episode: llmgym.Episode) -> float:
        return float(episode.actions[-1] == "ok")

    def expert(self) -> Iterator[str]:
        yield from ("ok", "ok")

    def mistake(self) -> Iterator[str]:
        yield from ("ok", "no")


class ShiftedDice(Dice):
    """Its mistakes draw before the environment does."""

    def mistake(self) -> Iterator[str]:
        self.np_random.integers(1000)
        yield from ("ok", "no")


@pytest.mark.parametrize(("cls", "refused"), [(Dice, False), (ShiftedDice, True)])
def test_both_sides_answer_what_is_in_the_prompt(cls: type[Dice], refused: bool) -> None:
    llmgym.register_env("Dice-test-v0")(cls)
    try:
        if refused:
            with pytest.raises(DataError, match="gave no pair"):
                generate_preferences("Dice-test-v0", 5)
        else:
            for pair in generate_preferences("Dice-test-v0", 5):
                assert pair.prompt[-1].content.startswith("Now ")
                assert (pair.chosen[0].content, pair.rejected[0].content) == ("ok", "no")
    finally:
        gymnasium.registry.pop("Dice-test-v0")
        llmgym.registry._IDS.remove("Dice-test-v0")
