"""An assignment: the partitions that a worker owns until the next rebalance, from chunks to commits."""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Final, Protocol, TypeVar

from faust.types import TP
from msgspec import structs

from backchannel.schemas.errors import BackchannelError
from backchannel.schemas.events import Teach
from backchannel.streams.kafka.producer import Rejected
from backchannel.streams.kafka.receiver import Chunk, LogBounds
from backchannel.streams.kafka.record import appended
from backchannel.streams.monitoring.observer import Observer
from backchannel.streams.pipeline.commits import Commit
from backchannel.streams.store.engine import StoreAwayError
from backchannel.streams.store.ledger import FencedError
from backchannel.streams.turns.partition import PartitionState
from backchannel.streams.turns.position import Claim, Position, TopicPosition
from backchannel.streams.worker.partitions import Added, Ends, Records

logger = logging.getLogger(__name__)

RETRY_S: Final = (0.1, 5.0)
"""Seconds before the first retry, and maximum seconds before later ones."""

NO_IDS: Final[Mapping[str, str]] = {}

WAITED_MS: Final = 500
"""How long (ms) a record must have been unread to count as backlog. Under load, some have always just come."""

GATHERED_RECORDS: Final = 1000
"""Number of records that are not held back until those before are added. Under load, fetches bring a few records of
each topic partition, which are not worth a call of another process each.
"""

LETTERS_LOGGED: Final = 3
"""Maximum dead letters logged per second."""

_T = TypeVar("_T")


class CoPartitionError(BackchannelError, RuntimeError):
    """The group assigned this worker some topics of a partition, but not all; the message says which."""


async def until_store_answers(attempt: Callable[[], Awaitable[_T]]) -> _T:
    """Return the result of `attempt`, which is retried while the store is away."""
    pause, longest = RETRY_S
    while True:
        try:
            return await attempt()
        except StoreAwayError as error:
            logger.warning("%s; retrying in %.1f s", error, pause)
        await asyncio.sleep(pause)
        pause = min(2 * pause, longest)


async def _ended(task: asyncio.Task[None] | None) -> None:
    """Wait until `task` has ended, which it does even if the caller is cancelled, and raise its error."""
    if task is not None:
        await asyncio.shield(task)


def _records(chunk: Chunk) -> Records:
    topic, number = chunk.tp
    offsets = [record.offset for record in chunk.records]
    values = [record.value for record in chunk.records]
    return Records(number, topic, offsets, values, appended(chunk.records))


def by_partition(bounds: Mapping[TP, LogBounds], topics: set[str]) -> dict[int, dict[str, LogBounds]]:
    """Group the assigned topic partitions by partition number.

    Raises:
        CoPartitionError: a partition lacks one of `topics`.
    """
    grouped: defaultdict[int, dict[str, LogBounds]] = defaultdict(dict)
    for tp, log in bounds.items():
        grouped[tp.partition][tp.topic] = log
    for number, logs in grouped.items():
        if missing := topics - logs.keys():
            raise CoPartitionError(
                f"partition {number} was assigned without {', '.join(sorted(missing))}, but a session's events are in "
                "the same partition of all event topics: let only Backchannel workers into the consumer group, and "
                "check the topics with `backchannel topics check`"
            )
    return dict(grouped)


