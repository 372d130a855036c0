"""An assignment without a broker: what it commits and when, also if the store or the dead-letter topic is away."""

import asyncio
import pickle
import re
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from aiokafka import ConsumerRecord
from faust.types import TP
from msgspec import structs

from backchannel.ops.lab.load import mixed_stream
from backchannel.schemas.codec import EventDecoder, encode
from backchannel.schemas.events import Click, Event, Never, Query, Teach
from backchannel.streams.config import Config
from backchannel.streams.kafka.producer import Rejected
from backchannel.streams.kafka.receiver import Chunk, LogBounds
from backchannel.streams.monitoring.observer import Observer
from backchannel.streams.pipeline.commits import Commit, commit
from backchannel.streams.pipeline.learners import Learning
from backchannel.streams.store.engine import Store, StoreAwayError
from backchannel.streams.store.ledger import Contribution, FencedError, Ledger
from backchannel.streams.turns.assembler import TurnConfig
from backchannel.streams.turns.partition import PartitionState
from backchannel.streams.turns.position import Claim, Position, TopicPosition
from backchannel.streams.worker import assignment
from backchannel.streams.worker.assignment import Assignment, CoPartitionError, by_partition, resume_in
from backchannel.streams.worker.partitions import Added, Ends, Partitions, Records
from tests.support.ledgers import contents, sqlite_url

TP0 = TP("events", 0)
TOPICS: Mapping[str, type[Event] | None] = {"events": None}
CONFIG = Config(turns=TurnConfig(window_s=3.0, lateness_s=1.0))
RECORDS = [encode(event) for event in mixed_stream(40, np.random.default_rng(3), queries=10, gap_ms=400)]
NOW = 1_800_000_000_000
QUIET_MS = 4_000
T = TypeVar("T")


class Letters:
    def __init__(self) -> None:
        self.delivered: list[Rejected] = []
        self.may_deliver = asyncio.Event()
        self.may_deliver.set()

    async def deliver(self, rejected: list[Rejected]) -> None:
        await self.may_deliver.wait()
        self.delivered += rejected


class Holder:
    """Holds partitions as the assembling process does: it makes calls in order, even if their callers are cancelled."""

    def __init__(self, partitions: Partitions) -> None:
        self._partitions = partitions
        self.calls: list[int] = []  # the number of chunks in each
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self._lock = asyncio.Lock()

    async def add(self, chunks: Sequence[Records], now: int) -> Added:
        self.calls.append(len(chunks))
        return await self._call(self._partitions.add, chunks, now)

    async def advance(self, ends: Mapping[int, Ends], now: int) -> Mapping[int, PartitionState]:
        return await self._call(self._partitions.advance, ends, now)

    async def batches(self, claims: Sequence[Claim]) -> bytes:
        return await self._call(self._partitions.batches, claims)

    async def _call(self, method: Callable[..., T], *args: Any) -> T:
        async def answer() -> T:
            async with self._lock:
                await self.may_answer.wait()
                return method(*args)

        return await asyncio.shield(asyncio.create_task(answer()))


