"""A real, temporary PostgreSQL server for tests and measurements.

It listens on 127.0.0.1 only. Debian does not put its programs on the PATH. PostgreSQL refuses to run as root, so root
runs it as the user `postgres`, which Debian's packages create.
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
"""Debian's folder of programs, with a subfolder for each version."""
START_TIMEOUT: Final = 60.0
STOP_TIMEOUT: Final = 30.0

_RUN_UNTIL_STDIN_CLOSES: Final = """\
exec 3<&0
"$@" & server=$!
{ read -r _ <&3; kill -INT $server; } & watch=$!
wait $server
kill $watch
"""
"""A shell script: the server ends when the process that started it ends, however that happens."""


class PostgresError(BackchannelError, RuntimeError):
    """PostgreSQL cannot be started. The message says why, and what to do."""


class Postgres:
    """One local PostgreSQL server, with one database and the superuser `backchannel`, without a password.

    Args:
        settings: settings of the server, as in postgresql.conf.

    Attributes:
        data: folder of the server, deleted on close.
        url: SQLAlchemy URL of the database.

    Raises:
        PostgresError: PostgreSQL is not installed, or did not start.
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
        """Start the server, also after `stop`, and wait until it answers."""
        settings = {"listen_addresses": "127.0.0.1", "port": str(self._port), "unix_socket_directories": ""}
        options = [f"--{name}={value}" for name, value in {**settings, **self._settings}.items()]
        with (self.data / "log").open("ab") as log:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", _RUN_UNTIL_STDIN_CLOSES, "sh", self._program("postgres"), "-D", self.data, *options],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=self._folder.name,
                start_new_session=True,  # a Ctrl-C in the caller's terminal must not reach it
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
        """Stop the server, even with clients connected; its data are kept."""
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
        """Stop the server and delete its data."""
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
    """Return the folder of the server's programs: from the PATH, or Debian's newest version."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    debian = sorted(DEBIAN.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if not debian:
        raise PostgresError(
            "PostgreSQL is not installed: `apt-get install postgresql`, or `brew install postgresql`, or set "
            "BACKCHANNEL_POSTGRES to the URL of a database to test in"
        )
    return debian[-1].parent
