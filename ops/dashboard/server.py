"""The dashboard's server: read-only, and protected by a token or restricted to this machine."""

import asyncio
from typing import Final

import msgspec
from aiohttp import web

from backchannel.ops.dashboard.state import Observatory
from backchannel.ops.web.pages import add_assets, guarded, json_response
from backchannel.schemas.errors import BackchannelError
from backchannel.schemas.events import Context
from backchannel.streams.serving.reader import NoPolicyError

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


def application(observatory: Observatory, token: str | None) -> web.Application:
    """Build the server.

    Args:
        observatory: the source of the data.
        token: the token required from clients, see `pages.guarded`.
    """

    async def state(_: web.Request) -> web.StreamResponse:
        return json_response(await asyncio.to_thread(observatory.state))

    async def query(request: web.Request) -> web.StreamResponse:
        try:
            text = request.query.get("text", "")[:LONGEST_QUERY]
            budget = msgspec.convert(request.query.get("budget", "20"), int, strict=False)
            context = msgspec.json.decode(request.query.get("context") or "{}", type=Context)
        except msgspec.MsgspecError as error:
            return json_response({"error": f"context: {error}"}, status=400)
        try:
            found = await asyncio.to_thread(observatory.query, text, context, min(max(budget, 1), MOST_CANDIDATES))
        except NoPolicyError as error:
            return json_response({"error": str(error)}, status=404)
        return json_response(found)

    async def changes(request: web.Request) -> web.StreamResponse:
        try:
            older, newer = (msgspec.convert(request.query.get(name), int, strict=False) for name in ("from", "to"))
            return json_response(await asyncio.to_thread(observatory.compare, older, newer))
        except msgspec.MsgspecError as error:
            return json_response({"error": f"from and to are versions: {error}"}, status=400)
        except (BackchannelError, LookupError) as error:
            return json_response({"error": str(error)}, status=404)

    app = web.Application(middlewares=[guarded(token)])
    add_assets(app, _ASSETS)
    app.router.add_get("/api/state", state)
    app.router.add_get("/api/query", query)
    app.router.add_get("/api/changes", changes)
    return app
