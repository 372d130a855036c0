"""Turns are the same however the topics interleave, and however often the assembler restarts."""

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backchannel.schemas.events import BargeIn, Click, Event, Impression, Query, Signal, Teach
from backchannel.schemas.turn import Turn
from backchannel.streams.turns.accounts import Account
from backchannel.streams.turns.assembler import TooManyOpenError, TurnAssembler, TurnConfig
from backchannel.streams.turns.position import BEGINNING, Position

WINDOW, LATENESS = 60, 10
CONFIG = TurnConfig(window_s=WINDOW / 1000, lateness_s=LATENESS / 1000)
TOPICS = ("queries", "impressions", "clicks", "barge_ins")
Log = dict[str, list[Event | None]]


def query(event_id: str, ts: int, query_id: str | None = None, session_id: str = "s", text: str = "") -> Query:
    return Query(event_id=event_id, ts=ts, session_id=session_id, query_id=query_id or event_id, text=text)


def click(event_id: str, ts: int, query_id: str) -> Click:
    return Click(event_id=event_id, ts=ts, session_id="s", query_id=query_id, entity_id="e")


def impression(event_id: str, ts: int, query_id: str) -> Impression:
    return Impression(event_id=event_id, ts=ts, session_id="s", query_id=query_id, results=())


def barge_in(event_id: str, ts: int, query_id: str) -> BargeIn:
    return BargeIn(event_id=event_id, ts=ts, session_id="s", query_id=query_id)


@dataclass
class Run:
    """Reads a log in some interleaving, with commits and crashes, as a partition's owner does."""

    log: Log
    rng: random.Random
    position: Position = field(default_factory=Position)
    turns: list[Turn] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def start(self) -> None:
        self.assembler = TurnAssembler(self.log, CONFIG, self.position)
        self.next = {topic: self.position.topic(topic).resume for topic in self.log}
        self.uncommitted: list[Turn] = []

    def commit(self) -> None:
        self.position = self.assembler.position
        self.turns += self.uncommitted
        self.counts.update(self.assembler.counts)  # += would drop negative counts
        self.uncommitted = []
        self.assembler.counts = Counter()

    def all(self, *, crashes: int = 0) -> "Run":
        self.start()
        while True:
            unread = [topic for topic, events in self.log.items() if self.next[topic] < len(events)]
            if not unread:
                break
            topic = self.rng.choice(unread)
            first = self.next[topic]
            last = min(first + self.rng.randint(1, 4), len(self.log[topic]))
            self.assembler.add(topic, range(first, last), self.log[topic][first:last])
            self.next[topic] = last
            if self.rng.random() < 0.7:
                self.uncommitted += self.assembler.advance()
            if self.rng.random() < 0.3 and not self.assembler.rebuilding:
                self.commit()
            if crashes and self.rng.random() < 0.2:
                crashes -= 1
                self.start()
        self.uncommitted += self.assembler.finish()
        self.commit()
        assert self.assembler.open == 0
        assert self.position.watermark == BEGINNING or all(
            topic.resume == topic.read == len(self.log[name]) for name, topic in self.position.topics.items()
        )
        return self


@st.composite
def logs(draw: st.DrawFn, lateness: int = LATENESS) -> Log:
    """Topics whose events are out of order by up to `lateness`, with duplicates, orphans and retried queries."""
    log: Log = {}
    ids = st.sampled_from("abcdef")
    times = {query_id: draw(st.integers(0, 250)) for query_id in "abcdef"}
    retry_gap = WINDOW - 1 if lateness == LATENESS else 0
    for topic in TOPICS:
        size = draw(st.integers(0, 12))
        arrivals: list[tuple[int, int, Event | None]] = []
        for number in range(size):
            ts = draw(st.integers(0, 300))
            event_id = f"{topic}{draw(st.integers(0, size))}"
            query_id = draw(ids)
            event: Event
            if topic == "queries":
                ts = times[query_id] + draw(st.integers(0, retry_gap))
                event = query(event_id, ts, query_id, session_id=draw(st.sampled_from("st")))
            elif topic == "impressions":
                event = impression(event_id, ts, query_id)
            elif topic == "clicks":
                event = click(event_id, ts, query_id)
            else:
                event = barge_in(event_id, ts, query_id)
            arrivals.append((ts + draw(st.integers(0, lateness)), number, event))
        arrivals.sort(key=lambda arrival: arrival[:2])
        log[topic] = [event for _, _, event in arrivals]
        if draw(st.booleans()):
            log[topic].insert(draw(st.integers(0, size)), None)
    return log


def expected(log: Log) -> list[Turn]:
    """Return the closed turns by their definition, implemented as directly as possible."""
    queries: list[Query] = []
    for event in log["queries"]:
        if isinstance(event, Query) and all(other.query_id != event.query_id for other in queries):
            queries.append(event)

    def signals(topic: str, owner: Query) -> Iterator[Signal]:
        seen = set()
        for event in log[topic]:
            if event is None or isinstance(event, Query | Teach) or event.event_id in seen:
                continue
            if event.query_id == owner.query_id and owner.ts - LATENESS <= event.ts < owner.ts + WINDOW:
                seen.add(event.event_id)
                yield event

    in_order = sorted(queries, key=lambda q: q.ts)
    turns = []
    for number, q in enumerate(in_order):
        after = [o for o in in_order[number + 1 :] if o.session_id == q.session_id and o.ts < q.ts + WINDOW]
        turns.append(
            Turn.of(q, [signal for topic in TOPICS[1:] for signal in signals(topic, q)], after[0] if after else None)
        )
    return turns


