"""A process that answers requests: its reader, its sink, and the application on top of them."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from litestar.types import ASGIApp

from backchannel.ops.serve.application import PUBLIC, application
from backchannel.ops.serve.asking import HostAsker, lock_of
from backchannel.ops.serve.metrics import ServiceMetrics
from backchannel.ops.serve.processes import Plan
from backchannel.ops.serve.service import Service
from backchannel.ops.serve.sinks import JournalSink, Nowhere, Sink
from backchannel.ops.web.access import Access
from backchannel.streams.journal.journal import Journal
from backchannel.streams.serving.reader import PolicyReader

REPORT_S: Final = 1.0
"""Seconds between two reports of what a process serves, as any process may be asked for the metrics of all."""


def application_of(plan: Plan) -> ASGIApp:
    """Make the application of a plan."""
    config, serve = plan.config, plan.config.serve
    sink = _sink(plan)
    reader = PolicyReader(
        plan.store,
        serve.poll_s,
        key=config.snapshots.signing_key,
        guess_from=plan.guess_from,
        personal=serve.personal,
    )
    metrics = ServiceMetrics(shared=True)
    asker = HostAsker(config.ask, lock_of(plan.store))
    service = Service(
        reader,
        config.bandit.expected,
        sink,
        config.turns.max_ahead_s,
        operators=config.taught.operators,
        asker=asker.current,
        on_question=metrics.question,
    )

    def unready() -> str | None:
        status = reader.status
        return status.error if status.version is None else None

    async def report() -> None:
        while True:
            status = reader.status
            metrics.policy(status.version, status.checked_s)
            await asyncio.sleep(REPORT_S)

    @asynccontextmanager
    async def running() -> AsyncIterator[None]:
        with reader:
            await sink.start()
            asker.current(time.time_ns() // 1_000_000)  # its place is held from now on, not from the first request
            reporting = asyncio.create_task(report())
            try:
                yield
            finally:
                reporting.cancel()
                asker.close()
                await sink.close()

    return Access(
        application(service, serve, metrics, unready=unready, running=running),
        tokens=plan.tokens,
        public=PUBLIC,
        timeout_s=serve.timeout_s,
        rate=serve.rate / plan.processes,
        observe=metrics.request,
    )


def _sink(plan: Plan) -> Sink:
    pending = plan.config.serve.pending_mb << 20
    if plan.events == "journal":
        return JournalSink(Journal(plan.journal, round(plan.config.serve.journal_gb * (1 << 30))), pending)
    if plan.events == "kafka":
        from backchannel.ops.serve.kafka_sink import KafkaSink  # noqa: PLC0415 - an extra

        return KafkaSink(plan.config.kafka, pending)
    return Nowhere()
