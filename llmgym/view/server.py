"""The server of ``llmgym view``: files of the front end, and answers as JSON, to whoever may have them.

It listens on the loopback interface, where a page of another site could still reach it: so a request has to name this
machine (DNS rebinding), nothing is changed by one, and no other site is let read what comes. On another address
every request needs a token, which the address that is printed has; a cookie keeps it.
"""

import contextlib
import hmac
import ipaddress
import json
import secrets
import socket
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

from llmgym.errors import LLMGymError, UnknownNameError, said_by
from llmgym.view.answers import Answers
from llmgym.view.pages import RULES, TYPES, content
from llmgym.view.runs import Follower, Run
from llmgym.visible import visible

_HEADERS = {
    "Content-Security-Policy": f"{RULES}; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_PATIENCE = 60  # seconds that a connection may be silent


class Server(ThreadingHTTPServer):
    """Serves pages and answers until it is shut down; it is bound once it is made.

    Args:
        answers: What is asked.
        host: The address to listen on.
        port: To listen on; 0 for any that is free.

    Raises:
        OSError: The address cannot be listened on.
    """

    daemon_threads = True

    def __init__(self, answers: Answers, host: str, port: int) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.answers, self.host = answers, host
        super().__init__((host, port), _Handler)
        self.token = "" if is_loopback(host) else secrets.token_urlsafe(32)

    @property
    def address(self) -> str:
        """The address to open, with the token if there is one."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        if self.host in ("0.0.0.0", "::"):
            host = socket.gethostname()
        return f"http://{host}:{self.server_port}/" + (f"?token={self.token}" if self.token else "")

    def is_meant(self, host: str) -> bool:
        """Tell whether a request's Host header names this server, and no site that points here."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name == self.host.lower() or is_loopback(name):
            return True
        if self.host not in ("0.0.0.0", "::"):
            return False
        return _is_address(name) or name in (socket.gethostname().lower(), socket.getfqdn().lower())

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of connections that break; whatever else fails is answered."""


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach an address.

    Examples:
        >>> is_loopback("localhost"), is_loopback("127.0.0.2"), is_loopback("::1"), is_loopback("0.0.0.0")
        (True, True, True, False)
    """
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


@contextlib.contextmanager
def serve(runs: Sequence[Run], host: str, port: int) -> Iterator[Server]:
    """Yield a server of some runs, which are followed until the end.

    Args:
        runs: The runs.
        host: The address to listen on.
        port: To listen on; 0 for any that is free.

    Raises:
        OSError: The address cannot be listened on.
    """
    with Server(Answers(runs), host, port) as server, contextlib.closing(Follower(runs)):
        yield server


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    timeout = _PATIENCE
    server_version, sys_version = "llmgym", ""

    def do_GET(self) -> None:
        """Answer."""
        try:
            status, kind, body, headers = self._answer()
        except LLMGymError as error:
            status = HTTPStatus.NOT_FOUND if isinstance(error, UnknownNameError) else HTTPStatus.BAD_REQUEST
            status, kind, body, headers = _json(status, {"error": visible(str(error))})
        except Exception as error:  # noqa: BLE001  # whatever a file holds, the page says so and the server goes on
            status, kind, body, headers = _json(HTTPStatus.INTERNAL_SERVER_ERROR, {"error": visible(said_by(error))})
        self.send_response(status)
        for name, value in {**_HEADERS, **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _answer(self) -> tuple[HTTPStatus, str, bytes, Mapping[str, str]]:
        host = self.headers.get_all("Host") or []
        if len(host) != 1 or not self.server.is_meant(host[0]):
            return _json(HTTPStatus.FORBIDDEN, {"error": "expected an address of this server in the Host header."})
        parts = urlsplit(self.path)
        query = dict(parse_qsl(parts.query))
        if self.server.token:
            if self._is_token(query.get("token", "")) and parts.path == "/":
                cookie = f"{self._cookie}={self.server.token}; HttpOnly; SameSite=Lax; Path=/"
                return HTTPStatus.SEE_OTHER, "text/plain", b"", {"Location": "/", "Set-Cookie": cookie}
            if not self._is_token(self._token_sent()):
                return _json(
                    HTTPStatus.UNAUTHORIZED, {"error": "expected the token: open the address as it was printed."}
                )
        name = parts.path.removeprefix("/") or "index.html"
        if name in TYPES:
            return HTTPStatus.OK, TYPES[name], content(name).encode(), {}
        if not name.startswith("api/"):
            raise UnknownNameError(f"there is no page {name!r:.60}.")
        return _json(HTTPStatus.OK, self.server.answers.answer(name.removeprefix("api/"), query))

    @property
    def _cookie(self) -> str:
        return f"llmgym-view-{self.server.server_port}"  # browsers do not tell ports of a host apart

    def _token_sent(self) -> str:
        sent = self.headers.get("Authorization", "")
        if sent.startswith("Bearer "):
            return sent.removeprefix("Bearer ")
        try:
            cookies: SimpleCookie = SimpleCookie(self.headers.get("Cookie", ""))
        except CookieError:
            return ""
        return cookies[self._cookie].value if self._cookie in cookies else ""

    def _is_token(self, sent: str) -> bool:
        return hmac.compare_digest(sent.encode(), self.server.token.encode())

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing: addresses hold the token."""


def _json(status: HTTPStatus, value: object) -> tuple[HTTPStatus, str, bytes, Mapping[str, str]]:
    body = json.dumps(value, allow_nan=False, separators=(",", ":")).encode()
    return status, "application/json; charset=utf-8", body, {}
