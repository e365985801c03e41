"""The collector plays whole episodes without barriers, and tokens are the record."""

import math
import random
from typing import Any

import gymnasium
import numpy as np
import pytest
from transformers import PreTrainedModel, PreTrainedTokenizerFast

import llmgym
from llmgym.config.sections import Sampling
from llmgym.engines.base import Completion, GenerationRequest
from llmgym.engines.local.engine import LocalEngine
from llmgym.engines.scripted import ScriptedEngine
from llmgym.errors import ConfigError, ContextOverflowError, EnvironmentContractError, StaleCompletionError
from llmgym.rollout.chat import ChatCodec
from llmgym.rollout.collector import Collector
from llmgym.rollout.task import Task


class Chatter(llmgym.TextEnv):
    """Talks for one to four turns, by its seed."""

    system_prompt = "Talk."

    def begin(self) -> str:
        self.episode.task = int(self.np_random.integers(1, 5))
        return f"talk {self.episode.task}"

    def respond(self, action: str) -> str | None:
        left = self.episode.task - len(self.episode.turns)
        return f"heard {action!r}, {left} left" if left else None

    def score(self, episode: llmgym.Episode) -> float:
        return float(len(episode.turns))


def envs(count: int, make: Any = Chatter) -> llmgym.TextVectorEnv:
    return llmgym.TextVectorEnv([make] * count)


def talkative(tokenizer: PreTrainedTokenizerFast, **options: Any) -> ScriptedEngine:
    end = tokenizer.eos_token_id

    def reply(request: GenerationRequest) -> list[int]:
        rng = random.Random(request.seed)
        return [rng.randrange(40, 90) for _ in range(rng.randrange(1, 9))] + [end]

    return ScriptedEngine(reply, **options)


@pytest.mark.parametrize("env_count", [1, 3, 20])
def test_masks_mark_exactly_the_sampled_tokens_stop_tokens_included(
    tokenizer: PreTrainedTokenizerFast, env_count: int
) -> None:
    codec = ChatCodec(tokenizer)
    engine = talkative(tokenizer)
    tasks = [Task(seed=seed, group=seed) for seed in range(20)]
    trajectories = Collector(envs(env_count), codec, engine).collect(tasks, Sampling(max_tokens=5))
    assert [trajectory.seed for trajectory in trajectories] == list(range(20))
    assert engine.released == set(range(20))
    for trajectory in trajectories:
        assert len(trajectory.tokens) == len(trajectory.mask) == len(trajectory.log_probs)
        sampled = [i for reply in trajectory.replies for i in range(reply.start, reply.stop)]
        assert [i for i, is_sampled in enumerate(trajectory.mask) if is_sampled] == sampled
        for reply in trajectory.replies:
            stopped = trajectory.tokens[reply.stop - 1] == tokenizer.eos_token_id
            assert (reply.finish_reason == "stop") == stopped
        assert trajectory.ending == "terminated"
        assert trajectory.score == len(trajectory.replies)
        assert [m.content for m in trajectory.messages if m.role == "assistant"] == [
            codec.text(trajectory.tokens[reply.start : reply.stop]) for reply in trajectory.replies
        ]


def test_an_environment_gives_back_what_its_episode_holds_however_it_ends(tokenizer: PreTrainedTokenizerFast) -> None:
    held: list[int] = []

    class Holding(Chatter):
        def begin(self) -> str:
            held.append(id(self))
            return super().begin()

        def release_episode(self) -> None:
            held.remove(id(self))
            super().release_episode()

    collector = Collector(envs(3, Holding), ChatCodec(tokenizer), talkative(tokenizer, context_length=60))
    trajectories = collector.collect([Task(seed, seed) for seed in range(20)], Sampling(max_tokens=64))
    assert {trajectory.ending for trajectory in trajectories} == {"terminated", "context"}
    assert not held


def test_the_tokens_between_replies_are_the_templates_own(tokenizer: PreTrainedTokenizerFast) -> None:
    codec = ChatCodec(tokenizer)
    for trajectory in Collector(envs(4), codec, talkative(tokenizer)).collect(
        [Task(seed, seed) for seed in range(12)], Sampling(max_tokens=64)
    ):
        chat = [{"role": m.role, "content": m.content} for m in trajectory.messages]
        whole = tokenizer.apply_chat_template(chat, tokenize=False)
        assert tokenizer.decode(trajectory.tokens) + "\n" == whole


