"""An environment that asks an HTTP server: `score` is a coroutine, so all episodes wait for it side by side.

python examples/http_env.py
"""

import asyncio
import http.server
import threading
from urllib.request import quote, urlopen

import llmgym.agents


class Dealer(http.server.SimpleHTTPRequestHandler):
    """Takes the place of a server that you have: /K/bet is worth 1, because one bets on a king."""

    def do_GET(self) -> None:
        card, _, move = self.path[1:].partition("/")
        self.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n%d" % (move == ("bet" if card == "K" else "check")))


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Dealer)
threading.Thread(target=server.serve_forever, daemon=True).start()


@llmgym.register_env("Dealer-v0")
class DealersGame(llmgym.TextEnv):
    """Bet on a king and check on a lower card."""

    def begin(self) -> str:
        self.episode.task = str(self.np_random.choice(["J", "Q", "K"]))
        return f"You hold {self.episode.task}. Reply with check or bet."

    async def score(self, episode: llmgym.Episode) -> float:
        url = f"http://127.0.0.1:{server.server_port}/{episode.task}/{quote(episode.actions[0])}"
        return float((await asyncio.to_thread(urlopen, url)).read())


if __name__ == "__main__":
    llmgym.agents.GRPO(env="Dealer-v0", model="tiny-tools", steps=20, eval_episodes=200, max_tokens=16).train()
