"""Shared parts of the servers of pages: the guard, the headers, assets, and running them."""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Mapping
from importlib.resources import files
from typing import Final

import click
import msgspec
from aiohttp import web
from aiohttp.typedefs import Middleware

from backchannel.ops.web.guard import bearer, is_loopback, same

COOKIE: Final = "backchannel"

_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def guarded(token: str | None) -> Middleware:
    """Return the middleware that protects a page.

    Args:
        token: the token required from clients: once as `?token=`, after which a cookie holds it, or as a bearer token.
            If None, no token is needed, and only requests to a loopback name are answered, so that other sites' pages
            cannot read the data.
    """

    @web.middleware
    async def guard(request: web.Request, handler: _Handler) -> web.StreamResponse:
        response = _refusal(request, token) or await handler(request)
        response.headers.update(_HEADERS)
        return response

    return guard


def add_assets(app: web.Application, assets: Mapping[str, tuple[str, str]]) -> None:
    """Serve files of `backchannel.ops`.

    Args:
        app: the application to serve them.
        assets: path -> file and content type.
    """

    async def asset(request: web.Request) -> web.StreamResponse:
        name, kind = assets[request.path]
        body = (files("backchannel.ops") / name).read_bytes()
        return web.Response(body=body, content_type=kind, charset="utf-8")

    for path in assets:
        app.router.add_get(path, asset)


def json_response(value: object, status: int = 200) -> web.Response:
    """Return `value` as JSON."""
    return web.Response(body=msgspec.json.encode(value), content_type="application/json", status=status)


async def serve(app: web.Application, host: str, port: int, token: str | None) -> None:
    """Serve `app` until the process is told to stop, after printing its URL."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        name = f"[{host}]" if ":" in host else host
        click.echo(f"http://{name}:{runner.addresses[0][1]}/" + (f"?token={token}" if token else ""))
        await stop.wait()
    finally:
        await runner.cleanup()


def _refusal(request: web.Request, token: str | None) -> web.Response | None:
    """Return the response that refuses `request`, or None if it is allowed."""
    if token is None:
        return (
            None
            if is_loopback(request.url.host or "")
            else web.Response(status=403, text="forbidden: open the page at localhost, or set a --token\n")
        )
    given = request.query.get("token")
    if given is not None and same(given, token):
        response = web.Response(status=303, headers={"Location": request.path})
        response.set_cookie(COOKIE, token, httponly=True, samesite="Strict")
        return response
    sent = request.cookies.get(COOKIE, ""), bearer(request.headers.get("Authorization", ""))
    if any(same(one, token) for one in sent):
        return None
    return web.Response(status=401, text="a token is required: http://.../?token=...\n")
