"""Nobody waits without limit: not for a stopped process, nor for a connection that has fallen silent (PostgreSQL)."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress

import pytest
from sqlalchemy import Connection, make_url, text

from backchannel.streams.store.dialects import postgresql
from backchannel.streams.store.dialects.patience import PatientConnection
from backchannel.streams.store.dialects.postgresql import Limits
from backchannel.streams.store.engine import Store, StoreAwayError, StoreBusyError
from backchannel.streams.store.ledger import Ledger

CLAIMING = """
import os, sys
from backchannel.streams.store.dialects import postgresql
postgresql.SHORT = postgresql.Limits(60.0, idle_s=1.0, lock_s=10.0)
from backchannel.streams.store import ledger, engine
store = engine.Store(sys.argv[1])

def stop(*_):
    print("locked", flush=True)
    sys.stdin.read()

ledger.Ledger._find = stop
try:
    ledger.Ledger(store, []).claim("kafka:x", 0)
except engine.StoreAwayError as error:
    print(error, flush=True)
"""


@pytest.fixture
def url(new_schema: Callable[[], str]) -> str:
    url = new_schema()
    with closing(Store(url)) as store:
        store.create([])
    return url


def test_a_process_that_was_stopped_in_a_transaction_is_not_waited_for(url: str) -> None:
    run = [sys.executable, "-c", CLAIMING, url]
    with subprocess.Popen(run, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as stopped:
        assert stopped.stdout
        assert stopped.stdin
        assert stopped.stdout.readline() == "locked\n"
        os.kill(stopped.pid, signal.SIGSTOP)
        with closing(Store(url)) as store:
            assert Ledger(store, []).claim("kafka:x", 0).epoch == 1, "what it had not committed is undone"
        os.kill(stopped.pid, signal.SIGCONT)
        stopped.stdin.close()
        assert "does not answer" in stopped.stdout.read()


def test_a_lock_is_waited_for_only_so_long(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgresql, "SHORT", Limits(60.0, idle_s=20.0, lock_s=0.1))
    with closing(Store(url)) as one, closing(Store(url)) as other:
        Ledger(one, []).claim("kafka:x", 0)
        with one.write() as connection:
            connection.execute(text("SELECT * FROM partition FOR UPDATE"))
            with pytest.raises(StoreBusyError, match="lock timeout"):
                Ledger(other, []).claim("kafka:x", 0)


def test_every_transaction_has_limits_that_the_url_may_change(url: str) -> None:
    def settings(url: str, *, stable: bool, write: bool = True) -> dict[str, str]:
        with closing(Store(url)) as store, store.write(stable=stable) if write else store.read() as connection:
            names = [name for name, _ in Limits(1.0, 1.0, 1.0).settings()]
            return {name: str(connection.execute(text(f"SHOW {name}")).scalar()) for name in names[:3]}

    names = ("statement_timeout", "idle_in_transaction_session_timeout", "lock_timeout")
    assert settings(url, stable=False) == dict(zip(names, ("1min", "20s", "10s"), strict=True))
    assert settings(url, stable=True) == dict(zip(names, ("10min", "5min", "10s"), strict=True))
    assert settings(url, stable=False, write=False)["statement_timeout"] == "1min"
    given = make_url(url)
    options = f"{given.query['options']} -c lock_timeout=3s"
    own = given.update_query_dict({"options": options}).render_as_string(False)
    assert settings(own, stable=False) == dict(zip(names, ("1min", "20s", "3s"), strict=True))


class Proxy:
    """Passes on what two sockets send each other, until it is `silent`: then it keeps everything to itself."""

    def __init__(self, host: str, port: int) -> None:
        self.silent = False
        self._target = host, port
        self._server = socket.create_server(("127.0.0.1", 0))
        self._sockets = [self._server]
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._server.accept()
                server = socket.create_connection(self._target)
                self._sockets += [client, server]
                for pair in ((client, server), (server, client)):
                    threading.Thread(target=self._pass_on, args=pair, daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if not self.silent:
                    target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        for one in self._sockets:
            one.close()


@contextmanager
def proxied(url: str) -> Iterator[tuple[str, Proxy]]:
    target = make_url(url)
    assert target.host
    assert target.port
    with closing(Proxy(target.host, target.port)) as proxy:
        yield target.set(host="127.0.0.1", port=proxy.port).render_as_string(False), proxy


@pytest.mark.parametrize("idle", [True, False])
def test_a_connection_that_has_fallen_silent_is_given_up(url: str, idle: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy goes on acknowledging, so that TCP notices nothing."""
    monkeypatch.setattr(PatientConnection, "patience_s", 0.3)
    monkeypatch.setattr(postgresql, "SHORT", Limits(0.2))
    monkeypatch.setattr(postgresql, "_GRACE_S", 0.1)
    monkeypatch.setitem(postgresql.CONNECTION, "connect_timeout", 2)
    with proxied(url) as (through, proxy), closing(Store(through)) as store:
        if idle:
            Ledger(store, []).claim("kafka:x", 0)
            proxy.silent = True
            with pytest.raises(StoreAwayError):  # no new connection is made, either
                Ledger(store, []).claim("kafka:x", 0)
        else:

            def ask(connection: Connection) -> None:
                proxy.silent = True
                connection.execute(text("SELECT 1"))

            with pytest.raises(StoreAwayError, match="no answer for"):
                store.transact(ask)
        proxy.silent = False
        assert Ledger(store, []).claim("kafka:x", 0).epoch == 1 + idle
