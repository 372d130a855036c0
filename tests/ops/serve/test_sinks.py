"""Events of many requests are stored together, within bounds."""

import asyncio
from collections.abc import Iterable
from typing import Any, cast

import pytest

from backchannel.ops.serve.kafka_sink import KafkaSink
from backchannel.ops.serve.sinks import Accepted, GroupSink
from backchannel.ops.web.problems import RefusedError
from backchannel.schemas.events import Query
from backchannel.streams.kafka.config import KafkaConfig


class Slow(GroupSink):
    """Stores nothing until it may; `begun` and `stored` have the groups."""

    def __init__(self, pending: int, groups: int, gather_s: float = 0.0) -> None:
        super().__init__(pending, groups, gather_s)
        self.begun: list[list[str]] = []
        self.stored: list[list[str]] = []
        self.may = asyncio.Event()

    async def store(self, events: Iterable[Accepted]) -> None:
        names = [event.record.decode() for event in events]
        self.begun.append(names)
        await self.may.wait()
        if "bad" in names:
            raise RefusedError(503, "not now")
        self.stored.append(names)


def one(name: str) -> list[Accepted]:
    return [Accepted(Query, "s", 1, name.encode())]


@pytest.mark.parametrize("groups", [1, 2])
def test_what_arrives_meanwhile_is_stored_together(groups: int) -> None:
    async def send() -> list[list[str]]:
        sink = Slow(1 << 20, groups)
        puts = []
        for number in range(6):
            puts.append(asyncio.create_task(sink.put(one(str(number)))))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        sink.may.set()
        await asyncio.gather(*puts)
        await sink.drain()
        return sink.stored

    stored = asyncio.run(send())
    assert sorted(len(group) for group in stored) == [*[1] * groups, 6 - groups]
    assert sorted(name for group in stored for name in group) == list("012345")


def test_while_one_group_is_stored_another_is_gathered() -> None:
    async def send() -> list[list[str]]:
        sink = Slow(1 << 20, 2, gather_s=0.05)
        puts = []
        for number in range(6):
            puts.append(asyncio.create_task(sink.put(one(str(number)))))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        await asyncio.sleep(0.1)
        sink.may.set()
        await asyncio.gather(*puts)
        await sink.drain()
        return sink.begun

    assert asyncio.run(asyncio.wait_for(send(), 10)) == [["0"], list("12345")]


@pytest.mark.parametrize("groups", [1, 2])
def test_one_after_the_other_is_stored_too(groups: int) -> None:
    async def send() -> list[list[str]]:
        sink = Slow(1 << 20, groups)
        sink.may.set()
        for number in range(6):
            await sink.put(one(str(number)))
        return sink.stored

    assert asyncio.run(asyncio.wait_for(send(), 10)) == [[name] for name in "012345"]


def test_a_group_that_cannot_be_stored_is_refused_and_the_next_one_is_not() -> None:
    async def send() -> None:
        sink = Slow(1 << 20, 1)
        first = asyncio.create_task(sink.put(one("bad")))
        await asyncio.sleep(0.01)
        second = asyncio.create_task(sink.put(one("good")))
        await asyncio.sleep(0.01)
        sink.may.set()
        with pytest.raises(RefusedError, match="not now"):
            await first
        await second
        assert sink.stored == [["good"]]

    asyncio.run(send())


def test_a_caller_that_has_gone_frees_no_room_before_its_events_are_stored() -> None:
    async def send() -> None:
        sink = Slow(len(one("a")[0].record), 1)
        gone = asyncio.create_task(sink.put(one("a")))
        await asyncio.sleep(0.01)
        gone.cancel()
        await asyncio.sleep(0.01)
        with pytest.raises(RefusedError) as refused:
            await sink.put(one("b"))
        assert refused.value.status == 429
        sink.may.set()
        await sink.drain()
        await sink.put(one("b"))
        assert sink.stored == [["a"], ["b"]]

    asyncio.run(send())


def test_a_request_that_waits_for_brokers_for_too_long_is_told_so() -> None:
    class Silent:
        async def partitions_for(self, _: str) -> None:
            await asyncio.Event().wait()

    async def send() -> None:
        sink = KafkaSink(KafkaConfig(servers="kafka:9092"), 1 << 20)
        sink._client = cast("Any", Silent())
        async with asyncio.timeout(0.01):
            await sink.put(one("a"))

    with pytest.raises(RefusedError, match="Kafka at kafka:9092 has not acknowledged the events in time"):
        asyncio.run(send())
