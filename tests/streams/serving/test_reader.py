"""Readers see whole versions, pull only changed rows, and keep serving the last good version."""

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz.fuzz import ratio
from sqlalchemy import delete, insert, select, update

from backchannel.agents.memory.serving import Guess, PairEvidence, Row
from backchannel.agents.taught.rules import EVERYONE
from backchannel.ops.lab.load import mixed_stream
from backchannel.ops.local.postgres import Postgres
from backchannel.schemas.snapshot import Checksum, Section
from backchannel.streams.config import Config, SnapshotConfig
from backchannel.streams.pipeline.local import LocalPipeline
from backchannel.streams.serving.reader import NoPolicyError, PolicyReader
from backchannel.streams.serving.rows import Rows
from backchannel.streams.snapshots import versions as snapshots
from backchannel.streams.store import tables
from backchannel.streams.store.dialects.sqlite import Sqlite
from backchannel.streams.store.engine import Store
from tests.support.ledgers import sqlite_url
from tests.support.servers import start_postgres


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture
def url(store_url: str) -> str:
    return store_url


@pytest.fixture
def pipeline(url: str) -> Iterator[LocalPipeline]:
    with LocalPipeline(url, Config(), "test") as pipeline:
        yield pipeline


@pytest.fixture
def reader(url: str) -> Iterator[PolicyReader]:
    reader = PolicyReader(url, rng=rng())
    yield reader
    reader.close()


def learn(pipeline: LocalPipeline, turns: int, start_ms: int = 1_700_000_000_000) -> None:
    pipeline.feed(list(mixed_stream(turns, rng(), queries=20, start_ms=start_ms)))
    pipeline.finish()
    pipeline.commit()


def test_there_is_a_clear_error_before_the_first_version(url: str, reader: PolicyReader) -> None:
    with pytest.raises(NoPolicyError, match="nothing has been learned into it yet"):
        _ = reader.policy
    with LocalPipeline(url, Config(), "test"), pytest.raises(NoPolicyError, match="nothing has been published"):
        _ = reader.policy
    assert reader.status.version is None


def test_why_there_is_no_policy_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """To whoever asks for one; in a service that begins without, in the log."""
    with (
        PolicyReader(sqlite_url(tmp_path), poll_s=60) as reader,
        pytest.raises(NoPolicyError, match="there is no file"),
    ):
        _ = reader.policy
    assert not caplog.messages
    with PolicyReader(sqlite_url(tmp_path), poll_s=0.01) as reader:
        for _ in range(1000):
            if caplog.messages:
                break
            threading.Event().wait(0.01)
        with pytest.raises(NoPolicyError, match="there is no file"):
            _ = reader.policy
    (said,) = caplog.messages
    assert said.startswith("there is no file")


def test_a_version_counts_as_new_even_if_what_was_taught_cannot_be_read(
    url: str, pipeline: LocalPipeline, reader: PolicyReader
) -> None:
    pipeline.publish()
    assert reader.policy.version == 1
    learn(pipeline, 100)
    pipeline.publish()
    with closing(Store(url)) as store, store.write() as connection:
        connection.execute(delete(tables.taught_head))
    assert reader.refresh()
    assert reader.status.version == 2
    assert reader.status.error


def test_what_was_taught_and_cannot_be_read_stays_an_error(
    url: str, pipeline: LocalPipeline, reader: PolicyReader
) -> None:
    pipeline.publish()
    with closing(Store(url)) as store, store.write() as connection:
        connection.execute(insert(tables.taught).values(owner=EVERYONE, changed=1, value=b"no rules"))
        connection.execute(update(tables.taught_head).values(changed=1))
    for _ in range(2):
        reader.refresh()
        assert reader.status.error
    assert reader.policy.version == 1


def test_a_policy_can_be_served_before_anything_was_learned(pipeline: LocalPipeline, reader: PolicyReader) -> None:
    pipeline.publish()
    policy = reader.policy
    assert policy.version == 1
    decision = policy.allocate({}, 10)
    assert sum(decision.allocation.values()) == 10
    assert decision.policy_version == 1
    assert policy.recall("anything", 5) == []
    assert policy.rewrite("anything") is None


