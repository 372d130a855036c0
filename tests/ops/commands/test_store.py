"""`backchannel store`: schema, migration and privileges."""

import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import numpy as np
import orjson
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from click.testing import CliRunner
from msgspec import structs
from sqlalchemy import create_engine, inspect, make_url, text
from sqlalchemy.exc import ProgrammingError

from backchannel.agents.sums import Sums, SumTable
from backchannel.ops.cli import main
from backchannel.ops.commands.roles import IMPERSONAL, READER, WORKER, grants
from backchannel.ops.commands.store import MIGRATIONS, migrate
from backchannel.ops.lab.load import mixed_stream
from backchannel.schemas.events import Means, Query, Teach
from backchannel.streams.config import Config
from backchannel.streams.pipeline.erasure import forget_user
from backchannel.streams.pipeline.learners import Learning
from backchannel.streams.pipeline.local import LocalPipeline
from backchannel.streams.serving.reader import PolicyReader
from backchannel.streams.snapshots.teachings import Teachings
from backchannel.streams.store import segments
from backchannel.streams.store.engine import Store, StoreError
from backchannel.streams.store.tables import SCHEMA_VERSION, metadata, schema_version
from tests.support.servers import start_postgres


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    with closing(Store(store_url)) as store:
        yield store


def test_migrations_make_what_the_code_declares(store: Store) -> None:
    with store.write(new=True) as connection:
        migrate(connection)
        context = MigrationContext.configure(connection, opts={"version_table": schema_version.name})
        assert compare_metadata(context, metadata) == []
        store.check(connection)
    store.create(Learning(Config()).tables)


def test_the_code_needs_the_newest_migration() -> None:
    assert ScriptDirectory(str(MIGRATIONS)).get_current_head() == SCHEMA_VERSION


def test_a_store_is_upgraded_once(store_url: str) -> None:
    before = CliRunner().invoke(main, ["store", "check", "--store", store_url])
    assert before.exit_code == 1
    assert "has no tables yet" in before.output or "there is no file" in before.output
    for said in ("it had no tables", "already"):
        done = CliRunner().invoke(main, ["store", "upgrade", "--store", store_url])
        assert done.exit_code == 0, done.output
        assert said in done.output
    after = CliRunner().invoke(main, ["store", "check", "--store", store_url, "--json"])
    assert after.exit_code == 0
    assert orjson.loads(after.output) == {"found": SCHEMA_VERSION, "needed": SCHEMA_VERSION, "fits": True}
    with LocalPipeline(store_url, Config(), "test") as embedded:
        assert embedded.publish() is not None


