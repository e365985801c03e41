"""Environments of other packages, named ``package:task``: which packages are known, and where their adapters are.

An adapter is a module of this folder with a function, or a class, that takes the task first and returns a `TextEnv`.
Its package is an extra of llmgym; nothing of it is imported before an environment is made.
"""

from typing import NamedTuple


class Adapter(NamedTuple):
    """How the environments of another package are made.

    Attributes:
        env_id: The Gymnasium id that makes any of them, given ``task=``.
        entry_point: What makes them, as ``"module:function"``.
        example: The name of one of them.
        about: What they are, as in "One of a hundred kinds of questions".
        extra: The extra of llmgym that brings the package; None if it needs none.
    """

    env_id: str
    entry_point: str
    example: str
    about: str
    extra: str | None = None


ADAPTERS = {
    "reasoning_gym": Adapter(
        env_id="llmgym/ReasoningGym-v0",
        entry_point="llmgym.envs.adapters.reasoning_gym.environment:make",
        example="chain_sum",
        about="a hundred kinds of questions that programs ask and check",
        extra="reasoning-gym",
    ),
    "textarena": Adapter(
        env_id="llmgym/TextArena-v0",
        entry_point="llmgym.envs.adapters.textarena:make",
        example="TicTacToe-v0",
        about="some sixty games for one or two players",
        extra="textarena",
    ),
    "textworld_express": Adapter(
        env_id="llmgym/TextWorldExpress-v0",
        entry_point="llmgym.envs.adapters.textworld_express:make",
        example="cookingworld",
        about="eight text games of rooms and objects, in Java",
        extra="textworld-express",
    ),
    "verifiers": Adapter(
        env_id="llmgym/Verifiers-v0",
        entry_point="llmgym.envs.adapters.verifiers.environment:make",
        example="my_taskset",
        about="the tasksets of verifiers that are installed, or of your own",
        extra="verifiers",
    ),
    "openenv": Adapter(
        env_id="llmgym/OpenEnv-v0",
        entry_point="llmgym.envs.adapters.openenv.environment:OpenEnv",
        example="ws://127.0.0.1:8000/ws",
        about="the environments that OpenEnv servers hold",
        extra="openenv",
    ),
    "bfcl": Adapter(
        env_id="llmgym/BFCL-v0",
        entry_point="llmgym.envs.adapters.bfcl.environment:BFCL",
        example="multi_turn_base",
        about="the 800 tasks of several turns of the Berkeley Function Calling Leaderboard "
        "(pip install --no-deps bfcl-eval==2026.3.23)",
    ),
}
"""Adapters by what their environments' names begin with."""
