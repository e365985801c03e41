"""An environment that asks an HTTP server: `respond` is a coroutine, so all episodes wait for it side by side.

python examples/http_env.py
"""

import asyncio
import http.server
import threading
from urllib.request import quote, urlopen

import llmgym.agents


class Server(http.server.SimpleHTTPRequestHandler):
    """Takes the place of a server that you have."""

    def do_GET(self) -> None:
        self.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n" + (b"down" if self.path == "/payments" else b"up"))


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()


@llmgym.register_env("Health-v0")
class Health(llmgym.TextEnv):
    """Name the service that is down."""

    def begin(self) -> str:
        return "Which service is down: gateway, checkout or payments? Answer with its name alone."

    async def respond(self, action: str) -> None:
        self.state = (await asyncio.to_thread(urlopen, f"http://127.0.0.1:{server.server_port}/{quote(action)}")).read()

    def score(self, episode: llmgym.Episode) -> float:
        return float(self.state == b"down")


if __name__ == "__main__":
    llmgym.agents.GRPO(env="Health-v0", steps=10, max_tokens=8, eval_episodes=50).train()
