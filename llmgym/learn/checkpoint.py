"""Checkpoints: a directory that `transformers` and SGLang open as it is."""

import shutil
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from llmgym.errors import RunDirectoryError
from llmgym.files import sync


def save_checkpoint(path: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write weights (safetensors), configuration and tokenizer to a new directory, whole or not at all.

    Raises:
        RunDirectoryError: `path` exists already.
    """
    if path.exists():
        raise RunDirectoryError(f"Expected a new directory for the checkpoint, but {str(path)!r} exists.")
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    for file in partial.iterdir():
        sync(file)
    partial.replace(path)
