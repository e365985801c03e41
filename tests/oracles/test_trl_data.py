"""TRL reads preference files as they are, and renders the conversations that the reward model reads."""

from pathlib import Path

import pytest

from llmgym.data.preferences import generate_preferences, write_preferences
from llmgym.demo import TINY_PATH
from llmgym.learn.reward_model import RewardModel

pytest.importorskip("trl", reason="see `make oracles`")
from datasets import Dataset
from trl.data_utils import apply_chat_template, is_conversational


def test_trl_renders_what_we_do(tmp_path: Path) -> None:
    pairs = generate_preferences("AIOpsTriage", 60)
    assert any(len(pair.chosen) == 3 for pair in pairs)  # parted in round 1: several turns follow
    write_preferences(tmp_path / "pairs.parquet", pairs)
    rows = Dataset.from_parquet(str(tmp_path / "pairs.parquet"), cache_dir=str(tmp_path))
    model = RewardModel.load(TINY_PATH, fresh_head=True)
    for pair, row in zip(pairs, rows, strict=True):
        assert is_conversational(row)
        rendered = apply_chat_template(row, model.tokenizer)
        for side in ("chosen", "rejected"):
            whole = model.tokenizer(rendered["prompt"] + rendered[side], add_special_tokens=False)["input_ids"]
            assert whole == model.encode(pair.prompt + getattr(pair, side))
