"""`TextEnv` turns three methods into the Gymnasium API, and says what an environment does wrong."""

import math
from collections.abc import Iterator
from typing import Any

import gymnasium
import pytest

import llmgym
from llmgym.errors import EnvironmentContractError


class Count(llmgym.TextEnv):
    """Wants the number of turns so far, three times."""

    system_prompt = "Count."

    def begin(self) -> str:
        self.episode.task = 3
        return "one"

    def respond(self, action: str) -> str | None:
        return None if len(self.episode.turns) == self.episode.task else "next"

    def score(self, episode: llmgym.Episode) -> Any:
        return {"right": sum(action == str(i) for i, action in enumerate(episode.actions, 1)) / 3}


def test_the_reward_and_its_parts_come_with_the_last_step() -> None:
    env = Count()
    assert env.reset(seed=0) == ("one", {})
    assert env.step("1") == ("next", 0.0, False, False, {})
    assert env.step("2") == ("next", 0.0, False, False, {})
    assert env.step("3") == ("", 1.0, True, False, {"right": 1.0, "success": 1.0})


def test_an_episode_that_is_too_long_is_truncated_and_still_scored() -> None:
    class Impatient(Count):
        max_turns = 2

    env = Impatient()
    env.reset(seed=0)
    env.step("1")
    observation, reward, terminated, truncated, _ = env.step("2")
    assert (observation, terminated, truncated) == ("next", False, True)
    assert reward == pytest.approx(2 / 3)


def test_what_turns_earn_counts_for_success() -> None:
    class Halves(llmgym.TextEnv):
        def begin(self) -> str:
            return "Say hello."

        def respond(self, action: str) -> llmgym.Outcome:
            return llmgym.Outcome(reward=0.5 if action == "hello" else 0.0, over=True)

        def score(self, episode: llmgym.Episode) -> float:
            return 0.5

    for action, success in (("hello", 1.0), ("no", 0.0)):
        env = Halves()
        env.reset(seed=0)
        *_, info = env.step(action)
        assert info["success"] == success


def test_without_a_top_score_no_success_is_declared_unless_it_says_what_one_is() -> None:
    class Endless(Count):
        top_score = None

    class Above(Endless):
        def succeeded(self, score: llmgym.Score) -> bool:
            return score.value is not None and score.value > 0.2

    class Judged(Endless):
        def score(self, episode: llmgym.Episode) -> llmgym.Score:
            return llmgym.Score(0.2, {"success": 1.0})

    for made, declared in ((Endless, False), (Above, True), (Judged, True), (Count, True)):
        env = made()
        env.reset(seed=0)
        for reply in "123":
            *_, info = env.step(reply)
        assert ("success" in info) == declared


def test_a_part_called_success_is_the_success() -> None:
    class Judge(Count):
        top_score = 1.0

        def score(self, episode: llmgym.Episode) -> llmgym.Score:
            return llmgym.Score(0.2, {"success": 1.0, "style": 0.2})

    env = Judge()
    env.reset(seed=0)
    env.step("1")
    env.step("2")
    assert env.step("3")[4] == {"success": 1.0, "style": 0.2}


def test_stepping_after_the_end_asks_for_a_reset() -> None:
    env = Count()
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step("1")


def test_render_shows_the_conversation() -> None:
    env = Count(render_mode="ansi")
    env.reset(seed=0)
    env.step("1")
    assert env.render() == "--- system ---\nCount.\n--- user ---\none\n--- assistant ---\n1\n--- user ---\nnext"
    assert Count().render() is None


