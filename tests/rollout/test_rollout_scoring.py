"""A scorer that takes the environment's place sees whole rollouts and complete groups."""

import asyncio
import random
import time
from collections.abc import Sequence
from typing import Any

import gymnasium
import pytest
from transformers import PreTrainedTokenizerFast

import llmgym
from llmgym.config.sections import Sampling
from llmgym.engines.base import GenerationRequest
from llmgym.engines.scripted import ScriptedEngine
from llmgym.errors import ConfigError, EnvironmentContractError, UnknownNameError
from llmgym.evaluate import summarise
from llmgym.rollout.chat import ChatCodec
from llmgym.rollout.collector import Collector
from llmgym.rollout.scoring import Scoring, episode_of, kind_of
from llmgym.rollout.stopwatch import Stopwatch
from llmgym.rollout.task import Task
from llmgym.rollout.trajectory import Reply, Trajectory
from llmgym.scorers import AnyScorer, FunctionScorer, PairwiseFunctionScorer
from llmgym.scorers.expressions import resolve_scorer
from llmgym.scorers.pairwise import PairwiseScorer
from llmgym.types import Episode, Message, Score, Turn


class Talk(llmgym.TextEnv):
    """Two turns; worth 0.5, and a success where the last reply has an even length."""

    system_prompt = "Talk."

    def begin(self) -> str:
        self.episode.task = int(self.np_random.integers(100))
        return f"talk {self.episode.task}"

    def respond(self, action: str) -> str | None:
        return "more" if len(self.episode.turns) == 1 else None

    def score(self, episode: Episode) -> dict[str, float]:
        return {"half": 0.5}

    def succeeded(self, score: Score) -> bool:
        return len(self.episode.actions[-1]) % 2 == 0


def roll_out(
    tokenizer: PreTrainedTokenizerFast, scorer: AnyScorer | None, make: Any = Talk, group: int = 4
) -> list[Trajectory]:
    def reply(request: GenerationRequest) -> list[int]:
        rng = random.Random(request.seed)
        return [rng.randrange(40, 90) for _ in range(rng.randrange(1, 9))] + [tokenizer.eos_token_id]

    envs = llmgym.TextVectorEnv([make] * 3)  # fewer than tasks: an environment plays several episodes
    collector = Collector(envs, ChatCodec(tokenizer), ScriptedEngine(reply), scorer, max_failure_rate=1.0)
    return collector.collect([Task(seed, seed) for seed in range(3) for _ in range(group)], Sampling(max_tokens=9))


def last_length(episode: Episode) -> float:
    return float(len(episode.actions[-1]))


class Judge:
    """A pointwise scorer that remembers what it was asked."""

    def __init__(self) -> None:
        self.calls: list[list[Episode]] = []

    def score(self, episodes: Sequence[Episode]) -> list[Score]:
        self.calls.append(list(episodes))
        return [Score(last_length(e), {"length": last_length(e)}) for e in episodes]


def test_a_scorer_is_asked_once_for_all_episodes_of_a_rollout(tokenizer: PreTrainedTokenizerFast) -> None:
    judge = Judge()
    trajectories = roll_out(tokenizer, judge)
    (episodes,) = judge.calls
    assert [episode.messages for episode in episodes] == [trajectory.messages for trajectory in trajectories]
    for trajectory, episode in zip(trajectories, episodes, strict=True):
        assert episode.turns[0].observation == f"talk {episode.task}"
        assert trajectory.score == last_length(episode)
        assert [reply.reward for reply in trajectory.replies] == [0.0, trajectory.score]


def test_a_scorer_that_mixes_kinds_of_scores_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    def mixed(episode: Episode) -> Score:
        return Score(0.5, kind="win_rate" if len(episode.actions[0]) % 2 else "reward")

    with pytest.raises(EnvironmentContractError, match="scores of one kind, got reward and win_rate"):
        roll_out(tokenizer, FunctionScorer(mixed))


