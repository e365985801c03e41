"""TextArena's games of one and two players as environments; a game of two has an opponent.

TextArena draws from Python's global generator. Every game here has a state of that generator of its own, so games that
are played in turn do not change each other.
"""

import contextlib
import copy
import io
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from llmgym.envs.adapters.global_random import GlobalRandom
from llmgym.envs.text_env import TextEnv
from llmgym.errors import ConfigError, UnknownNameError, did_you_mean, import_extra, import_user_module
from llmgym.scorers.pointwise import ScoreFunction, Scorer
from llmgym.types import Episode, Outcome, Score

_package: Any = import_extra("textarena", extra="textarena")
_registry: Any = import_extra("textarena.envs.registration", extra="textarena").ENV_REGISTRY

Opponent = Callable[[str, np.random.Generator], str]
"""What an opponent is: a function of what it has been told so far and of a generator, which returns its move."""

ONE_PLAYER = frozenset(
    [
        "2048",
        "Bandit",
        "Blackjack",
        "Crosswords",
        "FifteenPuzzle",
        "FrozenLake",
        "GuessTheNumber",
        "Hangman",
        "Klondike",
        "LightsOut",
        "LogicPuzzle",
        "Mastermind",
        "Minesweeper",
        "PegJump",
        "RushHour",
        "Secretary",
        "Set",
        "Sokoban",
        "Sudoku",
        "TowerOfHanoi",
        "WordLadder",
        "WordSearch",
        "Wordle",
    ]
)
"""Games of one player."""

NO_RANDOM_MOVES = frozenset(
    [
        "Alquerque",
        "Battleship",
        "Breakthrough",
        "Briscola",
        "Chopsticks",
        "ColonelBlotto",
        "GermanWhist",
        "Golf",
        "IteratedTwoThirdsAverage",
        "LinesOfAction",
        "MemoryGame",
        "NewRecruit",
        "Nim",
        "QuantumTicTacToe",
        "SantoriniBaseFixed",
        "Stratego",
        "Tak",
        "TwoDollar",
        "UltimateTicTacToe",
    ]
)
"""Games of two that do not list their moves, so that a random opponent finds none, or not always."""

REFUSED = {
    **dict.fromkeys(["Countdown", "Cryptarithm", "Slitherlink", "ThreeCardMonte"], "a wrong move's reward is a text"),
    **dict.fromkeys(
        ["Debate", "GuessWho", "ScenarioPlanning", "TwentyQuestions"],
        "it asks a language model on a server, so its episodes are no function of their seeds",
    ),
    **dict.fromkeys(["ScorableGames", "UsedCar", "UsedCarNegotiation"], "its data is not in the package"),
    **dict.fromkeys(["CharacterConclave", "SpiteAndMalice"], "it raises exceptions on common moves"),
}
"""Games that are refused, and why."""

_MOST_TURNS = 100  # of a game that has no limit of its own
_MOST_MOVES = 1_000  # of opponents between two replies
_TRIALS = 48  # moves that the random opponent tries


def make(
    task: str,
    *,
    opponent: str | Opponent = "random",
    seat: int | None = None,
    render_mode: str | None = None,
    scorer: Scorer | ScoreFunction | str | None = None,
    **arguments: Any,
) -> "TextArena":
    """Play one of TextArena's games.

    Args:
        task: The game's id without ``-raw``, such as ``"TicTacToe-v0"``.
        opponent: Of a game of two: ``"random"``, which makes a random move that is allowed, or a function of the text
            it has been told and of a generator, as ``"package.module:function"`` or itself.
        seat: Which player of two the agent is, 0 or 1; None to draw it.
        render_mode: As of every `TextEnv`.
        scorer: As of every `TextEnv`.
        arguments: What the game's own class takes, such as ``max_turns``.

    Raises:
        UnknownNameError: There is no such game, or no such opponent.
        ConfigError: The game is refused, or cannot be made.
    """
    if f"{task}-raw" not in _registry:
        games = [name for name in _registry if f"{name}-raw" in _registry]
        raise UnknownNameError(
            f"TextArena has no game {task!r}.{did_you_mean(task, games)} Games: {', '.join(sorted(games))}."
        )
    game = task.partition("-v")[0]
    if game in REFUSED:
        raise ConfigError(f"textarena:{task} is refused: {REFUSED[game]}.")
    if game in NO_RANDOM_MOVES and opponent == "random":
        raise ConfigError(
            f"textarena:{task} does not list its moves, so it has no random opponent: give opponent=, as "
            "'package.module:function'."
        )
    if seat not in (None, 0, 1):
        raise ConfigError(f"seat: expected 0, 1 or null, got {seat!r}.")
    kind = _EXPERTS.get(game, TextArena)
    env = kind(task, arguments, _opponent(opponent), seat, render_mode=render_mode, scorer=scorer)
    _try_to_start(env, task)
    return env


