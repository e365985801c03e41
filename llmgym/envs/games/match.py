"""`Match`: one game between two players, with its rules and with what an opponent may play."""

import re
from abc import ABC, abstractmethod
from typing import Literal

Computed = Literal["random", "scripted", "optimal"]
"""Who plays the other side inside an environment: any legal move, a plain rule, or the best strategy there is."""

Opponent = Literal[Computed, "frozen", "self"]
"""Who plays the other side: the environment, a policy whose weights stay as they are, or the policy that learns."""

_BETWEEN_SENTENCES = re.compile(r"(?:(?<=[.!?])\s|\n)\s*")


class Match(ABC):
    """A game under way between player 0 and player 1.

    A move is a text: what a reply has to say in order to make it.

    Attributes:
        told: What each player has yet to be told of what happened.
        dice: Numbers between 0 and 1, which decide what an opponent does that plays by chance. They belong to the
            task, so that siblings meet the same luck.
        mover: The player whose move it is.
        over: Whether the game is over.
    """

    def __init__(self, dice: tuple[float, ...]) -> None:
        self.told: tuple[list[str], list[str]] = ([], [])
        self.dice = dice
        self.mover = 0
        self.over = False

    @property
    @abstractmethod
    def content(self) -> str:
        """What the task consists of, the same for every task that is played alike."""

    @property
    @abstractmethod
    def rules(self) -> str:
        """What a player is told first."""

    @property
    @abstractmethod
    def view(self) -> str:
        """What the player whose move it is sees, and what it can reply."""

    @property
    @abstractmethod
    def impossible(self) -> str:
        """A move of the game that cannot be made now."""

    @abstractmethod
    def read(self, reply: str) -> str | None:
        """Return the legal move that a reply means; None if it means none."""

    @abstractmethod
    def play(self, move: str) -> None:
        """Make a legal move."""

    @abstractmethod
    def score(self, player: int) -> float:
        """Return what a player has earned, between 0 and 1; nothing while the game goes on."""

    @abstractmethod
    def forfeited(self, player: int) -> float:
        """Return what a player earns where the other one has lost by illegal moves."""

    @abstractmethod
    def move_of(self, opponent: Computed, die: float) -> str:
        """Return what an opponent does whose move it is.

        Args:
            opponent: How it plays.
            die: A number between 0 and 1, which decides where chance does.
        """

    @abstractmethod
    def best_reply(self, opponent: Computed, die: float) -> str:
        """Return the move that is best on average against an opponent, by what the player whose move it is knows."""


def pick(options: list[str], die: float) -> str:
    """Return one of several moves, each as likely as the others."""
    return options[int(die * len(options))]


def sentences(reply: str) -> list[str]:
    r"""Return the sentences of a reply in lower case; a line break ends one, too.

    Examples:
        >>> sentences("Is it 2.5? No.\nI bet")
        ['is it 2.5?', 'no.', 'i bet']
    """
    return _BETWEEN_SENTENCES.split(reply.lower())


def alone(said: str) -> re.Pattern[str]:
    """Return what matches a sentence that says something and nothing else; a question says nothing.

    Args:
        said: A regular expression.

    Examples:
        >>> pattern = alone("bet|check")
        >>> pattern.fullmatch("i will bet.")["said"]
        'bet'
        >>> pattern.fullmatch("i will not bet.") is None and pattern.fullmatch("bet?") is None
        True
    """
    return re.compile(rf"[^\w?]*(?:i (?:will )?|i['’]ll )?(?P<said>{said})[^\w?]*")