def test_an_environment_that_cannot_tell_a_success_costs_the_score_of_its_episode(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    class Unsure(llmgym.TextEnv):
        """It knows no success of odd tasks."""

        max_turns = 1

        def begin(self) -> str:
            self.episode.task = self.np_random_seed
            return str(self.episode.task)

        def succeeded(self, score: Score) -> bool:
            if self.episode.task % 2:
                raise KeyError("odd")
            return True

    trajectories = roll_out(tokenizer, Judge(), Unsure)
    for one in trajectories:
        if int(one.messages[0].content) % 2:
            assert one.score is None
            assert one.score_error is not None
            assert "KeyError: 'odd'" in one.score_error
        else:
            assert one.parts["success"] == 1.0
    assert {one.score is None for one in trajectories} == {True, False}


def test_what_the_environment_reports_stays_its_success_too(tokenizer: PreTrainedTokenizerFast) -> None:
    alone, judged = roll_out(tokenizer, None), roll_out(tokenizer, Judge())
    assert [t.tokens for t in alone] == [t.tokens for t in judged]
    for own, other in zip(alone, judged, strict=True):
        assert other.parts == {**own.parts, "length": other.score}
    assert summarise(alone).success == summarise(judged).success > 0
    assert summarise(judged).reward == sum(t.score for t in judged) / len(judged)


def test_a_scorer_cannot_overrule_what_the_environment_reports(tokenizer: PreTrainedTokenizerFast) -> None:
    class Flatterer(Judge):
        def score(self, episodes: Sequence[Episode]) -> list[llmgym.Score]:
            return [llmgym.Score(1.0, {"success": 1.0, "charm": 1.0}) for _ in episodes]

    alone, flattered = roll_out(tokenizer, None), roll_out(tokenizer, Flatterer())
    assert summarise(flattered).success == summarise(alone).success < 1
    assert all(trajectory.parts["charm"] == 1.0 for trajectory in flattered)


def test_an_environment_without_a_score_of_its_own_is_scored_by_the_scorer_alone(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    class Open(Talk):
        score = llmgym.TextEnv.score

    trajectories = roll_out(tokenizer, Judge(), Open)
    assert all(trajectory.score is not None and trajectory.score_error is None for trajectory in trajectories)
    for trajectory in roll_out(tokenizer, None, Open):
        assert trajectory.score is None
        assert trajectory.score_error == "Open has no score(episode) of its own and was given no scorer"


def test_whether_it_succeeded_is_asked_of_the_episode_that_was_scored(tokenizer: PreTrainedTokenizerFast) -> None:
    class Open(Talk):
        score = llmgym.TextEnv.score

    for trajectory in roll_out(tokenizer, Judge(), Open):
        reply = trajectory.messages[-1].content
        assert trajectory.parts["success"] == float(len(reply) % 2 == 0)


def test_a_scorer_that_fails_on_an_episode_gives_a_reason_and_no_zero(tokenizer: PreTrainedTokenizerFast) -> None:
    class Picky:
        def score(self, episodes: Sequence[Episode]) -> list[Score]:
            return [Score(None, error="odd") if len(e.actions[0]) % 2 else Score(1.0) for e in episodes]

    trajectories = roll_out(tokenizer, Picky())
    assert {trajectory.score for trajectory in trajectories} == {None, 1.0}
    for trajectory in trajectories:
        assert trajectory.score_error == (f"odd (seed {trajectory.seed})" if trajectory.score is None else None)
    seen = summarise(trajectories)
    assert seen.reward == 1.0
    assert seen.missing == sum(trajectory.score is None for trajectory in trajectories)
    assert seen.success == summarise(roll_out(tokenizer, None)).success


def test_the_reason_why_an_environment_gave_no_score_is_kept(tokenizer: PreTrainedTokenizerFast) -> None:
    class Unlucky(Talk):
        def score(self, episode: Episode) -> Score:
            return Score(None, error="the judge was asleep")

    for trajectory in roll_out(tokenizer, None, Unlucky):
        assert (trajectory.score, trajectory.score_error) == (None, "the judge was asleep")


def finished(contents: list[str], group: int) -> list[Trajectory]:
    """Trajectories whose single replies are `contents`."""
    trajectories = []
    for content in contents:
        trajectory = Trajectory(seed=group, group=group, ending="terminated", parts={"success": 1.0})
        trajectory.messages = [Message("user", f"task {group}"), Message("assistant", content)]
        trajectory.replies = [Reply(0, 1, "stop", 0, 7.0)]
        trajectories.append(trajectory)
    return trajectories


def have_scored(
    scorer: AnyScorer, trajectories: list[Trajectory], left_out: Sequence[int] = (), order: Sequence[int] | None = None
) -> None:
    """Score finished trajectories whose episodes end in an order."""

    async def end() -> None:
        for index in order or range(len(trajectories)):
            await scoring.over(index, None if index in left_out else episode_of(trajectories[index].messages))

    scoring = Scoring(scorer, trajectories, Stopwatch())
    asyncio.run(end())
    scoring.finish()


def scored_by(function: Any, trajectories: list[Trajectory], left_out: Sequence[int] = ()) -> list[float | None]:
    have_scored(llmgym.scorers.PairwiseFunctionScorer(function), trajectories, left_out)
    return [trajectory.score for trajectory in trajectories]


def longer(first: Episode, second: Episode) -> float:
    a, b = last_length(first), last_length(second)
    return 0.5 if a == b else float(a > b)


def test_a_score_by_comparison_is_the_mean_probability_of_beating_a_sibling() -> None:
    trajectories = finished(["a", "aaa", "aa", "aa"], 0) + finished(["aaaa", ""], 1)
    assert scored_by(longer, trajectories) == [0.0, 1.0, 0.5, 0.5, 1.0, 0.0]
    assert [t.replies[-1].reward for t in trajectories] == [0.0, 1.0, 0.5, 0.5, 1.0, 0.0]
    assert all(trajectory.parts == {"success": 1.0} for trajectory in trajectories)
    assert kind_of(trajectories) == "win_rate"


def test_neither_the_order_of_a_group_nor_a_liking_for_the_first_changes_a_score() -> None:
    def biased(first: Episode, second: Episode) -> float:
        return min(1.0, longer(first, second) + 0.25)

    contents = ["a", "aaa", "aa", "aaaa"]
    expected = dict(zip(contents, scored_by(biased, finished(contents, 0)), strict=True))
    for _ in range(5):
        random.shuffle(contents)
        assert scored_by(biased, finished(contents, 0)) == [pytest.approx(expected[c]) for c in contents]
    assert scored_by(lambda first, second: 1.0, finished(contents, 0)) == [0.5] * 4


def test_siblings_are_compared_with_each_other_and_with_nobody_else() -> None:
    seen = []

    def note(first: Episode, second: Episode) -> float:
        seen.append((first.turns[0].observation, second.turns[0].observation))
        return 0.5

    scored_by(note, finished(["a", "b", "c"], 0) + finished(["d", "e"], 1))
    assert len(seen) == 6 + 2
    assert all(first == second for first, second in seen)


def test_who_was_compared_with_nobody_has_no_score() -> None:
    def mute_on_b(first: Episode, second: Episode) -> float | None:
        return None if "b" in (first.actions[0], second.actions[0]) else longer(first, second)

    trajectories = finished(["a", "b", "aa", "aaa"], 0) + finished(["a"], 1)
    assert scored_by(mute_on_b, trajectories, left_out=[3]) == [0.0, None, 1.0, None, None]
    assert trajectories[1].score_error == "mute_on_b compared it with no sibling (seed 0)"


@pytest.mark.parametrize(
    ("answer", "message"),
    [(1.5, "between 0 and 1 or None, got 1.5"), ("0.5", "a finite number, got str"), (float("nan"), "got float: nan")],
)
def test_a_comparison_that_is_no_probability_tells_nothing_and_is_named(answer: object, message: str) -> None:
    def odd(first: Episode, second: Episode) -> Any:
        return answer if "b" in first.actions else longer(first, second)

    trajectories = finished(["a", "b", "aaa"], 0)
    assert scored_by(odd, trajectories) == [0.0, None, 1.0], "by the pairs that it could tell in both orders"
    trajectories = finished(["a", "b"], 0)
    assert scored_by(lambda first, second: answer, trajectories) == [None, None]
    assert all(message in str(trajectory.score_error) for trajectory in trajectories)


def test_a_scorer_that_returns_too_few_values_is_named() -> None:
    class Curt:
        def score(self, episodes: Sequence[Episode]) -> list[Score]:
            return [Score(1.0)]

    class Single:
        def compare(self, pairs: Sequence[tuple[Episode, Episode]]) -> Any:
            return 0.5

    for scorer in (Curt(), Single()):
        trajectories = finished(["a", "b"], 0)
        have_scored(scorer, trajectories)
        assert all("has to return a list of 2, " in str(trajectory.score_error) for trajectory in trajectories)
        assert all("(seed 0)" in str(trajectory.score_error) for trajectory in trajectories)


def test_a_pairwise_scorer_is_found_by_its_name_and_refused_by_a_single_environment() -> None:
    llmgym.register_pairwise_scorer("longer-test")(longer)
    scorer = llmgym.scorers.resolve_scorer("longer-test")
    assert isinstance(scorer, llmgym.PairwiseScorer)
    with pytest.raises(ConfigError, match=r"'longer-test' compares episodes.*give it to an agent"):
        Talk(scorer="longer-test")


def test_a_conversation_becomes_an_episode_again() -> None:
    episode = Episode("be brief", [Turn("a", "b"), Turn("c", "d")])
    assert episode_of(episode.messages) == episode
    episode.system_prompt = None
    assert episode_of(episode.messages) == episode


def test_a_registered_comparison_is_found_by_its_function_too() -> None:
    @llmgym.register_pairwise_scorer("shorter-test")
    def shorter(first: Episode, second: Episode) -> float:
        return float(len(first.actions[-1]) < len(second.actions[-1]))

    assert isinstance(resolve_scorer(shorter), PairwiseScorer)


def test_a_scorer_gives_each_turn_its_reward(tokenizer: PreTrainedTokenizerFast) -> None:
    def by_turn(episode: Episode) -> Score:
        rewards = [float(len(action)) for action in episode.actions]
        return Score(sum(rewards), rewards=rewards)

    class Own(Talk):
        def score(self, episode: Episode) -> Any:
            return by_turn(episode)

    class Paid(gymnasium.Wrapper[str, str, str, str]):
        """Pays for every turn, and twice as much at the end."""

        def step(self, action: str) -> Any:
            observation, reward, *rest = self.env.step(action)
            return observation, 0.25 + 2 * float(reward), *rest

    given, own = roll_out(tokenizer, FunctionScorer(by_turn)), roll_out(tokenizer, None, Own)
    for one, other in zip(given, own, strict=True):
        first, last = (float(len(m.content)) for m in one.messages if m.role == "assistant")
        assert [reply.reward for reply in one.replies] == [reply.reward for reply in other.replies] == [first, last]
        assert one.score == other.score == first + last
    for one, paid in zip(own, roll_out(tokenizer, None, lambda: Paid(Own())), strict=True):
        assert paid.score == 0.5 + 2 * one.score == sum(reply.reward for reply in paid.replies)  # type: ignore[operator]
        assert paid.replies[0].reward == 0.25 + one.replies[0].reward


@pytest.mark.parametrize("rewards", [[0.5, 0.5], [0.5]])
def test_rewards_of_turns_that_are_not_one_for_each_or_not_the_score_are_named(rewards: list[float]) -> None:
    scorer = FunctionScorer(lambda episode: Score(1.0, rewards=rewards), "judge")
    (trajectory,) = finished(["a"], 0)
    have_scored(scorer, [trajectory])
    assert "judge has to return a reward for each of 1 turns" in str(trajectory.score_error)


def test_scores_say_what_they_are_and_those_of_several_kinds_are_refused() -> None:
    def odd(episode: Episode) -> Score:
        return Score(1.0, kind="log_odds" if episode.actions == ["a"] else "reward")

    trajectories = finished(["a", "b"], 0)
    have_scored(FunctionScorer(odd), trajectories)
    assert [kind_of([trajectory]) for trajectory in trajectories] == ["log_odds", "reward"]
    with pytest.raises(EnvironmentContractError, match="scores of one kind, got log_odds and reward"):
        kind_of(trajectories)
    with pytest.raises(ValueError, match="of one of the kinds"):
        Score(1.0, kind="elo")  # type: ignore[arg-type]


async def awaiting(episode: Episode) -> float:
    await asyncio.sleep(0.1)
    return last_length(episode)


def blocking(episode: Episode) -> float:
    time.sleep(0.1)
    return last_length(episode)


blocking.blocking = True  # type: ignore[attr-defined]


class AwaitingJudge(Judge):
    async def score(self, episodes: Sequence[Episode]) -> list[Score]:  # type: ignore[override]
        await asyncio.sleep(0.1)
        return Judge.score(self, episodes)


class BlockingJudge(Judge):
    blocking = True


async def awaiting_comparison(first: Episode, second: Episode) -> float:
    await asyncio.sleep(0.1)
    return longer(first, second)


def blocking_comparison(first: Episode, second: Episode) -> float:
    time.sleep(0.1)
    return longer(first, second)


blocking_comparison.blocking = True  # type: ignore[attr-defined]


@pytest.mark.parametrize("function", [awaiting, blocking])
def test_scorers_that_wait_do_so_at_the_same_time(function: Any, tokenizer: PreTrainedTokenizerFast) -> None:
    begun = time.monotonic()
    trajectories = roll_out(tokenizer, FunctionScorer(function), group=22)
    assert time.monotonic() - begun < 3  # one after another it would be 6.6 s
    expected = roll_out(tokenizer, FunctionScorer(last_length), group=22)
    assert [trajectory.score for trajectory in trajectories] == [trajectory.score for trajectory in expected]


@pytest.mark.parametrize("function", [awaiting_comparison, blocking_comparison])
def test_comparisons_that_wait_do_so_at_the_same_time(function: Any, tokenizer: PreTrainedTokenizerFast) -> None:
    begun = time.monotonic()
    trajectories = roll_out(tokenizer, PairwiseFunctionScorer(function), group=6)
    assert time.monotonic() - begun < 3  # one after another it would be 9 s
    expected = roll_out(tokenizer, PairwiseFunctionScorer(longer), group=6)
    assert [trajectory.score for trajectory in trajectories] == [trajectory.score for trajectory in expected]


@pytest.mark.parametrize("kind", [AwaitingJudge, BlockingJudge])
def test_a_batched_scorer_that_waits_is_asked_once_too(kind: type[Judge], tokenizer: PreTrainedTokenizerFast) -> None:
    judge = kind()
    trajectories = roll_out(tokenizer, judge)
    (episodes,) = judge.calls
    assert [episode.messages for episode in episodes] == [trajectory.messages for trajectory in trajectories]
    assert [trajectory.score for trajectory in trajectories] == [last_length(episode) for episode in episodes]


def test_an_episode_is_judged_while_others_play(tokenizer: PreTrainedTokenizerFast) -> None:
    events = []

    class Watched(Talk):
        def begin(self) -> str:
            events.append("begun")
            return super().begin()

    async def judge(episode: Episode) -> float:
        await asyncio.sleep(0)
        events.append("judged")
        return 1.0

    roll_out(tokenizer, FunctionScorer(judge), Watched)
    assert events.index("judged") < len(events) - 1 - events[::-1].index("begun")


def test_in_which_order_episodes_end_changes_no_score() -> None:
    contents = ["a", "aaa", "aa", "aaaa"]
    for scorer in (
        *map(FunctionScorer, (last_length, awaiting)),
        *map(PairwiseFunctionScorer, (longer, awaiting_comparison)),
        Judge(),
        AwaitingJudge(),
    ):
        expected, shuffled = (
            finished(contents, 0) + finished(contents, 1),
            finished(contents, 0) + finished(contents, 1),
        )
        have_scored(scorer, expected)
        have_scored(scorer, shuffled, order=random.sample(range(8), 8))
        assert expected == shuffled
        assert all(trajectory.score is not None for trajectory in expected)


class OwnBaseError(BaseException):
    """One that nobody expects."""


@pytest.mark.parametrize(
    "error", [SystemExit(3), OwnBaseError("own"), asyncio.CancelledError(), StopIteration()], ids=repr
)
@pytest.mark.parametrize("kind", ["plain", "blocking", "coroutine"])
def test_whatever_a_scorer_raises_costs_scores_and_not_the_run(kind: str, error: BaseException) -> None:
    def plain(episode: Episode) -> float:
        raise error

    async def coroutine(episode: Episode) -> float:
        await asyncio.sleep(0)
        raise error

    scorer: Any = coroutine if kind == "coroutine" else plain
    scorer.blocking = kind == "blocking"
    trajectories = finished(["a", "b"], 0)
    have_scored(FunctionScorer(scorer), trajectories)
    assert [trajectory.score for trajectory in trajectories] == [None, None]
    name = type(error).__name__
    assert all(f"{kind.replace('blocking', 'plain')} raised" in str(one.score_error) for one in trajectories)
    assert all(name in str(one.score_error) or "StopIteration" in str(one.score_error) for one in trajectories)


def test_a_scorer_that_raises_costs_the_episodes_it_was_asked_of_their_scores() -> None:
    def fragile(episode: Episode) -> float:
        if episode.actions == ["b"]:
            raise KeyError("b")
        return 1.0

    async def fragile_later(episode: Episode) -> float:
        await asyncio.sleep(0)
        return fragile(episode)

    def fragile_comparison(first: Episode, second: Episode) -> float:
        return fragile(first)

    class Batched:
        def score(self, episodes: Sequence[Episode]) -> list[Score]:
            raise OSError("out of reach")

    for scorer, scores, reason in [
        (FunctionScorer(fragile), [1.0, None, 1.0, 1.0], "fragile raised KeyError: 'b'"),
        (FunctionScorer(fragile_later), [1.0, None, 1.0, 1.0], "fragile_later raised KeyError: 'b'"),
        (
            PairwiseFunctionScorer(fragile_comparison),
            [None, None, 0.5, 0.5],
            "fragile_comparison raised KeyError: 'b'",
        ),
        (Batched(), [None] * 4, "Batched raised OSError: out of reach"),
    ]:
        trajectories = finished(["a", "b"], 0) + finished(["c", "d"], 1)
        have_scored(scorer, trajectories)
        assert [trajectory.score for trajectory in trajectories] == scores
        reasons = {f"{reason} (seed 0)", f"{reason} (seed 1)"}
        assert {trajectory.score_error for trajectory in trajectories if trajectory.score is None} <= reasons


def test_a_scorer_that_does_not_wait_may_run_a_loop_of_its_own(tokenizer: PreTrainedTokenizerFast) -> None:
    class Looping(Judge):
        def score(self, episodes: Sequence[Episode]) -> list[Score]:
            asyncio.run(asyncio.sleep(0))
            return super().score(episodes)

    assert all(trajectory.score is not None for trajectory in roll_out(tokenizer, Looping()))


@pytest.mark.parametrize("function", [awaiting, blocking])
def test_an_environments_own_scorer_may_wait(function: Any, tokenizer: PreTrainedTokenizerFast) -> None:
    env = Talk(scorer=function)
    env.reset(seed=0)
    env.step("a")
    assert env.step("abc")[1] == 3.0
    for trajectory in roll_out(tokenizer, None, lambda: Talk(scorer=function), group=2):
        assert trajectory.score == len(trajectory.messages[-1].content)


def test_a_scorer_may_say_of_how_much_it_is_asked_at_once(tokenizer: PreTrainedTokenizerFast) -> None:
    for per, sizes in [("episode", [1] * 12), ("group", [4] * 3), ("rollout", [12])]:
        for kind in (Judge, AwaitingJudge):
            judge = kind()
            judge.per = per  # type: ignore[attr-defined]
            roll_out(tokenizer, judge)
            assert list(map(len, judge.calls)) == sizes


def test_a_scorer_that_says_something_odd_of_how_much_it_is_asked_at_once_is_named() -> None:
    class Odd(Judge):
        per = "week"

    with pytest.raises(EnvironmentContractError, match=r"Odd\.per has to be one of .*got 'week'"):
        have_scored(Odd(), finished(["a"], 0))


class Counting:
    def score(self, episodes: Sequence[Episode]) -> list[Score]:
        return [Score(float(len(episode.turns))) for episode in episodes]


class Preferring:
    def compare(self, pairs: Sequence[tuple[Episode, Episode]]) -> list[float]:
        return [1.0 for _ in pairs]


@pytest.mark.parametrize(
    ("register", "kind"), [(llmgym.register_scorer, Counting), (llmgym.register_pairwise_scorer, Preferring)]
)
def test_a_class_is_registered_and_given_like_a_function(register: Any, kind: type) -> None:
    assert register(f"{kind.__name__}-test")(kind) is kind
    assert isinstance(resolve_scorer(f"{kind.__name__}-test"), kind)
    assert isinstance(resolve_scorer(kind), kind)
    made = kind()
    register(f"{kind.__name__}-made")(made)
    assert resolve_scorer(f"{kind.__name__}-made") is made


@pytest.mark.parametrize("given", [type("Empty", (), {}), 3, type("Needs", (), {"__init__": lambda self, x: None})])
def test_what_can_score_nothing_is_refused_where_it_is_registered(given: Any) -> None:
    with pytest.raises(ConfigError, match="scorer"):
        llmgym.register_scorer("nothing-test")(given)
    with pytest.raises(ConfigError, match="scorer"):
        resolve_scorer(given)
    with pytest.raises(UnknownNameError, match=r"Registered: .*'my_module:name'"):
        resolve_scorer("nothing-test")
