"""The playground's server, for this machine only."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Final, TypeAlias, TypeVar

import msgspec
from aiohttp import web
from msgspec import Meta, Struct

from backchannel.ops.lab.playground.session import Playground
from backchannel.ops.web.pages import add_assets, guarded, json_response

_Body = TypeVar("_Body", bound=Struct)
_Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]

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


def application(playground: Playground) -> web.Application:
    """Build the server. It answers only requests to this machine's loopback names."""
    app = web.Application(middlewares=[guarded(None)])
    add_assets(app, _ASSETS)

    def search(asked: Search) -> object:
        return playground.search(asked.text.replace("\0", " "), rewrite=asked.rewrite)

    def click(chosen: Chosen) -> object:
        playground.click(chosen.query_id, chosen.doc_id)
        return {}

    app.router.add_get("/api/about", _reading(playground.about))
    app.router.add_get("/api/learned", _reading(playground.learned))
    app.router.add_post("/api/search", _doing(Search, search))
    app.router.add_post("/api/click", _doing(Chosen, click))
    app.router.add_post("/api/next", _doing(Nothing, lambda _: playground.next_person()))
    app.router.add_post("/api/crowd", _doing(Crowd, lambda crowd: playground.simulate(crowd.people)))
    return app


def _reading(read: Callable[[], object]) -> _Handler:
    async def handler(_: web.Request) -> web.StreamResponse:
        return json_response(await asyncio.to_thread(read))

    return handler


def _doing(body: type[_Body], do: Callable[[_Body], object]) -> _Handler:
    """Return a handler of JSON requests only: pages of other sites cannot send those without permission."""

    async def handler(request: web.Request) -> web.StreamResponse:
        if request.content_type != "application/json":
            return json_response({"error": "send application/json"}, status=415)
        try:
            sent = msgspec.json.decode(await request.read(), type=body)
        except msgspec.MsgspecError as error:
            return json_response({"error": str(error)}, status=400)
        try:
            return json_response(await asyncio.to_thread(do, sent))
        except KeyError as error:
            return json_response({"error": f"{error}: not shown to this person"}, status=404)

    return handler
