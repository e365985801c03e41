"""Packing leaves padding and repeated prompts out, and micro-batches keep to their budget."""

import pytest
import torch
from test_policy import ragged_batch

from llmgym.learn.batch import micro_batches
from llmgym.learn.packing import pack

CPU = torch.device("cpu")


def test_every_sampled_token_sees_its_own_row_in_order_and_nothing_else() -> None:
    batch = ragged_batch()
    packed = pack(batch, CPU)
    segments = {index: s for s in packed.segments for index in range(s.start, s.stop)}
    where = iter(packed.before.tolist())
    for row, column in batch["mask"].nonzero().tolist():
        index = next(where)
        segment = segments[index]
        seen = [*range(segment.context_start, segment.context_stop), *range(segment.start, index + 1)]
        assert packed.tokens[seen].tolist() == batch["tokens"][row, :column].tolist()
        assert packed.positions[seen].tolist() == list(range(column))
    assert next(where, None) is None


def test_a_prompt_is_packed_once_for_its_siblings_and_nothing_after_the_last_sampled_token() -> None:
    batch = ragged_batch()
    batch = batch[batch["mask"].any(dim=1)]
    last = torch.stack([mask.nonzero()[-1, 0] for mask in batch["mask"]])
    prompts = set(batch["prompt_length"].tolist())
    assert len(pack(batch, CPU).tokens) == int((last - batch["prompt_length"]).sum()) + sum(prompts)


def test_a_row_without_a_sampled_token_is_left_out() -> None:
    batch = ragged_batch()
    assert not batch["mask"].any(dim=1).all()
    less = pack(batch[batch["mask"].any(dim=1)], CPU)
    torch.testing.assert_close(pack(batch, CPU).tokens, less.tokens)


def test_rows_that_are_not_adjacent_share_their_prompt_too() -> None:
    batch = ragged_batch()
    order = torch.tensor([0, 3, 1, 4, 6, 2, 5])
    assert len(pack(batch[order], CPU).tokens) == len(pack(batch, CPU).tokens)


def test_a_row_whose_prompt_differs_has_one_of_its_own() -> None:
    batch = ragged_batch()[:3]
    batch["tokens"][1, 4] += 1
    prompts = [segment for segment in pack(batch, CPU).segments if segment.context_start == segment.context_stop]
    assert [segment.stop - segment.start for segment in prompts] == [17, 17]


@pytest.mark.parametrize("max_tokens", [1, 45, 60, 110, 10**6])
def test_micro_batches_hold_all_rows_in_order_within_their_budget(max_tokens: int) -> None:
    batch = ragged_batch()
    parts = list(micro_batches(batch, max_tokens))
    assert torch.cat([part["length"] for part in parts]).tolist() == batch["length"].tolist()
    for part in parts:
        everything = part.clone()
        everything["mask"][:] = torch.arange(part["tokens"].shape[1]) < part["length"][:, None]
        assert len(pack(everything, CPU).tokens) <= max_tokens or len(part) == 1
        assert part["tokens"].shape[1] == part["length"].max()


def test_siblings_stay_in_one_micro_batch_where_they_fit() -> None:
    batch = ragged_batch()
    batch["mask"][:] = torch.arange(batch["tokens"].shape[1]) < batch["length"][:, None]
    first_and_one_more = len(pack(batch[:4], CPU).tokens) + 1
    parts = [part["prompt_length"].tolist() for part in micro_batches(batch, first_and_one_more)]
    assert parts[0] == [17, 17, 17]
    assert parts[1][:3] == [9, 9, 9]
