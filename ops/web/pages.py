"""Shared parts of the servers of pages: the guard, the headers, assets, and running them."""

import asyncio
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.resources import files
from typing import Any, Final

import click
import msgspec
from granian.constants import HTTPModes, Interfaces
from granian.server.embed import Server
from litestar import Litestar, MediaType, Request, Response, get
from litestar.datastructures import Cookie
from litestar.enums import ScopeType
from litestar.handlers import HTTPRouteHandler
from litestar.response.base import ASGIResponse
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from backchannel.ops.web.addresses import check_address, free_port
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


async def serve(app: ASGIApp, host: str, port: int, token: str | None) -> None:
    """Serve `app` until the process is told to stop, after printing its URL.

    Raises:
        AddressError: the port is taken, or the address is not this machine's.
    """
    check_address(host, port)
    port = port or free_port(host)
    server = Server(
        app,
        address=host,
        port=port,
        interface=Interfaces.ASGI,
        http=HTTPModes.http1,
        websockets=False,
        log_enabled=False,
    )
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    serving = asyncio.create_task(server.serve())
    try:
        await _accepting(serving, host, port)
        name = f"[{host}]" if ":" in host else host
        click.echo(f"http://{name}:{port}/" + (f"?token={token}" if token else ""))
        await asyncio.wait((serving, asyncio.create_task(stop.wait())), return_when=asyncio.FIRST_COMPLETED)
    finally:
        server.interrupt_signal = True
        server.main_loop_interrupt.set()
        await serving


async def _accepting(serving: asyncio.Task[None], host: str, port: int) -> None:
    """Wait until the server accepts connections, or ends."""
    while not serving.done():
        with suppress(ConnectionRefusedError):
            _, writer = await asyncio.open_connection(host, port)
            writer.close()
            return
        await asyncio.sleep(0.01)


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
