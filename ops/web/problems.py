"""Errors as problem documents (RFC 9457) that name the field, the value and the remedy."""

import logging
from http import HTTPStatus
from typing import Annotated, Any, Final

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException
from msgspec import Meta, Struct

from backchannel.schemas.errors import BackchannelError

logger = logging.getLogger(__name__)

PROBLEM: Final = "application/problem+json"
REQUEST_ID: Final = "request_id"
"""Key of the request id in a request's state."""


class Fault(Struct, frozen=True):
    """A fault of one item in a request of several."""

    index: Annotated[int, Meta(description="its place in the request, from 0")]
    detail: Annotated[str, Meta(description="the field, and what is wrong with it")]


class Problem(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A problem document (RFC 9457)."""

    title: str
    status: int
    detail: Annotated[str, Meta(description="the field or the cause, and what to do")]
    instance: Annotated[str | None, Meta(description="the request's id, as in the log and in X-Request-Id")] = None
    errors: Annotated[list[Fault] | None, Meta(description="each invalid item of a request that has several")] = None


class RefusedError(BackchannelError, RuntimeError):
    """A request is refused.

    Args:
        status: the status of the response.
        detail: the field or the cause, and the remedy.
        retry_after: seconds after which the same request may succeed; None if it will not.
        errors: the faults of the items.
    """

    def __init__(
        self, status: int, detail: str, *, retry_after: float | None = None, errors: list[Fault] | None = None
    ) -> None:
        super().__init__(detail)
        self.status: Final = status
        self.retry_after: Final = retry_after
        self.errors: Final = errors


def document(error: RefusedError, request_id: str | None) -> tuple[bytes, dict[str, str]]:
    """Return the problem document of a refusal, and its headers."""
    problem = Problem(
        title=HTTPStatus(error.status).phrase,
        status=error.status,
        detail=str(error),
        instance=request_id,
        errors=error.errors,
    )
    headers = {"content-type": PROBLEM}
    if error.retry_after is not None:
        headers["retry-after"] = str(max(1, round(error.retry_after)))
    if error.status == HTTPStatus.UNAUTHORIZED:
        headers["www-authenticate"] = "Bearer"
    return msgspec.json.encode(problem), headers


def to_problem(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Answer an error that a handler or the framework raised."""
    refusal, request_id = _refusal(error, request.method), request.scope["state"].get(REQUEST_ID)
    if refusal.status >= HTTPStatus.INTERNAL_SERVER_ERROR and not isinstance(error, RefusedError):
        logger.error("%s failed", request.url.path, exc_info=error, extra={REQUEST_ID: request_id})
    body, headers = document(refusal, request_id)
    headers |= getattr(error, "headers", None) or {}
    return Response(body, status_code=refusal.status, headers=headers, media_type=PROBLEM)


def _refusal(error: Exception, method: str) -> RefusedError:
    if isinstance(error, RefusedError):
        return error
    if isinstance(error, HTTPException):
        if isinstance(error.extra, list) and error.extra:  # faults of parameters
            return RefusedError(400, "; ".join(f"{one.get('key', 'request')}: {one['message']}" for one in error.extra))
        detail = {
            404: "no such path; /openapi.json lists them",
            405: f"{method} is not for this path; /openapi.json says what is",
        }
        return RefusedError(error.status_code, detail.get(error.status_code, error.detail))
    return RefusedError(500, "an error of the service, which its log explains under this request's id")