def test_the_order_in_which_replies_finish_changes_no_episode(tokenizer: PreTrainedTokenizerFast) -> None:
    codec = ChatCodec(tokenizer)
    tasks = [Task(seed, seed) for seed in range(15)]
    runs = [
        Collector(envs(count), codec, talkative(tokenizer, order=order)).collect(tasks, Sampling(max_tokens=8))
        for count, order in [(15, list), (15, lambda waiting: waiting[-1:]), (2, lambda waiting: waiting[:1])]
    ]
    assert runs[0] == runs[1] == runs[2]


def test_a_slow_reply_holds_nobody_up(tokenizer: PreTrainedTokenizerFast) -> None:
    codec = ChatCodec(tokenizer)
    history: list[int] = []

    def all_but_the_first_episode(waiting: list[GenerationRequest]) -> list[GenerationRequest]:
        history.extend(request.request_id for request in waiting)
        return [request for request in waiting if request.request_id != 0] or waiting

    engine = talkative(tokenizer, order=all_but_the_first_episode)
    seeds = [seed for seed in range(40) if (env := Chatter()).reset(seed=seed) and env.episode.task == 4][:3]
    trajectories = Collector(envs(3), codec, engine).collect([Task(s, s) for s in seeds], Sampling(max_tokens=8))
    assert all(len(trajectory.replies) == 4 for trajectory in trajectories)
    assert history.count(0) > 4  # it waited in every round while the others finished all their turns


def test_siblings_that_see_different_tasks_are_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    class Moody(Chatter):
        def begin(self) -> str:
            return f"talk {random.random()}"

    with pytest.raises(EnvironmentContractError, match=r"Two resets with seed 5 gave different first observations"):
        Collector(envs(2, Moody), ChatCodec(tokenizer), talkative(tokenizer)).collect(
            [Task(5, 0), Task(5, 0)], Sampling(max_tokens=8)
        )


def test_a_reply_of_other_weights_than_the_engines_own_ends_the_rollout(tokenizer: PreTrainedTokenizerFast) -> None:
    class Hasty(ScriptedEngine):
        """Takes new weights while replies of the old ones are still on their way."""

        def wait(self) -> list[Completion]:
            completions = super().wait()
            if any(len(completion.tokens) > 6 for completion in completions):
                self.load_weights([], version=4)
            return completions

    engine = Hasty(lambda request: [50] * request.request_id + [tokenizer.eos_token_id])
    engine.load_weights([], version=3)
    collector = Collector(envs(4), ChatCodec(tokenizer), engine)
    message = r"has weights of version 4, but a reply of episode \d was sampled by version 3"
    with pytest.raises(StaleCompletionError, match=message):
        collector.collect([Task(seed, seed) for seed in range(8)], Sampling(max_tokens=8))
    assert not engine.wait()  # nothing is left under way


class Rambling(Chatter):
    """Begins one task in twelve with more text than fits."""

    def begin(self) -> str:
        self.episode.task = 1
        return "talk" + " and talk" * (100 if self.np_random.integers(12) == 0 else 0)


def test_a_task_that_does_not_fit_has_no_score_and_the_others_are_played(tokenizer: PreTrainedTokenizerFast) -> None:
    codec = ChatCodec(tokenizer)
    tasks = [Task(seed, seed) for seed in range(60) for _ in range(2)]
    trajectories = Collector(envs(7, Rambling), codec, talkative(tokenizer, context_length=300)).collect(
        tasks, Sampling(max_tokens=8)
    )
    fits = [len(codec.prompt(trajectory.messages[:2])) < 300 for trajectory in trajectories]
    assert 0 < fits.count(False) < 30
    assert [trajectory.seed for trajectory in trajectories] == [task.seed for task in tasks]
    for trajectory, fit in zip(trajectories, fits, strict=True):
        assert trajectory.overlong == (not fit)
        assert (trajectory.score is not None) == bool(trajectory.replies) == fit
        assert trajectory.ending == ("terminated" if fit else "context")
        assert fit or f"the first observation of seed {trajectory.seed} takes" in str(trajectory.score_error)


class Endless(Chatter):
    """Begins with ten megabytes, or answers with them."""

    def begin(self) -> str:
        return "and talk " * (10**6 if self.np_random.integers(2) == 0 else 1)

    def respond(self, action: str) -> str:
        return "and talk " * 10**6


