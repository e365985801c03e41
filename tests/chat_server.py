"""An OpenAI-compatible server of chat completions whose model is a function, with the troubles that a server has."""

import http.server
import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

Said = str | dict[str, Any] | tuple[int, dict[str, str]] | bytes
"""What it answers: a text, a message, an error with headers, or bytes."""


class ChatServer:
    """The server; it refuses conversations that are none in OpenAI's protocol.

    Args:
        model: Answers a request.
        delay: Seconds before each answer.

    Attributes:
        bodies: The requests that it answered.
        asked: How often it was asked the same, by the request as JSON.
        usage: Whether it says how many tokens it read and wrote.
        reason: Why its replies end.
    """

    def __init__(self, model: Callable[[dict[str, Any]], Said], delay: float = 0.0) -> None:
        self.model, self.usage, self.reason = model, True, "stop"
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.asked: Counter[str] = Counter()
        self.at_once = self.most_at_once = self.read = self.written = 0
        lock = threading.Lock()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    outer.at_once += 1
                    outer.most_at_once = max(outer.most_at_once, outer.at_once)
                    outer.bodies.append(body)
                    outer.headers.append({name.lower(): value for name, value in self.headers.items()})
                    outer.asked[json.dumps(body, sort_keys=True)] += 1
                try:
                    time.sleep(delay)
                    self.answer(body)
                finally:
                    with lock:
                        outer.at_once -= 1

            def answer(self, body: dict[str, Any]) -> None:
                fault = fault_of(body["messages"])
                said = (400, {"X-Fault": fault}) if fault else outer.model(body)
                if said == (0, {}):
                    self.close_connection = True
                elif isinstance(said, bytes):
                    self.send(200, said, {})
                elif isinstance(said, tuple):
                    words = said[1].get("X-Fault", "too much to do")
                    self.send(said[0], json.dumps({"error": {"message": words}}).encode(), said[1])
                else:
                    self.complete(body, {"content": said} if isinstance(said, str) else said)

            def complete(self, body: dict[str, Any], message: dict[str, Any]) -> None:
                reason = message.pop("finish_reason", outer.reason)
                read = sum(len(str(one["content"]).split()) for one in body["messages"])
                written = len(str(message.get("content")).split())
                reply: dict[str, Any] = {"id": "1", "object": "chat.completion", "created": 1, "model": body["model"]}
                reply["choices"] = [{"index": 0, "message": {"role": "assistant", **message}, "finish_reason": reason}]
                if outer.usage:
                    reply["usage"] = {"prompt_tokens": read, "completion_tokens": written}
                with lock:
                    outer.read += read
                    outer.written += written
                self.send(200, json.dumps(reply).encode(), {})

            def send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

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


def fault_of(messages: list[dict[str, Any]]) -> str | None:
    """Return what OpenAI's protocol has against a conversation: every call is answered next, and nothing else is."""
    waiting: list[str] = []
    for message in messages:
        if message["role"] == "tool":
            if message["tool_call_id"] not in waiting:
                return "a tool answers a call that is not there"
            waiting.remove(message["tool_call_id"])
            continue
        if waiting:
            return "a call has no answer"
        if message["role"] not in ("system", "user", "assistant") or not isinstance(message["content"], str):
            return f"unknown message {message}"
        for call in message.get("tool_calls", ()):
            if not isinstance(json.loads(call["function"]["arguments"]), dict):
                return "arguments that are no object"
            waiting.append(call["id"])
    return "a call has no answer" if waiting else None
