"""Who may call a server, how often and for how long; ids, log lines and times of requests."""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Collection, Mapping
from http import HTTPStatus
from itertools import count
from typing import Any, Final

from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send

from backchannel.ops.web.guard import bearer, host_of, is_loopback, same
from backchannel.ops.web.problems import REQUEST_ID, RefusedError, document

logger = logging.getLogger(__name__)

TOKENS_VARIABLE: Final = "BACKCHANNEL_TOKENS"
SLOW_S: Final = 1.0
"""Requests that take longer are logged, like those that fail."""

JSON: Final = (b"application/json", b"application/x-ndjson")


class Allowance:
    """A token bucket for each caller.

    Args:
        rate: requests per second of each caller; 0 for no limit.
        clock: monotonic clock, s.
    """

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate: Final = rate
        self._most: Final = max(rate, 1.0)
        self._clock: Final = clock
        self._left: dict[str, tuple[float, float]] = {}

    def wait(self, caller: str) -> float:
        """Take a request from the caller's allowance; return the seconds to wait for it if there is none left, or 0."""
        if not self._rate:
            return 0.0
        now = self._clock()
        left, at = self._left.get(caller, (self._most, now))
        left = min(left + (now - at) * self._rate, self._most)
        taken = left >= 1.0
        self._left[caller] = (left - taken, now)
        return 0.0 if taken else (1.0 - left) / self._rate


class Access:
    """An ASGI application in front of another one.

    Args:
        app: the application behind.
        tokens: the bearer tokens, one of which is required; if empty, only requests to a loopback name are answered, so
            that other sites' pages cannot reach the service through somebody's browser.
        public: the paths that need no token.
        timeout_s: seconds after which a request is abandoned.
        rate: requests per second of one token; 0 for no limit.
        observe: a function called with the path, status and seconds of each request.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        tokens: Collection[str],
        public: Collection[str] = (),
        timeout_s: float = 10.0,
        rate: float = 0.0,
        observe: Callable[[str, int, float], None] = lambda *_: None,
    ) -> None:
        self._app: Final = app
        self._tokens: Final = tuple(tokens)
        self._public: Final = frozenset(public)
        self._timeout_s: Final = timeout_s
        self._allowance: Final = Allowance(rate)
        self._observe: Final = observe
        self._prefix: Final = f"{secrets.token_hex(6)}-"
        self._ids: Final = count()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"")
        request_id = (
            given.decode() if 0 < len(given) <= 128 and given.isascii() else f"{self._prefix}{next(self._ids):x}"
        )
        state: Any = scope.setdefault("state", {})
        state[REQUEST_ID] = request_id
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            self._check(scope, headers)
            async with asyncio.timeout(self._timeout_s):
                await self._app(scope, receive, answer)
        except RefusedError as refusal:
            await _send(answer, refusal, request_id)
        except TimeoutError:
            if status:  # a response that has begun cannot be replaced
                raise
            late = RefusedError(503, f"no answer within serve.timeout_s = {self._timeout_s:g}", retry_after=1.0)
            await _send(answer, late, request_id)
        seconds = time.perf_counter() - began
        self._observe(scope["path"], status, seconds)
        if status >= 400 or seconds > SLOW_S:
            logger.log(
                logging.ERROR if status >= 500 else logging.INFO,
                "%s %s: %d in %.1f ms",
                scope["method"],
                scope["path"],
                status,
                seconds * 1e3,
                extra={"request_id": request_id, "status": status},
            )

    def _check(self, scope: HTTPScope, headers: Mapping[bytes, bytes]) -> None:
        """Refuse a request that is not allowed."""
        if scope["method"] == "POST" and headers.get(b"content-type", b"").partition(b";")[0].lower() not in JSON:
            raise RefusedError(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Content-Type: send application/json or application/x-ndjson"
            )
        if scope["path"] in self._public or scope["method"] == "OPTIONS":  # CORS preflights carry no token
            return
        caller = ""
        if self._tokens:
            caller = bearer(headers.get(b"authorization", b"").decode("latin-1"))
            if not any(same(caller, token) for token in self._tokens):
                raise RefusedError(
                    HTTPStatus.UNAUTHORIZED, f"Authorization: send `Bearer TOKEN` with a token of {TOKENS_VARIABLE}"
                )
        elif not is_loopback(host_of(headers.get(b"host", b"").decode("latin-1"))):
            raise RefusedError(
                HTTPStatus.FORBIDDEN, f"Host: call the service as localhost, or give it tokens with {TOKENS_VARIABLE}"
            )
        wait = self._allowance.wait(caller)
        if wait:
            raise RefusedError(
                HTTPStatus.TOO_MANY_REQUESTS, "more requests with this token than serve.rate", retry_after=wait
            )


async def _send(send: Send, refusal: RefusedError, request_id: str) -> None:
    body, headers = document(refusal, request_id)
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    raw.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": refusal.status, "headers": raw})
    await send({"type": "http.response.body", "body": body, "more_body": False})