class TextArena(TextEnv):
    """A game of TextArena's against nobody or one opponent; the reward is the game's own, once it is over.

    A first wrong move is answered with the reason, a second in a row ends the game, as TextArena has it. A game that is
    cut off by `max_turns` has no outcome and earns 0.

    Args:
        game_id: The game's id without ``-raw``.
        arguments: What its class is given.
        opponent: Who plays the other seat.
        seat: Which player the agent is; None to draw it.
        render_mode: As of every `TextEnv`.
        scorer: As of every `TextEnv`.
    """

    def __init__(
        self,
        game_id: str,
        arguments: dict[str, Any],
        opponent: Opponent | None,
        seat: int | None,
        *,
        render_mode: str | None = None,
        scorer: Scorer | ScoreFunction | str | None = None,
    ) -> None:
        super().__init__(render_mode=render_mode, scorer=scorer)
        self._game_id = game_id
        self._arguments = arguments
        self._opponent = opponent
        self._seat = seat
        self._players = 1 if game_id.partition("-v")[0] in ONE_PLAYER else 2

    def begin(self) -> str:
        """Start a game, and let the opponent move if it is first."""
        self.start(int(self.np_random.integers(2**31)))
        drawn = int(self.np_random.integers(self._players))
        self.player = drawn if self._seat is None or self._players == 1 else self._seat
        self._let_others_move()
        return self._news()

    def start(self, seed: int) -> None:
        """Start a game anew: some keep cards from one to the next."""
        self._random = GlobalRandom(seed)
        self._told = dict.fromkeys(range(self._players), "")
        with self._random, _silence():
            self.game = _package.make(f"{self._game_id}-raw", **self._arguments)
            self.game.reset(num_players=self._players, seed=seed)
        self._done = False
        limit = self.game.state.max_turns
        self.max_turns = _MOST_TURNS if limit is None else None

    def respond(self, action: str) -> str | Outcome:
        """Make the agent's move, and the opponent's."""
        self._move(action)
        self._let_others_move()
        if self._done:
            return Outcome(str(self.game.state.game_info[self.player].get("reason") or "The game is over."), over=True)
        return self._news()

    def score(self, episode: Episode) -> Score:
        """Return the game's own reward of the agent; the part ``invalid_move`` says whether it ended the game so."""
        state = self.game.state
        if not self._done:
            return Score(0.0)
        wrong = bool(state.game_info[self.player]["invalid_move"])
        return Score(float(state.rewards[self.player]), {"invalid_move": float(wrong)})

    def _move(self, action: str) -> None:
        with self._random, _silence():
            self._done, _ = self.game.step(action)

    def _let_others_move(self) -> None:
        for _ in range(_MOST_MOVES):
            player = self.game.state.current_player_id
            if self._done or player == self.player:
                return
            self._told[player] += self._heard(player)
            if self._opponent is None:
                move = self._random_move(player)
            else:
                move = self._opponent(self._told[player], self.np_random)
            self._move(move)
        raise RuntimeError(f"{self._game_id}: the opponent made {_MOST_MOVES} moves and it is not the agent's turn.")

    def _news(self) -> str:
        return self._heard(self.player).strip() or "It is your turn."

    def _heard(self, player: int) -> str:
        """Return what a player has not been told yet; its own moves it knows."""
        with self._random:
            _, messages = self.game.get_observation()
        state, own = self.game.state, _package.ObservationType.PLAYER_ACTION
        lines = []
        for sender, text, kind in messages:
            if kind == own and sender == player:
                continue
            lines.append(text if sender == _package.GAME_ID else f"[{state.role_mapping.get(sender, sender)}] {text}")
        return "".join(f"{line}\n" for line in lines)

    def _random_move(self, player: int) -> str:
        """Return a random move that the game allows, if one of those that it speaks of is."""
        words: list[str] = list(dict.fromkeys(re.findall(r"\[[^\[\]\n]{1,40}\]", self._told[player])))
        moves = [words[int(i)] for i in self.np_random.permutation(len(words))]
        moves += [self._like(moves[i % len(moves)]) for i in range(max(0, _TRIALS - len(moves)))] if moves else ["[0]"]
        for move in moves[:_TRIALS]:
            if self._allows(move, player):
                return move
        raise RuntimeError(f"{self._game_id}: the random opponent found no move that the game allows.")

    def _like(self, move: str) -> str:
        """Return a move of the same form with other digits and letters."""
        move = re.sub(r"\d+", lambda found: str(self.np_random.integers(max(10, int(found[0][:4]) + 1))), move)
        letters: str = re.sub(r"\b[a-hA-H]\b", lambda found: "ABCDEFGH"[int(self.np_random.integers(8))], move)
        return letters

    def _allows(self, move: str, player: int) -> bool:
        with copy.copy(self._random), _silence():
            trial = copy.deepcopy(self.game)
            try:
                trial.step(move)
            except Exception:  # noqa: BLE001  # what a game cannot read is no move
                return False
        state = trial.state
        return not (state.game_info[player]["invalid_move"] or state.error_count > self.game.state.error_count)


