"""A partition: records in, batches of turns out."""

import msgspec
import pytest

from backchannel.schemas.codec import EventDecoder
from backchannel.streams.turns.accounts import ANSWERED, counted_by_name
from backchannel.streams.turns.assembler import TurnConfig
from backchannel.streams.turns.partition import Batch, Partition
from backchannel.streams.turns.position import BEGINNING, Claim, Position

TURNS = TurnConfig(window_s=10, lateness_s=0, max_ahead_s=60)
START = 1_700_000_000_000
"""Times of events count from here, ms since the Unix epoch."""
NOW = START + 1_000_000
"""Wall clock, ms since the Unix epoch."""


def query(number: int, ts: int) -> bytes:
    event = {
        "event_id": f"e{number}",
        "ts": START + ts,
        "session_id": f"s{number}",
        "query_id": f"q{number}",
        "text": "jazz",
    }
    return msgspec.json.encode({"type": "query", **event})


def partition(position: Position | None = None) -> Partition:
    return Partition(Claim("test", 3, 1, 0, position or Position()), {"events": EventDecoder()}, TURNS)


def asked(batch: Batch) -> list[str]:
    """The sessions of the batch's turns."""
    return [columns.query(row).session_id for columns in batch.columns for row in range(len(columns))]


def resumed(batch: Batch) -> Partition:
    """The partition of another process that goes on from what the batch has committed."""
    return partition(batch.position)


def test_a_batch_brings_turns_counts_and_the_position_and_begins_anew() -> None:
    one = partition()
    assert one.add("events", [0, 1], [query(0, 1_000), query(1, 12_000)], NOW) == []
    assert one.uncommitted == 2
    assert one.advance() == 1
    batch = one.batch()
    assert asked(batch) == ["s0"]
    assert batch.counts == {"query": 2, "turn": 1, "learned": 1, "open": 1}
    assert batch.claim == one.claim
    assert batch.position.watermark == START + 12_000
    assert batch.position.topics["events"].read == 2
    assert (one.uncommitted, one.counts, asked(one.batch())) == (0, {}, [])


def test_a_chunk_of_any_size_gives_what_its_records_give_one_by_one() -> None:
    records = [None if number % 700 == 699 else query(number, 1_000 + number) for number in range(3_000)]
    offsets = [number + number // 10 for number in range(len(records))]
    assert sum(map(len, filter(None, records))) > 2 * 2**17
    whole, single = partition(), partition()
    dead = whole.add("events", offsets, records, NOW)
    assert [letter.offset for letter in dead] == [offsets[place] for place in range(699, 3_000, 700)]
    assert dead == [
        letter
        for offset, record in zip(offsets, records, strict=True)
        for letter in single.add("events", [offset], [record], NOW)
    ]
    assert whole.finish() == single.finish() == 2_996
    ours, theirs = whole.batch(), single.batch()
    assert asked(ours) == asked(theirs)
    assert (ours.counts, ours.position.watermark) == (theirs.counts, theirs.position.watermark)
    assert ours.position.topics["events"].read == theirs.position.topics["events"].read == offsets[-1] + 1


def test_turns_that_close_without_new_records_are_to_be_committed_too() -> None:
    one = partition()
    one.add("events", [0], [query(0, 1_000)], NOW)
    one.batch()
    assert one.finish() == 1
    assert one.uncommitted == 1
    batch = one.batch()
    assert asked(batch) == ["s0"]
    assert batch.counts == {"turn": 1, "learned": 1, "open": -1}


@pytest.mark.parametrize(
    ("record", "field"),
    [
        (b"{", "record"),
        (None, "record"),
        (query(1, -START - 1), "ts"),
        (query(1, NOW // 1000 - START), "ts: 1700001000 is before 1980"),
        (query(1, NOW + 60_001 - START), "ts: 1700001060001 is 60 s ahead"),
    ],
)
def test_an_invalid_record_becomes_a_dead_letter_and_its_neighbours_turns(record: bytes | None, field: str) -> None:
    one = partition()
    (dead,) = one.add("events", [5, 6, 9], [query(0, 1_000), record, query(2, 2_000)], NOW)
    assert (dead.topic, dead.offset, dead.record) == ("events", 6, record or b"")
    assert dead.reason.startswith(field)
    assert one.counts == {"query": 2, "open": 2, "dead_letter": 1}
    one.finish()
    assert asked(one.batch()) == ["s0", "s2"]
    assert one.position.topics["events"].read == 10


def test_the_clock_bounds_event_time_inclusively() -> None:
    assert partition().add("events", [0], [query(0, NOW + 60_000 - START)], NOW) == []


def test_records_read_again_after_a_restart_rebuild_turns_and_count_once() -> None:
    records = [query(0, 1_000), b"{", query(1, 2_000)]
    before = partition()
    assert len(before.add("events", [0, 1, 2], records, NOW)) == 1
    batch = before.batch()
    after = resumed(batch)
    assert after.watermark == batch.position.watermark
    with pytest.raises(RuntimeError):
        after.batch()
    assert after.add("events", [0, 1, 2], records, NOW) == []  # its letter was delivered before
    assert not after.rebuilding
    assert after.open == 2
    assert (after.uncommitted, after.counts) == (0, {})
    after.add("events", [3], [query(2, 20_000)], NOW)
    assert after.uncommitted == 1
    after.advance()
    assert asked(after.batch()) == ["s0", "s1"]


def test_answers_to_questions_are_counted_once_by_kind() -> None:
    ids = {"ts": START + 1_000, "session_id": "s0", "query_id": "q0"}
    said = [
        {"type": "feedback", "event_id": "a", "answered": True, "asked": True},
        {"type": "feedback", "event_id": "b", "answered": True},
        {"type": "teach", "event_id": "c", "user_id": "u", "rule": {"kind": "never", "entity_id": "e"}, "asked": True},
    ]
    records = [query(0, 1_000), *(msgspec.json.encode({**ids, **one}) for one in said)]
    one = partition()
    one.add("events", range(4), records, NOW)
    batch = one.batch()
    assert counted_by_name(batch.counts, ANSWERED) == {"satisfaction": 1, "teach": 1}
    again = resumed(batch)
    again.add("events", range(4), records, NOW)
    assert not counted_by_name(again.batch().counts, ANSWERED)


def test_a_chunk_that_straddles_the_last_commit_counts_its_new_records_only() -> None:
    before = partition()
    before.add("events", [0, 1], [query(0, 1_000), query(1, 2_000)], NOW)
    after = resumed(before.batch())
    after.add("events", [0, 1, 2], [query(0, 1_000), query(1, 2_000), query(2, 3_000)], NOW)
    assert after.uncommitted == 1
    assert after.counts == {"query": 1, "open": 1}


def test_a_new_partition_has_no_watermark() -> None:
    one = partition()
    assert (one.watermark, one.open, one.uncommitted) == (BEGINNING, 0, 0)
    assert one.advance() == one.finish() == 0
