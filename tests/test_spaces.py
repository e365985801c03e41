"""`UnicodeText` holds every string."""

import pickle

from gymnasium.vector.utils import batch_space

from llmgym import UnicodeText


def test_every_string_belongs_and_nothing_else() -> None:
    space = UnicodeText()
    assert all(text in space for text in ("", "\n", "é", "日志", "🙂", "\x00", "\ud800", "a" * 10**6))
    assert all(other not in space for other in (None, 1, b"x", ["x"]))


def test_samples_belong_and_follow_the_seed() -> None:
    one, other = UnicodeText(seed=3), UnicodeText(seed=3)
    samples = [one.sample() for _ in range(20)]
    assert samples == [other.sample() for _ in range(20)]
    assert len(set(samples)) > 10
    assert all(sample in one for sample in samples)


def test_it_equals_itself_pickled_and_batches_to_a_tuple() -> None:
    assert pickle.loads(pickle.dumps(UnicodeText())) == UnicodeText()
    assert ("a", "b\n") in batch_space(UnicodeText(), 2)
