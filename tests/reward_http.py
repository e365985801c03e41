"""A scripted server of a reward model, beside which tests/engines/test_sglang_reward_model.py has the real one."""

import http.server
import json
import threading
import time
from collections import Counter
from typing import Any

from llmgym.demo import TINY_PATH

FACTS: dict[str, Any] = {"tokenizer_path": str(TINY_PATH), "is_generation": False}


class RewardModelServer:
    """Answers with the number of tokens; `instead` has other answers, by that number."""

    def __init__(self) -> None:
        self.facts: Any = FACTS
        self.instead: dict[int, Any] = {}
        self.failures = 0
        self.asked: list[list[int]] = []
        self.keys: Counter[str | None] = Counter()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send(200, json.dumps(outer.facts).encode())

            def do_POST(self) -> None:
                tokens = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["input_ids"]
                outer.asked.append(tokens)
                outer.keys[self.headers["Authorization"]] += 1
                if outer.failures > 0:
                    outer.failures -= 1
                    self.send(503, b"busy")
                    return
                instead = outer.instead.get(len(tokens))
                if isinstance(instead, float):
                    time.sleep(instead)
                if isinstance(instead, tuple):
                    self.send(*instead)
                else:
                    self.send(200, json.dumps({"embedding": [float(len(tokens))], "meta_info": {}}).encode())

            def send(self, status: int, content: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *arguments: Any) -> None:
                """Say nothing."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
