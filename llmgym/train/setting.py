"""What training begins with, whatever is trained: the settings of its process, and where a model is put."""

import torch
import transformers
from transformers import PreTrainedModel

from llmgym.config.presets import directory_of
from llmgym.config.sections import LearningConfig
from llmgym.learn import ranks
from llmgym.models.lora import add_adapters
from llmgym.models.threads import use_available_processors
from llmgym.rollout.run_time import set_run_time
from llmgym.train.chance import seed_all
from llmgym.train.hardware import device_of, dtype_of


def set_up(config: LearningConfig) -> None:
    """Set what holds for the whole process: threads, random numbers, what transformers prints, what time it is.

    If it is one of several that learn together, it joins the others.
    """
    ranks.join()
    transformers.utils.logging.disable_progress_bar()
    use_available_processors()
    set_run_time(config.model.date)
    seed_all(config.run.seed)


def source_of(config: LearningConfig) -> tuple[str, torch.dtype]:
    """Return the directory or hub name of a model, and the type of weights that its device multiplies."""
    return directory_of(config.model.name), dtype_of(config.model.dtype, device_of(config.model.device))


def put(model: PreTrainedModel, config: LearningConfig) -> None:
    """Move a model to its device, and give it adapters if these are to learn in its place."""
    model.to(device_of(config.model.device))
    if config.model.lora_rank:
        add_adapters(model, config.model.lora_rank, config.model.lora_alpha, config.run.seed)
