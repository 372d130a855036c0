"""The HTTP server of a worker: Prometheus scrapes it, and probes ask it whether the worker is alive and ready."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.aiohttp import make_aiohttp_handler


@asynccontextmanager
async def answering(
    registry: CollectorRegistry, unready: Callable[[], str | None], host: str, port: int
) -> AsyncIterator[int]:
    """Answer `/metrics`, `/healthz` and `/readyz` in the running event loop, as long as the block runs.

    An event loop that is stuck does not answer, so any answer of `/healthz` is the right one.

    Args:
        registry: the metrics to show.
        unready: says why the worker is not ready, or None when it is.
        host: address to listen on.
        port: port to listen on; 0: any that is free.

    Yields:
        the port.

    Raises:
        OSError: the port is taken, or this machine does not have the address.
    """

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="alive\n")

    async def readyz(_: web.Request) -> web.Response:
        reason = unready()
        return web.Response(text=f"{reason or 'ready'}\n", status=503 if reason else 200)

    app = web.Application()
    app.router.add_get("/metrics", make_aiohttp_handler(registry))
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
