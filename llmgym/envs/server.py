"""The sockets of ``llmgym serve-env``: an environment behind OpenEnv's WebSocket, for each client its own."""

import json
import threading
from typing import Any

from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import Server, ServerConnection, serve

from llmgym.envs.serving import SCHEMAS, MakeEnv, Session, error

LARGEST_MESSAGE = 2**24  # bytes that a client may send at once


def serve_env(make: MakeEnv, name: str, *, host: str, port: int, max_sessions: int) -> Server:
    """Return a server that is bound; its ``serve_forever`` serves, and ``shutdown`` ends that.

    A session is a socket at ``/ws``, with an environment and a thread of its own. It ends with the socket. Browsers are
    refused: a page from anywhere could otherwise talk to a server on the loopback interface.

    Args:
        make: Makes an environment.
        name: Of the environment.
        host: The address to listen on.
        port: To listen on; 0 for any that is free.
        max_sessions: Clients at a time; more are told that there is no room.

    Raises:
        OSError: The address cannot be listened on.
    """
    places = threading.BoundedSemaphore(max_sessions)

    def handle(connection: ServerConnection) -> None:
        if not places.acquire(blocking=False):
            full = error("CAPACITY_REACHED", f"all {max_sessions} sessions are taken", max_sessions=max_sessions)
            connection.send(json.dumps(full))
            return
        session = Session(make)
        try:
            for message in connection:
                answer = session.answer(message)
                if answer is None:
                    break
                connection.send(json.dumps(answer))
        except ConnectionClosed:
            pass
        finally:
            session.close()
            places.release()

    def pages(connection: ServerConnection, request: Request) -> Response | None:
        """Answer what is no WebSocket."""
        path = request.path.partition("?")[0]
        known = {"/health": {"status": "healthy"}, "/schema": SCHEMAS, "/metadata": {"name": name, "description": ""}}
        if path == "/ws":
            return None
        return _json(200, known[path]) if path in known else _json(404, {"detail": "Not Found"})

    return serve(handle, host, port, process_request=pages, max_size=LARGEST_MESSAGE, origins=[None], compression=None)


def _json(status: int, content: Any) -> Response:
    body = json.dumps(content).encode()
    headers = Headers({"Content-Type": "application/json", "Content-Length": str(len(body)), "Connection": "close"})
    return Response(status, "OK" if status == 200 else "Not Found", headers, body)