def resume_in(
    logs: Mapping[str, LogBounds], position: Position, ids: Mapping[str, str] = NO_IDS
) -> tuple[Position, list[str]]:
    """Find where to resume from `position`, given what the logs still hold.

    Args:
        logs: topic -> what its log holds.
        position: the committed position.
        ids: topic -> Kafka's id of the topic; unknown ids are missing.

    Returns:
        the position to resume from, and a description of each loss; normally there is none.
    """
    topics, losses = {}, []
    for topic, log in logs.items():
        at = position.topics.get(topic)
        if at is None:
            at = TopicPosition(read=log.start, resume=log.start)
        elif at.id and at.id != ids.get(topic, at.id):
            losses.append(
                f"{topic} was recreated since offset {at.read - 1} was read; everything in it would count as new"
            )
            at = TopicPosition(read=log.start, resume=log.start)
        elif at.read > log.end:
            losses.append(
                f"{topic} was recreated, or lost its end: offset {at.read} is to be read next, but it ends at "
                f"{log.end}; everything in it would count as new"
            )
            at = TopicPosition(read=log.start, resume=log.start)
        elif at.read < log.start:
            losses.append(f"{topic} lost offsets {at.read} to {log.start - 1} before they were read")
            at = structs.replace(at, read=log.start, resume=log.start)
        elif at.resume < log.start:
            losses.append(
                f"{topic} lost offsets {at.resume} to {log.start - 1}, which belong to turns that are still open"
            )
            at = structs.replace(at, resume=log.start)
        topics[topic] = structs.replace(at, id=ids.get(topic, at.id))
    for topic in sorted(position.topics.keys() - logs.keys()):
        at = position.topics[topic]
        if at.resume < at.read:
            losses.append(
                f"{topic} is no longer one of the topics, but its offsets {at.resume} to {at.read - 1} belong to turns "
                "that are still open: a worker with the old topics closes them"
            )
    return structs.replace(position, topics=topics), losses


class Letters(Protocol):
    """The destination of invalid records."""

    async def deliver(self, rejected: list[Rejected]) -> None:
        """Deliver them, and return once all are durable."""


class Holder(Protocol):
    """Holds the partitions; see `Partitions`, also for the errors. It answers calls in their order."""

    async def add(self, chunks: Sequence[Records], now: int) -> Added:
        """Add chunks."""

    async def advance(self, ends: Mapping[int, Ends], now: int) -> Mapping[int, PartitionState]:
        """Advance the watermarks."""

    async def batches(self, claims: Sequence[Claim]) -> bytes:
        """Return the partitions' batches."""


class Committer(Protocol):
    """Learns from batches and commits the result."""

    async def commit(self, batches: bytes) -> Commit:
        """Learn and commit; see `commits.commit`."""