class Desk:
    """An assignment of partition 0 of one topic and its dependencies; its learner is a thread."""

    def __init__(self, url: str) -> None:
        self.learning = Learning(CONFIG)
        self.store = Store(url)
        self.store.create(self.learning.tables)
        self.ledger = Ledger(self.store, self.learning.tables)
        self.letters = Letters()
        self.acked: list[int] = []
        self.taught: list[Teach] = []

    def assign(self, commit_events: int = 1_000_000, topics: Mapping[str, type[Event] | None] = TOPICS) -> Assignment:
        claim = self.ledger.claim("s", 0)
        position, _ = resume_in(dict.fromkeys(topics, LogBounds(0, 10_000)), claim.position)
        claim = Claim("s", 0, claim.epoch, claim.commits, position)
        decoders = {topic: EventDecoder(event_type) for topic, event_type in topics.items()}
        partitions = Partitions(decoders, CONFIG.turns)
        states = partitions.assign([claim])
        self.holder = Holder(partitions)
        return Assignment(
            [claim],
            states,
            self.holder,
            self,
            self.letters,
            commit_events=commit_events,
            quiet_ms=QUIET_MS,
            observer=Observer(),
            teach=self.taught.extend,
        )

    async def commit(self, batches: bytes) -> Commit:
        return await asyncio.to_thread(commit, self.learning, self.ledger, pickle.loads(batches))

    def chunk(self, first: int, values: list[bytes], tp: TP = TP0) -> Chunk:
        records = [
            ConsumerRecord(*tp, first + number, 0, 0, b"key", value, None, 3, len(value), ())
            for number, value in enumerate(values)
        ]
        return Chunk(tp, records, lambda: self.acked.append(first))


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(sqlite_url(tmp_path))
    yield desk
    desk.store.close()


async def until(there: Callable[[], Any]) -> None:
    async with asyncio.timeout(10):
        while not there():  # noqa: ASYNC110 -- of many kinds
            await asyncio.sleep(0.001)


def ends(at: int | Mapping[TP, int] | None) -> Callable[[], Coroutine[Any, Any, Mapping[TP, int]]]:
    async def ask() -> Mapping[TP, int]:
        return {TP0: at} if isinstance(at, int) else at or {}

    return ask


def asked(query_id: str, ts: int) -> bytes:
    return encode(Query(event_id=query_id, ts=ts, session_id="s", query_id=query_id, text="jazz"))


def clicked(query_id: str, ts: int) -> bytes:
    return encode(Click(event_id="c", ts=ts, session_id="s", query_id=query_id, entity_id="e"))


def test_it_commits_when_there_is_enough_and_acks_what_is_committed(desk: Desk) -> None:
    async def scenario() -> None:
        one = desk.assign(commit_events=30)
        await one.add(desk.chunk(0, RECORDS[:20]), NOW)
        await until(lambda: one.partitions[0].uncommitted)
        assert desk.acked == []
        await one.add(desk.chunk(20, RECORDS[20:40]), NOW)
        await until(lambda: one.partitions[0].uncommitted > 20)
        await one.add(desk.chunk(40, RECORDS[40:60]), NOW)
        await until(lambda: desk.acked)
        assert desk.acked == [0, 20]
        before = desk.ledger.counts()
        await one.commit()
        assert desk.ledger.counts()["query"] > before["query"]
        assert desk.acked == [0, 20, 40]

    asyncio.run(scenario())


def test_what_is_taught_is_written_at_once_and_not_again_after_its_commit(desk: Desk) -> None:
    ids = {"event_id": "t", "ts": NOW, "session_id": "s", "query_id": "q", "user_id": "me"}
    taught = Teach(rule=Never(entity_id="e"), **ids)  # type: ignore[arg-type]

    async def scenario() -> None:
        one = desk.assign()
        await one.add(desk.chunk(0, [*RECORDS[:3], encode(taught)]), NOW)
        await until(lambda: desk.taught)
        assert (desk.taught, desk.acked) == ([taught], [])
        await one.commit()
        # It is read again with the turns that are open.
        again = desk.assign()
        await again.add(desk.chunk(0, [*RECORDS[:3], encode(taught)]), NOW)
        await again.commit()
        assert desk.taught == [taught]

    asyncio.run(scenario())


