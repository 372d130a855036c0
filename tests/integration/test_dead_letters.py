"""Dead letters are read, and replayed once their cause is gone."""

import asyncio
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiokafka import ConsumerRecord
from click.testing import CliRunner

from backchannel.ops.cli import main
from backchannel.ops.dashboard.state import Observatory
from backchannel.schemas.codec import encode
from backchannel.schemas.events import Query
from backchannel.streams.config import Config
from backchannel.streams.kafka.config import KafkaConfig
from backchannel.streams.kafka.producer import ClockError, Producer, Rejected
from backchannel.streams.store.engine import Store
from tests.integration.workers import records_of

VALID = encode(Query(event_id="1", ts=1_700_000_000_000, session_id="s", query_id="q", text="hi"))
IN_SECONDS = b'{"payload": {"event_id": "3", "ts": 1700000000, "session_id": "s", "query_id": "t", "text": "hi"}}'
AHEAD = encode(Query(event_id="2", ts=9_700_000_000_000, session_id="s", query_id="r", text="hi"))


def rejected(topic: str, value: bytes, offset: int, reason: str) -> Rejected:
    record = ConsumerRecord(topic, 2, offset, 0, 0, b"s", value, None, 1, len(value), ())
    return Rejected(topic, 2, record, reason)


@pytest.fixture
def command(kafka: KafkaConfig, tmp_path: Path) -> Callable[..., Any]:
    settings = tmp_path / "backchannel.toml"
    settings.write_text(
        f'[kafka]\nservers = "{kafka.servers}"\ntopic_prefix = "{kafka.topic_prefix}"\ngroup = "{kafka.group}"\n'
    )

    def run(*arguments: str) -> tuple[int, Any]:
        done = CliRunner().invoke(main, ["dead-letters", *arguments, "--config", str(settings), "--json"])
        return done.exit_code, msgspec.json.decode(done.stdout)

    return run


def test_they_are_listed_and_replayed_once(kafka: KafkaConfig, command: Callable[..., Any], tmp_path: Path) -> None:
    queries = kafka.event_topics["query"]

    async def deliver() -> None:
        async with Producer(kafka) as producer:
            values = enumerate((VALID, b"{}", AHEAD))
            await producer.deliver([rejected(queries, value, offset, "why") for offset, value in values])

    asyncio.run(deliver())
    code, listed = command("list", "--last", "2")
    assert (code, listed["letters"], listed["reasons"], len(listed["last"])) == (0, 3, {"why": 3}, 2)
    assert {letter["topic"] for letter in listed["last"]} == {queries}
    with (
        closing(Store(f"sqlite:///{tmp_path}/never.db")) as store,
        closing(Observatory(store, Config(kafka=kafka))) as page,
    ):
        (one,) = asyncio.run(page.invalid_records())
        assert (one.reason, one.count, one.value) == ("why", 3, AHEAD.decode())
        assert one.place == f"{queries}[2] offset 2"
    code, replayed = command("replay")
    assert (code, replayed["sent"], sorted(replayed["left"].values())) == (3, 1, [1, 1])
    (sent,) = records_of(kafka, [queries])
    assert (sent.partition, sent.key, sent.value) == (2, b"s", VALID)
    assert command("replay") == (0, {"sent": 0, "left": {}})
    assert command("replay", "--again")[1]["sent"] == 1


def test_of_many_reasons_the_first_are_shown(kafka: KafkaConfig, tmp_path: Path) -> None:
    queries = kafka.event_topics["query"]

    async def deliver() -> None:
        async with Producer(kafka) as producer:
            await producer.deliver([rejected(queries, b"{}", number, f"ts: {number}") for number in range(23)])

    asyncio.run(deliver())
    settings = tmp_path / "backchannel.toml"
    settings.write_text(f'[kafka]\nservers = "{kafka.servers}"\ntopic_prefix = "{kafka.topic_prefix}"\n')
    done = CliRunner().invoke(main, ["dead-letters", "list", "--last", "0", "--config", str(settings)])
    assert done.output.count("ts: ") == 20
    assert "and 3 other reasons" in done.output


def test_they_are_read_as_the_configuration_says_that_events_are_written(
    kafka: KafkaConfig, command: Callable[..., Any], tmp_path: Path
) -> None:
    async def deliver() -> None:
        async with Producer(kafka) as producer:
            await producer.deliver([rejected(kafka.event_topics["query"], IN_SECONDS, 0, "event_id: missing")])

    asyncio.run(deliver())
    assert command("replay")[1]["sent"] == 0
    with (tmp_path / "backchannel.toml").open("a") as settings:
        settings.write('[events]\ntime = "s"\nenvelope = "payload"\n')
    assert command("replay", "--again") == (0, {"sent": 1, "left": {}})


def test_a_clock_that_is_behind_that_of_the_brokers_is_found_out(kafka: KafkaConfig) -> None:
    letter = rejected(kafka.event_topics["query"], VALID, 0, "ts")

    async def deliver(behind: float) -> None:
        async with Producer(kafka, clock=lambda: time.time() - behind) as producer:
            await producer.deliver([letter])

    asyncio.run(deliver(0.0))
    asyncio.run(deliver(-3600.0))
    with pytest.raises(ClockError, match=r"clock is 3,\d+ s behind the brokers'.*dead-letters replay"):
        asyncio.run(deliver(3600.0))


def test_without_topics_that_is_said(kafka: KafkaConfig, tmp_path: Path) -> None:
    settings = tmp_path / "backchannel.toml"
    settings.write_text(f'[kafka]\nservers = "{kafka.servers}"\ntopic_prefix = "none-"\n')
    done = CliRunner().invoke(main, ["dead-letters", "list", "--config", str(settings)])
    assert done.exit_code == 1
    assert "missing: none-dead-letters; `backchannel topics create`" in done.output
