"""Maintenance of the ledger: it stays small and loses nothing that counts, whoever commits meanwhile."""

import threading
from collections.abc import Collection, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from msgspec import structs

from backchannel.agents.bandit.features import Numeric
from backchannel.agents.sums import Key, SumReader, Sums
from backchannel.ops.lab.load import mixed_stream
from backchannel.schemas.events import Query
from backchannel.streams.config import Config
from backchannel.streams.pipeline.learners import Learning
from backchannel.streams.pipeline.local import LocalPipeline
from backchannel.streams.pipeline.maintenance import FORGETS_PER_HALF_LIFE, Maintenance
from backchannel.streams.pipeline.publisher import Publisher
from backchannel.streams.store.engine import Store
from backchannel.streams.store.ledger import Contribution, Ledger, LedgerSums, forget, take_changes
from backchannel.streams.turns.position import Claim, Position
from tests.streams.pipeline.test_publisher import (
    LEARNING,
    PACKED,
    PLAIN,
    Totals,
    contribution,
    open_store,
    served,
    watched,
)
from tests.support.ledgers import contents, sqlite_url


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    with closing(open_store(store_url)) as store:
        yield store


@pytest.fixture
def ledger(store: Store) -> Ledger:
    return Ledger(store, Totals.tables)


def test_buckets_are_merged_and_their_sum_stays(store: Store, ledger: Ledger) -> None:
    given = [contribution(ledger.claim("s", 0), np.random.default_rng(0))]
    ledger.commit(given)
    ledger.merge()
    maintenance = Maintenance(store, LEARNING)
    for changed, buckets in (({"plain": ["a"]}, {0, 1, 2, 3}), ({"packed": ["x"]}, {0})):
        maintenance.run(changed, None)  # merged only if packed sums have changed
        with store.read() as connection:
            packed = LedgerSums(store, connection).read(PACKED)
        assert {key[1] for key in packed.keys} <= buckets
        assert packed.values.sum() == given[0].delta["packed"].values.sum()


class Bounded(Totals):
    """Keeps the largest sums of a key."""

    bound = (PLAIN, 3)

    def excess(self, sums: SumReader, crowded: Collection[str], at: int) -> list[Key]:
        found = sums.read(PLAIN, "key", crowded)
        ranked = sorted(zip((-found.rescaled(0)[:, 0]).tolist(), found.keys, strict=True))
        return [key for name in crowded for _, key in [one for one in ranked if one[1][0] == name][3:]]


BOUNDED: Any = SimpleNamespace(learners=(Bounded(),), tables=Totals.tables)


def added(claim: Claim, sums: dict[Key, float]) -> Contribution:
    values = np.array(list(sums.values()))[:, np.newaxis]
    return Contribution(claim, Position(claim.position.watermark + 1), {"plain": Sums(PLAIN, list(sums), values)}, {})


def plain(store: Store) -> dict[Key, float]:
    with store.read() as connection:
        sums = LedgerSums(store, connection).read(PLAIN)
    return dict(zip(sums.keys, sums.rescaled(0)[:, 0].tolist(), strict=True))


def test_other_features_have_longer_rows_in_the_same_store(store_url: str) -> None:
    events = [*mixed_stream(100, np.random.default_rng(0))]
    config = Config()
    more = structs.replace(config.bandit, features=(Numeric("query.words"), *map(Numeric, "abc")))
    other = structs.replace(config, bandit=more)
    # What was committed before the change may be merged before or after it.
    for source, now, published in (("a", config, True), ("b", other, True), ("c", config, False), ("d", other, True)):
        with LocalPipeline(store_url, now, source) as pipeline:
            pipeline.feed(events)
            pipeline.finish()
            pipeline.commit()
            assert not published or pipeline.publish() is not None


def test_what_is_too_much_is_dropped_once_it_was_published(store: Store, ledger: Ledger) -> None:
    claim = ledger.claim("s", 0)
    few, many = {("a", one): 1.0 for one in range(3)}, {("b", one): float(one) for one in range(9)}
    (claim,) = ledger.commit([added(claim, few | many)])
    publisher = Publisher(store, BOUNDED, Config())
    publisher.publish()
    assert served(store) == {"plain a": b"3.0", "plain b": b"36.0"}
    assert plain(store) == few | {("b", one): float(one) for one in (6, 7, 8)}
    assert publisher.publish() is None
    ledger.commit([added(claim, {("b", 5): 7.5})])
    publisher.publish()
    assert plain(store) == few | {("b", 5): 7.5, ("b", 7): 7.0, ("b", 8): 8.0}