def test_a_quiet_partition_closes_its_turns_and_one_that_cannot_be_reached_does_not(desk: Desk) -> None:
    async def scenario() -> None:
        one = desk.assign()
        await one.add(desk.chunk(0, RECORDS), NOW)
        await one.advance(ends(len(RECORDS)), NOW + QUIET_MS - 1)
        await one.advance(ends(len(RECORDS) + 1), NOW + 2 * QUIET_MS)
        assert one.partitions[0].open
        await one.advance(ends(None), NOW + 3 * QUIET_MS)
        await one.advance(ends(len(RECORDS)), NOW + 4 * QUIET_MS - 1)
        assert one.partitions[0].open, "nobody knows whether it was quiet while it could not be reached"
        await one.advance(ends(len(RECORDS)), NOW + 5 * QUIET_MS)
        assert not one.partitions[0].open
        await one.commit()
        assert desk.ledger.counts()["turn"] == 40
        # After a restart nothing counts twice.
        again = desk.assign()
        assert again.offsets == {TP0: len(RECORDS)}

    asyncio.run(scenario())


@pytest.mark.parametrize("committed", [True, False])
def test_a_commit_of_unknown_outcome_is_made_once(
    committed: bool, desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assignment, "RETRY_S", (0.001, 0.001))
    failures = 3
    write = desk.ledger.commit

    def lose_the_answer(contributions: list[Contribution]) -> list[Claim]:
        nonlocal failures
        if committed or not failures:
            claims = write(contributions)
        if failures:
            failures -= 1
            raise StoreAwayError("connection lost")
        return claims

    monkeypatch.setattr(desk.ledger, "commit", lose_the_answer)

    async def scenario() -> None:
        one = desk.assign()
        await one.add(desk.chunk(0, RECORDS), NOW)
        await one.commit()
        await one.add(desk.chunk(len(RECORDS), RECORDS[:1]), NOW)
        await one.commit()

    asyncio.run(scenario())
    counts = contents(sqlite_url(tmp_path), CONFIG)["counts"]
    assert (counts["query"], counts["late"]) == (41, 1)
    assert failures == 0


