"""The dashboard's server: read-only, and protected by a token or restricted to this machine."""

from typing import Any, Final

import msgspec
from litestar import Request, Response, get
from litestar.types import ASGIApp

from backchannel.ops.dashboard.state import Observatory
from backchannel.ops.web.pages import application_of, json_response
from backchannel.schemas.errors import BackchannelError
from backchannel.schemas.events import Context
from backchannel.streams.kafka.topics import TopicError
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


def application(observatory: Observatory, token: str | None) -> ASGIApp:
    """Build the server.

    Args:
        observatory: the source of the data.
        token: the token required from clients, see `pages.Guarded`.
    """

    @get("/api/state", sync_to_thread=True)
    def state() -> Response[bytes]:
        return json_response(observatory.state())

    @get("/api/query", sync_to_thread=True)
    def query(request: Request[Any, Any, Any]) -> Response[bytes]:
        asked, field = request.query_params, "budget"
        try:
            text = asked.get("text", "")[:LONGEST_QUERY]
            budget = msgspec.convert(asked.get(field, "20"), int, strict=False)
            field = "context"
            context = msgspec.json.decode(asked.get(field) or "{}", type=Context)
        except msgspec.MsgspecError as error:
            return json_response({"error": f"{field}: {error}"}, status=400)
        try:
            return json_response(observatory.query(text, context, min(max(budget, 1), MOST_CANDIDATES)))
        except NoPolicyError as error:
            return json_response({"error": str(error)}, status=404)
        except ValueError as error:
            return json_response({"error": str(error)}, status=400)

    @get("/api/changes", sync_to_thread=True)
    def changes(request: Request[Any, Any, Any]) -> Response[bytes]:
        try:
            older, newer = (
                msgspec.convert(request.query_params.get(name), int, strict=False) for name in ("from", "to")
            )
            return json_response(observatory.compare(older, newer))
        except msgspec.MsgspecError as error:
            return json_response({"error": f"from and to are versions: {error}"}, status=400)
        except (BackchannelError, LookupError) as error:
            return json_response({"error": str(error)}, status=404)

    @get("/api/invalid-records")
    async def invalid_records() -> Response[bytes]:
        try:
            return json_response(await observatory.invalid_records())
        except TopicError as error:
            return json_response({"error": str(error)}, status=503)

    return application_of([state, query, changes, invalid_records], _ASSETS, token)