def test_a_reader_serves_what_was_learned(url: str, reader: PolicyReader) -> None:
    bandit = msgspec.structs.replace(Config().bandit, half_lives_days=())  # so that every turn counts
    with LocalPipeline(url, msgspec.structs.replace(Config(), bandit=bandit), "test") as pipeline:
        learn(pipeline, 2000)
        pipeline.publish()
    policy = reader.policy
    query, remembered = next(iter(policy.memory().items()))
    assert policy.recall(f"  {query.upper()}!", 2) == remembered[:2]
    assert all(0 < one.score <= 1 for one in remembered)
    assert sorted(remembered, key=lambda one: -one.lower) == remembered
    assert sum(turns for turns, _ in policy.evidence().values()) == pytest.approx(5 * 2000, rel=1e-2)


def test_there_is_no_new_version_without_changes(pipeline: LocalPipeline) -> None:
    learn(pipeline, 100)
    assert pipeline.publish() is not None
    assert pipeline.publish() is None


def test_a_policy_in_use_never_changes(pipeline: LocalPipeline, reader: PolicyReader) -> None:
    learn(pipeline, 500)
    pipeline.publish()
    policy = reader.policy
    before = policy.memory()
    learn(pipeline, 500, start_ms=1_700_100_000_000)
    pipeline.publish()
    assert reader.refresh()
    assert policy.memory() == before
    assert reader.policy.version == policy.version + 1
    assert reader.policy.memory() != before


