"""Versions are immutable and complete, whatever is published, rolled back to, pinned and pruned in between."""

from collections.abc import Callable, Iterator
from contextlib import closing

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule, run_state_machine_as_test
from sqlalchemy import update

from backchannel.schemas.snapshot import Section, Verdict
from backchannel.streams.snapshots import versions as snapshots
from backchannel.streams.snapshots.signing import signing_key
from backchannel.streams.snapshots.versions import CorruptPolicyError, Provenance
from backchannel.streams.store import tables
from backchannel.streams.store.engine import Store

KEY = signing_key("secret", {})
HOUR = 3_600_000
changes = st.dictionaries(
    st.sampled_from(["memory", "rewrites"]),
    st.dictionaries(st.sampled_from("abcd"), st.none() | st.text(max_size=3).map(msgspec.json.encode)),
)


def provenance(created: int = 0, verdict: Verdict | None = None) -> Provenance:
    return Provenance(created=created, watermark=0, positions={}, fingerprint="f", verdict=verdict)


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    store = Store(store_url)
    with closing(store):
        store.create([])
        yield store


class Versions(RuleBasedStateMachine):
    """A store beside a model of it: the rows of every version that must be retained."""

    known = Bundle("known")

    def __init__(self, store: Store) -> None:
        super().__init__()
        self.store = store
        self.now = 0
        self.states: dict[int, dict[str, Section]] = {}
        self.created: dict[int, int] = {}
        self.pinned: set[int] = set()
        self.head: int | None = None
        self.hold: str | None = None

    @rule(
        target=known,
        solved=changes,
        whole=st.booleans(),
        verdict=st.sampled_from([None, "publish", "warn", "hold"]),
        wait=st.integers(0, 3 * HOUR),
        apart=st.booleans(),
    )
    def publish(
        self, solved: dict[str, dict[str, bytes | None]], whole: bool, verdict: Verdict | None, wait: int, apart: bool
    ) -> object:
        self.now += wait
        # Row by row, and then in one portion.
        portions = [{name: {key: row}} for name, rows in solved.items() for key, row in rows.items()] if apart else []
        with self.store.write() as connection:
            snapshots.current(connection, lock=True)
            made = snapshots.publish(
                connection, [*portions, solved], provenance(self.now, verdict), whole=whole, key=KEY
            )
        last = max(self.states, default=0)
        state = {} if whole else {name: dict(rows) for name, rows in self.states.get(last, {}).items()}
        for name, rows in solved.items():
            for key, value in rows.items():
                if value is None:
                    state.get(name, {}).pop(key, None)
                else:
                    state.setdefault(name, {})[key] = value
        state = {name: rows for name, rows in state.items() if rows}
        if made is None:
            assert not whole
            assert state == self.states[last]
            return multiple()
        assert made.parent == (last or None)
        self.states[made.version], self.created[made.version] = state, self.now
        if self.hold is None:
            self.head = made.version
        return made.version

    @rule(version=known)
    def roll_back(self, version: int) -> None:
        if version in self.states:
            with self.store.write() as connection:
                snapshots.serve(connection, version, hold="rolled back")
            self.head, self.hold = version, "rolled back"

    @rule(version=known, pinned=st.booleans())
    def pin(self, version: int, pinned: bool) -> None:
        if version in self.states:
            with self.store.write() as connection:
                snapshots.pin(connection, version, pinned=pinned)
            (self.pinned.add if pinned else self.pinned.discard)(version)

    @rule(keep=st.integers(1, 3), hours=st.integers(0, 5))
    def prune(self, keep: int, hours: int) -> None:
        with self.store.write() as connection:
            snapshots.prune(connection, keep, hours * HOUR, self.now)
        ordered = sorted(self.states)
        waiting = next((version for version in ordered if version > (self.head or 0)), None)
        for index, version in enumerate(ordered):
            hour = self.created[version] // HOUR
            first = all(self.created[other] // HOUR != hour for other in ordered[:index])
            hourly = first and self.created[version] >= self.now - hours * HOUR
            if version not in (*ordered[-keep:], *self.pinned, self.head, waiting) and not hourly:
                del self.states[version]

    @invariant()
    def every_retained_version_is_whole(self) -> None:
        with self.store.read() as connection:
            assert snapshots.current(connection) == snapshots.Head(self.head, self.hold)
            assert snapshots.versions(connection) == sorted(self.states, reverse=True)
            assert snapshots.withheld(connection) == next(
                (self.created[version] for version in sorted(self.states) if version > (self.head or 0)), None
            )
            for version, state in self.states.items():
                header = snapshots.header(connection, version, KEY)
                assert header is not None
                assert {name: count for name, count in header.rows.items() if count} == {
                    name: len(rows) for name, rows in state.items()
                }
                assert snapshots.intact(connection, header)
                assert snapshots.intact(connection, header, KEY)
                for name in ("memory", "rewrites"):
                    assert snapshots.section(connection, version, name) == state.get(name, {})


def test_every_retained_version_can_be_read_whole(new_store: Callable[[], str]) -> None:
    stores: list[Store] = []

    class OnNewStore(Versions):
        def __init__(self) -> None:
            stores.append(Store(new_store()))
            stores[-1].create([])
            super().__init__(stores[-1])

    run_state_machine_as_test(OnNewStore, settings=settings(max_examples=25, stateful_step_count=20))
    for store in stores:
        store.close()


@pytest.mark.parametrize("tampering", [{"header": "{}"}, {"signature": None}, {"signature": "00"}])
def test_a_header_that_is_not_the_publishers_is_refused(store: Store, tampering: dict[str, str | None]) -> None:
    with store.write() as connection:
        snapshots.publish(connection, [{"memory": {"a": b"1"}}], provenance(), key=KEY)
        assert snapshots.header(connection, 1, KEY) is not None
        with pytest.raises(CorruptPolicyError, match="not signed with the key"):
            snapshots.header(connection, 1, signing_key("another", {}))
        connection.execute(update(tables.snapshot).values(tampering))
        with pytest.raises(CorruptPolicyError, match="not signed with the key"):
            snapshots.header(connection, 1, KEY)


def test_an_unsigned_version_is_gone_on_from_only_without_a_key(store: Store) -> None:
    with store.write() as connection:
        snapshots.publish(connection, [{"memory": {"a": b"1"}}], provenance())
        with pytest.raises(CorruptPolicyError, match="not signed"):
            snapshots.publish(connection, [{"memory": {"a": b"2"}}], provenance(), key=KEY)
        made = snapshots.publish(connection, [{"memory": {"a": b"2"}}], provenance(), key=KEY, whole=True)
        assert made is not None
        assert made.seal is not None


def test_the_key_of_the_environment_wins() -> None:
    assert signing_key("", {}) == b""
    assert signing_key("a", {}) != signing_key("b", {})
    assert signing_key("a", {"BACKCHANNEL_SIGNING_KEY": "b"}) == signing_key("b", {})


@settings(max_examples=60)
@given(versions=st.lists(changes, min_size=1, max_size=6))
def test_every_version_can_be_reached_from_every_other_one(
    versions: list[dict[str, dict[str, bytes | None]]], new_store: Callable[[], str]
) -> None:
    store = Store(new_store())
    store.create([])
    expected: list[dict[str, Section]] = [{}]
    with store.write() as connection:
        for rows_of in versions:
            header = snapshots.publish(connection, [rows_of], provenance())
            if header is None:
                continue
            state = {name: dict(rows) for name, rows in expected[-1].items()}
            for name, rows in rows_of.items():
                for key, value in rows.items():
                    if value is None:
                        state.get(name, {}).pop(key, None)
                    else:
                        state.setdefault(name, {})[key] = value
            expected.append(state)
            assert header.version == len(expected) - 1
            assert {name: count for name, count in header.rows.items() if count} == {
                name: len(rows) for name, rows in state.items() if rows
            }
        for since, start in enumerate(expected):
            for until in range(len(expected)):
                found = snapshots.difference(connection, since, until)
                state = {name: dict(rows) for name, rows in start.items()}
                for name, key in found.removed:
                    del state[name][key]
                for name, key, value in found.live:
                    state.setdefault(name, {})[key] = value
                assert {name: rows for name, rows in state.items() if rows} == {
                    name: rows for name, rows in expected[until].items() if rows
                }
    store.close()