@pytest.mark.parametrize("answer", [5, b"x", ["a"]])
def test_an_answer_that_is_no_text_is_named(answer: object) -> None:
    class Wrong(Count):
        def respond(self, action: str) -> Any:
            return answer

    env = Wrong()
    env.reset(seed=0)
    with pytest.raises(EnvironmentContractError, match=r"Wrong\.respond has to return a string.*got"):
        env.step("1")


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, None, "0.5", b"0.5", [0.5], 1j, 10**400, {"part": math.nan}, {"a": 1e308, "b": 1e308}]
)
def test_a_score_that_is_no_finite_number_is_named(value: object) -> None:
    class Wrong(Count):
        def score(self, episode: llmgym.Episode) -> Any:
            return value

    env = Wrong()
    env.reset(seed=0)
    env.step("1")
    env.step("2")
    with pytest.raises(EnvironmentContractError, match="has to return a finite number, got"):
        env.step("3")


def test_a_missing_score_is_marked_and_not_taken_for_zero() -> None:
    class Unlucky(Count):
        def score(self, episode: llmgym.Episode) -> llmgym.Score:
            return llmgym.Score(None, error="the judge was asleep")

    env = Unlucky()
    env.reset(seed=0)
    env.step("1")
    env.step("2")
    assert env.step("3") == ("", 0.0, True, False, {"score_missing": 1.0})


def test_an_action_that_is_no_text_is_refused() -> None:
    env = Count()
    env.reset(seed=0)
    with pytest.raises(EnvironmentContractError, match="An action is a string, got int: 1"):
        env.step(1)  # type: ignore[arg-type]


def test_a_scorer_replaces_the_environments_own() -> None:
    @llmgym.register_scorer("brevity-test")
    def brevity(episode: llmgym.Episode) -> float:
        return 1.0 / sum(map(len, episode.actions))

    for scorer in ("brevity-test", brevity, llmgym.FunctionScorer(brevity)):
        env = Count(scorer=scorer)
        env.reset(seed=0)
        env.step("1")
        env.step("2")
        assert env.step("34")[1] == 0.25


def test_a_scorer_object_that_returns_nonsense_is_named() -> None:
    class Judge:
        def score(self, episodes: Any) -> list[Any]:
            return [math.nan for _ in episodes]

    env = Count(scorer=Judge())
    env.reset(seed=0)
    env.step("1")
    env.step("2")
    with pytest.raises(EnvironmentContractError, match="Judge has to return a finite number, got float: nan"):
        env.step("3")


def test_an_unknown_scorer_names_the_nearest_one() -> None:
    llmgym.register_scorer("politeness")(lambda episode: 0.0)
    with pytest.raises(LookupError, match="Did you mean 'politeness'"):
        Count(scorer="polite_ness")


def test_an_environment_that_scores_nothing_is_named() -> None:
    class Silent(Count):
        score = llmgym.TextEnv.score

    with pytest.raises(EnvironmentContractError, match=r"None of 20 episodes has a score.*Silent has no score"):
        llmgym.check_env(Silent())


def test_a_mistake_that_earns_as_much_as_the_expert_is_named() -> None:
    class Careless(Count):
        def expert(self) -> Iterator[str]:
            yield from "123"

        def mistake(self) -> Iterator[str]:
            yield from "321" if self.lazy else "123"

    env = Careless()
    env.lazy = True
    llmgym.check_env(env)
    env.lazy = False
    with pytest.raises(EnvironmentContractError, match=r"The mistake earned 1.0 on seed 0, expected less"):
        llmgym.check_env(env)


def test_a_part_that_would_read_as_a_missing_score_is_refused() -> None:
    class Odd(Count):
        def score(self, episode: llmgym.Episode) -> Any:
            return {"score_missing": 1.0, "right": 1.0}

    env = Odd()
    env.reset(seed=0)
    env.step("1")
    env.step("2")
    with pytest.raises(EnvironmentContractError, match=r"return Score\(None, error='why'\)"):
        env.step("3")


def test_what_a_score_says_is_text_that_files_take() -> None:
    class Odd(Count):
        def score(self, episode: llmgym.Episode) -> Any:
            return {"tag \ud83d": 1.0}

    env = Odd()
    env.reset(seed=0)
    env.step("1")
    env.step("2")
    assert env.step("3")[4] == {"success": 1.0, "tag ?": 1.0}
    assert llmgym.Score(None, error="bad \ud800").error == "bad ?"
