"""The steps of reward model training, and its judgement by held-out preferences."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import transformers

from llmgym.config.sections import RewardConfig
from llmgym.errors import ConfigError, DataError
from llmgym.evaluate import Evaluation, wilson_interval
from llmgym.learn.checkpoint import save_checkpoint
from llmgym.learn.needs import Needs, training_needs
from llmgym.learn.packing import pack
from llmgym.learn.reward_model import RewardModel as Rewards
from llmgym.models import TINY_PATH
from llmgym.models.lora import add_adapters, plain_copy
from llmgym.models.threads import use_available_processors
from llmgym.registry import resolve_env
from llmgym.rollout.run_time import set_run_time
from llmgym.rollout.trajectory import Trajectory
from llmgym.train.loop import Loop, device_of, dtype_of, make_learner
from llmgym.train.offline import drawn
from llmgym.train.preference_data import encode_pairs
from llmgym.train.rows import tell_of_skipped, usable

if TYPE_CHECKING:
    from llmgym.train.agent import RewardAgent


class RewardTraining(Loop):
    """Training on preferences, some of which are held out.

    Args:
        agent: Whose configuration, examples, preparation and loss to use.

    Raises:
        DataError: There are too few preferences.
    """

    def __init__(self, agent: RewardAgent) -> None:
        transformers.utils.logging.disable_progress_bar()
        use_available_processors()
        config = agent.config
        self.config: RewardConfig = config
        self.name, self.agent = agent.name, agent
        self.env_id = resolve_env(config.environment.env)
        torch.manual_seed(config.run.seed)  # of the head's first weights
        set_run_time(config.model.date)
        device = device_of(config.model.device)
        path = TINY_PATH if config.model.bundled else config.model.name
        self.rewards = Rewards.load(path, fresh_head=True, dtype=dtype_of(config.model.dtype, device))
        skipped: list[str] | None = [] if config.data.skip_bad_rows else None
        examples = usable(
            agent.examples(skipped), lambda pair: encode_pairs([pair], self.rewards), config.data.path, skipped
        )
        tell_of_skipped(skipped, len(examples))
        self.held_out, self.examples = examples[: config.held_out], examples[config.held_out :]
        if not self.examples:
            raise DataError(
                f"{agent.name} expects more than the {config.held_out} preferences that are held out "
                f"(--held-out), got {len(examples)}."
            )
        self.model = self.rewards.model.to(device)
        if config.model.lora_rank:
            add_adapters(self.model, config.model.lora_rank, config.model.lora_alpha, config.run.seed)
        self.learner = make_learner(agent.loss(self.rewards), config)

    @property
    def subject(self) -> str:
        """What the run is called after: its data, if it has any."""
        return super().subject if self.config.data.path is None else self.config.data.path.stem

    def needs(self) -> Needs:
        """Return what a training step will take."""
        pair = encode_pairs(self.examples[:1], self.rewards)
        batch = self.rewards.collate(pair).to(self.model.device)
        return training_needs(
            self.learner.loss,
            policy=self.rewards,
            run=lambda: self.rewards(batch).sum(),
            tokens=int(pack(batch, self.model.device).tokens.numel()),
            batch_tokens=self.learner.micro_batch_tokens,
            reference=False,
        )

    def _step(self, step: int) -> tuple[Sequence[Trajectory], dict[str, float]]:
        begun = time.perf_counter()
        size = self.config.data.batch_size
        chosen = [self.examples[i] for i in drawn(step, size, len(self.examples), self.config.run.seed)]
        update = self.learner.update(self.agent.prepare(chosen, self.rewards).to(self.model.device))
        loss = sum(value for name, value in update.items() if name.startswith("loss_"))
        epoch = step * size / len(self.examples)
        return [], {"step": step, "epoch": epoch, "loss": loss, "seconds": time.perf_counter() - begun, **update}

    def evaluate(self) -> Evaluation:
        """Compare the two sides of the held-out preferences; the better one should have the larger reward.

        Returns:
            As `success` the share of pairs where it has, as `reward` by how much it is larger on average.
        """
        if not self.held_out:
            raise ConfigError("evaluate needs held_out of at least 1, got 0.")
        rewards = self.rewards.rewards(encode_pairs(self.held_out, self.rewards))
        margins = [chosen - rejected for chosen, rejected in zip(rewards[::2], rewards[1::2], strict=True)]
        right, count = sum(margin > 0 for margin in margins), len(margins)
        return Evaluation(
            count, right / count, *wilson_interval(right, count), sum(margins) / count, {}, 0, "pairs", "accuracy"
        )

    @property
    def held_out_size(self) -> int:
        """How many preferences are held out."""
        return len(self.held_out)

    def settled(self) -> dict[str, object]:
        """Return what options came to that are left to llmgym."""
        return {**super().settled(), "date": self.rewards.template.now}

    def facts(self) -> dict[str, object]:
        """Return what time the chat template is told."""
        return {"date": self.rewards.template.now.isoformat()}

    def save(self, path: Path) -> None:
        """Write the reward model, adapters merged into it, and its tokenizer to a new directory."""
        whole = plain_copy(self.model, self.model.dtype) if self.config.model.lora_rank else self.model
        save_checkpoint(path, whole, self.rewards.tokenizer, self.origin)
