"""A worker's HTTP server, for Prometheus and for liveness and readiness probes."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.aiohttp import make_aiohttp_handler


@asynccontextmanager
async def answering(
    registry: CollectorRegistry,
    stuck: Callable[[], str | None],
    unready: Callable[[], str | None],
    host: str,
    port: int,
) -> AsyncIterator[int]:
    """Serve `/metrics`, `/healthz` and `/readyz` in the running event loop while the block runs.

    A stuck event loop does not answer; `stuck` covers everything else, such as other processes.

    Args:
        registry: the metrics to export.
        stuck: a function that returns why the worker should be restarted, or None if it is alive.
        unready: a function that returns why the worker is not ready, or None if it is.
        host: the address to listen on.
        port: the port to listen on; 0: any free port.

    Yields:
        the port that the server listens on.

    Raises:
        OSError: the port is taken, or this machine does not have the address.
    """

    async def healthz(_: web.Request) -> web.Response:
        reason = stuck()
        return web.Response(text=f"{reason or 'alive'}\n", status=503 if reason else 200)

    async def readyz(_: web.Request) -> web.Response:
        reason = stuck() or unready()
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
