"""`backchannel produce`: send an event file to the topics."""

import sys
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import Final, NamedTuple

import click
import msgspec
from kafka import KafkaProducer
from kafka.errors import KafkaError
from kafka.producer.future import FutureRecordMetadata
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from backchannel.ops.exit_codes import INCOMPLETE
from backchannel.ops.numbers import FiniteRange
from backchannel.ops.options import config_option, json_option, kafka_config, servers_option
from backchannel.ops.terminal import print_json
from backchannel.schemas.codec import EventDecoder, EventError, encode
from backchannel.schemas.events import Event, name_of
from backchannel.schemas.forms import NATIVE, EventConfig
from backchannel.streams.config import Config
from backchannel.streams.kafka.config import KafkaConfig
from backchannel.streams.kafka.topics import TopicError, check_topics
from backchannel.streams.turns.event_file import EventFile

IN_FLIGHT: Final = 20_000
"""Maximum number of unacknowledged records: bounds the memory that a slow broker can cost."""

DELIVERY_TIMEOUT: Final = 120.0
"""Seconds within which a record must be acknowledged. Retries neither lose, duplicate nor reorder records."""


class Failure(NamedTuple):
    """A line that did not reach its topic, and the reason."""

    line: int
    reason: str


class Sender:
    """Sends events keyed by session, and keeps track of which lines arrived.

    Args:
        config: Kafka's address and the topics' names.
        events: how the events are written.
        now: whether to replace each event's time by the time at which it is sent.
        rate: events per second; None: as fast as Kafka accepts them.
        max_ahead_s: how far events may be ahead of this machine's clock, s. Workers would refuse them, and brokers
            refuse a batch for a single one.
    """

    def __init__(
        self,
        config: KafkaConfig,
        *,
        events: EventConfig = NATIVE,
        now: bool = False,
        rate: float | None = None,
        max_ahead_s: float = 300.0,
    ) -> None:
        self._events = events
        self._topics = config.event_topics
        self._now = now
        self._max_ahead_ms = round(max_ahead_s * 1000)
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

    def send(self, lines: Iterable[tuple[int, bytes]]) -> Iterator[int]:
        """Send the events in `lines`, pairs of (line number, line), and yield the running count.

        When the iterator is exhausted, each event has been acknowledged or is among the failures.

        Raises:
            TopicError: the brokers have taken nothing for a minute.
        """
        decode = EventDecoder(config=self._events).decode
        started = time.monotonic()
        for count, (number, line) in enumerate(lines):
            try:
                event = decode(line)
            except EventError as error:
                self.failures.append(Failure(number, str(error)))
            else:
                if self._rate is not None:
                    time.sleep(max(0.0, started + count / self._rate - time.monotonic()))
                now = time.time_ns() // 1_000_000
                if self._now:
                    event = msgspec.structs.replace(event, ts=now)
                    line = encode(event)  # noqa: PLW2901 -- the same event, at another time
                if event.ts > now + self._max_ahead_ms:
                    reason = f"ts: {event.ts} is {(event.ts - now) / 1000:,.0f} s ahead of the clock"
                    self.failures.append(
                        Failure(number, f"{reason}, turns.max_ahead_s = {self._max_ahead_ms / 1000:g}")
                    )
                else:
                    self._enqueue(number, event, line)
            yield count + 1
        while self._in_flight:
            self._settle_oldest()

    def close(self) -> None:
        """Close the connection. Records that are not yet acknowledged may be lost."""
        self._producer.close(timeout=5)

    def _enqueue(self, number: int, event: Event, record: bytes) -> None:
        topic = self._topics[name_of(type(event))]
        try:
            future = self._producer.send(topic, record, key=event.session_id.encode(), timestamp_ms=event.ts)
        except KafkaError as error:  # to wait as long for each further line would take hours
            raise TopicError(f"line {number}: not sent: {error}; nor may be some lines before it") from None
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


@click.command()
@click.argument("file")
@config_option
@servers_option
@click.option("--now", is_flag=True, help="Replace each event's time by the time at which it is sent.")
@click.option(
    "--rate",
    type=FiniteRange(min=0, min_open=True),
    help="Events per second.  [default: as fast as Kafka accepts them]",
)
@json_option
def produce(*, file: str, config: Config, servers: str | None, now: bool, rate: float | None, as_json: bool) -> None:
    """Send the events of FILE to the topics.

    FILE has one JSON event per line, each with its `type`. It may be compressed with gzip or Zstandard; "-" reads
    standard input. Records are keyed by session and carry the events' times, so a topic's retention may delete old
    ones at once. Invalid lines are listed and not sent.

    \b
    Exit code: 0 every line was sent; 3 some were not, see the list; 1 an error; 2 the command or the configuration is
    wrong.
    """
    console = Console(stderr=True)
    kafka = kafka_config(config, servers)
    check_topics(kafka)
    if now and config.events != NATIVE:
        raise click.UsageError("--now writes events anew, and not as the section [events] of the configuration says")
    sender = Sender(kafka, events=config.events, now=now, rate=rate, max_ahead_s=config.turns.max_ahead_s)
    started = time.monotonic()
    columns = (
        BarColumn(),
        TextColumn("{task.fields[count]:,} events, {task.fields[rate]:,.0f}/s"),
        TimeElapsedColumn(),
    )
    try:
        source = EventFile(file)
        with closing(source), Progress(*columns, console=console) as progress:
            task = progress.add_task("", total=source.size, count=0, rate=0.0)
            for count in sender.send(_numbered(source)):
                if count % 1000 == 0:
                    progress.update(
                        task, completed=source.consumed, count=count, rate=count / (time.monotonic() - started)
                    )
            if source.unfinished is not None:
                sender.failures.append(Failure(source.unfinished + 1, "has no line break and is not complete"))
    finally:
        sender.close()
    if as_json:
        print_json({"sent": sender.sent, "failures": [failure._asdict() for failure in sender.failures]})
    else:
        for failure in sender.failures[:20]:
            console.print(f"line {failure.line}: {failure.reason}", markup=False, highlight=False)
        total, seconds = sender.sent.total(), time.monotonic() - started
        by_topic = ", ".join(f"{topic} {count:,}" for topic, count in sorted(sender.sent.items()))
        console.print(f"{total:,} events in {seconds:.1f} s ({total / seconds:,.0f}/s): {by_topic or 'none'}")
        if sender.failures:
            console.print(f"{len(sender.failures):,} lines were not sent")
    sys.exit(INCOMPLETE if sender.failures else 0)


def _numbered(source: EventFile) -> Iterator[tuple[int, bytes]]:
    for chunk in source.chunks():
        for number, line in zip(chunk.numbers, chunk.lines, strict=True):
            yield number + 1, line
