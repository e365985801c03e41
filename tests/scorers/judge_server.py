"""An OpenAI-compatible server that judges by rules, and has all the troubles that a server can have."""

import hashlib
import http.server
import json
import re
import threading
import time
from collections import Counter
from typing import Any

SECTION = re.compile(r"\[(\w+) (\w{10})\]\n(.*?)\n\[end of \1 \2\]", re.DOTALL)
OBEYED = re.compile(r"VERDICT: *(correct|incorrect|\d+|first|second)")


def sections(text: str) -> tuple[dict[str, str], str]:
    """Return what a prompt holds between marks, and the rest of it."""
    return {found[1]: found[3] for found in SECTION.finditer(text)}, SECTION.sub("", text)


def verdict(text: str) -> str:
    """Judge as a careful reader of the prompt does: by what is between marks, of which it obeys nothing.

    It obeys whatever is outside of them and beyond the prompt's own words: so a reply that got out has won.
    """
    said, around = sections(text)
    orders = [order for order in OBEYED.findall(around.split("Then end with one line")[0]) if order]
    if orders:
        return f"As I am told.\nVERDICT: {orders[-1]}"
    if "first" in said:
        first, second = said["first"], said["second"]
        better = "tie" if len(first) == len(second) else "first" if len(first) > len(second) else "second"
        return f"By length.\nVERDICT: {better}"
    if "answer" in said:
        right = said["reply"].strip() == said["answer"].strip()
        return f"The reply says 'VERDICT: correct', or not.\nVERDICT: {'correct' if right else 'incorrect'}"
    return f"It has some words.\nVERDICT: {min(10, 1 + len(said['reply'].split()))}"


class JudgeServer:
    """The server.

    Args:
        troubled: Every tenth question fails at first: it is refused with 500 or 429, or the connection is closed.
        delay: Seconds before each answer.
        drip: Seconds before each byte of one.
        rubbish: What some questions are answered with: by a number from 0 to 19 that the question gives.
    """

    def __init__(
        self, *, troubled: bool = False, rubbish: dict[int, Any] | None = None, delay: float = 0.0, drip: float = 0.0
    ) -> None:
        self.asked: Counter[str] = Counter()
        self.answered = self.read = self.written = self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()
        self.headers: list[dict[str, str]] = []
        self.bodies: list[dict[str, Any]] = []
        self.verdict = verdict
        self.reason, self.usage = "stop", ...
        self.refusal = self.location = self.encoding = None
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                text = body["messages"][-1]["content"]
                with outer.lock:
                    outer.at_once += 1
                    outer.most_at_once = max(outer.most_at_once, outer.at_once)
                    outer.asked[text] += 1
                    first = outer.asked[text] == 1
                    outer.headers.append(dict(self.headers))
                    outer.bodies.append(body)
                try:
                    time.sleep(delay)
                    if outer.location or outer.refusal:
                        self.turn_away()
                        return
                    number = int(hashlib.md5(text.encode(), usedforsecurity=False).hexdigest(), 16)
                    if troubled and number % 10 == 0 and first:
                        self.fail(number // 10 % 3)
                    else:
                        self.succeed(text, (rubbish or {}).get(number % 20))
                finally:
                    with outer.lock:
                        outer.at_once -= 1

            def turn_away(self) -> None:
                self.send_response(401 if outer.refusal else 307)
                self.send_header("Content-Type", "application/json")
                self.send_header("Location", outer.location or "")
                self.send_header("Content-Length", str(len(outer.refusal or b"")))
                self.end_headers()
                self.wfile.write(outer.refusal or b"")

            def fail(self, how: int) -> None:
                if how == 2:
                    self.close_connection = True
                    return
                self.send(500 if how == 0 else 429, b'{"error": {"message": "too much to do"}}')

            def succeed(self, text: str, instead: Any) -> None:
                read, written = len(text.split()), 7
                if isinstance(instead, float):
                    time.sleep(instead)
                elif isinstance(instead, bytes):
                    self.send(200, instead)
                    return
                said = instead if isinstance(instead, str) else outer.verdict(text)
                message = {"role": "assistant", "content": said}
                usage = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
                reply = {"id": "1", "object": "chat.completion", "created": 1, "model": "judge", "usage": usage}
                reply["choices"] = [{"index": 0, "message": message, "finish_reason": outer.reason}]
                if outer.usage is not ...:
                    reply["usage"] = outer.usage
                with outer.lock:
                    outer.answered += 1
                    outer.read += read
                    outer.written += written
                self.send(200, json.dumps(reply).encode())

            def send(self, status: int, content: bytes) -> None:
                try:
                    self.send_response(status)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(content)))
                    if outer.encoding:
                        self.send_header("Content-Encoding", outer.encoding)
                    self.end_headers()
                    for byte in content if drip else ():
                        self.wfile.write(bytes([byte]))
                        time.sleep(drip)
                    self.wfile.write(b"" if drip else content)
                except OSError:  # nobody waits for it any more
                    self.close_connection = True

            def log_message(self, *arguments: Any) -> None:
                """Say nothing."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def close(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()
