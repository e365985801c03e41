"""An environment whose tool asks an HTTP server: it is a coroutine, so all episodes wait side by side.

python examples/http_env.py
"""

import asyncio
import http.server
import threading
import urllib.request

import llmgym
from llmgym.agents import SFT


class Server(http.server.SimpleHTTPRequestHandler):
    """Tells which services are up; it takes the place of a server that you have."""

    def do_GET(self) -> None:
        self.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n" + (b"down" if self.path == "/payments" else b"up"))


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()


async def health(service: str) -> str:
    """Tell whether a service is up or down."""
    with await asyncio.to_thread(urllib.request.urlopen, f"http://127.0.0.1:{server.server_port}/{service}") as answer:
        return str(answer.read().decode())


@llmgym.register_env("Health-v0")
class Health(llmgym.TextEnv):
    """Ask for the health of a service, and repeat the answer."""

    tools, tool_timeout, max_turns = (health,), 5.0, 2

    def begin(self) -> str:
        self.episode.task = self.np_random.choice(["gateway", "payments"])
        return f"Is {self.episode.task} up or down?"

    def score(self, episode: llmgym.Episode) -> float:
        return float(episode.actions[-1] == ("down" if episode.task == "payments" else "up"))

    def expert(self):
        yield llmgym.ToolCall("health", {"service": self.episode.task})
        yield self.heard[-1].content


if __name__ == "__main__":
    SFT(env="Health-v0", steps=60, learning_rate=3e-3, batch_size=8, examples=100, eval_episodes=100).train()
