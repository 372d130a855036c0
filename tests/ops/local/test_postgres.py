"""The PostgreSQL server for tests ends with the process that started it."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from backchannel.ops.local import postgres
from backchannel.ops.local.postgres import Postgres, PostgresError
from tests.support.servers import start_postgres


def answers(url: str) -> bool:
    engine = create_engine(url, connect_args={"connect_timeout": 5})
    try:
        with engine.connect() as connection:
            return bool(connection.execute(text("SELECT 1")).scalar_one())
    except Exception:
        return False
    finally:
        engine.dispose()


def test_it_starts_again_where_it_was_and_leaves_nothing() -> None:
    with start_postgres() as server:
        assert answers(server.url)
        server.stop()
        assert not answers(server.url)
        server.start()
        assert answers(server.url)
    assert not answers(server.url)
    assert not server.data.exists()


def test_it_does_not_outlive_who_started_it() -> None:
    start_postgres().close()  # or skip
    program = (
        "from backchannel.ops.local.postgres import Postgres; import os, signal; "
        "server = Postgres({'fsync': 'off'}); print(server.url, server.data.parent, flush=True); "
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    url, folder = done.stdout.split()
    waited = 0.0
    while answers(url) and waited < 60:
        time.sleep(0.1)
        waited += 0.1
    shutil.rmtree(folder, ignore_errors=True)
    assert waited < 60, "it still runs"


def test_where_it_is_not_installed_is_said_with_the_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(postgres, "DEBIAN", tmp_path)
    with pytest.raises(PostgresError, match="apt-get install postgresql"):
        Postgres()


def test_what_keeps_it_from_starting_is_said() -> None:
    start_postgres().close()  # or skip
    with pytest.raises(PostgresError, match="no_such_setting"):
        Postgres({"no_such_setting": "1"})
