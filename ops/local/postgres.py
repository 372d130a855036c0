"""A real PostgreSQL for tests and measurements: a server of its own, gone when it is closed.

It listens on 127.0.0.1 only. Debian keeps its programs out of the PATH; and as it refuses to run as root, root runs it
as the user `postgres`, whom Debian's packages create.
"""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self

from backchannel.schemas.errors import BackchannelError

DEBIAN: Final = Path("/usr/lib/postgresql")
"""Where Debian keeps the programs, in a folder for each version."""
START_TIMEOUT: Final = 60.0
STOP_TIMEOUT: Final = 30.0
NOT_DURABLE: Final = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
"""Settings for a server whose data need not outlive a power cut: tests run in half the time."""


_RUN_UNTIL_STDIN_CLOSES: Final = """\
exec 3<&0
"$@" & server=$!
{ read -r _ <&3; kill -INT $server; } & watch=$!
wait $server
kill $watch
"""
"""For sh: however the process that started the server ends, the server ends with it."""


class PostgresError(BackchannelError, RuntimeError):
    """No PostgreSQL can be started. The message says why and what to do."""


class Postgres:
    """One local PostgreSQL server, with one database and the superuser `backchannel`, who needs no password.

    Args:
        settings: of the server, as in postgresql.conf.

    Attributes:
        data: its folder, deleted when it is closed.
        url: SQLAlchemy's.

    Raises:
        PostgresError: it is not installed, or did not start.
    """

    def __init__(self, settings: Mapping[str, str] | None = None) -> None:
        self._programs: Final = _programs()
        self._folder: Final = tempfile.TemporaryDirectory(prefix="backchannel-postgres-", ignore_cleanup_errors=True)
        folder = Path(self._folder.name)
        self.data: Final = folder / "data"
        self._settings: Final = settings or {}
        self._user: dict[str, Any] = {}
        if os.geteuid() == 0:
            self._user = {"user": "postgres", "group": "postgres", "extra_groups": []}
            shutil.chown(folder, "postgres", "postgres")
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port: Final[int] = probe.getsockname()[1]
        self.url: Final = f"postgresql://backchannel@127.0.0.1:{self._port}/postgres"
        try:
            self._run(
                "initdb", "-D", str(self.data), "-U", "backchannel", "-A", "trust", "-E", "UTF8", "--locale=C", "-N"
            )
            self.start()
        except BaseException:
            self._folder.cleanup()
            raise

    def start(self) -> None:
        """Start it, also again after `stop`, and wait until it answers."""
        settings = {"listen_addresses": "127.0.0.1", "port": str(self._port), "unix_socket_directories": ""}
        options = [f"--{name}={value}" for name, value in {**settings, **self._settings}.items()]
        with (self.data / "log").open("ab") as log:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", _RUN_UNTIL_STDIN_CLOSES, "sh", self._program("postgres"), "-D", self.data, *options],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=self._folder.name,
                start_new_session=True,  # a Ctrl-C meant for the caller is none of its business
                **self._user,
            )
        deadline = time.monotonic() + START_TIMEOUT
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                tail = "\n".join((self.data / "log").read_text(errors="replace").splitlines()[-15:])
                raise PostgresError(f"PostgreSQL did not start; the end of its log:\n{tail}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop it, whoever is connected; its data stay."""
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            try:
                self._process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
            self._process = None

    def close(self) -> None:
        """Stop it and delete its data."""
        self.stop()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _program(self, name: str) -> str:
        return str(self._programs / name)

    def _answers(self) -> bool:
        command = [self._program("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self._port)]
        return subprocess.run(command, check=False).returncode == 0

    def _run(self, program: str, *arguments: str) -> None:
        command = [self._program(program), *arguments]
        done = subprocess.run(command, cwd=self._folder.name, capture_output=True, text=True, check=False, **self._user)
        if done.returncode:
            raise PostgresError(f"`{program}` failed with exit code {done.returncode}:\n{done.stdout}{done.stderr}")


def _programs() -> Path:
    """Return the folder of the server's programs: from the PATH, or where Debian puts the newest."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    debian = sorted(DEBIAN.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if not debian:
        raise PostgresError(
            "PostgreSQL is not installed: `apt-get install postgresql`, or `brew install postgresql`, or set "
            "BACKCHANNEL_POSTGRES to the URL of a database to test in"
        )
    return debian[-1].parent
