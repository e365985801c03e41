"""Environments of several seats: a trajectory for each seat that learns, whole and with a score of its own."""

import math
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import pytest
import torch
from transformers import PreTrainedTokenizerFast

import llmgym
from llmgym.agents import GRPO
from llmgym.config.sections import Sampling
from llmgym.data.trajectories import read_trajectories
from llmgym.demo import TINY_PATH
from llmgym.engines import make
from llmgym.engines.base import GenerationRequest
from llmgym.engines.local.engine import LocalEngine
from llmgym.engines.scripted import ScriptedEngine
from llmgym.envs.experts import play_expert
from llmgym.errors import ConfigError, EnvironmentContractError
from llmgym.learn.checkpoint import Origin, save_checkpoint
from llmgym.models.causal_lm import load_causal_lm
from llmgym.rollout.chat import ChatCodec
from llmgym.rollout.collector import Collector
from llmgym.rollout.task import Task
from llmgym.rollout.trajectory import Trajectory
from llmgym.train import local_rollouts

GAMES = ["KuhnPoker", "TicTacToe", "Negotiation"]


def envs(name: str, count: int, **options: Any) -> llmgym.TextVectorEnv:
    return llmgym.TextVectorEnv([lambda: gymnasium.make(f"llmgym/{name}-v0", **options)] * count)


def free_cells(seen: str) -> list[str]:
    """Return the free cells of the last board that was drawn."""
    board = dict(re.findall(r"^(\d) ([XO. ]+)$", seen, re.MULTILINE))
    return [f"{'abcd'[i]}{row}" for row, marks in board.items() for i, mark in enumerate(marks.split()) if mark == "."]


def legal(tokenizer: PreTrainedTokenizerFast, **options: Any) -> ScriptedEngine:
    """Return an engine that makes any legal move that it is told of, by the seed of its request."""

    def reply(request: GenerationRequest) -> list[int]:
        seen = tokenizer.decode(request.tokens)
        asked = seen[seen.rindex("Reply with") :]
        moves = re.search(r"Reply with (\w+) or (\w+)\.", asked)
        offer = re.search(r"such as (\{.*?\})", asked)
        options = moves.groups() if moves else [offer[1]] if offer else free_cells(seen)
        said = random.Random(request.seed).choice(options)
        return [*tokenizer.encode(said, add_special_tokens=False), tokenizer.eos_token_id]

    return ScriptedEngine(reply, **options)


def collected(
    name: str,
    tokenizer: PreTrainedTokenizerFast,
    *,
    opponent: str = "self",
    order: Callable[[Any], Any] = list,
    frozen: ScriptedEngine | None = None,
    context_length: int = 4096,
    in_flight: int = 3,
) -> list[Trajectory]:
    engine = legal(tokenizer, order=order, context_length=context_length)
    tasks = [Task(seed, group) for group, seed in enumerate((5, 6, 7)) for _ in range(2)]
    player = Collector(envs(name, in_flight, opponent=opponent), ChatCodec(tokenizer), engine, frozen=frozen)
    return player.collect(tasks, Sampling(max_tokens=64))


@pytest.mark.parametrize("name", GAMES)
def test_each_seat_gives_a_whole_trajectory(name: str, tokenizer: PreTrainedTokenizerFast) -> None:
    codec = ChatCodec(tokenizer)
    trajectories = collected(name, tokenizer)
    assert len(trajectories) == 3 * 2 * 2  # tasks, siblings, seats
    for one in trajectories:
        assert one.ending == "terminated"
        assert one.score is not None
        assert len(one.tokens) == len(one.mask) == len(one.log_probs)
        assert one.sampled_tokens == sum(reply.stop - reply.start for reply in one.replies)
        said = [message.content for message in one.messages if message.role == "assistant"]
        assert said == [codec.text(one.tokens[reply.start : reply.stop]) for reply in one.replies]
        roles = [message.role for message in one.messages[: 2 * len(said)]]
        assert roles == ["user", "assistant"] * len(said)


@pytest.mark.parametrize("name", GAMES)
def test_siblings_have_the_same_seed_and_the_same_seat(name: str, tokenizer: PreTrainedTokenizerFast) -> None:
    trajectories = collected(name, tokenizer)
    assert [one.group for one in trajectories] == [group for group in range(6) for _ in range(2)]
    assert [one.seed for one in trajectories] == [5] * 4 + [6] * 4 + [7] * 4
    assert [one.seat for one in trajectories] == [0, 0, 1, 1] * 3


