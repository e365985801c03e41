"""How fast advantages are: llmgym's estimators beside verl's, on 1024 episodes of up to 2048 tokens.

``.venv-oracles/bin/python -m benchmarks.advantages --help``, in the environment that ``make oracles`` sets up.
"""

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from verl.trainer.config.algorithm import AlgoConfig
from verl.trainer.ppo import core_algos

from benchmarks.results import Claim, claim_table, processor
from llmgym.config.choices import Estimator
from llmgym.learn.advantages import ESTIMATORS, gae, whiten

GAMMA, LAMBDA = 1.0, 0.95
THEIRS: list[tuple[Estimator, str]] = [  # our estimator, and verl's for the same thing
    ("group_std", "grpo"),
    ("group_std", "grpo_vectorized"),
    ("rloo", "rloo"),
    ("rloo", "rloo_vectorized"),
    ("optimal_baseline", "opo"),
    ("reinforce_plus_plus", "reinforce_plus_plus"),
    ("reinforce_plus_plus_baseline", "reinforce_plus_plus_baseline"),
]


@dataclass(frozen=True)
class Work:
    """Episodes of several turns, padded on the right.

    Attributes:
        mask: Sampled tokens.  [E, T]
        rewards: The episode's reward on its last sampled token.  [E, T]
        values: A critic's.  [E, T]
        reward: [E]
        group: [E]
    """

    mask: Tensor
    rewards: Tensor
    values: Tensor
    reward: Tensor
    group: Tensor


@dataclass(frozen=True)
class Comparison:
    """What the same advantages took.

    Attributes:
        ours: The estimator's name here.
        theirs: Its name in verl.
        our_ms: Milliseconds of every repeat.
        their_ms: The same of verl's.
        our_cpu_ms: Processor time of every repeat.
        their_cpu_ms: The same of verl's.
        difference: The largest between two advantages.
    """

    ours: str
    theirs: str
    our_ms: list[float]
    their_ms: list[float]
    our_cpu_ms: list[float]
    their_cpu_ms: list[float]
    difference: float

    @property
    def ratio(self) -> float:
        """Our median by theirs."""
        return statistics.median(self.our_ms) / statistics.median(self.their_ms)

    @property
    def cpu_ratio(self) -> float:
        """The same of processor time, which neighbours disturb less."""
        return statistics.median(self.our_cpu_ms) / statistics.median(self.their_cpu_ms)


