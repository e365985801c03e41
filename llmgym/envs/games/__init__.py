"""Games for two: Kuhn poker, tic-tac-toe and negotiation; see `table.TwoPlayerGame`."""

from llmgym.envs.games.kuhn import KuhnPoker
from llmgym.envs.games.negotiation import Negotiation
from llmgym.envs.games.table import TwoPlayerGame
from llmgym.envs.games.tictactoe import TicTacToe

__all__ = ["KuhnPoker", "Negotiation", "TicTacToe", "TwoPlayerGame"]