@pytest.mark.parametrize("name", ["KuhnPoker", "TicTacToe"])
def test_what_one_seat_wins_the_other_loses(name: str, tokenizer: PreTrainedTokenizerFast) -> None:
    trajectories = collected(name, tokenizer)
    for first, second in [(trajectories[i], trajectories[i + 2]) for i in (0, 1, 4, 5, 8, 9)]:
        assert (first.seed, first.seat, second.seat) == (second.seed, 0, 1)
        assert first.score + second.score == pytest.approx(1.0)  # type: ignore[operator]
        assert sum(reply.reward for reply in first.replies) == pytest.approx(first.score)


def test_no_seat_sees_the_others_card(tokenizer: PreTrainedTokenizerFast) -> None:
    trajectories = collected("KuhnPoker", tokenizer)
    held = {(one.seed, one.seat): re.search(r"You hold (\w)", one.messages[0].content) for one in trajectories}
    for seed in (5, 6, 7):
        assert held[seed, 0] is not None
        assert held[seed, 1] is not None
        assert held[seed, 0][1] != held[seed, 1][1]  # type: ignore[index]


@pytest.mark.parametrize("name", GAMES)
def test_the_order_in_which_replies_are_ready_changes_nothing(name: str, tokenizer: PreTrainedTokenizerFast) -> None:
    plain = collected(name, tokenizer)
    assert plain == collected(name, tokenizer, order=lambda waiting: waiting[-1:], in_flight=6)
    assert plain == collected(name, tokenizer, order=lambda waiting: waiting[:1], in_flight=1)


def test_a_conversation_that_is_cut_off_ends_both_and_neither_has_a_score(tokenizer: PreTrainedTokenizerFast) -> None:
    trajectories = collected("KuhnPoker", tokenizer, context_length=900)
    cut = [one for one in trajectories if one.ending == "context"]
    assert cut
    assert all(trajectories[i].ending == trajectories[i + 2].ending for i in (0, 1, 4, 5, 8, 9))
    for one in cut:
        assert one.score is None
        assert one.replies
        assert "the episode outgrew the context in seat" in str(one.score_error)


def test_a_frozen_seat_is_played_by_its_own_engine_and_gives_no_trajectory(tokenizer: PreTrainedTokenizerFast) -> None:
    frozen = legal(tokenizer)
    trajectories = collected("TicTacToe", tokenizer, opponent="frozen", frozen=frozen)
    assert [one.seat for one in trajectories] == [0] * 6
    assert [one.group for one in trajectories] == [0, 0, 1, 1, 2, 2]
    assert all(one.score is not None for one in trajectories)
    assert frozen.released == {1, 3, 5, 7, 9, 11}


def test_a_frozen_seat_without_an_engine_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ConfigError, match="learner, frozen: expected at least one learner, and an engine"):
        collected("TicTacToe", tokenizer, opponent="frozen")


def test_a_seat_that_never_had_a_turn_has_no_score_and_says_why(tokenizer: PreTrainedTokenizerFast) -> None:
    engine = ScriptedEngine(lambda request: [40, tokenizer.eos_token_id])  # never a move
    player = Collector(envs("KuhnPoker", 2, opponent="self"), ChatCodec(tokenizer), engine)
    loser, other = sorted(player.collect([Task(1, 0)], Sampling(max_tokens=4)), key=lambda one: -len(one.replies))
    assert (loser.score, len(loser.replies)) == (0.0, 3)
    assert (other.score, other.tokens) == (None, [])
    assert other.score_error == f"seat {other.seat} had no turn before the episode was over"


def test_a_scorer_judges_each_seat(tokenizer: PreTrainedTokenizerFast) -> None:
    def turns(episode: llmgym.Episode) -> float:
        return len(episode.turns) + 100.0 * episode.seat

    both, scorer = envs("KuhnPoker", 2, opponent="self"), llmgym.FunctionScorer(turns)
    player = Collector(both, ChatCodec(tokenizer), legal(tokenizer), scorer)
    for one in player.collect([Task(seed, seed) for seed in range(4)], Sampling(max_tokens=16)):
        assert one.score == len(one.replies) + 100.0 * one.seat