def test_a_commit_that_was_cancelled_is_brought_to_its_end(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop cancels whatever waits for the store, and then flushes."""
    monkeypatch.setattr(assignment, "RETRY_S", (0.001, 0.001))
    write = desk.ledger.commit

    def fail(_: list[Contribution]) -> list[Claim]:
        raise StoreAwayError("database is locked")

    async def scenario() -> None:
        one = desk.assign(commit_events=1)
        monkeypatch.setattr(desk.ledger, "commit", fail)
        for first in range(0, 40, 10):
            await one.add(desk.chunk(first, RECORDS[first : first + 10]), NOW)
        adding = asyncio.create_task(one.add(desk.chunk(40, RECORDS[40:70]), NOW))
        await asyncio.sleep(0.05)
        assert not adding.done(), "consumption waits when the next commit is due"
        assert not desk.acked
        adding.cancel()
        await asyncio.wait([adding])
        monkeypatch.setattr(desk.ledger, "commit", write)
        await one.add(desk.chunk(70, RECORDS[70:]), NOW)
        await one.commit()
        assert desk.acked == [0, 10, 20, 30, 40, 70]
        assert desk.ledger.counts()["query"] == 40

    asyncio.run(scenario())


def test_it_catches_up_from_when_the_backlog_exceeds_a_commit_until_hardly_anything_is_left(desk: Desk) -> None:
    async def scenario() -> None:
        one, found = desk.assign(commit_events=30), []
        await one.add(desk.chunk(0, RECORDS[:20]), NOW)
        for second, unread in enumerate((30, 31, 31, None, 4, 3, 3, 30, 30)):  # None: brokers do not answer
            await one.advance(ends(None if unread is None else 20 + unread), NOW + 1000 * second)
            found.append(one.catching_up)
        assert found == [False, False, True, True, True, True, False, False, False], "what has just come does not count"

    asyncio.run(scenario())


def test_a_steady_load_is_no_backlog_however_small_commits_are(desk: Desk) -> None:
    async def scenario() -> None:
        one = desk.assign(commit_events=1)
        await one.add(desk.chunk(0, RECORDS[:20]), NOW)
        await one.advance(ends(20), NOW)
        for second in range(1, 4):
            await one.advance(ends(20 + 20 * second), NOW + 1000 * second)
            await one.advance(ends(20 + 20 * second), NOW + 1000 * second + 1)  # right before a version
            assert not one.catching_up
            await one.add(desk.chunk(20 * second, RECORDS[20 * second : 20 * second + 20]), NOW + 1000 * second + 2)

    asyncio.run(scenario())


def test_brokers_that_do_not_answer_hold_back_no_chunks(desk: Desk) -> None:
    async def scenario() -> None:
        one = desk.assign()
        await one.advance(ends(None), NOW)
        asked, answered = asyncio.Event(), asyncio.Event()

        async def late() -> Mapping[TP, int]:
            asked.set()
            await answered.wait()
            return {}

        waiting = asyncio.create_task(one.advance(late, NOW))
        await asked.wait()
        async with asyncio.timeout(10):
            await one.add(desk.chunk(0, RECORDS), NOW)
        answered.set()
        await waiting

    asyncio.run(scenario())


def test_a_clock_that_is_ahead_makes_no_event_of_others_late(desk: Desk) -> None:
    queries, clicks = TP("queries", 0), TP("clicks", 0)

    async def scenario() -> None:
        one = desk.assign(topics={"queries": Query, "clicks": Click})
        await one.add(desk.chunk(0, [asked("a", NOW), asked("fast", NOW + 280_000)], queries), NOW)
        await one.advance(ends({queries: 2, clicks: 0}), NOW)
        await one.add(desk.chunk(0, [clicked("a", NOW + 2_000)], clicks), NOW + 2_000)
        read = ends({queries: 2, clicks: 1})
        await one.advance(read, NOW + 2_000 + QUIET_MS)
        assert one.partitions[0].open == 1, "its time has not come yet"
        await one.advance(read, NOW + 280_000 + QUIET_MS)
        assert one.partitions[0].open == 0
        await one.commit()
        counts = desk.ledger.counts()
        assert (counts["turn"], counts.get("late", 0)) == (2, 0)

    asyncio.run(scenario())


def test_read_again_long_after_nothing_is_late_either_where_the_broker_set_the_times_of_records(desk: Desk) -> None:
    def record(offset: int, value: bytes, kind: int) -> ConsumerRecord[bytes, bytes]:
        return ConsumerRecord(*TP0, offset, NOW + offset, kind, b"key", value, None, 3, len(value), ())

    async def watermark(kind: int) -> int:
        one = desk.assign()
        values = enumerate([asked("a", NOW), asked("fast", NOW + 280_000), clicked("a", NOW + 1)])
        await one.add(Chunk(TP0, [record(offset, value, kind) for offset, value in values], lambda: None), 2 * NOW)
        await until(lambda: one.partitions[0].open)
        return one.partitions[0].watermark

    assert asyncio.run(watermark(kind=1)) == NOW + 1 - 1_000
    assert asyncio.run(watermark(kind=0)) == NOW + 280_000 - 1_000


def test_what_comes_while_the_brokers_say_where_the_logs_end_makes_nothing_late(desk: Desk) -> None:
    async def scenario() -> None:
        one = desk.assign(topics={"queries": Query, "clicks": Click})
        queries, clicks = TP("queries", 0), TP("clicks", 0)
        await one.add(desk.chunk(0, [asked("a", NOW)], queries), NOW)

        async def ask() -> Mapping[TP, int]:
            # This click was written and read after the answer, but not yet the queries before it.
            await one.add(desk.chunk(0, [clicked("c", NOW + 60_000)], clicks), later)
            return {queries: 1, clicks: 0}

        later = NOW + 60_000
        await one.advance(ask, later)
        await one.add(desk.chunk(1, [asked("b", NOW + 30_000), asked("c", NOW + 59_000)], queries), later)
        await one.advance(ends({queries: 3, clicks: 1}), later + QUIET_MS)
        await one.commit()
        counts = desk.ledger.counts()
        assert (counts.get("late", 0), counts["turn"], counts["learned"]) == (0, 3, 4)

    asyncio.run(scenario())


def test_what_keeps_a_commit_from_being_made_is_raised_by_whatever_comes_next(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: list[Contribution]) -> list[Claim]:
        raise ZeroDivisionError

    monkeypatch.setattr(desk.ledger, "commit", fail)

    async def scenario() -> None:
        one = desk.assign(commit_events=30)
        await one.add(desk.chunk(0, RECORDS[:50]), NOW)
        for call in (one.commit(), one.advance(ends(50), NOW), one.add(desk.chunk(50, RECORDS[50:51]), NOW)):
            with pytest.raises(ZeroDivisionError):
                await call
        assert not desk.acked

    asyncio.run(scenario())


def held_back(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Return an event that commits wait for before they write."""
    write, may_write = desk.ledger.commit, threading.Event()

    def wait(contributions: list[Contribution]) -> list[Claim]:
        may_write.wait()
        return write(contributions)

    monkeypatch.setattr(desk.ledger, "commit", wait)
    return may_write


def test_chunks_are_added_while_the_store_writes(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    may_write = held_back(desk, monkeypatch)

    async def scenario() -> None:
        one = desk.assign(commit_events=30)
        await one.add(desk.chunk(0, RECORDS[:30]), NOW)
        await one.add(desk.chunk(30, RECORDS[30:50]), NOW)
        assert not desk.acked
        may_write.set()
        await one.add(desk.chunk(50, RECORDS[50:]), NOW)
        await one.commit()
        assert desk.acked == [0, 30, 50]
        assert desk.ledger.counts()["query"] == 40

    asyncio.run(scenario())


def test_a_commit_that_waits_for_the_last_one_takes_what_comes_meanwhile(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, may_write, commits = desk.ledger.commit, threading.Event(), []

    def wait(contributions: list[Contribution]) -> list[Claim]:
        commits.append(contributions)
        may_write.wait()
        return write(contributions)

    monkeypatch.setattr(desk.ledger, "commit", wait)

    async def scenario() -> None:
        one = desk.assign()
        await one.add(desk.chunk(0, RECORDS[:30]), NOW)
        waiting = [asyncio.create_task(one.commit()) for _ in range(2)]
        await asyncio.sleep(0.01)
        await one.add(desk.chunk(30, RECORDS[30:50]), NOW)
        await one.add(desk.chunk(50, RECORDS[50:]), NOW)
        assert not desk.acked
        may_write.set()
        await asyncio.gather(*waiting)
        assert desk.acked == [0, 30, 50]
        assert len(commits) == 2
        assert desk.ledger.counts()["query"] == 40

    asyncio.run(scenario())


def test_the_position_waits_for_the_dead_letters(desk: Desk) -> None:
    async def scenario() -> None:
        one = desk.assign()
        desk.letters.may_deliver.clear()
        adding = asyncio.create_task(one.add(desk.chunk(0, [b"nonsense", *RECORDS]), NOW))
        await asyncio.sleep(0.01)
        adding.cancel()
        await asyncio.wait([adding])
        committing = asyncio.create_task(one.commit())
        await asyncio.sleep(0.01)
        assert desk.ledger.counts() == {}
        desk.letters.may_deliver.set()
        await committing
        ((topic, partition, record, reason),) = desk.letters.delivered
        assert (topic, partition, record.offset, record.key, record.value) == ("events", 0, 0, b"key", b"nonsense")
        assert reason.startswith("record: ")
        assert desk.ledger.counts()["dead_letter"] == 1

    asyncio.run(scenario())


def test_chunks_that_come_while_others_are_added_are_added_together(desk: Desk) -> None:
    async def scenario() -> None:
        one = desk.assign()
        desk.holder.may_answer.clear()
        for first in range(0, 50, 10):
            await one.add(desk.chunk(first, RECORDS[first : first + 10]), NOW)
        desk.holder.may_answer.set()
        await one.add(desk.chunk(50, RECORDS[50:]), NOW)
        await one.commit()
        assert desk.holder.calls[0] == 1
        assert sum(desk.holder.calls) == 6 > len(desk.holder.calls) + 2
        assert desk.acked == list(range(0, 60, 10))
        assert desk.ledger.counts()["query"] == 40

    asyncio.run(scenario())


def test_a_chunk_whose_adding_was_cancelled_is_added_with_its_dead_letters(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The partition has it already. Without its dead letters it may not be committed."""

    async def scenario() -> None:
        one = desk.assign()
        desk.holder.may_answer.clear()
        await one.add(desk.chunk(0, RECORDS[:50]), NOW)
        monkeypatch.setattr(assignment, "GATHERED_RECORDS", 1)
        adding = asyncio.create_task(one.add(desk.chunk(50, [*RECORDS[50:], b"nonsense"]), NOW))
        committing = asyncio.create_task(one.commit())
        await asyncio.sleep(0.01)
        assert not adding.done(), "one call is ahead, and no more"
        adding.cancel()
        desk.holder.may_answer.set()
        await committing
        assert [letter.record.value for letter in desk.letters.delivered] == [b"nonsense"]
        assert desk.acked == [0, 50]
        assert desk.ledger.counts()["query"] == 40

    asyncio.run(scenario())


def test_batches_are_not_lost_with_the_caller_that_asked_for_them(desk: Desk) -> None:
    async def scenario() -> None:
        one = desk.assign()
        await one.add(desk.chunk(0, RECORDS), NOW)
        await until(lambda: one.partitions[0].uncommitted)
        desk.holder.may_answer.clear()
        committing = asyncio.create_task(one.commit())
        await asyncio.sleep(0.01)
        committing.cancel()
        await asyncio.wait([committing])
        desk.holder.may_answer.set()
        await one.commit()
        assert desk.ledger.counts()["query"] == 40

    asyncio.run(scenario())


def test_an_answer_after_the_end_of_the_assignment_changes_nothing(desk: Desk) -> None:
    async def scenario() -> None:
        one = desk.assign()
        before = dict(one.partitions)
        desk.holder.may_answer.clear()
        await one.add(desk.chunk(0, [b"nonsense", *RECORDS]), NOW)
        waiting = [asyncio.create_task(one.advance(ends(41), NOW)), asyncio.create_task(one.commit())]
        await asyncio.sleep(0.01)
        one.end()
        desk.holder.may_answer.set()
        await asyncio.gather(*waiting)
        assert (desk.letters.delivered, desk.acked, desk.ledger.counts()) == ([], [], {})
        assert one.partitions == before

    asyncio.run(scenario())


def test_commits_that_are_asked_for_together_hold_back_no_chunks(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    may_write = held_back(desk, monkeypatch)

    async def scenario() -> None:
        one = desk.assign()
        await one.add(desk.chunk(0, RECORDS[:50]), NOW)
        await until(lambda: one.partitions[0].uncommitted)
        desk.holder.may_answer.clear()
        committing = [asyncio.create_task(one.commit()) for _ in range(2)]
        await asyncio.sleep(0.01)
        desk.holder.may_answer.set()
        async with asyncio.timeout(10):
            await one.add(desk.chunk(50, RECORDS[50:]), NOW)
        may_write.set()
        await asyncio.gather(*committing)
        assert desk.ledger.counts()["query"] == 40

    asyncio.run(scenario())


def test_nothing_is_committed_after_a_chunk_that_could_not_be_added(desk: Desk) -> None:
    async def scenario() -> None:
        one = desk.assign()
        await one.add(desk.chunk(0, RECORDS, TP("unknown", 0)), NOW)
        for call in (one.advance(ends(50), NOW), one.add(desk.chunk(0, RECORDS), NOW), one.commit()):
            with pytest.raises(KeyError, match="unknown"):
                await call
        assert (desk.acked, desk.ledger.counts()) == ([], {})

    asyncio.run(scenario())


def test_who_claims_later_has_the_partition(desk: Desk) -> None:
    async def scenario() -> None:
        first, second = desk.assign(), desk.assign()
        await first.add(desk.chunk(0, RECORDS), NOW)
        with pytest.raises(FencedError):
            await first.commit()
        # An assignment that was ended by the rebalance that brought the second one does not report its fencing.
        first.end()
        await first.commit()
        await first.add(desk.chunk(len(RECORDS), RECORDS), NOW)
        await second.add(desk.chunk(0, RECORDS), NOW)
        await second.commit()
        assert desk.ledger.counts()["query"] == 40

    asyncio.run(scenario())


AT = Position(5, {"t": TopicPosition(read=100, resume=80, newest=7, dropped=(81,))})


@pytest.mark.parametrize(
    ("log", "resumed", "loss"),
    [
        (LogBounds(0, 100), TopicPosition(100, 80, 7, (81,)), None),
        (LogBounds(80, 300), TopicPosition(100, 80, 7, (81,)), None),
        (
            LogBounds(90, 300),
            TopicPosition(100, 90, 7, (81,)),
            "lost offsets 80 to 89.*open",
        ),
        (LogBounds(120, 300), TopicPosition(120, 120, 7, (81,)), "lost offsets 100 to 119"),
        (LogBounds(0, 99), TopicPosition(0, 0), "recreated.*offset 100 .* ends at 99"),
    ],
)
def test_what_a_log_has_lost_is_said(log: LogBounds, resumed: TopicPosition, loss: str | None) -> None:
    position, losses = resume_in({"t": log}, AT)
    assert position == Position(5, {"t": resumed})
    assert len(losses) == (loss is not None)
    if loss is not None:
        assert re.search(loss, losses[0])


def test_a_topic_that_was_recreated_and_refilled_is_said() -> None:
    """Its offsets alone do not tell."""
    first, again = {"t": "one"}, {"t": "another"}
    position, losses = resume_in({"t": LogBounds(0, 100)}, Position(), first)
    assert not losses
    read = structs.replace(position.topics["t"], read=50, resume=50)
    assert resume_in({"t": LogBounds(0, 100)}, Position(topics={"t": read}), first)[1] == []
    assert resume_in({"t": LogBounds(0, 100)}, Position(topics={"t": read}))[1] == []
    position, (loss,) = resume_in({"t": LogBounds(0, 100)}, Position(topics={"t": read}), again)
    assert "was recreated" in loss
    assert position.topics["t"] == TopicPosition(id="another")


def test_a_topic_that_was_never_read_begins_where_its_log_does() -> None:
    assert resume_in({"t": LogBounds(7, 9)}, Position()) == (Position(topics={"t": TopicPosition(7, 7)}), [])


def test_what_is_open_in_a_topic_that_is_no_longer_read_is_a_loss() -> None:
    left = Position(5, {"t": TopicPosition(read=50, resume=50), "old": TopicPosition(read=50, resume=40)})
    position, (loss,) = resume_in({"t": LogBounds(0, 100)}, left)
    assert position.topics.keys() == {"t"}
    assert loss.startswith("old is no longer one of the topics, but its offsets 40 to 49")
    done = structs.replace(left, topics=left.topics | {"old": TopicPosition(read=50, resume=50)})
    assert resume_in({"t": LogBounds(0, 100)}, done)[1] == []


def test_a_partition_without_one_of_its_topics_is_refused() -> None:
    log = LogBounds(0, 0)
    both = {TP("a", 0): log, TP("b", 0): log}
    assert by_partition(both, {"a", "b"}) == {0: {"a": log, "b": log}}
    with pytest.raises(CoPartitionError, match=r"partition 1 .* without b"):
        by_partition({**both, TP("a", 1): log}, {"a", "b"})
