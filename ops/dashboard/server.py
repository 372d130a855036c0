"""The dashboard's server: read-only, and protected by a token or restricted to this machine."""

import asyncio
import hmac
from collections.abc import Awaitable, Callable
from importlib.resources import files
from ipaddress import ip_address
from typing import Final

import msgspec
from aiohttp import web

from backchannel.ops.dashboard.state import Observatory
from backchannel.schemas.events import Context
from backchannel.streams.serving.reader import NoPolicyError

COOKIE: Final = "backchannel"
LONGEST_QUERY: Final = 2000
MOST_CANDIDATES: Final = 1000

_ASSETS: Final = {
    "/": ("dashboard/assets/index.html", "text/html"),
    "/style.css": ("reporting/style.css", "text/css"),
    "/dashboard.css": ("dashboard/assets/dashboard.css", "text/css"),
    "/dashboard.js": ("dashboard/assets/dashboard.js", "text/javascript"),
    "/uPlot.min.css": ("dashboard/assets/uPlot.min.css", "text/css"),
    "/uPlot.js": ("dashboard/assets/uPlot.iife.min.js", "text/javascript"),
}
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def is_loopback(host: str) -> bool:
    """Return whether `host` is an address that only this machine can reach."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def application(observatory: Observatory, token: str | None) -> web.Application:
    """Build the server.

    Args:
        observatory: the source of the data.
        token: the token required from clients: once as `?token=`, after which a cookie holds it, or as a bearer token.
            If None, no token is needed, and only requests to a loopback name are answered, so that other sites' pages
            cannot read the data.
    """

    @web.middleware
    async def guarded(request: web.Request, handler: _Handler) -> web.StreamResponse:
        response = _refusal(request, token) or await handler(request)
        response.headers.update(_HEADERS)
        return response

    async def asset(request: web.Request) -> web.StreamResponse:
        name, kind = _ASSETS[request.path]
        body = (files("backchannel.ops") / name).read_bytes()
        return web.Response(body=body, content_type=kind, charset="utf-8")

    async def state(_: web.Request) -> web.StreamResponse:
        return _json(await asyncio.to_thread(observatory.state))

    async def query(request: web.Request) -> web.StreamResponse:
        try:
            text = request.query.get("text", "")[:LONGEST_QUERY]
            budget = msgspec.convert(request.query.get("budget", "20"), int, strict=False)
            context = msgspec.json.decode(request.query.get("context") or "{}", type=Context)
        except msgspec.MsgspecError as error:
            return _json({"error": f"context: {error}"}, status=400)
        try:
            found = await asyncio.to_thread(observatory.query, text, context, min(max(budget, 1), MOST_CANDIDATES))
        except NoPolicyError as error:
            return _json({"error": str(error)}, status=404)
        return _json(found)

    app = web.Application(middlewares=[guarded])
    for path in _ASSETS:
        app.router.add_get(path, asset)
    app.router.add_get("/api/state", state)
    app.router.add_get("/api/query", query)
    return app


def _refusal(request: web.Request, token: str | None) -> web.Response | None:
    """Return the response that refuses `request`, or None if it is allowed."""
    if token is None:
        return (
            None
            if is_loopback(request.url.host or "")
            else web.Response(status=403, text="forbidden: open the dashboard at localhost, or set a --token\n")
        )
    given = request.query.get("token")
    if given is not None and _same(given, token):
        response = web.Response(status=303, headers={"Location": request.path})
        response.set_cookie(COOKIE, token, httponly=True, samesite="Strict")
        return response
    scheme, _, bearer = request.headers.get("Authorization", "").partition(" ")
    if _same(request.cookies.get(COOKIE, ""), token) or (scheme.lower() == "bearer" and _same(bearer, token)):
        return None
    return web.Response(status=401, text="a token is required: http://.../?token=...\n")


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())


def _json(value: object, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json", status=status)
