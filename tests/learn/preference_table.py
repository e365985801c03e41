"""Preference batches over a table of logits: losses as functions of log-probs alone."""

import torch
from tensordict import TensorDict
from test_clipped_policy import Table

ANSWERS = [
    # (pair, chosen, turns of the answer as (observation tokens, sampled tokens))
    (4, True, [(0, 3), (2, 2)]),
    (4, False, [(0, 1)]),
    (1, True, [(0, 2)]),
    (1, False, [(0, 0)]),  # nothing sampled
    (7, True, [(0, 4)]),  # an episode of two rows
    (7, True, [(0, 2), (1, 1)]),
    (7, False, [(0, 3)]),
]


def table_pairs(vocabulary: int = 5, seed: int = 0) -> tuple[Table, TensorDict]:
    """Three pairs in seven rows [B] of random tokens; the policy's logits are a table [B, T, V]."""
    rng = torch.Generator().manual_seed(seed)
    prompt, width = 2, 12
    mask = torch.zeros(len(ANSWERS), width, dtype=torch.bool)
    for row, (_, _, turns) in enumerate(ANSWERS):
        position = prompt
        for observed, sampled in turns:
            position += observed
            mask[row, position : position + sampled] = True
            position += sampled
    shape = mask.shape
    batch = TensorDict(
        {
            "tokens": torch.randint(vocabulary, shape, generator=rng),
            "mask": mask,
            "ref_log_probs": (0.7 * torch.randn(shape, generator=rng) - 1.5) * mask,
            "log_probs": torch.zeros(shape),
            "length": torch.full((len(mask),), width),
            "prompt_length": torch.full((len(mask),), prompt),
            "pair": torch.tensor([pair for pair, _, _ in ANSWERS]),
            "chosen": torch.tensor([chosen for _, chosen, _ in ANSWERS]),
            "episode": torch.tensor([0, 1, 2, 3, 4, 4, 5]),
            "reward": torch.tensor([1.0, -0.5, 0.25, 0.0, 0.8, 0.8, 0.9]),
            "scored": torch.ones(len(mask), dtype=torch.bool),
        },
        batch_size=[len(mask)],
    )
    return Table(torch.randn(*shape, vocabulary, generator=rng)), batch


def log_prob_lists(policy: Table, batch: TensorDict, pair: int, chosen: bool) -> list[tuple[torch.Tensor, float]]:
    """The log-probabilities of an answer's sampled tokens, by the policy and by the reference."""
    table = policy.logits.log_softmax(-1)
    found = []
    for row in range(len(batch)):
        if int(batch["pair"][row]) == pair and bool(batch["chosen"][row]) == chosen:
            for t in batch["mask"][row].nonzero()[:, 0].tolist():
                found.append((table[row, t, batch["tokens"][row, t]], float(batch["ref_log_probs"][row, t])))
    return found


def total(output: TensorDict) -> torch.Tensor:
    """The sum of all losses of an output."""
    return torch.stack([value for key, value in output.items() if key.startswith("loss_")]).sum()
