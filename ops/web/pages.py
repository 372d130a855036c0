"""Shared parts of the servers of pages: the guard, the headers, assets, and running them."""

import asyncio
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.resources import files
from typing import Any, Final

import click
import msgspec
import uvicorn
from litestar import Litestar, MediaType, Request, Response, get
from litestar.datastructures import Cookie
from litestar.enums import ScopeType
from litestar.handlers import HTTPRouteHandler
from litestar.response.base import ASGIResponse
from litestar.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.server import HANDLED_SIGNALS

from backchannel.ops.web.addresses import bound
from backchannel.ops.web.guard import bearer, host_of, is_loopback, same

COOKIE: Final = "backchannel"

_HEADERS: Final = {
    b"content-security-policy": b"default-src 'none'; script-src 'self'; style-src 'self'; "
    b"connect-src 'self'; img-src data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    b"cache-control": b"no-store",
    b"referrer-policy": b"no-referrer",
    b"x-content-type-options": b"nosniff",
}


def application_of(
    handlers: Sequence[HTTPRouteHandler], assets: Mapping[str, tuple[str, str]], token: str | None
) -> ASGIApp:
    """Make the application of a page, protected.

    Args:
        handlers: what the page asks its server.
        assets: path -> file of `backchannel.ops` and its content type.
        token: see `Guarded`.
    """
    served = [*handlers, *(_asset(path, *asset) for path, asset in assets.items())]
    return Guarded(Litestar(served, openapi_config=None, logging_config=None), token)


class Guarded:
    """An ASGI application that protects a page.

    Args:
        app: the application behind.
        token: the token required from clients: once as `?token=`, after which a cookie holds it, or as a bearer token.
            If None, no token is needed, and only requests to a loopback name are answered, so that other sites' pages
            cannot read the data.
    """

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self._app: Final = app
        self._token: Final = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_HEADERS.items()]
            await send(message)

        await (_refusal(Request(scope), self._token) or self._app)(scope, receive, answer)


def json_response(value: object, status: int = 200) -> Response[bytes]:
    """Return `value` as JSON."""
    return Response(msgspec.json.encode(value), media_type=MediaType.JSON, status_code=status)


def serve(app: ASGIApp, host: str, port: int, token: str | None) -> None:
    """Serve `app` until the process is told to stop, after printing its URL.

    Raises:
        AddressError: the port is taken, or the address is not this machine's.
    """
    with bound(host, port) as listening:
        name = f"[{host}]" if ":" in host else host
        url = f"http://{name}:{listening.getsockname()[1]}/" + (f"?token={token}" if token else "")
        _Server(uvicorn.Config(app, ws="none", access_log=False, log_config=None), url).run([listening])


class _Server(uvicorn.Server):
    """Prints `url` once it answers, and ends without an error when it is told to stop."""

    def __init__(self, config: uvicorn.Config, url: str) -> None:
        super().__init__(config)
        self._url: Final = url

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        click.echo(self._url)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:  # uvicorn's sends the signal to the process again, which then dies
        for number in HANDLED_SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, self.handle_exit, number, None)
        yield


def _asset(path: str, name: str, kind: str) -> HTTPRouteHandler:
    @get(path, media_type=kind, sync_to_thread=False)
    def asset() -> bytes:
        return (files("backchannel.ops") / name).read_bytes()

    return asset


def _refusal(request: Request[Any, Any, Any], token: str | None) -> ASGIResponse | None:
    """Return the response that refuses `request`, or None if it is allowed."""
    if token is None:
        if is_loopback(host_of(request.headers.get("host", ""))):
            return None
        return _text(403, "forbidden: open the page at localhost, or set a --token\n")
    given = request.query_params.get("token")
    if given is not None and same(given, token):
        cookie = Cookie(COOKIE, value=token, httponly=True, samesite="strict")
        return ASGIResponse(status_code=303, headers={"location": request.url.path}, cookies=[cookie])
    sent = request.cookies.get(COOKIE, ""), bearer(request.headers.get("authorization", ""))
    if any(same(one, token) for one in sent):
        return None
    return _text(401, "a token is required: http://.../?token=...\n")


def _text(status: int, text: str) -> ASGIResponse:
    return ASGIResponse(body=text.encode(), status_code=status, media_type=MediaType.TEXT)
