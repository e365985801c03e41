"""The conversations played with an engine's replies, and how likely those replies should be."""

import torch
from conversations import CONVERSATIONS
from transformers import PreTrainedModel

import llmgym
from llmgym.config.sections import Sampling
from llmgym.engines.base import Engine
from llmgym.envs.vector import TextVectorEnv
from llmgym.rollout.chat import ChatCodec
from llmgym.rollout.collector import Collector
from llmgym.rollout.task import Task
from llmgym.rollout.trajectory import Trajectory


class Replayed(llmgym.TextEnv):
    """Says what the user says in the conversation that its seed counts, whatever is replied."""

    def begin(self) -> str:
        self.said = [message.content for message in CONVERSATIONS[self.np_random_seed] if message.role == "user"]
        return self.said[0]

    def respond(self, action: str) -> str | None:
        turn = len(self.episode.turns)
        return self.said[turn] if turn < len(self.said) else None

    def score(self, episode: llmgym.Episode) -> float:
        return 0.0


def play(engine: Engine, codec: ChatCodec, temperature: float, count: int = len(CONVERSATIONS)) -> list[Trajectory]:
    """Let an engine reply in the first `count` of them."""
    numbers = range(count)
    collector = Collector(TextVectorEnv([Replayed] * len(numbers)), codec, engine)
    played = collector.collect(
        [Task(number, number) for number in numbers], Sampling(max_tokens=24, temperature=temperature)
    )
    assert sum(len(trajectory.replies) for trajectory in played) == sum(map(len, CONVERSATIONS[:count])) // 2
    return played


def sampled_log_probs(trajectory: Trajectory) -> torch.Tensor:
    """Those of the sampled tokens, by the engine.  [N]"""
    return torch.tensor(trajectory.log_probs)[torch.tensor(trajectory.mask)]


def plain_log_probs(model: PreTrainedModel, trajectory: Trajectory, temperature: float = 1.0) -> torch.Tensor:
    """Those of the sampled tokens, by a forward pass of transformers over the whole conversation.  [N]"""
    tokens = torch.tensor(trajectory.tokens)
    with torch.no_grad():
        log_probs = (model(tokens[None]).logits[0, :-1] / temperature).log_softmax(-1)
    return log_probs.gather(1, tokens[1:, None])[torch.tensor(trajectory.mask)[1:], 0]
