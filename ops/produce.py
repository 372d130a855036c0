"""`backchannel produce`: send an event file to the topics."""

import gzip
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import click
import msgspec
import zstandard
from kafka import KafkaProducer
from kafka.errors import KafkaError
from kafka.producer.future import FutureRecordMetadata
from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from backchannel.ops.topics import kafka_config, servers_option
from backchannel.schemas.events import Event, EventDecoder, EventError, encode
from backchannel.streams.kafka_config import KafkaConfig
from backchannel.streams.topics import TopicError, check_topics

IN_FLIGHT: Final = 20_000
"""Records that may wait for the broker's answer: what a slow broker can cost in memory."""

DELIVERY_TIMEOUT: Final = 120.0
"""Seconds in which a record must be acknowledged. Retries within it neither lose, repeat nor reorder records."""


class Failure(NamedTuple):
    """A line that did not reach its topic."""

    line: int
    reason: str


class Sender:
    """Sends events keyed by session, and knows which lines arrived.

    Args:
        config: where Kafka is, and the topics' names.
        now: give each event the time at which it is sent, instead of the time that it has.
        rate: events per second; None: as fast as Kafka takes them.
    """

    def __init__(self, config: KafkaConfig, *, now: bool = False, rate: float | None = None) -> None:
        self._topics = config.event_topics
        self._now = now
        self._rate = rate
        self._producer = KafkaProducer(
            **config.client_settings(),
            enable_idempotence=True,
            acks="all",
            linger_ms=5,
            batch_size=1 << 18,
            delivery_timeout_ms=int(DELIVERY_TIMEOUT * 1000),
        )
        self._in_flight: deque[tuple[int, str, FutureRecordMetadata]] = deque()
        self.sent: Counter[str] = Counter()
        """Acknowledged records by topic."""
        self.failures: list[Failure] = []

    def send(self, lines: Iterable[bytes]) -> Iterator[None]:
        """Send `lines`, one event each, and yield after every one; when exhausted, all are acknowledged or failed."""
        decode = EventDecoder().decode
        started = time.monotonic()
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                event = decode(line)
            except EventError as error:
                self.failures.append(Failure(number, str(error)))
            else:
                if self._rate is not None:
                    time.sleep(max(0.0, started + (number - 1) / self._rate - time.monotonic()))
                if self._now:
                    event = msgspec.structs.replace(event, ts=time.time_ns() // 1_000_000)
                    line = encode(event)  # noqa: PLW2901 -- the same event, at another time
                self._enqueue(number, event, line.rstrip(b"\r\n"))
            yield
        while self._in_flight:
            self._settle_oldest()

    def close(self) -> None:
        """Leave; what is not acknowledged by now is lost."""
        self._producer.close(timeout=5)

    def _enqueue(self, number: int, event: Event, record: bytes) -> None:
        topic = self._topics[str(event.__struct_config__.tag)]
        future = self._producer.send(topic, record, key=event.session_id.encode(), timestamp_ms=event.ts)
        self._in_flight.append((number, topic, future))
        if len(self._in_flight) > IN_FLIGHT:
            self._settle_oldest()

    def _settle_oldest(self) -> None:
        number, topic, future = self._in_flight.popleft()
        try:
            future.get(timeout=DELIVERY_TIMEOUT)
        except KafkaError as error:
            self.failures.append(Failure(number, f"not delivered: {error}"))
        else:
            self.sent[topic] += 1


@contextmanager
def open_lines(path: Path) -> Iterator[Iterable[bytes]]:
    """Open an event file: plain, .gz or .zst."""
    if path.suffix == ".gz":
        with gzip.open(path) as lines:
            yield lines
    elif path.suffix == ".zst":
        with zstandard.open(path, "rb") as lines:
            yield lines
    else:
        with path.open("rb") as lines:
            yield lines


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@servers_option
@click.option("--now", is_flag=True, help="Give each event the time at which it is sent.")
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True),
    help="Events per second.  [default: as fast as Kafka takes them]",
)
def produce(file: Path, servers: str | None, now: bool, rate: float | None) -> None:
    """Send the events of FILE to the topics.

    FILE has one JSON event per line, each with its `type`; plain, .gz or .zst. Records are keyed by session and carry
    the events' time. Lines that are not valid events are listed and not sent; then the exit code is 1.
    """
    console = Console(stderr=True)
    config = kafka_config(servers)
    try:
        check_topics(config)
    except TopicError as error:
        raise click.ClickException(str(error)) from None
    sender = Sender(config, now=now, rate=rate)
    started = time.monotonic()
    columns = (
        TextColumn("{task.completed:,.0f} events"),
        TextColumn("{task.fields[rate]:,.0f}/s"),
        TimeElapsedColumn(),
    )
    try:
        with open_lines(file) as lines, Progress(*columns, console=console) as progress:
            task = progress.add_task("produce", total=None, rate=0.0)
            for count, _ in enumerate(sender.send(lines), 1):
                if count % 1000 == 0:
                    progress.update(task, completed=count, rate=count / (time.monotonic() - started))
    finally:
        sender.close()
    for failure in sender.failures[:20]:
        console.print(f"line {failure.line}: {failure.reason}", markup=False, highlight=False)
    total, seconds = sender.sent.total(), time.monotonic() - started
    by_topic = ", ".join(f"{topic} {count:,}" for topic, count in sorted(sender.sent.items()))
    console.print(f"{total:,} events in {seconds:.1f} s ({total / seconds:,.0f}/s): {by_topic or 'none'}")
    if sender.failures:
        raise click.ClickException(f"{len(sender.failures):,} lines were not sent")
