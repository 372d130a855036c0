"""`backchannel worker`: learn from Kafka."""

import asyncio
import logging
import os
import signal
import sys
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final, Literal

import click
from msgspec import structs

from backchannel.ops.options import config_option, kafka_config, log_option, servers_option, store_option
from backchannel.ops.terminal import log_to_stderr, one_line
from backchannel.schemas.errors import BackchannelError
from backchannel.streams.config import Config
from backchannel.streams.extras import install
from backchannel.streams.kafka.config import KafkaConfig
from backchannel.streams.kafka.topics import check_topics
from backchannel.streams.monitoring.metrics import Metrics
from backchannel.streams.monitoring.observer import Observers
from backchannel.streams.monitoring.probes import answering
from backchannel.streams.worker.remote import tune_memory
from backchannel.streams.worker.worker import Worker

if TYPE_CHECKING:
    from backchannel.streams.monitoring.tracing import Traces

logger = logging.getLogger(__name__)

TRACES_VARIABLES: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
"""OpenTelemetry's variables for the destination of traces. Without either, nothing is traced."""


class MetricsError(BackchannelError, RuntimeError):
    """The metrics cannot be served. The message says why."""


@click.command("worker")
@store_option
@config_option
@servers_option
@log_option
@click.option(
    "--metrics-port",
    type=click.IntRange(0, 65_535),
    help="Serve /metrics for Prometheus, /healthz and /readyz on this port.  [default: metrics.port, off]",
)
@click.option(
    "--accept-loss",
    is_flag=True,
    help="Continue although a topic was truncated or recreated, and skip the lost records.",
)
def worker(
    *,
    store: str,
    config: Config,
    servers: str | None,
    log: Literal["text", "json"],
    metrics_port: int | None,
    accept_loss: bool,
) -> None:
    """Learn from the Kafka topics together with the group's other workers, and publish the policy.

    Every event counts exactly once, however often workers are stopped, killed, added or removed: the store records how
    far the topics were read in the same transaction as what was learned. Invalid events go to the dead-letter topic.

    \b
    Exit code: 0 stopped by SIGTERM or SIGINT, after a commit; 1 an error, which the last line of the log explains: let
    your service manager restart it; 2 the command or the configuration is wrong.
    """
    log_to_stderr(log)
    tune_memory()
    kafka = kafka_config(config, servers)
    if metrics_port is not None:
        config = structs.replace(config, metrics=structs.replace(config.metrics, port=metrics_port))
    try:
        check_topics(kafka)
        asyncio.run(_work(store, config, kafka, accept_loss=accept_loss))
    except BackchannelError as error:
        logger.critical("%s", one_line(error))
        sys.exit(1)
    except Exception as error:
        logger.error("the worker failed", exc_info=True)
        logger.critical("the worker failed: %s", one_line(error))  # the cause is in the last line
        sys.exit(1)


async def _work(store: str, config: Config, kafka: KafkaConfig, *, accept_loss: bool) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    metrics = Metrics(config.bandit.expected)
    async with AsyncExitStack() as stack:
        traces = _traces(stack)
        observer = Observers(metrics, traces) if traces else metrics
        one = Worker(store, config, kafka, accept_loss=accept_loss, observer=observer, sensor=traces)
        stack.callback(one.close)
        if config.metrics.port:
            try:
                await stack.enter_async_context(
                    answering(
                        metrics.registry,
                        lambda: one.stuck,
                        lambda: one.unready,
                        config.metrics.host,
                        config.metrics.port,
                    )
                )
            except OSError as error:
                raise MetricsError(
                    f"cannot serve metrics: {error}; set another --metrics-port or metrics.port"
                ) from None
            logger.info("metrics and probes at http://%s:%d", config.metrics.host, config.metrics.port)
        await one.run(stop)
    logger.info("stopped: what was learned is committed")


def _traces(stack: AsyncExitStack) -> "Traces | None":
    """Return a tracer if the environment asks for one; closing the stack exports its last traces."""
    if not any(map(os.environ.get, TRACES_VARIABLES)):
        return None
    try:
        from backchannel.streams.monitoring.tracing import Traces, exporting  # noqa: PLC0415 - needs more packages
    except ModuleNotFoundError:
        logger.warning("traces are configured but cannot be exported: %s", install("tracing"))
        return None
    provider = exporting()
    stack.callback(provider.shutdown)
    return Traces(provider)
