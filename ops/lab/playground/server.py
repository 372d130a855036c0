"""The playground's server, for this machine only."""

import asyncio
from collections.abc import Callable
from typing import Annotated, Any, Final, TypeVar

import msgspec
from litestar import MediaType, Request, Response, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp
from msgspec import Meta, Struct

from backchannel.ops.lab.playground.session import Playground
from backchannel.ops.web.pages import application_of, json_response

_Body = TypeVar("_Body", bound=Struct)

_ASSETS: Final = {
    "/": ("lab/playground/assets/index.html", "text/html"),
    "/style.css": ("reporting/style.css", "text/css"),
    "/dashboard.css": ("dashboard/assets/dashboard.css", "text/css"),
    "/playground.css": ("lab/playground/assets/playground.css", "text/css"),
    "/playground.js": ("lab/playground/assets/playground.js", "text/javascript"),
}


class Search(Struct, frozen=True):
    """A search request."""

    text: Annotated[str, Meta(min_length=1, max_length=500)]
    rewrite: bool = True


class Chosen(Struct, frozen=True):
    """A click."""

    query_id: str
    doc_id: str


class Crowd(Struct, frozen=True):
    """The number of simulated people to come."""

    people: Annotated[int, Meta(ge=1, le=500)]


class Nothing(Struct, frozen=True):
    """A request without parameters."""


def application(playground: Playground) -> ASGIApp:
    """Build the server. It answers only requests to this machine's loopback names."""

    def search(asked: Search) -> object:
        return playground.search(asked.text.replace("\0", " "), rewrite=asked.rewrite)

    def click(chosen: Chosen) -> object:
        playground.click(chosen.query_id, chosen.doc_id)
        return {}

    handlers = [
        _reading("/api/about", playground.about),
        _reading("/api/learned", playground.learned),
        _doing("/api/search", Search, search),
        _doing("/api/click", Chosen, click),
        _doing("/api/next", Nothing, lambda _: playground.next_person()),
        _doing("/api/crowd", Crowd, lambda crowd: playground.simulate(crowd.people)),
    ]
    return application_of(handlers, _ASSETS, None)


def _reading(path: str, read: Callable[[], object]) -> HTTPRouteHandler:
    @get(path, sync_to_thread=True)
    def handler() -> Response[bytes]:
        return json_response(read())

    return handler


def _doing(path: str, body: type[_Body], do: Callable[[_Body], object]) -> HTTPRouteHandler:
    """Return a handler of JSON requests only: pages of other sites cannot send those without permission."""

    @post(path, status_code=200)
    async def handler(request: Request[Any, Any, Any]) -> Response[bytes]:
        if request.content_type[0] != MediaType.JSON:
            return json_response({"error": "send application/json"}, status=415)
        try:
            sent = msgspec.json.decode(await request.body(), type=body)
        except msgspec.MsgspecError as error:
            return json_response({"error": str(error)}, status=400)
        try:
            return json_response(await asyncio.to_thread(do, sent))
        except KeyError as error:
            return json_response({"error": f"{error}: not shown to this person"}, status=404)

    return handler
