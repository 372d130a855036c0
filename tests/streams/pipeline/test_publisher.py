"""Publishing from one state of the ledger misses nothing, whoever commits, publishes, reads or dies meanwhile."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from itertools import count
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sqlalchemy import update

from backchannel.agents.learner import Changed, Learner
from backchannel.agents.outcomes.outcomes import Outcomes
from backchannel.agents.sums import Delta, Key, SumReader, Sums, SumTable
from backchannel.streams.config import Config, SnapshotConfig
from backchannel.streams.pipeline import publisher as publisher_module
from backchannel.streams.pipeline.publisher import Publisher, VersionStatus, version_status
from backchannel.streams.snapshots import versions as snapshots
from backchannel.streams.store import tables
from backchannel.streams.store.engine import Store
from backchannel.streams.store.ledger import Contribution, Ledger
from backchannel.streams.turns.assembler import TurnConfig
from backchannel.streams.turns.position import Claim, Position
from tests.support.stores import failing

PLAIN = SumTable(name="plain", key=(("key", str), ("number", int)), sums=("sum",), half_life_ms=1000)
PACKED = SumTable(name="packed", key=(("key", str), ("bucket", int)))


class Totals(Learner):
    """Publishes the sums of each key; merges all buckets of packed sums into one."""

    name = "totals"
    serving = None
    tables = (PLAIN, PACKED)

    def learn(self, outcomes: Outcomes) -> Delta:
        return {}

    def solve(self, sums: SumReader, changed: Changed, at: int) -> dict[str, bytes | None]:
        solved: dict[str, bytes | None] = {}
        for table in (PLAIN, PACKED):
            found = sums.read(table, "key", changed.get(table.name, ()))
            totals: dict[str, float] = {}
            for key, values in zip(found.keys, found.rescaled(0), strict=True):
                totals[key[0]] = totals.get(key[0], 0.0) + float(values.sum())
            solved |= {f"{table.name} {key}": str(total).encode() for key, total in totals.items()}
        return solved

    def compact(self, table: SumTable, keys: Sequence[Key], sums: SumReader, at: int) -> dict[Key, Key]:
        return {key: (key[0], 0) for key in keys if key[1]}


LEARNING: Any = SimpleNamespace(learners=(Totals(),), tables=Totals.tables)


def contribution(claim: Claim, rng: np.random.Generator, landmark: int = 0) -> Contribution:
    """Return random sums of whole numbers, which add up exactly in any order."""
    keys = [(key, int(number)) for key in "abcdefgh" for number in rng.choice(50, 5, replace=False)]
    packed = [(key, int(rng.integers(4))) for key in "xy"]
    return Contribution(
        claim,
        Position(claim.position.watermark + 1),
        {
            "plain": Sums(PLAIN, keys, rng.integers(1, 9, (len(keys), 1)).astype(float), landmark),
            "packed": Sums(PACKED, packed, rng.integers(1, 9, (len(packed), 3)).astype(float)),
        },
        {"turn": 1},
    )


def totals(contributions: Sequence[Contribution]) -> dict[str, bytes]:
    """Return the rows that must be published from these contributions."""
    sums: dict[str, float] = {}
    for one in contributions:
        for name, rows in one.delta.items():
            for key, values in zip(rows.keys, rows.rescaled(0), strict=True):
                sums[f"{name} {key[0]}"] = sums.get(f"{name} {key[0]}", 0.0) + float(values.sum())
    return {key: str(total).encode() for key, total in sums.items()}


def open_store(url: str) -> Store:
    store = Store(url)
    store.create(LEARNING.tables)
    return store


def served(store: Store) -> dict[str, bytes]:
    """Return the rows that readers serve, after checking them against the header of their version."""
    with store.read() as connection:
        version = snapshots.current(connection).version
        assert version is not None
        header = snapshots.header(connection, version)
        assert header is not None
        assert snapshots.intact(connection, header)
        return snapshots.section(connection, version, "totals")


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    with closing(open_store(store_url)) as store:
        yield store


def watched(errors: list[BaseException], function: Callable[..., None], *arguments: int) -> threading.Thread:
    """Start a thread that adds its error, if any, to `errors`."""

    def run() -> None:
        try:
            function(*arguments)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_nothing_is_missed_by_publishers_at_work_while_workers_commit(store_url: str) -> None:
    """Four workers, two publishers, a reader and rollbacks run at once, each with their own connections."""
    commits, workers = 12, 4
    given: list[Contribution] = []
    errors: list[BaseException] = []
    done = threading.Event()
    open_store(store_url).close()

    def work(number: int) -> None:
        with closing(open_store(store_url)) as store:
            ledger, rng = Ledger(store, LEARNING.tables), np.random.default_rng(number)
            claim = ledger.claim("s", number)
            for _ in range(commits):
                one = contribution(claim, rng, landmark=int(rng.integers(3)))
                (claim,) = ledger.commit([one])
                given.append(one)

    def publish() -> None:
        with closing(open_store(store_url)) as store:
            publisher = Publisher(store, LEARNING, Config(snapshots=SnapshotConfig(keep=2, keep_days=0)))
            while not done.is_set():
                publisher.publish()

    def read() -> None:
        with closing(Store(store_url)) as store:
            while not done.is_set():
                with store.read() as connection:
                    version = snapshots.current(connection).version
                if version is not None:
                    served(store)

    def roll_back() -> None:
        with closing(Store(store_url)) as store:
            for hold in ("wait", None) * 10:
                with store.write() as connection:
                    snapshots.current(connection, lock=True)
                    if found := snapshots.versions(connection):
                        snapshots.serve(connection, found[-1 if hold else 0], hold)

    background = [watched(errors, one) for one in (publish, publish, read)]
    for thread in [*(watched(errors, work, number) for number in range(workers)), watched(errors, roll_back)]:
        thread.join()
    done.set()
    for thread in background:
        thread.join()
    assert not errors, errors
    assert len(given) == commits * workers
    with closing(open_store(store_url)) as store:
        Publisher(store, LEARNING, Config()).publish()
        with store.read() as connection:
            newest = snapshots.last(connection)
            assert newest is not None
            assert snapshots.section(connection, newest, "totals") == totals(given)
        assert Ledger(store, LEARNING.tables).counts() == {"turn": commits * workers}


def test_a_publisher_that_ends_at_any_statement_leaves_the_last_version(store: Store) -> None:
    ledger, rng = Ledger(store, LEARNING.tables), np.random.default_rng(0)
    publisher = Publisher(store, LEARNING, Config(snapshots=SnapshotConfig(keep=1, keep_days=0)))
    given = [contribution(ledger.claim("s", 0), rng)]
    (claim,) = ledger.commit(given)
    publisher.publish()
    for statement in count(1):
        before = served(store)
        assert before == totals(given)
        given.append(contribution(claim, rng))
        (claim,) = ledger.commit([given[-1]])
        with failing(store, statement) as failed:
            try:
                publisher.publish()
            except ZeroDivisionError:
                # If it ends after publishing, only the buckets are not merged yet.
                assert served(store) in (before, totals(given))
        publisher.publish()
        if not failed:
            break
    assert statement > 10
    assert served(store) == totals(given)


@pytest.mark.parametrize(("most", "versions"), [(3, 4), (100, 1)])
def test_much_that_changed_is_published_in_portions(
    store: Store, most: int, versions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten keys are in the log twice, as two merges logged them, and the first version with a key has all of it."""
    monkeypatch.setattr(publisher_module, "CHANGES", most)
    ledger, rng = Ledger(store, LEARNING.tables), np.random.default_rng(0)
    publisher = Publisher(store, LEARNING, Config(snapshots=SnapshotConfig(keep=1, keep_days=0)))
    claim, given = ledger.claim("s", 0), list[Contribution]()
    for statement in (None, *range(1, 60, 7)):
        for _ in range(2):
            given.append(contribution(claim, rng))
            (claim,) = ledger.commit([given[-1]])
            ledger.merge()
        with store.read() as connection:
            before = snapshots.last(connection) or 0
        with failing(store, 10_000 if statement is None else statement), suppress(ZeroDivisionError):
            publisher.publish()
        publisher.publish()
        assert served(store) == totals(given)
        with store.read() as connection:
            made = (snapshots.last(connection) or 0) - before
        assert made == versions if statement is None else made >= versions