def test_what_comes_while_the_excess_is_sought_is_not_dropped_with_it(
    store_url: str, store: Store, ledger: Ledger
) -> None:
    (claim,) = ledger.commit([added(ledger.claim("s", 0), {("a", one): float(one) for one in range(9)})])
    late: list[threading.Thread] = []

    class Disturbed(Bounded):
        def excess(self, sums: SumReader, crowded: Collection[str], at: int) -> list[Key]:
            def work() -> None:
                with closing(open_store(store_url)) as other:
                    Ledger(other, Totals.tables).commit([added(claim, {("a", 0): 100.0})])

            found = super().excess(sums, crowded, at)
            late.append(threading.Thread(target=work))
            late[-1].start()
            late[-1].join(0.5)  # it is to wait for us; if it does not, the row is there by now, and dropped
            return found

    disturbed: Any = SimpleNamespace(learners=(Disturbed(),), tables=Totals.tables)
    Publisher(store, disturbed, Config()).publish()
    late[0].join()
    assert plain(store) == {("a", 0): 100.0, **{("a", one): float(one) for one in (6, 7, 8)}}


def test_what_is_kept_is_whole_whoever_commits_and_publishes_meanwhile(store_url: str) -> None:
    commits, workers = 10, 3
    done = threading.Event()
    errors: list[BaseException] = []
    open_store(store_url).close()

    def work(number: int) -> None:
        with closing(open_store(store_url)) as store:
            ledger, rng = Ledger(store, Totals.tables), np.random.default_rng(number)
            claim = ledger.claim("s", number)
            for _ in range(commits):
                heavy = {(key, one): 1000.0 for key in "abcdefgh" for one in range(3)}
                light = {(key, int(one)): 1.0 for key in "abcdefgh" for one in rng.choice(50, 9, replace=False) + 3}
                (claim,) = ledger.commit([added(claim, heavy | light)])

    def publish() -> None:
        with closing(open_store(store_url)) as store:
            publisher = Publisher(store, BOUNDED, Config())
            while not done.is_set():
                publisher.publish()
            publisher.publish()

    publishers = [watched(errors, publish) for _ in range(2)]
    for thread in [watched(errors, work, number) for number in range(workers)]:
        thread.join()
    done.set()
    for thread in publishers:
        thread.join()
    assert not errors, errors
    with closing(open_store(store_url)) as store:
        assert plain(store) == {(key, one): 1000.0 * commits * workers for key in "abcdefgh" for one in range(3)}


def test_decayed_sums_are_removed_a_few_times_per_half_life(store: Store, ledger: Ledger) -> None:
    """A sum of 1 is below the limit of 2^-10 after more than ten half-lives, which are of a second here."""
    claim, publisher = ledger.claim("s", 0), Publisher(store, LEARNING, Config())

    def publish(key: str, landmark: int, watermark: int) -> set[Key]:
        nonlocal claim
        delta = {"plain": Sums(PLAIN, [(key, 0)], np.ones((1, 1)), landmark)}
        (claim,) = ledger.commit([Contribution(claim, Position(watermark), delta, {})])
        assert publisher.publish() is not None
        with store.read() as connection:
            return set(LedgerSums(store, connection).read(PLAIN).keys)

    period = 1000 // FORGETS_PER_HALF_LIFE
    assert publish("old", 0, 0) == {("old", 0)}
    assert publish("new", 12, 12_000) == {("new", 0)}
    with store.write() as connection:
        assert take_changes(connection) == {"plain": {"old"}}  # for the next version
    assert publish("late", 0, 12_000 + period - 1) == {("new", 0), ("late", 0)}  # not yet
    assert publish("newer", 12, 12_000 + period) == {("new", 0), ("newer", 0)}


def test_the_first_version_forgets_nothing(store: Store, ledger: Ledger) -> None:
    delta = {"plain": Sums(PLAIN, [("old", 0), ("new", 0)], np.array([[2.0**-12], [1.0]]), 12)}
    ledger.commit([Contribution(ledger.claim("s", 0), Position(12_000), delta, {})])
    Publisher(store, LEARNING, Config()).publish()
    with store.read() as connection:
        assert len(LedgerSums(store, connection).read(PLAIN).keys) == 2


def test_packed_sums_decay_when_landmarks_move_and_are_forgotten_only_then(tmp_path: Path) -> None:
    day, url = 86_400_000, sqlite_url(tmp_path)
    kept = []
    # After three half-lives of 30 days, and after 600 more, by which a table's landmark moves.
    for place, at in enumerate((0, 90, 18_090)):
        with LocalPipeline(url, Config(), f"test {place}") as pipeline:
            name = f"q{place}"
            pipeline.feed([Query(event_id=name, ts=at * day, session_id=name, query_id=name, text="play jazz")])
            pipeline.finish()
            pipeline.commit()
            pipeline.publish()
        with closing(Store(url)) as store:
            table = next(one for one in Learning(Config()).tables if one.name == "satisfaction_turns")
            store.create([table])
            store.transact(partial(forget, store, table, at * day))
        rows = contents(url, Config(), at * day)["satisfaction_turns"]
        kept.append({key[1:]: float(row[0]) for key, row in rows.items()})
    assert [one["all", ""] for one in kept] == pytest.approx([1.0, 1.125, 1.0])
    assert [len(one) for one in kept] == [2, 3, 2]  # all, and the days