def test_an_upgrade_says_what_must_be_learned_anew(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/old.db"
    with closing(Store(url)) as store, store.write(new=True) as connection:
        migrate(connection, "0001")
    done = CliRunner().invoke(main, ["store", "upgrade", "--store", url])
    assert done.exit_code == 0, done.output
    assert "0002: Segments" in done.output
    assert "Learned anew: " in done.output


def test_segments_that_wait_while_a_store_is_upgraded_are_merged(store: Store) -> None:
    table = SumTable(name="some", key=(("a", str),), sums=("x",))
    block = segments.encode([Sums(table, [("a",)], np.array([[2.0]]))])
    with store.write(new=True) as connection:
        migrate(connection, "0003")
        connection.execute(text("INSERT INTO segment (counts, value) VALUES ('{}', :value)"), {"value": block})
        migrate(connection)
        assert segments.waiting(connection) == len(block)
        (found,) = segments.take(connection).delta
    assert found.values.tolist() == [[2.0]]
    with pytest.raises(StoreError, match="size"), store.write() as connection:  # an old worker
        connection.execute(text("INSERT INTO segment (counts, value) VALUES ('{}', :value)"), {"value": block})


def test_a_newer_store_is_left_alone(store: Store, store_url: str) -> None:
    store.create([])
    with store.write() as connection:
        connection.execute(schema_version.update().values(version_num="9999"))
    done = CliRunner().invoke(main, ["store", "upgrade", "--store", store_url])
    assert done.exit_code == 1
    assert "9999; this version of Backchannel needs" in done.output
    assert "a newer version of Backchannel wrote it" in done.output


def test_an_upgrade_that_fails_leaves_the_store_to_the_older_version(store: Store, store_url: str) -> None:
    with store.write(new=True) as connection:
        migrate(connection, "0002")
        connection.execute(text("CREATE TABLE memory (query TEXT PRIMARY KEY, gone TEXT)"))
        connection.execute(text("INSERT INTO memory VALUES ('jazz', 'it')"))
    done = CliRunner().invoke(main, ["store", "upgrade", "--store", store_url])
    assert done.exit_code == 1
    assert "table memory has the columns gone, query" in done.output
    with store.read() as connection:
        assert store.version(connection) == "0002"
        assert not inspect(connection).has_table("taught")


def test_tables_of_learners_that_were_off_are_made_anew(store: Store, store_url: str) -> None:
    with store.write(new=True) as connection:
        migrate(connection, "0003")
        connection.execute(text("CREATE TABLE visits (gone TEXT PRIMARY KEY)"))
    done = CliRunner().invoke(main, ["store", "upgrade", "--store", store_url])
    assert done.exit_code == 0, done.output
    with store.read() as connection:
        assert "strategies" in {column["name"] for column in inspect(connection).get_columns("visits")}


def test_the_tables_of_other_learners_are_refused(store: Store) -> None:
    tables = Learning(Config()).tables
    store.create(tables)
    with store.write() as connection:
        connection.execute(text("ALTER TABLE memory RENAME COLUMN gain TO loss"))
    with pytest.raises(StoreError, match=r"table memory has the columns .*loss.* needs .*gain"):
        store.create(tables)


def test_those_who_begin_at_once_make_one_store(store_url: str) -> None:
    errors: list[BaseException] = []

    def create() -> None:
        try:
            with closing(Store(store_url)) as store:
                store.create(Learning(Config()).tables)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=create) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors


