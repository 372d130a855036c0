"""Whatever is wrong with the store or with a version, readers keep serving the newest one that loads."""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import msgspec
import numpy as np
import pytest
from sqlalchemy import delete, insert, select, update

from backchannel.agents.taught.rules import EVERYONE
from backchannel.ops.local.postgres import Postgres
from backchannel.schemas.snapshot import Checksum
from backchannel.streams.config import Config, SnapshotConfig
from backchannel.streams.pipeline.local import LocalPipeline
from backchannel.streams.serving.reader import PolicyReader
from backchannel.streams.serving.rows import Rows
from backchannel.streams.snapshots import versions as snapshots
from backchannel.streams.store import tables
from backchannel.streams.store.dialects.sqlite import Sqlite
from backchannel.streams.store.engine import Store
from tests.support.ledgers import sqlite_url
from tests.support.pipelines import learn_mixed
from tests.support.servers import start_postgres


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def test_a_version_counts_as_new_even_if_what_was_taught_cannot_be_read(
    url: str, pipeline: LocalPipeline, reader: PolicyReader
) -> None:
    pipeline.publish()
    assert reader.policy.version == 1
    learn_mixed(pipeline, 100)
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


def damage(url: str, version: int) -> None:
    """Give each version new rows of the memory index."""
    row = tables.snapshot_row
    mine = (row.c.section == "memory", row.c.key != "", row.c.valid_from == version)
    store = Store(url)
    with store.write() as connection:
        assert connection.execute(update(row).where(*mine).values(value=b"{}")).rowcount
    store.close()


def test_a_damaged_version_is_not_served(url: str, pipeline: LocalPipeline, reader: PolicyReader) -> None:
    learn_mixed(pipeline, 300)
    pipeline.publish()
    good = reader.policy
    learn_mixed(pipeline, 300, start_ms=1_700_100_000_000)
    pipeline.publish()
    damage(url, 2)
    assert not reader.refresh()
    assert reader.policy is good
    assert "version 2 is not served: its rows" in (reader.status.error or "")


def test_a_new_reader_skips_a_damaged_version(url: str, pipeline: LocalPipeline) -> None:
    learn_mixed(pipeline, 300)
    pipeline.publish()
    learn_mixed(pipeline, 300, start_ms=1_700_100_000_000)
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
    learn_mixed(pipeline, 300)
    pipeline.publish()
    good = reader.policy
    learn_mixed(pipeline, 300, start_ms=1_700_100_000_000)
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
        learn_mixed(pipeline, 100)
        pipeline.publish()
    with PolicyReader(url, poll_s=60, rng=rng(), key=key) as reader:
        assert reader.status.version == served
        assert ("not signed with the key" in (reader.status.error or "")) == (served is None)


def test_keys_are_changed_without_freezing_readers(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def publish(key: str, start_ms: int) -> None:
        with LocalPipeline(url, Config(snapshots=SnapshotConfig(signing_key=key)), "test") as pipeline:
            learn_mixed(pipeline, 50, start_ms)
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
        learn_mixed(pipeline, 100)
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
    learn_mixed(pipeline, 300)
    pipeline.publish()
    section = reader.policy._memory._rows
    assert isinstance(section, Rows)
    section._changed.pop(next(iter(section)))
    learn_mixed(pipeline, 1, start_ms=1_700_100_000_000)
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
        learn_mixed(pipeline, 100)
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
            learn_mixed(pipeline, 100, start_ms=1_700_100_000_000)
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
            learn_mixed(pipeline, 50, start_ms=1_700_000_000_000 + version * 100_000_000)
            pipeline.publish()
        serve(1)
        with closing(PolicyReader(url, rng=rng())) as behind, closing(PolicyReader(url, rng=rng())) as cold:
            assert behind.policy.version == 1
            serve(2)
            learn_mixed(pipeline, 50, start_ms=1_700_500_000_000)
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
            learn_mixed(pipeline, 50)
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
            learn_mixed(pipeline, 100 + 50 * place)
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
            learn_mixed(pipeline, 100 + 50 * place)
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
