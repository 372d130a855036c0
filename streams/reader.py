"""The policy reader: what a serving process holds. It needs neither Kafka nor Faust nor River."""

import threading
import time
from collections import defaultdict
from types import TracebackType
from typing import Final, Self

import numpy as np
from msgspec import Struct
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from backchannel.agents.allocation import EncodingError
from backchannel.schemas.rows import Rows
from backchannel.schemas.snapshot import Checksum, Snapshot
from backchannel.streams import snapshots
from backchannel.streams.policy import Policy
from backchannel.streams.store import Store, StoreError


class NoPolicyError(LookupError):
    """No policy has been published to the store yet."""


class CorruptPolicyError(RuntimeError):
    """The rows in the store do not add up to the checksum of their version."""


class ReaderStatus(Struct, frozen=True):
    """How a reader is doing.

    Attributes:
        version: that is served; None before the first.
        checked_s: seconds since the store last answered.
        error: why it did not answer the last time, or why the newest version is not served; None when all is well.
    """

    version: int | None
    checked_s: float
    error: str | None


class PolicyReader:
    """Keeps the newest policy at hand.

    `policy` is immutable and swapped in whole, so use one reference for one request. When the store is down, or the
    newest version is damaged, the last good policy stays, and `status` says so.

    Args:
        url: of the store, SQLAlchemy's.
        poll_s: seconds between two looks at the store once `start` was called, or within a `with` block.
        rng: where the policy's chance comes from; by default seeded by the operating system.

    Raises:
        StoreError: the URL is not one.
    """

    def __init__(self, url: str, poll_s: float = 1.0, rng: np.random.Generator | None = None) -> None:
        self._store: Final = Store(url)
        self._poll_s: Final = poll_s
        self._rng: Final = rng or np.random.default_rng()
        self._lock: Final = threading.Lock()
        self._policy: Policy | None = None
        self._sections: dict[str, Rows] = {}
        self._checked = time.monotonic()
        self._error: str | None = None
        self._stop: Final = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def policy(self) -> Policy:
        """The newest policy that was read.

        Raises:
            NoPolicyError: there is none yet.
        """
        if self._policy is None:
            self.refresh()
        policy = self._policy
        if policy is None:
            reason = self._error or "nothing has been published to this store yet"
            raise NoPolicyError(f"no policy to serve: {reason}. `backchannel run` publishes one")
        return policy

    @property
    def status(self) -> ReaderStatus:
        """How the reader is doing."""
        version = self._policy.version if self._policy else None
        return ReaderStatus(version, time.monotonic() - self._checked, self._error)

    def refresh(self) -> bool:
        """Look for another version to serve, pull the rows that changed, and swap it in.

        Returns:
            whether another version is served now. It never raises; see `status`.
        """
        with self._lock:
            try:
                with self._store.read() as connection:
                    if self._policy is None:
                        self._store.check(connection)
                    served = snapshots.current(connection).version
                    if served is not None and (self._policy is None or served != self._policy.version):
                        self._swap(connection, served)
                        return True
            except (SQLAlchemyError, StoreError, CorruptPolicyError, EncodingError) as error:
                self._error = str(error)
                return False
            self._checked = time.monotonic()
            self._error = None
            return False

    def start(self) -> None:
        """Refresh in the background from now on."""
        self._thread = threading.Thread(target=self._poll, name="backchannel-policy-reader", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop refreshing and close the connections. The policies that were handed out stay usable."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self._store.close()

    def __enter__(self) -> Self:
        self.refresh()
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _poll(self) -> None:
        while not self._stop.wait(self._poll_s):
            self.refresh()

    def _swap(self, connection: Connection, version: int) -> None:
        held = self._policy.snapshot if self._policy else None
        target = snapshots.header(connection, version)
        if target is None:
            raise CorruptPolicyError(f"version {version} is to be served, but is not in the store: restore the store")
        sections, checksum = _apply(connection, self._sections, held, target)
        if checksum != target.checksum and held is not None:  # what we hold may be at fault: read it all anew
            sections, checksum = _apply(connection, {}, None, target)
        if checksum != target.checksum:
            raise CorruptPolicyError(
                f"version {target.version} is damaged: its rows have checksum {checksum}, its header says "
                f"{target.checksum}. Publish a new version, or restore the store"
            )
        self._policy = Policy(target, sections, self._rng)
        self._sections = sections
        self._checked = time.monotonic()
        self._error = None


def _apply(
    connection: Connection, sections: dict[str, Rows], held: Snapshot | None, target: Snapshot
) -> tuple[dict[str, Rows], str]:
    """Return the sections of version `target` and their checksum, given those of version `held`."""
    changes = snapshots.difference(connection, held.version if held else 0, target.version)
    removed: defaultdict[str, list[str]] = defaultdict(list)
    live: defaultdict[str, dict[str, bytes]] = defaultdict(dict)
    checksum = Checksum(held.checksum) if held else Checksum()
    for section, key in changes.removed:
        old = sections[section].get(key) if section in sections else None
        if old is not None:
            checksum.remove(section, key, old)
        removed[section].append(key)
    for section, key, value in changes.live:
        live[section][key] = value
        checksum.add(section, key, value)
    updated = dict(sections)
    for section in {*removed, *live}:
        updated[section] = sections.get(section, Rows()).updated(removed[section], live[section])
    return updated, checksum.hexdigest()