def test_a_hold_keeps_new_versions_from_readers_until_it_is_released(store: Store) -> None:
    ledger, rng = Ledger(store, LEARNING.tables), np.random.default_rng(0)
    publisher = Publisher(store, LEARNING, Config())
    given = [contribution(ledger.claim("s", 0), rng)]
    (claim,) = ledger.commit(given)
    first = publisher.publish()
    assert version_status(store) == VersionStatus(first, first, None)
    with store.write() as connection:
        snapshots.serve(connection, 1, hold="wait")
    given.append(contribution(claim, rng))
    ledger.commit(given[1:])
    assert publisher.publish(now=77) is None
    there = version_status(store)
    assert (there.served, there.withheld) == (first, 77)
    assert there.newest is not None
    assert there.newest.version == 2
    assert served(store) == totals(given[:1])
    with store.write() as connection:
        assert snapshots.last(connection) == 2
        snapshots.serve(connection, 2, hold=None)
    assert served(store) == totals(given)


def damage(store: Store) -> None:
    row = tables.snapshot_row
    with store.write() as connection:
        connection.execute(update(row).where(row.c.key == "plain a").values(value=b"9"))


def tamper(store: Store) -> None:
    with store.write() as connection:
        connection.execute(update(tables.snapshot).values(header="{"))


@pytest.mark.parametrize("harm", [damage, tamper])
def test_the_next_publisher_makes_anew_what_was_damaged(store: Store, harm: Callable[[Store], None]) -> None:
    ledger, rng = Ledger(store, LEARNING.tables), np.random.default_rng(0)
    given = [contribution(ledger.claim("s", 0), rng)]
    ledger.commit(given)
    Publisher(store, LEARNING, Config()).publish()
    harm(store)
    made = Publisher(store, LEARNING, Config()).publish()
    assert made is not None
    assert made.version == 2
    assert served(store) == totals(given)


@pytest.mark.parametrize(
    "other", [Config(turns=TurnConfig(window_s=7.0)), Config(snapshots=SnapshotConfig(signing_key="k"))]
)
def test_another_configuration_or_key_makes_the_policy_anew(store: Store, other: Config) -> None:
    ledger, rng = Ledger(store, LEARNING.tables), np.random.default_rng(0)
    ledger.commit([contribution(ledger.claim("s", 0), rng)])
    for version, config in enumerate((Config(), other), start=1):
        publisher = Publisher(store, LEARNING, config)
        made = publisher.publish()
        assert made is not None
        assert made.version == version
        assert made.fingerprint == config.fingerprint
        assert publisher.publish() is None


def test_a_version_says_what_it_was_made_of(store: Store) -> None:
    ledger, rng = Ledger(store, LEARNING.tables), np.random.default_rng(0)
    claim = ledger.claim("s", 3)
    ledger.commit([contribution(claim, rng)])
    made = Publisher(store, LEARNING, Config()).publish(now=77)
    assert made is not None
    assert (made.parent, made.created, made.fingerprint) == (None, 77, Config().fingerprint)
    assert made.positions["s"][3].watermark == claim.position.watermark + 1
