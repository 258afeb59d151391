"""The page, served to the browser of one person on this machine, or at the other end of ssh.

Other people may have accounts here, and other pages may be open in the browser. So only this machine is listened to; each address
holds a token; requests for another host, which DNS rebinding sends, are refused; nothing is read but the store and the page's own
files; no request has a body; and the browser is told to load nothing from anywhere else.
"""

from __future__ import annotations

import asyncio
import hmac
import os
import re
import secrets
import socket
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from sweeps import information
from sweeps.dataset import open_store
from sweeps.place import Place, identity, told
from sweeps.recorded import spec_of
from sweeps.store import StoreError, open_existing, open_whole
from sweeps.viewer import page
from sweeps.viewer.gallery import Gallery, Refused, figures_of_a_game
from sweeps.viewer.live import EXAMPLE, LatestFirst, Live, Superseded

HOSTS = ("localhost", "127.0.0.1", "[::1]")
"""With any port: that of this machine, or the one that ssh forwards."""
LONGEST_QUERY = 4_000
MOST_REQUESTS = 64
"""At once; more are refused."""

HEADERS = {
    "Content-Security-Policy": page.policy("'self'", connect="'self'"),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Watched:
    """A store that may be replaced while it is looked at, as `mfgsweep extend` does."""

    def __init__(self, path: Place) -> None:
        self.path = path
        self._opening = threading.Lock()
        self._version: tuple[object, ...] | None = None
        open_whole(path)
        self.gallery, self.live = self.current()

    def current(self) -> tuple[Gallery, Live]:
        """What is in it, and how games like its own are solved."""
        with self._opening:
            version = identity(self.path / "status" / "zarr.json")
            if version != self._version:
                store = open_existing(self.path)
                self.gallery, self.live = Gallery(open_store(self.path, remember=False)), Live(spec_of(store))
                self._version = version
        return self.gallery, self.live

    @property
    def version(self) -> str:
        """By which the page notices that the store is another."""
        return "-".join(map(str, self._version or ()))


class Server:
    """What the page can ask for. `store`: None for a page that solves games and shows no sweep."""

    def __init__(self, store: Place | None, token: str) -> None:
        self._store = Watched(store) if store else None
        self._live = Live(EXAMPLE)
        self._solving = LatestFirst()
        answers = {"about": self._about, "game": self._game, "slice": self._slice, "ranges": self._ranges}
        answers |= {"progress": self._progress, "solve": self._solve}
        routes = [Route(f"/{token}/{name}", self._answering(answer)) for name, answer in answers.items()]
        routes += [Route(f"/{token}/{name}", _file(path)) for name, path in page.files().items()]
        self.application = Guard(Starlette(routes=routes, exception_handlers={HTTPException: _refusal}), token)

    async def _about(self, request: Request) -> dict[str, Any]:
        if self._store is None:
            return {
                "title": "one game, solved as you look",
                "games": None,
                "live": self._live.about(),
                "figures": figures_of_a_game(),
            }
        gallery, _ = await run_in_threadpool(self._store.current)
        summary = await run_in_threadpool(information.lines, self._store.path)
        about = {"title": self._store.path.name, "version": self._store.version, "summary": summary}
        return about | {"games": await run_in_threadpool(gallery.about), "live": []}

    async def _progress(self, request: Request) -> dict[str, Any]:
        gallery = await self._gallery()
        return {"statuses": await run_in_threadpool(gallery.progress), "version": self._watched().version}

    async def _game(self, request: Request) -> dict[str, Any]:
        return await (await self._gallery()).game_soon(_place(request))

    async def _slice(self, request: Request) -> dict[str, Any]:
        asked = request.query_params
        along = asked.get("x", ""), asked.get("y")
        return await run_in_threadpool((await self._gallery()).slice, asked.get("of", ""), *along, _place(request))

    async def _ranges(self, request: Request) -> dict[str, Any]:
        return await run_in_threadpool((await self._gallery()).ranges, request.query_params.get("of", ""))

    async def _solve(self, request: Request) -> dict[str, Any]:
        live = (await run_in_threadpool(self._store.current))[1] if self._store else self._live
        given = dict(request.query_params)
        return await asyncio.wrap_future(self._solving.submit(lambda: live.game(given)))

    def _watched(self) -> Watched:
        if self._store is None:
            raise Refused("there is no store here; allowed: about, solve")
        return self._store

    async def _gallery(self) -> Gallery:
        return (await run_in_threadpool(self._watched().current))[0]

    def _answering(self, answer: Callable[[Request], Awaitable[dict[str, Any]]]) -> Callable[[Request], Awaitable[Response]]:
        """Its answer as JSON, or what is wrong in one line."""

        async def respond(request: Request) -> Response:
            try:
                with told(self._store.path if self._store else Path()):
                    return JSONResponse(await answer(request))
            except Refused as error:
                return PlainTextResponse(f"{error}\n", 400)
            except Superseded:
                return PlainTextResponse("a later game was asked for\n", 409)
            except (OSError, StoreError) as error:
                return PlainTextResponse(f"the store cannot be read now: {error}\n", 503)
            except ValueError as error:
                if "checksum" not in str(error):
                    raise
                return PlainTextResponse(f"the store is damaged: {error}\n", 500)

        return respond


class Guard:
    """Lets through what comes from this page alone, and puts the headers on every answer."""

    def __init__(self, application: ASGIApp, token: str) -> None:
        self._application = application
        self._token = token.encode()
        self._answering = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *((k.lower().encode(), v.encode()) for k, v in HEADERS.items())]
            await send(message)

        answer = self._refusal(scope) or self._application
        self._answering += 1
        try:
            await answer(scope, receive, send_with_headers)
        finally:
            self._answering -= 1

    def _refusal(self, scope: Scope) -> Response | None:
        hosts = [value.decode("latin-1").lower() for name, value in scope["headers"] if name == b"host"]
        if len(hosts) != 1 or re.sub(r":\d+$", "", hosts[0]) not in HOSTS:
            return PlainTextResponse(f"this server is not that host; allowed: {', '.join(HOSTS)}, with any port\n", 421)
        given = scope["path"].removeprefix("/").split("/")[0]
        if not hmac.compare_digest(given.encode(), self._token):
            return PlainTextResponse("wrong token: use the address that mfgsweep view printed\n", 403)
        if scope["method"] not in ("GET", "HEAD"):
            return PlainTextResponse("allowed: GET\n", 405)
        if len(scope["query_string"]) > LONGEST_QUERY:
            return PlainTextResponse(f"the query is too long; allowed: {LONGEST_QUERY} bytes\n", 414)
        if self._answering >= MOST_REQUESTS:
            return PlainTextResponse(f"too many requests; allowed: {MOST_REQUESTS} at once\n", 503)
        return None


