"""PgBouncer in transaction mode: each transaction may have another connection to the server."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import make_url

from backchannel.ops.lab.load import mixed_stream
from backchannel.ops.local.postgres import Postgres
from backchannel.streams.config import Config
from backchannel.streams.pipeline.local import LocalPipeline
from backchannel.streams.serving.reader import PolicyReader
from tests.support.servers import missing, start_postgres

SETTINGS = """\
[databases]
postgres = host=127.0.0.1 port={server} user=backchannel
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 3
"""


@pytest.fixture
def server() -> Iterator[Postgres]:
    with start_postgres() as server:
        yield server


@pytest.fixture
def pooled(server: Postgres, tmp_path: Path) -> Iterator[str]:
    """URL of a pooler in front of a new database."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        missing("no PgBouncer to test with: apt-get install pgbouncer")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = make_url(server.url)
    database = url.set(port=port).render_as_string(False)
    # It refuses to run as root.
    user: dict[str, Any] = {"user": "nobody", "extra_groups": []} if os.geteuid() == 0 else {}
    settings = server.data.parent / "pgbouncer.ini"  # a folder of the user who runs the server
    settings.write_text(SETTINGS.format(server=url.port, port=port))
    settings.parent.chmod(0o755)
    log = (tmp_path / "log").open("wb")
    with log, subprocess.Popen([program, settings], stdout=log, stderr=log, **user) as pooler:
        until = time.monotonic() + 20
        while time.monotonic() < until and pooler.poll() is None:
            with socket.socket() as probe:
                if not probe.connect_ex(("127.0.0.1", port)):
                    break
            time.sleep(0.05)
        assert pooler.poll() is None, (tmp_path / "log").read_text()
        yield database
        pooler.terminate()


def test_it_learns_publishes_and_serves_behind_pgbouncer(pooled: str) -> None:
    rng = np.random.default_rng(7)
    with LocalPipeline(pooled, Config(), "one") as one, LocalPipeline(pooled, Config(), "other") as other:
        for day in range(8):  # psycopg prepares what it has executed five times
            for pipeline in (one, other):
                pipeline.feed(list(mixed_stream(20, rng, queries=5, start_ms=1_700_000_000_000 + day * 86_400_000)))
                pipeline.commit()
            one.publish()
        with PolicyReader(pooled, rng=rng) as reader:
            assert reader.status.error is None
            assert reader.policy.version > 1
