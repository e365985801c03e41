"""`make_envs`: the environments of a run."""

import copy
import functools
from typing import Any

import gymnasium

from llmgym.config.sections import AgentConfig
from llmgym.data.tasks import TaskTable
from llmgym.envs.isolated import IsolatedVectorEnv
from llmgym.envs.vector import TextVectorEnv
from llmgym.registry import check_arguments, load_env_creator, make_env, make_of_spec, resolve_env, takes_split
from llmgym.train.tasks import RunRows


def make_envs(config: AgentConfig, rows: RunRows | None, count: int, *, split: str | None = None) -> TextVectorEnv:
    """Make environments; of a split, if they have splits.

    Args:
        config: Says which, with which arguments, and whether each is a process of its own.
        rows: What they play, if they take rows.
        count: How many.
        split: Which.
    """
    env_id, options = made_with(config, rows, split)
    if config.environment.isolate_env:
        return _isolated(config, env_id, options, count)
    return TextVectorEnv([lambda: make_env(env_id, **options)] * count)


def made_with(config: AgentConfig, rows: RunRows | None, split: str | None) -> tuple[str, dict[str, Any]]:
    """Return the id of the environments, and the arguments of those of a split."""
    env_id, options = resolve_env(config.environment.required), dict(config.environment.env_kwargs)
    if split is not None and takes_split(env_id):
        options["split"] = split
    if split == "eval":
        options |= config.environment.eval_env_kwargs
    if rows is not None:
        options |= rows.arguments(held_out=split == "eval")
    return env_id, options


def _isolated(config: AgentConfig, env_id: str, options: dict[str, Any], count: int) -> TextVectorEnv:
    """Make environments in processes of their own."""
    check_arguments(env_id, options)
    sent = {key: one.in_memory() if isinstance(one, TaskTable) else one for key, one in options.items()}
    spec = copy.copy(gymnasium.spec(env_id))
    spec.entry_point = load_env_creator(env_id)  # what can be imported, whoever registered it
    make = functools.partial(make_of_spec, spec, **sent)
    log = config.run.output_dir / "environments.log"
    return IsolatedVectorEnv(make, count, timeout=config.environment.env_timeout, log=log)