def serve(store: Place | None, port: int, announce: Callable[[str], None]) -> None:
    """Serves the page on the loopback address until the process is interrupted.

    Args:
        port: 0 for any that is free. announce: called with the address once it answers.

    Raises:
        OSError: the port is taken. StoreError: there is no store at that path.
    """
    token = secrets.token_urlsafe(24)
    application = Server(store, token).application
    try:
        listening = socket.create_server(("127.0.0.1", port))
    except OSError as error:
        raise OSError(error.errno, os.strerror(error.errno or 0), f"--port {port}") from None
    announce(f"http://127.0.0.1:{listening.getsockname()[1]}/{token}/")
    settings = uvicorn.Config(
        application,
        http="h11",
        ws="none",
        lifespan="off",
        log_level="error",
        server_header=False,
        timeout_graceful_shutdown=1,
    )
    with suppress(KeyboardInterrupt):  # the way to stop it
        uvicorn.Server(settings).run([listening])


def _place(request: Request) -> dict[str, int]:
    """The index along each dim; names that are none of a dim are left to others."""
    return {name: int(text) for name, text in request.query_params.items() if re.fullmatch(r"-?\d{1,12}", text, re.ASCII)}


def _file(path: Path) -> Callable[[Request], Awaitable[Response]]:
    kinds = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}

    async def respond(request: Request) -> Response:
        return Response(path.read_bytes(), media_type=kinds[path.suffix])

    return respond


async def _refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return PlainTextResponse(f"{error.detail}: there is nothing of this name here\n", error.status_code)