@pytest.fixture
def as_role(new_schema: Callable[[], str], tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """Return a function role -> URL of an upgraded PostgreSQL store, with the privileges that `store roles` grants."""
    url = make_url(new_schema())
    options = str(url.query["options"])
    schema = options.partition("=")[2]
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    config = tmp_path / "backchannel.toml"
    config.write_text("memory.personal = 5\n")
    upgrade = ["store", "upgrade", "--store", url.render_as_string(False), "--config", str(config)]
    done = CliRunner().invoke(main, upgrade)
    assert done.exit_code == 0, done.output
    granted = CliRunner().invoke(main, ["store", "roles", "--schema", schema, "--config", str(config)])
    with engine.connect() as connection:
        for _ in range(2):
            connection.exec_driver_sql(granted.output)
    yield lambda role: url.update_query_dict({"options": f"{options} -crole={role}"}).render_as_string(False)
    with engine.connect() as connection:
        for role in (READER, IMPERSONAL, WORKER):
            connection.exec_driver_sql(f"DROP OWNED BY {role}; DROP ROLE {role}")
    engine.dispose()


def test_a_worker_learns_and_publishes_and_a_reader_reads(as_role: Callable[[str], str]) -> None:
    with LocalPipeline(as_role(WORKER), Config(), "test") as embedded:
        embedded.feed(list(mixed_stream(100, np.random.default_rng(0))))
        embedded.finish()
        embedded.commit()
        assert embedded.publish() is not None
    with PolicyReader(as_role(READER)) as reader:
        assert reader.policy.version == 1
        assert reader.status.error is None


def test_privileges_are_granted_all_or_not_at_all() -> None:
    sql = [line for line in grants("public", ["bandit"], ["users"]).splitlines() if not line.startswith("--")]
    assert (sql[0].split()[0], sql[-1]) == ("BEGIN;", "COMMIT;")


def test_an_impersonal_reader_sees_nothing_about_single_users(as_role: Callable[[str], str]) -> None:
    config = msgspec.convert({"memory": {"personal": 5}, "snapshots": {"signing_key": "secret"}}, Config)
    rules = [
        Teach(
            event_id=f"{everyone}",
            session_id="s",
            query_id="q",
            ts=1,
            user_id="ann",
            rule=Means(source="a", target="b"),
            everyone=everyone,
        )
        for everyone in (False, True)
    ]
    with LocalPipeline(as_role(WORKER), config, "test") as embedded:
        events = [
            structs.replace(event, user_id="ann") if isinstance(event, Query) else event
            for event in mixed_stream(300, np.random.default_rng(0), gap_ms=5_000)
        ]
        for number, some in enumerate((events[:150], events[150:])):
            embedded.feed(some)
            embedded.commit()
            assert embedded.publish() is not None
            if number == 0:
                reader = PolicyReader(as_role(IMPERSONAL), key="secret", personal=False)
                reader.refresh()
        Teachings(embedded.store, config.taught, key="secret").write(rules)
    with closing(reader):
        reader.refresh()  # from version 1 to 2: the delta is checked, too
        assert (reader.policy.version, reader.status.error) == (2, None)
        assert reader.policy.snapshot.rows["personal"] > 0
        assert reader.policy.taught("ann") == reader.policy.taught()
    engine = create_engine(as_role(IMPERSONAL))
    with engine.connect() as connection:
        seen = set(connection.execute(text("SELECT DISTINCT section FROM snapshot_row")).scalars())
        assert "memory" in seen
        assert "personal" not in seen
        assert connection.execute(text("SELECT owner FROM taught")).scalars().all() == ["everyone"]
    engine.dispose()
    with PolicyReader(as_role(IMPERSONAL), key="secret") as blind:
        assert "rows about single users cannot be read" in str(blind.status.error)
    assert forget_user(as_role(WORKER), config, "ann") > 0
    with PolicyReader(as_role(IMPERSONAL), key="secret", personal=False) as anew:
        assert (anew.policy.version, anew.status.error) == (2, None)


@pytest.mark.parametrize(
    ("role", "statement"),
    [
        (READER, "INSERT INTO snapshot VALUES (1, 0, '', NULL, false)"),
        (READER, "UPDATE head SET version = 1"),
        (READER, "DELETE FROM snapshot_row"),
        (READER, "SELECT * FROM memory"),
        (IMPERSONAL, "SELECT * FROM personal"),
        (READER, "SELECT * FROM partition"),
        (READER, "CREATE TABLE mine (id int)"),
        (WORKER, "DROP TABLE memory"),
        (WORKER, "CREATE TABLE mine (id int)"),
        (WORKER, "TRUNCATE snapshot"),
        (WORKER, "UPDATE schema_version SET version_num = '1'"),
    ],
)
def test_a_role_can_do_no_more(as_role: Callable[[str], str], role: str, statement: str) -> None:
    engine = create_engine(as_role(role))
    with engine.begin() as connection, pytest.raises(ProgrammingError, match=r"permission denied|must be owner"):
        connection.exec_driver_sql(statement)
    engine.dispose()


def test_tls_is_asked_for_in_the_url() -> None:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        folder = Path(name)
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-out", "cert.pem"]
        command += ["-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        (folder / "key.pem").chmod(0o600)
        if os.geteuid() == 0:
            for path in (folder, folder / "key.pem", folder / "cert.pem"):
                shutil.chown(path, "postgres")
        certificate, key = str(folder / "cert.pem"), str(folder / "key.pem")
        with start_postgres({"ssl": "on", "ssl_cert_file": certificate, "ssl_key_file": key}) as server:
            query = {"sslmode": "verify-full", "sslrootcert": certificate}
            url = make_url(server.url).update_query_dict(query).render_as_string(False)
            with closing(Store(url)) as store:
                store.create([])
                with store.read() as connection:
                    used = text("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
                    assert connection.execute(used).scalar_one()
            other = make_url(url).update_query_dict({"sslrootcert": "/dev/null"}).render_as_string(False)
            with closing(Store(other)) as store, pytest.raises(StoreError, match=r"certificate|root"):
                store.create([])