class _GuessTheNumber(TextArena):
    def expert(self) -> Iterator[str]:
        """Say the number."""
        yield f"[{self.game.state.game_state['game_number']}]"


class _Mastermind(TextArena):
    def expert(self) -> Iterator[str]:
        """Say the code."""
        yield f"[{' '.join(map(str, self.game.state.game_state['secret_code']))}]"


class _TowerOfHanoi(TextArena):
    def expert(self) -> Iterator[str]:
        """Move the tower."""
        yield from _hanoi(len(self.game.state.game_state["towers"]["A"]), "A", "B", "C")


def _hanoi(disks: int, source: str, spare: str, target: str) -> Iterator[str]:
    if disks:
        yield from _hanoi(disks - 1, source, target, spare)
        yield f"[{source} {target}]"
        yield from _hanoi(disks - 1, spare, source, target)


_EXPERTS = {"GuessTheNumber": _GuessTheNumber, "Mastermind": _Mastermind, "TowerOfHanoi": _TowerOfHanoi}


def _opponent(given: str | Opponent) -> Opponent | None:
    """Return the opponent that is meant; None for the random one."""
    if not isinstance(given, str):
        return given
    if given == "random":
        return None
    module, _, name = given.rpartition(":")
    if not module:
        raise UnknownNameError(f"opponent: expected 'random' or 'package.module:function', got {given!r}.")
    found: Opponent | None = getattr(import_user_module(module, given), name, None)
    if found is None:
        raise UnknownNameError(f"opponent: {module} has no {name!r}.")
    return found


def _try_to_start(env: TextArena, task: str) -> None:
    try:
        env.start(0)
        env.game.get_observation()
    except SyntaxError as error:
        raise ConfigError(f"textarena:{task} needs Python 3.12 or later: its code cannot be read ({error}).") from error
    except LookupError as error:
        what = " ".join(re.findall(r"nltk\.download\('(\w+)'\)", str(error))) or str(error)
        raise ConfigError(f"textarena:{task} needs data of NLTK: python -m nltk.downloader {what}.") from error
    except AssertionError as error:
        raise ConfigError(
            f"textarena:{task} is refused: games of one and two players can be played ({error})."
        ) from error
    except Exception as error:  # whatever the game raises, it cannot be played
        raise ConfigError(f"textarena:{task} cannot be started ({type(error).__name__}: {error}).") from error


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    with contextlib.redirect_stdout(io.StringIO()):  # some games print
        yield
