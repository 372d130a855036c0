"""The service over HTTP."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Annotated, Any, Final, TypeVar

import msgspec
from litestar import Litestar, MediaType, Request, Response, get, post
from litestar.config.cors import CORSConfig
from litestar.openapi import ResponseSpec
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.spec import License
from litestar.params import Parameter
from litestar.response.base import ASGIResponse

from backchannel.ops.serve.contract import (
    DecideRequest,
    DecideResponse,
    EventsResponse,
    PolicyResponse,
    RankRequest,
    RankResponse,
    RecallResponse,
    RewriteResponse,
    TaughtResponse,
)
from backchannel.ops.serve.metrics import ServiceMetrics
from backchannel.ops.serve.openapi import completed_document
from backchannel.ops.serve.service import Service
from backchannel.ops.web.problems import RefusedError, to_problem
from backchannel.schemas.codec import EventError, explain, refuse_nul
from backchannel.streams.config import ServeConfig

PUBLIC: Final = ("/healthz", "/readyz", "/metrics", "/openapi.json")
"""The paths that need no token."""

_S = TypeVar("_S", bound=msgspec.Struct)
_Text = Annotated[str, Parameter(max_length=2000, min_length=1, description="the query's text")]
_Id = Annotated[str | None, Parameter(max_length=256, min_length=1)]
_Locale = Annotated[str | None, Parameter(max_length=35, description="the query's locale, such as tr-TR")]


def document() -> dict[str, Any]:
    """Return the OpenAPI document."""
    return completed_document(application(None, ServeConfig(), ServiceMetrics(shared=False)))


def decoded(body: bytes, kind: type[_S]) -> _S:
    """Decode a request's body.

    Raises:
        RefusedError: it is invalid; the detail names the field.
    """
    document: Any = None
    try:
        try:
            found = msgspec.json.decode(body, type=kind)
        except msgspec.ValidationError:
            document = _whole(msgspec.json.decode(body))
            found = msgspec.convert(document, kind)
        if b"\\u0000" in body:
            refuse_nul(msgspec.to_builtins(found), "body")
    except EventError as error:
        raise RefusedError(400, str(error)) from None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RefusedError(400, explain(error, document, kind)) from None
    return found


async def _body(request: Request[Any, Any, Any], most: int) -> bytes:
    """Read a request's body. Litestar's own reader makes an object of the headers first: a tenth of a decision's cost.

    Raises:
        RefusedError: it is longer than `most` bytes.
    """
    body = b""
    while True:
        message = await request.receive()
        if message["type"] != "http.request":
            raise RefusedError(400, "the caller has gone before the end of the body")
        body += message.get("body", b"")
        if len(body) > most:
            raise RefusedError(413, "the body is longer than serve.body_kb allows; send less at once")
        if not message.get("more_body"):
            return body


def _whole(value: Any) -> Any:
    """Return a decoded document with 20 for 20.0: in JSON they are one number, and some clients write the latter."""
    if isinstance(value, dict):
        return {key: _whole(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_whole(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 1 << 53 else value


def application(
    service: Service | None,
    config: ServeConfig,
    metrics: ServiceMetrics,
    *,
    unready: Callable[[], str | None] = lambda: None,
    running: Callable[[], AbstractAsyncContextManager[None]] = nullcontext,
) -> Litestar:
    """Build the application.

    Args:
        service: answers the requests; None: only the document is wanted.
        config: limits and origins.
        metrics: counts what happens.
        unready: returns why the service is not ready; None: it is.
        running: what is open while the server runs.
    """

    most = config.body_kb << 10

    def serving() -> Service:
        assert service is not None
        return service

    @post(
        "/v1/decide",
        status_code=200,
        summary="What to do for a query",
        responses={200: ResponseSpec(DecideResponse, generate_examples=False, description="The decision")},
    )
    async def decide(request: Request[Any, Any, Any]) -> ASGIResponse:
        decision = serving().decide(decoded(await _body(request, most), DecideRequest))
        # Litestar's own way from a struct to an answer costs a tenth of a decision.
        return ASGIResponse(body=msgspec.json.encode(decision), media_type=MediaType.JSON)

    @post("/v1/rank", status_code=200, summary="In which order to show candidates")
    async def rank(request: Request[Any, Any, Any]) -> RankResponse:
        return serving().rank(decoded(await _body(request, most), RankRequest))

    @post("/v1/events", status_code=202, summary="What was asked, shown and done")
    async def events(request: Request[Any, Any, Any]) -> EventsResponse:
        body = await _body(request, most)
        kind = request.headers.get("content-type", "").partition(";")[0].lower()
        accepted = await serving().accept(body, lines=kind == "application/x-ndjson")
        metrics.events(accepted.accepted)
        return accepted

    @get("/v1/recall", sync_to_thread=False, summary="What has worked for a query")
    def recall(
        text: _Text,
        user_id: _Id = None,
        group_id: _Id = None,
        locale: _Locale = None,
        k: Annotated[int, Parameter(ge=1, le=500)] = 20,
    ) -> RecallResponse:
        return serving().recall(text, k, user_id, group_id, locale)

    @get("/v1/rewrite", sync_to_thread=False, summary="What a query should have been")
    def rewrite(
        text: _Text,
        interpretation: Annotated[str | None, Parameter(max_length=2000)] = None,
        user_id: _Id = None,
        session_id: _Id = None,
        *,
        group_id: _Id = None,
        locale: _Locale = None,
    ) -> RewriteResponse:
        return serving().rewrite(text, interpretation, user_id, session_id, group_id=group_id, locale=locale)

    @get("/v1/taught", sync_to_thread=False, summary="What was taught, and holds for a user")
    def taught(user_id: _Id = None, group_id: _Id = None) -> TaughtResponse:
        return serving().taught(user_id, group_id)

    @get("/v1/policy", sync_to_thread=False, summary="Which policy this process serves")
    def policy() -> PolicyResponse:
        return serving().describe()

    @get("/healthz", sync_to_thread=False, media_type=MediaType.TEXT, summary="Whether the process is alive")
    def healthz() -> str:
        return "alive\n"

    @get("/readyz", sync_to_thread=False, media_type=MediaType.TEXT, summary="Whether it should be sent requests")
    def readyz() -> Response[str]:
        reason = unready()
        return Response(f"{reason or 'ready'}\n", status_code=503 if reason else 200, media_type=MediaType.TEXT)

    @get("/metrics", sync_to_thread=False, media_type="text/plain; version=0.0.4", summary="For Prometheus")
    def numbers() -> bytes:
        return metrics.text()

    @get("/openapi.json", sync_to_thread=False, include_in_schema=False, media_type=MediaType.JSON)
    def openapi(request: Request[Any, Any, Any]) -> bytes:
        return msgspec.json.encode(completed_document(request.app))

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        async with running():
            yield

    return Litestar(
        [decide, rank, events, recall, rewrite, taught, policy, healthz, readyz, numbers, openapi],
        exception_handlers={Exception: to_problem},
        cors_config=CORSConfig(allow_origins=list(config.origins), allow_methods=["GET", "POST"])
        if config.origins
        else None,
        openapi_config=OpenAPIConfig(
            title="Backchannel",
            version="1.0.0",
            description="Decisions from the newest policy, and the events from which it is learned.",
            license=License(name="Apache-2.0", identifier="Apache-2.0"),
            path=None,
            render_plugins=(),
        ),
        lifespan=[lifespan],
        logging_config=None,
    )
