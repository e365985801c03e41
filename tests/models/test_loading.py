"""What `--model` cannot be is said in a sentence, at once."""

import shutil
from pathlib import Path
from typing import Any

import httpx
import huggingface_hub
import pytest
import torch
from transformers import BertConfig, BertModel

from llmgym.demo import TINY_PATH
from llmgym.errors import ModelError
from llmgym.models.causal_lm import find_model, load_causal_lm


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A hub that cannot be reached, and an empty cache."""

    def unreachable(*_: Any, **__: Any) -> None:
        raise httpx.ConnectError("Name or service not known")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", unreachable)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("name", ["owner/model", "gpt2"])
def test_a_name_on_a_hub_that_cannot_be_reached_is_refused(name: str) -> None:
    with pytest.raises(ModelError, match=r"no such directory; the hub cannot be reached, and its cache has no such"):
        load_causal_lm(name)


def test_without_the_hub_a_model_comes_from_its_cache(no_network: Path) -> None:
    home = no_network / "models--owner--model"
    shutil.copytree(TINY_PATH, home / "snapshots" / "one")
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text("one")
    name, options = find_model("owner/model")
    assert options == {"local_files_only": True}
    assert huggingface_hub.snapshot_download(name, **options) == str(home / "snapshots" / "one")


@pytest.mark.parametrize("name", ["nope/nope/nope", "", "a b"])
def test_what_is_not_a_name_on_the_hub_is_refused(name: str) -> None:
    with pytest.raises(ModelError, match="no such directory, and no name on the hub such as 'owner/model'"):
        load_causal_lm(name)


def test_a_run_directory_is_taken_for_what_it_is(tmp_path: Path) -> None:
    shutil.copytree(TINY_PATH, tmp_path / "checkpoint")
    with pytest.raises(ModelError, match=r"found none of tokenizer.json, .* Did you mean '.*checkpoint'\?"):
        load_causal_lm(tmp_path)


def test_an_encoder_is_refused_without_a_report_of_its_weights(tmp_path: Path, capfd: Any) -> None:
    shutil.copytree(TINY_PATH, tmp_path, dirs_exist_ok=True)
    (tmp_path / "generation_config.json").unlink(missing_ok=True)
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    BertModel(BertConfig(vocab_size=4000, **shape)).save_pretrained(tmp_path)
    capfd.readouterr()
    with pytest.raises(ModelError, match=r"lack cls.* and 3 more of a BertLMHeadModel; they were saved as BertModel"):
        load_causal_lm(tmp_path)
    said = "".join(capfd.readouterr()).splitlines()
    assert not [line for line in said if line and "Loading weights" not in line]  # that one is a progress bar
