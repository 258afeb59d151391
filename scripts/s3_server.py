"""An S3 server on loopback, in memory, that can be told to fail now and then.

    python scripts/s3_server.py [--failures SHARE] [--seed N]

Prints its address, and serves until it is stopped.
"""

from __future__ import annotations

import argparse
import logging
import random
import socket
import threading
import urllib.request
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from typing import Any, Self

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

SETTINGS = {
    "AWS_ACCESS_KEY_ID": "anybody",
    "AWS_SECRET_ACCESS_KEY": "anything",
    "AWS_REGION": "us-east-1",
    "AWS_ALLOW_HTTP": "true",
}
"""Environment variables of who talks to it, beside the address."""
REFUSALS = {"500 Internal Server Error": "InternalError", "503 Slow Down": "SlowDown", "403 Forbidden": "AccessDenied"}
UNDONE, DONE = "closed, what was asked for is not done", "closed, what was asked for is done"
FAILURES = ("500 Internal Server Error", "503 Slow Down", UNDONE, DONE)


class Server:
    """Of the requests to it, a share fails: it answers with an error, or closes the connection."""

    def __init__(self, failures: float = 0.0, seed: int = 0) -> None:
        self.failures = failures
        self.failed = 0
        self.forbids: Callable[[str, str], bool] = lambda method, path: False
        """Of which requests it says that they are not allowed."""
        self.done: list[tuple[str, str]] = []
        """The requests that it served, by method and path."""
        self._chance = random.Random(seed)
        self._application = DomainDispatcherApplication(create_backend_app)
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True, request_handler=MotoRequestHandler)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.port}"

    def serve(self) -> None:
        self._server.serve_forever()

    @contextmanager
    def running(self) -> Generator[Self]:
        """Serves from a thread of this process."""
        thread = threading.Thread(target=self.serve)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()

    def _answer(self, request: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        method, path = request["REQUEST_METHOD"], request["PATH_INFO"]
        failure = self._failure(method, path)
        if failure:
            self.failed += 1
        if failure in (None, DONE):
            answer = self._application(request, start_response)
            self.done.append((method, path))
            if failure is None:
                return answer
        else:  # who is still sending would not notice
            request["wsgi.input"].read(int(request.get("CONTENT_LENGTH") or 0))
        if failure in REFUSALS:
            start_response(failure, [("Content-Type", "application/xml")])
            return [f"<Error><Code>{REFUSALS[failure]}</Code><Message>as it was told to</Message></Error>".encode()]
        request["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        raise ConnectionAbortedError

    def _failure(self, method: str, path: str) -> str | None:
        if self.forbids(method, path):
            return "403 Forbidden"
        return self._chance.choice(FAILURES) if self._chance.random() < self.failures else None


def make_bucket(address: str, name: str) -> None:
    """On a server that does not fail."""
    urllib.request.urlopen(urllib.request.Request(f"{address}/{name}", method="PUT")).close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--failures", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    server = Server(chosen.failures, chosen.seed)
    print(server.address, flush=True)
    server.serve()


if __name__ == "__main__":
    main()
