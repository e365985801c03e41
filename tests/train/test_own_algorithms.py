"""An algorithm of one's own that lacks something is told what, and one that teaches nothing is not silent."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tensordict import TensorDict

from llmgym.agents import GRPO
from llmgym.cli import main
from llmgym.config.sections import OfflineConfig, PolicyGradientConfig
from llmgym.data.demonstrations import Conversation
from llmgym.errors import AlgorithmError
from llmgym.learn.batch import collate
from llmgym.learn.losses import ClippedPolicyLoss, LanguageModelLoss, SFTLoss
from llmgym.learn.policy import Policy
from llmgym.rollout.trajectory import Trajectory
from llmgym.train.agent import OfflineAgent, OnlineAgent
from llmgym.types import Message

SMALL: dict[str, Any] = {"prompts_per_step": 1, "group_size": 2, "max_tokens": 8, "eval_episodes": 0}


class Bare(OnlineAgent):
    """Has no advantages."""

    name = "bare"
    config_class = PolicyGradientConfig

    def prepare(self, trajectories: Sequence[Trajectory]) -> TensorDict | None:
        return collate(trajectories)

    def loss(self, policy: Policy) -> LanguageModelLoss:
        return ClippedPolicyLoss(policy, **self.config.loss_options)


class Silent(Bare):
    """Has nothing to learn from."""

    def prepare(self, trajectories: Sequence[Trajectory]) -> None:
        return None


class SilentOffline(OfflineAgent):
    """Has nothing to learn from, either."""

    name = "silent"
    config_class = OfflineConfig

    def examples(self, skipped: list[str] | None = None) -> list[Conversation]:
        return [Conversation((Message("user", "x"),), (Message("assistant", "y"),))]

    def prepare(self, examples: Sequence[Conversation], writer: Any) -> None:
        return None

    def loss(self, policy: Policy) -> LanguageModelLoss:
        return SFTLoss(policy)


def test_a_class_without_a_configuration_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nameless = type("Nameless", (OnlineAgent,), {"prepare": Bare.prepare, "loss": Bare.loss})
    with pytest.raises(AlgorithmError, match=r"Nameless lacks name, config_class: expected .* config_class = "):
        nameless()
    source = "from llmgym.train.agent import OnlineAgent\nclass Mine(OnlineAgent):\n    name = 'mine'\n"
    (tmp_path / "lacking_algorithm.py").write_text(source)
    assert main(["train", f"{tmp_path / 'lacking_algorithm.py'}:Mine"]) == 2
    assert "Mine lacks config_class, loss, prepare: expected" in capsys.readouterr().err


def test_a_batch_without_what_the_loss_reads_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AlgorithmError, match=r"ClippedPolicyLoss reads 'advantage': expected .*, got tokens, mask"):
        Bare(output_dir=tmp_path, **SMALL).train(steps=1)


@pytest.mark.parametrize("agent", [Silent, SilentOffline])
def test_a_run_without_a_batch_says_that_nothing_was_learnt(
    agent: type[Silent | SilentOffline], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = SMALL if issubclass(agent, OnlineAgent) else {"eval_episodes": 0}
    agent(output_dir=tmp_path, **options).train(steps=2)
    assert "Nothing was learnt: there was no gradient in 2 steps" in capsys.readouterr().out


def test_a_run_of_equal_scores_says_that_nothing_was_learnt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    GRPO(scorer=lambda episode: 1.0, output_dir=tmp_path, **SMALL).train(steps=1)
    assert "Nothing was learnt: there was no gradient in 1 step" in capsys.readouterr().out
    differing: dict[str, Any] = {**SMALL, "temperature": 3.0, "scorer": lambda episode: len(episode.actions[0])}
    GRPO(output_dir=tmp_path, **differing).train(steps=1)
    assert "Nothing was learnt" not in capsys.readouterr().out


class Mistaken(Bare):
    """Makes a good batch, and then something else of it."""

    mistake: Any = staticmethod(lambda batch: batch)

    def prepare(self, trajectories: Sequence[Trajectory]) -> Any:
        batch = collate(trajectories)
        batch["advantage"] = batch["mask"].float()
        return type(self).mistake(batch)


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (lambda batch: dict(batch.items()), "bare.prepare has to return a TensorDict or None, got dict"),
        (lambda batch: (batch, {}), "bare.prepare has to return a TensorDict or None, got tuple"),
        (
            lambda batch: batch.set("advantage", batch["advantage"].sum(1)),
            r"expected a value for every token, .* got \[2\]",
        ),
        (lambda batch: batch.set("advantage", batch["advantage"][:, :1]), r"of the mask, got \[2, 1\]"),
        (lambda batch: batch.set("advantage", batch["advantage"][:, 1:]), "expected a value for every token"),
    ],
)
def test_an_invalid_batch_is_refused(mistake: Any, message: str, tmp_path: Path) -> None:
    agent = type("Wrong", (Mistaken,), {"mistake": staticmethod(mistake)})
    with pytest.raises(AlgorithmError, match=message):
        agent(output_dir=tmp_path, **SMALL).train(steps=1)


def test_a_batch_of_no_rows_teaches_nothing(tmp_path: Path) -> None:
    agent = type("Empty", (Mistaken,), {"mistake": staticmethod(lambda batch: batch[:0])})
    (metrics,) = agent(output_dir=tmp_path, **SMALL).train(steps=1).metrics
    assert "grad_norm" not in metrics


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda output: output["loss_objective"], "has to return a TensorDict with single numbers"),
        (lambda output: {"loss_objective": 0.5}, "has to return a TensorDict with single numbers"),
        (lambda output: {"objective": output["loss_objective"]}, "under names that begin with 'loss_'"),
        (
            lambda output: {"loss_objective": output["loss_objective"].expand(3)},
            "has to return a TensorDict with single",
        ),
        (lambda output: {"loss_objective": output["loss_objective"].detach()}, "none has a gradient"),
    ],
)
def test_an_invalid_loss_is_refused(returned: Any, message: str, tmp_path: Path) -> None:
    class Loss(ClippedPolicyLoss):
        def forward(self, tensordict: Any) -> Any:
            return returned(super().forward(tensordict))

    agent = type("Lossy", (Mistaken,), {"loss": lambda self, policy: Loss(policy, **self.config.loss_options)})
    with pytest.raises(AlgorithmError, match=message):
        agent(output_dir=tmp_path, **SMALL).train(steps=1)