class Assignment:
    """Adds chunks to the partitions, and commits the turns that they close: one commit at a time.

    Chunks are added while a commit is in progress, until the next one is due. So when the store is away, everything
    here eventually waits, and consumption with it; when the dead-letter topic is away, it waits at once. Adding a chunk
    and committing continue if their caller is cancelled.

    Args:
        claims: the claims of the partitions.
        partitions: the partitions' states by number, each at its claim's position.
        holder: what holds the partitions.
        committer: the learner and committer of the partitions' batches.
        letters: the destination of dead letters.
        commit_events: number of new records after which to commit.
        quiet_ms: silence, ms, after which the open turns of a partition that was read to its end are closed.
        observer: the observer of commits, dead letters and progress.
        teach: writes what was taught, at once; called in a thread.
    """

    def __init__(
        self,
        claims: Sequence[Claim],
        partitions: Mapping[int, PartitionState],
        holder: Holder,
        committer: Committer,
        letters: Letters,
        *,
        commit_events: int,
        quiet_ms: int,
        observer: Observer,
        teach: Callable[[Sequence[Teach]], None],
    ) -> None:
        self._claims: Final = {claim.number: claim for claim in claims}
        self.partitions: Final = dict(partitions)
        self._holder: Final = holder
        self._teach: Final = teach
        self._committer: Final = committer
        self._producer: Final = letters
        self._commit_events: Final = commit_events
        self._quiet_ms: Final = quiet_ms
        self._observer: Final = observer
        self._void: Final = asyncio.Event()
        self._lock: Final = asyncio.Lock()
        self._commit: asyncio.Task[None] | None = None  # the last one
        self._begun = 0.0  # monotonic time at which it began
        self._gathered: list[Chunk] = []  # chunks not sent to the holder yet
        self._now = 0  # wall clock at the last chunk, ms
        self._adding: asyncio.Task[None] | None = None  # the last chunks, which ends after all others
        self._unacked: list[tuple[int, Callable[[], None]]] = []  # (partition, ack) of each chunk since the last commit
        self._catching_up = False
        self._ends: tuple[int, Mapping[TP, int]] = (0, {})  # a time, ms, and where the logs ended then
        self._heard: dict[int, int] = {}  # partition -> time of its last chunk, ms
        self._closed: int | None = None  # time at which the first uncommitted turn closed
        self._log_second, self._logged = 0, 0
        self._next = {
            TP(topic, claim.number): at.resume for claim in claims for topic, at in claim.position.topics.items()
        }

    @property
    def offsets(self) -> Mapping[TP, int]:
        """The offset of each topic partition to read next."""
        return self._next

    @property
    def catching_up(self) -> bool:
        """Whether the backlog was larger than one commit, and since then never smaller than a tenth of that."""
        return self._catching_up

    def end(self) -> None:
        """Void the assignment: another worker may own the partitions now."""
        self._void.set()

    async def add(self, chunk: Chunk, now: int) -> None:
        """Begin to add a chunk; first commit, if it is time.

        Chunks that come while others are added go to the holder in one call. Once they are many, they go at once, so
        that it has them when it is done, and this waits until the others are added. Whatever is called next raises what
        goes wrong.

        Args:
            chunk: the next chunk of its topic partition.
            now: wall clock, ms since the Unix epoch.

        Raises:
            TooManyOpenError: see `TurnAssembler.add`.
            FencedError: see `commit`.
        """
        await asyncio.shield(self._gather(chunk, now))

    async def _gather(self, chunk: Chunk, now: int) -> None:
        async with self._lock:
            self._raise_failure()
            if sum(one.uncommitted for one in self.partitions.values()) >= self._commit_events:
                await self._begin_commit()
            self._gathered.append(chunk)
            self._now = now
            many = sum(len(one.records) for one in self._gathered) >= GATHERED_RECORDS
            if many or self._adding is None or self._adding.done():
                before = self._adding
                self._adding = asyncio.create_task(self._add(before))
                await _ended(before)

    async def _add(self, before: asyncio.Task[None] | None) -> None:
        while self._gathered and not self._void.is_set():
            chunks, self._gathered, now = self._gathered, [], self._now
            added = await self._holder.add([_records(chunk) for chunk in chunks], now)
            await _ended(before)
            if not self._void.is_set():
                await self._take(chunks, added, now)
        await _ended(before)

    async def _take(self, chunks: Sequence[Chunk], added: Added, now: int) -> None:
        """Take note of what came of chunks; return once their rules and dead letters are durable."""
        if added.taught:
            await until_store_answers(partial(asyncio.to_thread, self._teach, added.taught))
        self._note(added.states, now)
        rejected = []
        for chunk, dead in zip(chunks, added.dead, strict=True):
            topic, number = chunk.tp
            self._next[chunk.tp] = chunk.records[-1].offset + 1
            if self._next[chunk.tp] <= self._claims[number].position.topic(topic).read:
                chunk.ack()  # committed before the restart; acked so that it does not stay in memory
            else:
                self._unacked.append((number, chunk.ack))
            self._heard[number] = now
            if dead:
                records = {record.offset: record for record in chunk.records}
                rejected += [Rejected(topic, number, records[letter.offset], letter.reason) for letter in dead]
        if rejected:
            self._report(rejected, now)
            await self._producer.deliver(rejected)

    async def advance(self, log_ends: Callable[[], Awaitable[Mapping[TP, int]]], now: int) -> None:
        """Advance the watermark past topics that were read to their end, and close the turns of quiet partitions.

        Args:
            log_ends: a function that returns the ends of the logs. Chunks are added meanwhile; but what they hold does
                not advance the watermark, as an event of another topic could be newer than the answer.
            now: wall clock, ms since the Unix epoch.
        """
        newest = {number: partition.newest for number, partition in self.partitions.items()}
        ends = await log_ends()
        async with self._lock:
            self._raise_failure()
            await _ended(self._adding)
            if self._void.is_set() or not self.partitions:
                return
            if not ends:  # an unreachable log is not known to be quiet
                self._heard.clear()
            known = {}
            for number, claim in self._claims.items():
                topics = claim.position.topics
                caught_up = [t for t in topics if (tp := TP(t, number)) in ends and self._next[tp] >= ends[tp]]
                heard = self._heard.setdefault(number, now)
                quiet = len(caught_up) == len(topics) and now - heard >= self._quiet_ms
                known[number] = Ends(caught_up, newest[number], quiet)
            states = await self._holder.advance(known, now)
            if self._void.is_set():
                return
            self._note(states, now)
            unread = {tp: max(end - self._next[tp], 0) for tp, end in ends.items()}
            if ends:
                self._measure_backlog(ends, now)
            self._observer.on_tick(self.partitions, unread)

    def _measure_backlog(self, ends: Mapping[TP, int], now: int) -> None:
        """Judge whether the worker is catching up, by what was there `WAITED_MS` ago and is still unread."""
        since, before = self._ends
        if 0 <= now - since < WAITED_MS:
            return
        backlog = sum(max(end - self._next[tp], 0) for tp, end in (before or ends).items())
        self._catching_up = backlog > self._commit_events / (10 if self._catching_up else 1)
        self._ends = now, ends

    async def commit(self, pause_s: float = 0.0) -> None:
        """Commit everything added so far, and ack it.

        While the last commit is in progress, chunks are still added: the next commit takes them.

        Args:
            pause_s: minimum time between the beginnings of two commits, s.

        Raises:
            FencedError: another process has claimed one of the partitions.
        """
        await asyncio.shield(self._commit_added(pause_s))

    async def _commit_added(self, pause_s: float) -> None:
        while True:
            await self._settle()
            async with self._lock:
                # Otherwise another one has been begun, and chunks are added while it is in progress.
                if self._void.is_set() or self._commit is None or self._commit.done():
                    if time.monotonic() >= self._begun + pause_s:
                        await self._begin_commit()
                    break
        await self._settle()

    def _raise_failure(self) -> None:
        """Raise the error of the last commit, if it failed."""
        if self._commit is not None and self._commit.done() and not self._void.is_set():
            self._commit.result()

    async def _settle(self) -> None:
        """Wait for the last commit, and raise its error."""
        if not self._void.is_set():
            await _ended(self._commit)

    def _note(self, states: Mapping[int, PartitionState], now: int) -> None:
        self.partitions.update(states)
        if self._closed is None and any(state.closed for state in states.values()):
            self._closed = now

    async def _begin_commit(self) -> None:
        """Begin to commit what was added since the last commit, once that has ended."""
        await self._settle()
        await _ended(self._adding)
        ready = {number: one for number, one in self.partitions.items() if not one.rebuilding}
        if self._void.is_set() or not any(one.uncommitted for one in ready.values()):
            return
        begun = time.monotonic()
        batches = await self._holder.batches([self._claims[number] for number in ready])
        for number, one in ready.items():
            self.partitions[number] = structs.replace(one, uncommitted=0, closed=0)
        closed, self._closed = self._closed, None
        acks = [ack for number, ack in self._unacked if number in ready]
        self._unacked = [one for one in self._unacked if one[0] not in ready]
        self._begun = begun
        self._commit = asyncio.create_task(self._write(batches, acks, closed))

    async def _write(self, batches: bytes, acks: list[Callable[[], None]], closed: int | None) -> None:
        try:
            commit = await until_store_answers(lambda: self._unless_void(batches))
        except FencedError:
            if self._void.is_set():  # fenced by this worker's own next claim
                return
            self._observer.on_fenced()
            raise
        if commit is None:
            return
        self._claims.update((claim.number, claim) for claim in commit.claims)
        self._observer.on_commit(commit, time.monotonic() - self._begun, closed)
        for ack in acks:
            ack()

    async def _unless_void(self, batches: bytes) -> Commit | None:
        return None if self._void.is_set() else await self._committer.commit(batches)

    def _report(self, rejected: list[Rejected], now: int) -> None:
        self._observer.on_dead_letters([one.reason for one in rejected])
        if now // 1000 != self._log_second:
            self._log_second, self._logged = now // 1000, 0
        for letter in rejected[: LETTERS_LOGGED - self._logged]:
            logger.warning(
                "dead letter: %s[%d] offset %d: %s", letter.topic, letter.partition, letter.record.offset, letter.reason
            )
            self._logged += 1