def test_only_changed_rows_are_pulled(
    pipeline: LocalPipeline, reader: PolicyReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn(pipeline, 2000)
    pipeline.publish()
    reader.refresh()
    pulled: list[int] = []
    original = snapshots.difference

    def watch(*arguments: object) -> snapshots.Difference:
        found = original(*arguments)  # type: ignore[arg-type]
        pulled.append(len(found.live))
        return found

    monkeypatch.setattr(snapshots, "difference", watch)
    learn(pipeline, 1, start_ms=1_700_100_000_000)
    pipeline.publish()
    reader.refresh()
    assert len(pulled) == 1
    assert pulled[0] < 10 < len(reader.policy.memory())


PROVENANCE = snapshots.Provenance(created=0, watermark=0, positions={}, fingerprint="f")
sections = st.dictionaries(
    st.sampled_from(["memory", "rewrites"]),
    st.dictionaries(st.sampled_from("abcd"), st.none() | st.text(max_size=3).map(msgspec.json.encode)),
)


@settings(max_examples=60)
@given(versions=st.lists(sections, min_size=1, max_size=6))
def test_every_version_can_be_reached_from_every_other_one(
    versions: list[dict[str, dict[str, bytes | None]]], new_store: Callable[[], str]
) -> None:
    store = Store(new_store())
    store.create([])
    expected: list[dict[str, Section]] = [{}]
    with store.write() as connection:
        for changes in versions:
            header = snapshots.publish(connection, [changes], PROVENANCE)
            if header is None:
                continue
            state = {name: dict(rows) for name, rows in expected[-1].items()}
            for name, rows in changes.items():
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


def damage(url: str, version: int) -> None:
    """Give each version new rows of the memory index."""
    row = tables.snapshot_row
    mine = (row.c.section == "memory", row.c.key != "", row.c.valid_from == version)
    store = Store(url)
    with store.write() as connection:
        assert connection.execute(update(row).where(*mine).values(value=b"{}")).rowcount
    store.close()


def test_a_damaged_version_is_not_served(url: str, pipeline: LocalPipeline, reader: PolicyReader) -> None:
    learn(pipeline, 300)
    pipeline.publish()
    good = reader.policy
    learn(pipeline, 300, start_ms=1_700_100_000_000)
    pipeline.publish()
    damage(url, 2)
    assert not reader.refresh()
    assert reader.policy is good
    assert "version 2 is not served: its rows" in (reader.status.error or "")


def test_a_new_reader_skips_a_damaged_version(url: str, pipeline: LocalPipeline) -> None:
    learn(pipeline, 300)
    pipeline.publish()
    learn(pipeline, 300, start_ms=1_700_100_000_000)
    pipeline.publish()
    damage(url, 2)
    with PolicyReader(url, poll_s=60, rng=rng()) as reader:
        assert reader.policy.version == 1
        assert "version 2 is not served" in (reader.status.error or "")
        assert not reader.refresh()
        assert "version 2 is not served" in (reader.status.error or "")
    with LocalPipeline(url, Config(), "test") as restarted:
        restarted.publish()
    with PolicyReader(url, poll_s=60, rng=rng()) as reader:
        assert reader.policy.version == 3
        assert reader.status.error is None


def test_a_header_that_cannot_be_read_is_not_served(url: str, pipeline: LocalPipeline, reader: PolicyReader) -> None:
    learn(pipeline, 300)
    pipeline.publish()
    good = reader.policy
    learn(pipeline, 300, start_ms=1_700_100_000_000)
    pipeline.publish()
    store = Store(url)
    with store.write() as connection:
        connection.execute(update(tables.snapshot).where(tables.snapshot.c.version == 2).values(header='{"version"'))
    store.close()
    assert not reader.refresh()
    assert reader.policy is good
    assert "its header cannot be read" in (reader.status.error or "")


@pytest.mark.parametrize(
    ("publisher", "key", "served"), [("a", "a", 1), ("a", "b", None), ("", "a", None), ("a", "", 1)]
)
def test_a_reader_with_a_key_serves_what_is_signed_with_it(
    url: str, publisher: str, key: str, served: int | None
) -> None:
    with LocalPipeline(url, Config(snapshots=SnapshotConfig(signing_key=publisher)), "test") as pipeline:
        learn(pipeline, 100)
        pipeline.publish()
    with PolicyReader(url, poll_s=60, rng=rng(), key=key) as reader:
        assert reader.status.version == served
        assert ("not signed with the key" in (reader.status.error or "")) == (served is None)


def test_keys_are_changed_without_freezing_readers(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def publish(key: str, start_ms: int) -> None:
        with LocalPipeline(url, Config(snapshots=SnapshotConfig(signing_key=key)), "test") as pipeline:
            learn(pipeline, 50, start_ms)
            pipeline.publish()

    publish("old", 1_700_000_000_000)
    monkeypatch.setenv("BACKCHANNEL_OTHER_SIGNING_KEY", "new")
    with closing(PolicyReader(url, rng=rng(), key="old")) as reader:
        assert reader.policy.version == 1
        for version, key in ((2, "new"), (3, "new"), (4, "old")):
            publish(key, 1_700_000_000_000 + version * 100_000_000)
            assert reader.refresh(), reader.status
            assert reader.policy.version == version
        publish("another", 1_700_900_000_000)
        assert not reader.refresh()
        assert "not signed with the key" in (reader.status.error or "")


def test_rows_that_the_publisher_did_not_write_are_refused_even_with_their_checksum(url: str) -> None:
    """Write access to the store is enough to change rows and checksum, but not the seal."""
    with LocalPipeline(url, Config(snapshots=SnapshotConfig(signing_key="a")), "test") as pipeline:
        learn(pipeline, 100)
        pipeline.publish()
    damage(url, 1)
    store = Store(url)
    with store.write() as connection:
        header = snapshots.header(connection, 1)
        assert header is not None
        checksum = Checksum()
        for row in snapshots.rows(connection, 1):
            checksum.add(*row)
        forged = msgspec.structs.replace(header, checksum=checksum.hexdigest())
        connection.execute(update(tables.snapshot).values(header=msgspec.json.encode(forged).decode()))
    store.close()
    with PolicyReader(url, poll_s=60, rng=rng()) as trusting, PolicyReader(url, poll_s=60, rng=rng(), key="a") as wary:
        assert trusting.status.version == 1
        assert wary.status.version is None


def test_a_reader_recovers_if_its_own_rows_are_wrong(pipeline: LocalPipeline, reader: PolicyReader) -> None:
    learn(pipeline, 300)
    pipeline.publish()
    section = reader.policy._memory._rows
    assert isinstance(section, Rows)
    section._changed.pop(next(iter(section)))
    learn(pipeline, 1, start_ms=1_700_100_000_000)
    pipeline.publish()
    assert reader.refresh()
    assert reader.status.error is None


@contextmanager
def away(path: Path) -> Iterator[None]:
    """Move the database file away, so that it cannot be opened or created."""
    path.rename(path.with_suffix(".away"))
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    path.mkdir()
    yield
    path.rmdir()
    path.with_suffix(".away").rename(path)


@contextmanager
def stopped(server: Postgres) -> Iterator[None]:
    server.stop()
    yield
    server.start()


def serve_through(outage: AbstractContextManager[None], url: str) -> None:
    """A reader serves the last good policy while the store is down, and then recovers by itself."""
    with LocalPipeline(url, Config(), "test") as pipeline:
        learn(pipeline, 100)
        pipeline.publish()
    reader = PolicyReader(url, rng=rng())
    with closing(reader):
        policy = reader.policy
        if url.startswith("sqlite"):
            reader._store.close()  # an open file would outlive its name
        with outage:
            assert not reader.refresh()
            assert reader.policy is policy
            assert reader.status.version == 1
            assert reader.status.error
        with LocalPipeline(url, Config(), "test") as pipeline:
            learn(pipeline, 100, start_ms=1_700_100_000_000)
            pipeline.publish()
        assert reader.refresh()
        assert reader.status.error is None


def test_the_last_policy_is_served_while_the_database_file_is_away(tmp_path: Path) -> None:
    serve_through(away(tmp_path / "store.db"), sqlite_url(tmp_path))


def test_the_last_policy_is_served_while_postgresql_is_down() -> None:
    with start_postgres() as server:
        serve_through(stopped(server), server.url)


NESTED = "[" * 5_000 + "]" * 5_000
STRANGE: dict[str, str] = {
    "a header of bytes that are no text": "UPDATE snapshot SET header = CAST(x'7bff' AS TEXT) WHERE version = 3",
    "a header that is nested deeply": f"UPDATE snapshot SET header = '{NESTED}' WHERE version = 3",
    "a row of another type": "UPDATE snapshot_row SET value = 'text' WHERE valid_from = 3",
    "a key of bytes that are no text": (
        "UPDATE snapshot_row SET key = CAST(x'ff' || key AS TEXT) WHERE valid_from = 3 AND key != ''"
    ),
    "rows that are nested deeply": f"UPDATE snapshot_row SET value = CAST('{NESTED}' AS BLOB) WHERE valid_from = 3",
    "a version that is no number": "UPDATE head SET version = 'three'",
    "a version that is not there": "DELETE FROM snapshot WHERE version = 3",
}


@pytest.mark.parametrize("fault", STRANGE)
def test_whatever_is_wrong_with_a_version_the_newest_good_one_is_served(fault: str, tmp_path: Path) -> None:
    """Anyone who can write to the store can write anything, and SQLite takes it."""
    url = sqlite_url(tmp_path)

    def serve(version: int) -> None:
        with closing(Store(url)) as store, store.write() as connection:
            snapshots.serve(connection, version, hold=None)

    with LocalPipeline(url, Config(), "test") as pipeline:
        for version in (1, 2):
            learn(pipeline, 50, start_ms=1_700_000_000_000 + version * 100_000_000)
            pipeline.publish()
        serve(1)
        with closing(PolicyReader(url, rng=rng())) as behind, closing(PolicyReader(url, rng=rng())) as cold:
            assert behind.policy.version == 1
            serve(2)
            learn(pipeline, 50, start_ms=1_700_500_000_000)
            pipeline.publish()
            with closing(sqlite3.connect(tmp_path / "store.db")) as database, database:
                database.execute(STRANGE[fault])
            for reader in (behind, cold):
                for _ in range(2):
                    reader.refresh()
                    assert reader.status.version == (3 if "number" in fault else 2)
                    assert "is not served: " in (reader.status.error or "")
            serve(1)
            for reader in (behind, cold):
                reader.refresh()
                assert (reader.status.version, reader.status.error) == (1, None)


@pytest.mark.parametrize("fault", [PermissionError(13, "no"), OSError(116, "stale"), RuntimeError()])
def test_the_thread_outlives_whatever_the_store_raises(
    fault: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise fault

    url = sqlite_url(tmp_path)
    with LocalPipeline(url, Config(), "test") as pipeline:
        pipeline.publish()
        with PolicyReader(url, poll_s=0.01, rng=rng()) as reader:
            assert reader.policy.version == 1
            with monkeypatch.context() as patch:
                patch.setattr(Sqlite, "missing_file", fail)
                eventually(lambda: reader.status.error is not None)
            eventually(lambda: reader.status.error is None)
            learn(pipeline, 50)
            pipeline.publish()
            eventually(lambda: reader.policy.version == 2)


def eventually(condition: Callable[[], bool]) -> None:
    for _ in range(3000):
        if condition():
            return
        threading.Event().wait(0.01)
    raise AssertionError


def test_a_store_whose_file_is_replaced_is_read_anew(tmp_path: Path) -> None:
    """Another history under the same version number; whoever restores a SQLite store removes its -wal, too."""
    folders = [tmp_path / name for name in ("now", "restored")]
    for place, folder in enumerate(folders):
        folder.mkdir()
        with LocalPipeline(sqlite_url(folder), Config(), "test") as pipeline:
            learn(pipeline, 100 + 50 * place)
            pipeline.publish()
    with closing(PolicyReader(sqlite_url(folders[0]), rng=rng())) as reader:
        before = reader.policy.memory()
        for suffix in ("-wal", "-shm"):
            (folders[0] / f"store.db{suffix}").unlink(missing_ok=True)
        (folders[1] / "store.db").replace(folders[0] / "store.db")
        assert reader.refresh()
        assert reader.status.version == 1
        assert reader.policy.memory() != before
        assert not reader.refresh()


def test_another_history_under_the_same_number_is_read(new_store: Callable[[], str]) -> None:
    ours, other = new_store(), new_store()
    for place, url in enumerate((ours, other)):
        with LocalPipeline(url, Config(), "test") as pipeline:
            learn(pipeline, 100 + 50 * place)
            pipeline.publish()
    with closing(PolicyReader(ours, rng=rng())) as reader, closing(PolicyReader(other, rng=rng())) as there:
        assert reader.policy.memory() != there.policy.memory()
        with closing(Store(ours)) as to, closing(Store(other)) as since, to.write() as into, since.read() as out_of:
            for table in (tables.snapshot, tables.snapshot_row):
                into.execute(delete(table))
                into.execute(insert(table), [dict(row) for row in out_of.execute(select(table)).mappings()])
        assert reader.refresh()
        assert reader.policy.memory() == there.policy.memory()
        with closing(Store(ours)) as to, to.write() as into:
            into.execute(update(tables.head).values(version=None))
        assert not reader.refresh()
        assert "has no version any more" in (reader.status.error or "")


FORKING = """
import os, sys, time
from contextlib import closing
import numpy as np
from backchannel.streams.serving.reader import PolicyReader
from backchannel.streams.snapshots import versions
from backchannel.streams.store.dialects.sqlite import Sqlite
from backchannel.streams.store.engine import Store

def wait_for_version_2():
    until = time.monotonic() + 30
    while reader.policy.version == 1 and time.monotonic() < until:
        time.sleep(0.01)

reader = PolicyReader(sys.argv[1], poll_s=0.05, rng=np.random.default_rng(7))
reader.__enter__()
preloaded = reader.policy
go, ready = os.pipe(), os.pipe()
for _ in range(2):
    if os.fork() == 0:
        drawn = [sorted(preloaded.allocate({}, 10).allocation.items()) for _ in range(30)]
        _ = reader.policy
        os.write(ready[1], b".")
        os.read(go[0], 1)
        wait_for_version_2()
        print(f"{reader.policy.version} {reader.status.error} {hash(str(drawn))}", flush=True)
        os._exit(0)
for _ in range(2):
    os.read(ready[0], 1)
with closing(Store(sys.argv[1])) as store, store.write() as connection:
    made = versions.newest(connection)
    changed = {"memory": {"song": b'{"rows":[]}'}}
    versions.publish(connection, [changed], versions.Provenance(
        created=made.created, watermark=made.watermark, positions={}, fingerprint=made.fingerprint))
os.write(go[1], b"..")
for _ in range(2):
    assert os.wait()[1] == 0
wait_for_version_2()
reader.close()
print(f"{reader.policy.version} {reader.status.error} parent")
"""


def test_a_forked_process_has_a_reader_of_its_own(url: str, pipeline: LocalPipeline) -> None:
    """Servers load the application, fork, and ask the reader in each child."""
    pipeline.publish()
    done = subprocess.run([sys.executable, "-c", FORKING, url], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    *children, parent = [line.split() for line in done.stdout.splitlines()]
    assert parent == ["2", "None", "parent"]
    assert [child[:2] for child in children] == [["2", "None"]] * 2
    assert children[0][2] != children[1][2], "the children explore differently"


def test_it_refreshes_in_the_background(url: str, pipeline: LocalPipeline) -> None:
    pipeline.publish()
    with PolicyReader(url, poll_s=0.01, rng=rng()) as reader:
        assert reader.policy.version == 1
        learn(pipeline, 100)
        pipeline.publish()
        for _ in range(1000):
            if reader.policy.version == 2:
                break
            threading.Event().wait(0.01)
        assert reader.policy.version == 2


def test_guesses_follow_the_queries_of_each_version(store_url: str) -> None:
    def publish(**rows: bytes | None) -> None:
        with closing(Store(store_url)) as store, store.write() as connection:
            memory = {name.replace("_", " "): row for name, row in rows.items()}
            snapshots.publish(connection, [{"memory": memory}], PROVENANCE)

    with LocalPipeline(store_url, Config(), "test") as pipeline:
        learn(pipeline, 10)
        pipeline.publish()
    row = msgspec.json.encode(Row(0, (PairEvidence("a", 0.0, 0.0, 0.5),)))
    publish(first_song=row)
    plain, reader = PolicyReader(store_url, rng=rng()), PolicyReader(store_url, rng=rng(), guess_from=0.9)
    with closing(reader), closing(plain):
        assert plain.policy.recall("frst song", 1) == []
        (guessed,) = reader.policy.recall("frst song", 1)
        assert guessed.guess == Guess("first song", ratio("frst song", "first song") / 100)
        assert reader.policy.recall("secnd song", 1) == []
        before = reader.policy
        publish(second_song=row, first_song=None)
        assert reader.refresh()
        (guessed,) = reader.policy.recall("secnd song", 1)
        assert guessed.guess == Guess("second song", ratio("secnd song", "second song") / 100)
        assert reader.policy.recall("frst song", 1) == []
        assert before.recall("frst song", 1)
        assert before.recall("secnd song", 1) == []


@pytest.mark.parametrize("guess_from", [0.1, 2.0])
def test_a_similarity_out_of_bounds_is_an_error(tmp_path: Path, guess_from: float) -> None:
    with pytest.raises(ValueError, match="similarity"):
        PolicyReader(sqlite_url(tmp_path), guess_from=guess_from)


def test_guessing_without_its_extra_says_what_to_install(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['rapidfuzz'] = None\n"
        "from backchannel.streams.serving.reader import PolicyReader\n"
        "PolicyReader('sqlite://')\n"
        "PolicyReader('sqlite://', guess_from=0.9)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ModuleNotFoundError: guess_from=0.9 needs rapidfuzz: pip install 'backchannel[guess]'")


def test_serving_imports_neither_kafka_nor_faust_nor_river() -> None:
    program = (
        "import sys, backchannel.streams.serving.reader\n"
        "heavy = {'faust', 'kafka', 'aiokafka', 'river', 'rapidfuzz', 'scipy', 'pandas', 'zstandard'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
