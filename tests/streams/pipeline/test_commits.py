"""A commit: the batches of several partitions are learned together."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from backchannel.agents.columnar.columns import TOGETHER
from backchannel.schemas.codec import EventDecoder
from backchannel.schemas.events import Click, Event, Impression, Query, Result
from backchannel.streams.config import Config
from backchannel.streams.pipeline.commits import commit
from backchannel.streams.pipeline.learners import Learning
from backchannel.streams.store.engine import Store
from backchannel.streams.store.ledger import FencedError, Ledger
from backchannel.streams.turns.partition import Batch, Partition
from tests.support.ledgers import assert_same, contents, sqlite_url

CONFIG = Config()
LEARNING = Learning(CONFIG)
NUMBERS = range(3)


def events(number: int) -> list[Event]:
    """A turn with a click, and one without, of which the partitions have each their own."""
    found: list[Event] = []
    results = (Result("a", 1, ("lexical",)),)
    for one, clicked in enumerate((True, False)):
        key = f"{number}.{one}"
        at = 1000 * number + 100 * one
        found += [
            Query(event_id=f"{key}q", ts=at, session_id=key, query_id=key, text=f"play {number}"),
            Impression(event_id=f"{key}i", ts=at, session_id=key, query_id=key, results=results),
        ]
        if clicked:
            found.append(Click(event_id=f"{key}c", ts=at + 1, session_id=key, query_id=key, entity_id="a"))
    return found


def batch(ledger: Ledger, number: int) -> Batch:
    partition = Partition(ledger.claim("test", number), {"events": EventDecoder()}, CONFIG.turns)
    own = events(number)
    partition.add_events("events", range(len(own)), own)
    partition.finish()
    return partition.batch()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(Store(sqlite_url(tmp_path))) as store:
        store.create(LEARNING.tables)
        yield store


@pytest.fixture
def ledger(store: Store) -> Ledger:
    return Ledger(store, LEARNING.tables)


def test_batches_committed_together_are_the_sum_of_each_alone(tmp_path: Path) -> None:
    found = []
    for name, together in (("together.db", True), ("apart.db", False)):
        url = sqlite_url(tmp_path, name)
        with closing(Store(url)) as store:
            store.create(LEARNING.tables)
            ledger = Ledger(store, LEARNING.tables)
            batches = [batch(ledger, number) for number in NUMBERS]
            for some in [batches] if together else [[one] for one in batches]:
                commit(LEARNING, ledger, some)
        found.append(contents(url, CONFIG))
    assert found[0]["counts"] == {"query": 6, "impression": 6, "click": 3, "turn": 6, "learned": 15}
    assert found[0]["memory"]
    assert_same(*found)


def test_what_is_learned_in_portions_is_what_is_learned_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for together in (1, TOGETHER):
        monkeypatch.setattr("backchannel.agents.columnar.columns.TOGETHER", together)
        url = sqlite_url(tmp_path, f"{together}.db")
        with closing(Store(url)) as store:
            store.create(LEARNING.tables)
            ledger = Ledger(store, LEARNING.tables)
            commit(LEARNING, ledger, [batch(ledger, number) for number in NUMBERS])
        found.append(contents(url, CONFIG))
    assert_same(*found)


def test_a_commit_says_what_it_has_made_durable(ledger: Ledger) -> None:
    batches = [batch(ledger, number) for number in NUMBERS]
    done = commit(LEARNING, ledger, batches)
    assert [(claim.number, claim.commits) for claim in done.claims] == [(number, 1) for number in NUMBERS]
    assert [claim.position for claim in done.claims] == [one.position for one in batches]
    assert done.counts == {"query": 6, "impression": 6, "click": 3, "turn": 6, "learned": 15}
    assert done.quality is not None
    assert commit(LEARNING, ledger, batches).claims == done.claims  # as if no answer had come
    assert ledger.counts()["turn"] == 6


def test_what_holds_no_turns_moves_positions_only(ledger: Ledger) -> None:
    partition = Partition(ledger.claim("test", 0), {"events": EventDecoder()}, CONFIG.turns)
    partition.add("events", [0], [b"{"], 0)
    done = commit(LEARNING, ledger, [partition.batch()])
    assert done.counts == ledger.counts() == {"dead_letter": 1}
    assert done.quality is None
    assert done.claims[0].position.topics["events"].read == 1


def test_one_fenced_partition_drops_what_all_have_learned(ledger: Ledger) -> None:
    batches = [batch(ledger, number) for number in NUMBERS]
    ledger.claim("test", 2)
    with pytest.raises(FencedError):
        commit(LEARNING, ledger, batches)
    assert ledger.counts() == {}