def test_what_cannot_fit_however_it_is_encoded_is_not_encoded(
    tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec, encoded = ChatCodec(tokenizer), []
    monkeypatch.setattr(codec, "_encode", lambda text: encoded.append(len(text)) or [1] * len(text))
    collector = Collector(envs(2, Endless), codec, talkative(tokenizer, context_length=300), max_overlong=1.0)
    trajectories = collector.collect([Task(seed, seed) for seed in range(6)], Sampling(max_tokens=8))
    assert {trajectory.ending for trajectory in trajectories} == {"context"}
    assert 0 < sum(trajectory.overlong for trajectory in trajectories) < 6
    for trajectory in trajectories:
        assert not trajectory.overlong or "takes 9000005 characters" in str(trajectory.score_error)
    assert max(encoded) < 1000


def test_more_tasks_that_do_not_fit_than_may_are_an_error_over_the_rollouts_so_far(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    engine = talkative(tokenizer, context_length=20)
    collector = Collector(envs(1), ChatCodec(tokenizer), engine, max_overlong=0.1)
    assert collector.collect([Task(0, 0), Task(0, 0)], Sampling(max_tokens=8))[0].overlong
    assert collector.collect([Task(1, 0)], Sampling(max_tokens=8))[0].overlong
    with pytest.raises(ContextOverflowError, match=r"3 of 3 tasks leave no room.*at most 0.1 .*context of 20 tokens"):
        collector.collect([Task(2, 0)], Sampling(max_tokens=8))


def test_what_an_environment_reports_beside_numbers_is_left_aside(tokenizer: PreTrainedTokenizerFast) -> None:
    class Talker(gymnasium.Env[str, str]):
        observation_space = action_space = llmgym.UnicodeText()

        def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[str, dict[str, Any]]:
            return "hello \ud800", {}

        def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
            reported = {"name": np.str_("x"), "raw": np.bytes_(b"1.5"), "day": np.datetime64("2026-01-01"), 3: 4}
            return "", 1.0, True, False, {**reported, "list": [1], "steps": np.int32(2), "big": 10**400, "ok": True}

    (trajectory,) = Collector(envs(1, Talker), ChatCodec(tokenizer), talkative(tokenizer)).collect(
        [Task(0, 0)], Sampling(max_tokens=8)
    )
    assert trajectory.parts == {"3": 4.0, "steps": 2.0, "big": math.inf, "ok": 1.0}
    assert trajectory.messages[0].content == "hello ?"  # no tokenizer takes a lone surrogate


def test_an_episode_that_outgrows_the_context_ends_there_without_a_score(tokenizer: PreTrainedTokenizerFast) -> None:
    engine = talkative(tokenizer, context_length=100)
    trajectories = Collector(envs(4), ChatCodec(tokenizer), engine).collect(
        [Task(seed, seed) for seed in range(12)], Sampling(max_tokens=8)
    )
    endings = {trajectory.ending for trajectory in trajectories}
    assert endings == {"terminated", "context"}
    for trajectory in trajectories:
        assert len(trajectory.tokens) <= 100
        assert (trajectory.score is None) == (trajectory.ending == "context")


def test_a_missing_score_stays_missing(tokenizer: PreTrainedTokenizerFast) -> None:
    class Unjudged(Chatter):
        def score(self, episode: llmgym.Episode) -> Any:
            return llmgym.Score(None, error="no judge")

    (trajectory,) = Collector(envs(1, Unjudged), ChatCodec(tokenizer), talkative(tokenizer)).collect(
        [Task(0, 0)], Sampling(max_tokens=8)
    )
    assert trajectory.score is None
    assert trajectory.ending == "terminated"


def test_a_truncating_wrapper_is_told_from_an_end(tokenizer: PreTrainedTokenizerFast) -> None:
    def make() -> gymnasium.Env[str, str]:
        return gymnasium.wrappers.TimeLimit(Chatter(), max_episode_steps=2)

    trajectories = Collector(envs(4, make), ChatCodec(tokenizer), talkative(tokenizer)).collect(
        [Task(seed, seed) for seed in range(12)], Sampling(max_tokens=8)
    )
    assert {trajectory.ending for trajectory in trajectories} == {"terminated", "truncated"}
    assert all(len(trajectory.replies) <= 2 for trajectory in trajectories)


def test_a_real_engine_gives_the_same_episodes_for_the_same_seed(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    codec = ChatCodec(tokenizer)
    tasks = [Task(seed, seed) for seed in (0, 0, 1, 1, 2)]
    runs = [
        Collector(envs(count), codec, LocalEngine(model)).collect(tasks, Sampling(max_tokens=10), seed=3)
        for count in (5, 2)
    ]
    assert [t.tokens for t in runs[0]] == [t.tokens for t in runs[1]]
    assert runs[0][0].tokens != runs[0][1].tokens  # siblings draw their own replies


def test_after_an_interruption_the_engine_starts_afresh(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    class Interrupted(Chatter):
        broken = True

        def respond(self, action: str) -> str | None:
            if Interrupted.broken:
                raise KeyboardInterrupt
            return super().respond(action)

    collector = Collector(envs(6, Interrupted), ChatCodec(tokenizer), LocalEngine(model))
    tasks = [Task(seed, seed) for seed in range(6)]
    with pytest.raises(KeyboardInterrupt):
        collector.collect(tasks, Sampling(max_tokens=20))
    Interrupted.broken = False
    again = collector.collect(tasks, Sampling(max_tokens=20))
    fresh = Collector(envs(6), ChatCodec(tokenizer), LocalEngine(model)).collect(tasks, Sampling(max_tokens=20))
    assert [t.tokens for t in again] == [t.tokens for t in fresh]


def test_siblings_are_compared_also_where_environments_are_few(tokenizer: PreTrainedTokenizerFast) -> None:
    class Counting(Chatter):
        count = 0

        def begin(self) -> str:
            Counting.count += 1
            self.episode.task = 1
            return f"talk {Counting.count}"

    with pytest.raises(EnvironmentContractError, match="different first observations"):
        Collector(envs(1, Counting), ChatCodec(tokenizer), talkative(tokenizer)).collect(
            [Task(5, 0), Task(5, 0)], Sampling(max_tokens=8)
        )


def test_parts_may_be_any_kind_of_number(tokenizer: PreTrainedTokenizerFast) -> None:
    class Plain(gymnasium.Env[str, str]):
        observation_space = action_space = llmgym.UnicodeText()

        def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[str, dict[str, Any]]:
            return "hello", {}

        def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
            info = {"success": np.bool_(True), "a": np.float32(0.5), "b": np.int64(2), "note": "text"}
            return "", 1.0, True, False, info

    (trajectory,) = Collector(envs(1, Plain), ChatCodec(tokenizer), talkative(tokenizer)).collect(
        [Task(0, 0)], Sampling(max_tokens=8)
    )
    assert trajectory.parts == {"success": 1.0, "a": 0.5, "b": 2.0}


def test_an_environment_bounds_its_replies_itself_and_a_run_bounds_them_further(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    class Brief(Chatter):
        stop = ("!", "END")
        max_tokens = 5
        max_episode_tokens = 7

    asked: list[GenerationRequest] = []

    def reply(request: GenerationRequest) -> list[int]:
        asked.append(request)
        return [40] * 9

    def played(sampling: Sampling) -> list[int]:
        asked.clear()
        (trajectory,) = Collector(envs(1, Brief), ChatCodec(tokenizer), ScriptedEngine(reply)).collect(
            [Task(seed=2, group=0)], sampling
        )
        return [reply.stop - reply.start for reply in trajectory.replies]

    assert played(Sampling()) == [5, 2]
    assert {request.sampling.stop for request in asked} == {("!", "END")}
    assert played(Sampling(max_tokens=3, stop=("END", "?"))) == [3, 3, 1]
    assert {request.sampling.stop for request in asked} == {("END", "?", "!")}
    assert played(Sampling(max_episode_tokens=4)) == [4]


def test_a_reply_ends_at_the_string_that_its_environment_names(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    codec = ChatCodec(tokenizer)

    def replies(stop: tuple[str, ...]) -> list[str]:
        env = type("Stopping", (Chatter,), {"stop": stop})
        engine = LocalEngine(model, text_of=codec.spell)
        (trajectory,) = Collector(envs(1, env), codec, engine).collect([Task(seed=0, group=0)], Sampling(max_tokens=20))
        return [message.content for message in trajectory.messages if message.role == "assistant"]

    free = replies(())[0]
    middle = free[len(free) // 2]
    assert replies((middle,))[0] == free[: free.index(middle) + 1]


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"stop": ("",)}, "stop"),
        ({"max_episode_tokens": "many"}, "max_episode_tokens"),
    ],
)
def test_limits_that_are_none_are_refused_with_the_environments_name(limits: dict[str, Any], message: str) -> None:
    env = type("Unbounded", (Chatter,), limits)
    with pytest.raises(ConfigError, match=f"Unbounded limits its replies wrongly: .*{message}"):
        envs(1, env).within_limits(Sampling())