def draw(episodes: int, siblings: int, width: int) -> Work:
    """Draw episodes of half to all of the width, a fifth of it said by the environment."""
    rng = torch.Generator().manual_seed(0)
    mask = torch.zeros(episodes, width, dtype=torch.bool)
    for row in mask:
        at, end = 0, int(torch.randint(width // 2, width + 1, (), generator=rng))
        while at < end:
            sampled, observed = (int(torch.randint(low, 4 * low, (), generator=rng)) for low in (64, 16))
            row[at : min(at + sampled, end)] = True
            at += sampled + observed
    reward = torch.randn(episodes, generator=rng)
    rewards = torch.zeros(episodes, width)
    rewards[torch.arange(episodes), mask.int().cumsum(1).argmax(1)] = reward
    values = torch.randn(episodes, width, generator=rng)
    return Work(mask, rewards, values, reward, torch.arange(episodes) // siblings)


def our_gae(work: Work) -> Tensor:
    """Advantages of tokens, whitened as verl does."""
    advantages, _ = gae(work.values, work.rewards, work.mask, GAMMA, LAMBDA)
    return whiten(advantages, work.mask)


def ours(name: Estimator, work: Work) -> Callable[[], Tensor]:
    """Advantages of episodes, spread over their sampled tokens as verl does."""
    mask, length = work.mask.float(), work.mask.sum(1)
    scored = torch.ones_like(work.group, dtype=torch.bool)
    return lambda: ESTIMATORS[name](work.reward, work.group, scored, length)[:, None] * mask


def theirs(name: str, work: Work) -> Callable[[], Tensor]:
    """The function of verl, with its mask and groups in its types."""
    mask, index = work.mask.float(), work.group.numpy().astype(np.int64)
    if name == "gae":
        return lambda: core_algos.compute_gae_advantage_return(work.rewards, work.values, mask, GAMMA, LAMBDA)[0]
    config, estimate = AlgoConfig(gamma=1.0), core_algos.get_adv_estimator_fn(name)
    groups = {} if name == "reinforce_plus_plus" else {"index": index}
    return lambda: estimate(token_level_rewards=work.rewards, response_mask=mask, config=config, **groups)[0]


def milliseconds(function: Callable[[], Tensor]) -> tuple[float, float]:
    """Return how long a call takes, by the clock and of the processor."""
    begun, cpu_begun = time.perf_counter(), time.process_time()
    function()
    return (time.perf_counter() - begun) * 1e3, (time.process_time() - cpu_begun) * 1e3


def compare(work: Work, repeats: int) -> list[Comparison]:
    """Let both sides take turns; one call of each before anything counts."""
    pairs: list[tuple[str, str, Callable[[], Tensor], Callable[[], Tensor]]] = [
        ("gae, whiten", "gae", lambda: our_gae(work), theirs("gae", work))
    ]
    pairs += [(mine, yours, ours(mine, work), theirs(yours, work)) for mine, yours in THEIRS]
    found = []
    for mine, yours, our, their in pairs:
        difference = float(((our() - their()) * work.mask).abs().max())
        times = [(milliseconds(our), milliseconds(their)) for _ in range(repeats)]
        (our_ms, our_cpu_ms), (their_ms, their_cpu_ms) = (
            [[repeat[side][clock] for repeat in times] for clock in range(2)] for side in range(2)
        )
        found.append(Comparison(mine, yours, our_ms, their_ms, our_cpu_ms, their_cpu_ms, difference))
        print(f"{mine}, {yours}: {found[-1].ratio:.3f}", file=sys.stderr)
    return found


def table(found: list[Comparison]) -> str:
    """Return the medians as Markdown."""
    lines = [
        "| llmgym | median ms | CPU ms | verl | median ms | CPU ms | llmgym's by verl's | in CPU time | difference |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in found:
        our, our_cpu, their, their_cpu = (
            f"{statistics.median(times):.2f}" for times in (row.our_ms, row.our_cpu_ms, row.their_ms, row.their_cpu_ms)
        )
        lines.append(
            f"| `{row.ours}` | {our} | {our_cpu} | `{row.theirs}` | {their} | {their_cpu} "
            f"| {row.ratio:.3f} | {row.cpu_ratio:.3f} | {row.difference:.1e} |"
        )
    return "\n".join(lines)


def claims(found: list[Comparison]) -> list[Claim]:
    """Return what the measurements say of the project's promises."""
    return [
        Claim(
            f"time of `{row.ours}` by verl's `{row.theirs}`",
            0.1 if row.theirs == "gae" else 1.0,
            row.ratio,
            False,
            row.cpu_ratio,
        )
        for row in found
    ]


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=1024)
    parser.add_argument("--siblings", type=int, default=8)
    parser.add_argument("--width", type=int, default=2048, help="tokens per episode, at most")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", type=Path, help="a file for the figures")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    work = draw(arguments.episodes, arguments.siblings, arguments.width)
    found = compare(work, arguments.repeats)
    answers = claims(found)
    versions = {name: version(name) for name in ("torch", "verl")}
    print(
        f"{processor()}, threads: {arguments.threads}; Python {platform.python_version()}, torch {versions['torch']}, "
        f"verl {versions['verl']}; {arguments.episodes} episodes of up to {arguments.width} tokens, "
        f"{float(work.mask.float().mean()):.0%} of all positions sampled; "
        f"medians of {arguments.repeats} interleaved repeats.\n"
    )
    print(table(found), claim_table(answers), sep="\n\n")
    if arguments.json:
        figures = {"processor": processor(), "versions": versions, "threads": arguments.threads}
        figures["comparisons"] = [asdict(row) | {"ratio": row.ratio} for row in found]
        figures["claims"] = [asdict(claim) | {"kept": claim.kept} for claim in answers]
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