def by_time(turns: list[Turn]) -> list[Turn]:
    return sorted(turns, key=lambda turn: turn.query.ts)


@settings(max_examples=200)
@given(log=logs(), seed=st.integers(0, 2**32))
def test_every_interleaving_closes_the_same_turns(log: Log, seed: int) -> None:
    run = Run(log, random.Random(seed)).all()
    assert by_time(run.turns) == expected(log)
    assert run.counts["late"] == 0
    assert [turn.query.ts for turn in run.turns] == sorted(turn.query.ts for turn in run.turns)


@settings(max_examples=200)
@given(log=logs(), seed=st.integers(0, 2**32))
def test_every_event_is_counted_where_it_went(log: Log, seed: int) -> None:
    run = Run(log, random.Random(seed)).all()
    read = sum(event is not None for events in log.values() for event in events)
    taken = sum(1 + len(turn.impressions) + len(turn.clicks) + len(turn.barge_ins) for turn in run.turns)
    assert taken + run.counts["duplicate"] + run.counts["orphan"] == read
    assert sum(run.counts[kind] for kind in ("query", "impression", "click", "barge_in")) == read
    assert run.counts["turn"] == len(run.turns)
    assert (run.counts["learned"], run.counts["open"]) == (taken, 0)
    assert Account.of(run.counts).unaccounted == 0


@settings(max_examples=200)
@given(log=logs(), seed=st.integers(0, 2**32), crashes=st.integers(1, 6))
def test_starting_again_changes_nothing(log: Log, seed: int, crashes: int) -> None:
    whole = Run(log, random.Random(seed)).all()
    broken = Run(log, random.Random(seed + 1)).all(crashes=crashes)
    assert by_time(broken.turns) == by_time(whole.turns)
    assert broken.counts == whole.counts


@settings(max_examples=200)
@given(log=logs(lateness=200), seed=st.integers(0, 2**32), crashes=st.integers(1, 6))
def test_starting_again_changes_nothing_in_one_log_however_late_its_events(log: Log, seed: int, crashes: int) -> None:
    merged: Log = {"events": [event for events in log.values() for event in events]}
    random.Random(seed).shuffle(merged["events"])

    def read(crashes: int) -> Run:
        run = Run(merged, random.Random(seed))
        run.rng.random()
        chunks = random.Random(seed)
        while True:
            run.start()
            crash_at = chunks.randint(0, len(merged["events"])) if crashes else None
            crashes -= 1
            crashed = False
            while run.next["events"] < len(merged["events"]):
                first = run.next["events"]
                run.assembler.add("events", range(first, first + 1), merged["events"][first : first + 1])
                run.uncommitted += run.assembler.advance()
                run.next["events"] += 1
                if first % 3 == 0 and not run.assembler.rebuilding:
                    run.commit()
                if first == crash_at:
                    crashed = True
                    break
            if not crashed:
                run.uncommitted += run.assembler.finish()
                run.commit()
                return run

    whole, broken = read(0), read(crashes)
    assert broken.turns == whole.turns
    assert broken.counts == whole.counts


def test_a_topic_still_to_be_read_again_holds_the_watermark() -> None:
    log: Log = {"queries": [query("a", 0), query("z", 500)], "clicks": [click("c", 5, "a"), click("d", 900, "z")]}
    first = TurnAssembler(log, CONFIG)
    first.add("clicks", range(2), log["clicks"])
    first.add("queries", range(1), log["queries"][:1])
    first.advance()
    again = TurnAssembler(log, CONFIG, first.position)
    again.add("queries", range(2), log["queries"])
    assert again.advance() == []
    with pytest.raises(RuntimeError, match="rebuilt"):
        _ = again.position
    again.add("clicks", range(2), log["clicks"])
    assert [len(turn.clicks) for turn in again.advance()] == [1]


def test_silence_does_not_stop_learning() -> None:
    assembler = TurnAssembler(TOPICS, CONFIG)
    assembler.add("queries", range(2), [query("a", 0), query("b", WINDOW + LATENESS)])
    assert assembler.advance() == []
    assert assembler.advance(caught_up=TOPICS[1:2]) == []
    assert [turn.query.query_id for turn in assembler.advance(caught_up=TOPICS[1:])] == ["a"]
    assert [turn.query.query_id for turn in assembler.finish()] == ["b"]


@pytest.mark.parametrize("chunk", [1, 2, 4])
def test_an_event_counts_as_no_newer_than_its_record_however_many_are_read_at_once(chunk: int) -> None:
    log: list[Event] = [query("a", 1000), query("fast", 5000), query("b", 1040), click("c", 1050, "a")]
    appended = [1001, 1002, 1041, 1051]
    assembler = TurnAssembler(["events"], CONFIG)
    for first in range(0, len(log), chunk):
        read = slice(first, first + chunk)
        assembler.add("events", range(4)[read], log[read], appended[read])
        assembler.advance()
    assert (assembler.counts["late"], assembler.watermark) == (0, 1050 - LATENESS)


def test_late_events_are_counted() -> None:
    assembler = TurnAssembler(["events"], CONFIG)
    assembler.add("events", [0, 1], [query("a", 0), query("b", 1000)])
    assembler.advance()
    assembler.add("events", [2, 3], [query("c", 10), click("d", 20, "a")])
    assert assembler.counts["late"] == 2


def test_too_many_open_turns_stop_the_run_and_say_why() -> None:
    assembler = TurnAssembler(["queries", "clicks"], TurnConfig(max_open=3))
    with pytest.raises(TooManyOpenError, match=r"turns\.max_open = 3.*topic clicks"):
        assembler.add("queries", range(4), [query(str(ts), ts) for ts in range(4)])