def test_a_seat_that_there_is_not_is_refused() -> None:
    class Wrong(llmgym.TextEnv):
        seats = ("learner", "learner")

        def begin(self) -> str:
            self.seat = 2
            return "hello"

    with pytest.raises(EnvironmentContractError, match="Wrong gave the turn to seat 2, expected a number from 0 to 1"):
        Wrong().reset(seed=0)


@pytest.mark.parametrize("name", GAMES)
def test_gymnasium_plays_both_seats_in_turn(name: str) -> None:
    llmgym.check_env(gymnasium.make(f"llmgym/{name}-v0", disable_env_checker=True, opponent="self"), seeds=3)


def test_an_expert_is_not_asked_to_play_several_seats() -> None:
    with pytest.raises(ConfigError, match="has 2 seats, and an expert shows how to play one"):
        play_expert(gymnasium.make("llmgym/TicTacToe-v0", opponent="self"), seed=0)


SMALL = {"prompts_per_step": 2, "group_size": 4, "max_tokens": 8, "eval_episodes": 4}


@pytest.mark.parametrize("opponent", ["self", "frozen"])
def test_grpo_takes_a_step_on_a_game_against_a_policy(opponent: str, tmp_path: Path) -> None:
    agent = GRPO(env="TicTacToe", env_kwargs={"opponent": opponent}, output_dir=tmp_path, **SMALL)
    (metrics,) = agent.train(steps=1).metrics
    (file,) = tmp_path.glob("*/trajectories/*.parquet")
    assert len(read_trajectories(file)) == 8 * (2 if opponent == "self" else 1)
    assert metrics["part/illegal"] > 0


def test_a_frozen_seat_is_played_by_another_checkpoint_where_one_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = load_causal_lm(TINY_PATH)
    with torch.no_grad():
        model.lm_head.weight.zero_()  # says anything
    save_checkpoint(tmp_path / "other", model, tokenizer, Origin("grpo", "TicTacToe", "tiny", 1, 0.1, 0))
    engines: list[LocalEngine] = []

    def make_engine(*arguments: Any, **options: Any) -> Any:
        engines.append(make.make_engine(*arguments, **options))
        return engines[-1]

    monkeypatch.setattr(local_rollouts, "make_engine", make_engine)
    agent = GRPO(env="TicTacToe", env_kwargs={"opponent": "frozen"}, frozen_model=str(tmp_path / "other"), **SMALL)
    agent.evaluate()
    likely = []
    for engine in engines:
        engine.submit([GenerationRequest(0, 0, [*range(40, 60)], 4, (), Sampling(), seed=0)])
        likely.append(engine.wait()[0].log_probs)
    assert len(engines) == 2
    uniform = [-math.log(len(tokenizer))] * 4
    assert sum(log_probs == pytest.approx(uniform) for log_probs in likely) == 1
    agent.close()


def test_a_frozen_model_with_other_tokens_is_refused() -> None:
    agent = GRPO(env="TicTacToe", env_kwargs={"opponent": "frozen"}, frozen_model="tiny-tools", **SMALL)
    with pytest.raises(ConfigError, match="has another vocabulary than the trained model"):
        agent.evaluate()


def test_a_frozen_model_that_would_play_no_seat_is_refused(tmp_path: Path) -> None:
    agent = GRPO(env="TicTacToe", frozen_model="tiny", output_dir=tmp_path, **SMALL)
    with pytest.raises(ConfigError, match="frozen_model: TicTacToe has no frozen seat"):
        agent.train(steps=1)


def test_self_play_is_evaluated_against_whom_one_likes(tmp_path: Path) -> None:
    options = {"env": "TicTacToe", "env_kwargs": {"opponent": "self"}, "output_dir": tmp_path, **SMALL}
    agent = GRPO(**options, eval_env_kwargs={"opponent": "optimal"})
    assert agent.evaluate() == GRPO(**options | {"env_kwargs": {"opponent": "optimal"}}).evaluate()
    agent.train(steps=1)
    (file,) = tmp_path.glob("*/trajectories/*.parquet")
    assert len(read_trajectories(file)) == 16


def test_an_unknown_argument_of_held_out_episodes_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="oponent"):
        GRPO(env="TicTacToe", eval_env_kwargs={"oponent": "optimal"})
