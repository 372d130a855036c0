"""The policy reader of a serving process. It needs neither Kafka nor Faust nor River."""

import threading
import time
from collections import defaultdict
from typing import Final, Self

import msgspec
import numpy as np
from msgspec import Struct
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from backchannel.agents.bandit.serving import EncodingError
from backchannel.agents.memory.serving import Memory, Similar
from backchannel.schemas.errors import BackchannelError
from backchannel.schemas.snapshot import Checksum, Snapshot
from backchannel.streams.serving.policy import Policy
from backchannel.streams.serving.rows import Rows
from backchannel.streams.snapshots import versions as snapshots
from backchannel.streams.snapshots.signing import signing_key
from backchannel.streams.snapshots.versions import CorruptPolicyError
from backchannel.streams.store.engine import Store, StoreError

REFUSED_S: Final = 60.0
"""Seconds after which a version that could not be served is read again: it may have been restored."""


class NoPolicyError(BackchannelError, LookupError):
    """No policy has been published to the store yet."""


class ReaderStatus(Struct, frozen=True):
    """How a reader is doing.

    Attributes:
        version: the version that is served; None before the first.
        checked_s: seconds since the store last answered.
        error: why the last refresh failed, or why the newest version is not served; None: all is well.
    """

    version: int | None
    checked_s: float
    error: str | None


class PolicyReader:
    """Holds the newest policy.

    `policy` is immutable and replaced as a whole, so use one reference per request. If the store is down, or the newest
    version is damaged, the last good policy stays, and `status` says so.

    Args:
        store: SQLAlchemy URL of the store; or an open store, which stays open when the reader closes.
        poll_s: seconds between refreshes after `start`, or within a `with` block.
        rng: the policy's source of randomness; by default seeded by the operating system.
        key: the key with which versions must be signed. The environment variable BACKCHANNEL_SIGNING_KEY overrides it;
            without a key, signatures are not checked.
        guess_from: the similarity, 0.5 to 1, from which `recall` serves an unknown query as a known one; 0.9 suits
            errors of typing and speech recognition. None: no guesses. Guessing needs the extra `guess`, and about 100
            bytes of memory for each known query.

    Raises:
        StoreError: the URL is invalid.
        ValueError: `guess_from` is out of bounds.
        ModuleNotFoundError: `guess_from` is given, and the extra is not installed.
    """

    def __init__(
        self,
        store: str | Store,
        poll_s: float = 1.0,
        rng: np.random.Generator | None = None,
        key: str = "",
        guess_from: float | None = None,
    ) -> None:
        self._similar: Final = None if guess_from is None else _similar_queries(guess_from)
        self._store: Final = Store(store) if isinstance(store, str) else store
        self._opened: Final = isinstance(store, str)
        self._poll_s: Final = poll_s
        self._key: Final = signing_key(key)
        self._rng: Final = rng or np.random.default_rng()
        self._lock: Final = threading.Lock()
        self._policy: Policy | None = None
        self._sections: dict[str, Rows] = {}
        self._checked = time.monotonic()
        self._error: str | None = None
        self._refused: tuple[int, float] = (0, 0.0)
        self._stop: Final = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def policy(self) -> Policy:
        """The newest policy that was read.

        Raises:
            NoPolicyError: there is no policy yet.
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
        """Check for another version to serve, read the rows that changed, and replace the policy.

        Returns:
            whether another version is served now. Errors are not raised; see `status`.
        """
        with self._lock:
            try:
                with self._store.read() as connection:
                    if self._policy is None:
                        self._store.check(connection)
                    served = snapshots.current(connection).version
                    if served is not None and (self._policy is None or served != self._policy.version):
                        return self._swap(connection, served)
            except (SQLAlchemyError, StoreError) as error:
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
        """Stop refreshing and close the connections. Policies already returned stay usable."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if self._opened:
            self._store.close()

    def __enter__(self) -> Self:
        self.refresh()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _poll(self) -> None:
        while not self._stop.wait(self._poll_s):
            self.refresh()

    def _swap(self, connection: Connection, served: int) -> bool:
        """Serve version `served`; if it does not load and there is no policy yet, the newest earlier one that does."""
        refused, until = self._refused
        if refused == served and time.monotonic() < until:
            return False
        older = [] if self._policy else [version for version in snapshots.versions(connection) if version < served]
        error: str | None = None
        for version in [served, *older]:
            try:
                self._policy, self._sections = self._load(connection, version)
            except (CorruptPolicyError, EncodingError, KeyError, msgspec.MsgspecError) as fault:
                error = error or f"version {version} is not served: {fault}"
            else:
                break
        self._error = error
        self._checked = time.monotonic()
        if error is None:
            return True
        self._refused = served, self._checked + REFUSED_S
        return False

    def _load(self, connection: Connection, version: int) -> tuple[Policy, dict[str, Rows]]:
        header = snapshots.header(connection, version, self._key)
        if header is None:
            raise CorruptPolicyError("it is not in the store: roll back, or restore the store")
        # The rows that we hold may be damaged, or erased from the store: then all rows are read again.
        held = self._policy.snapshot if self._policy else None
        for base in (held, None) if held else (None,):
            before = self._sections if base else {}
            sections, checksum = _apply(connection, before, base, version, self._key)
            if header.confirms(checksum, self._key):
                similar = self._policy.similar if base and self._policy else self._similar
                if similar is not None:
                    known = sections.get(Memory.name, Rows())
                    similar = similar.updated(known.added_to(before.get(Memory.name, Rows())), known)
                policy = Policy(header, sections, self._rng, similar)
                if self._policy:
                    policy.prepare(self._policy)
                return policy, sections
        raise CorruptPolicyError("its rows do not match the checksum of its header: roll back, or restore the store")


def _similar_queries(guess_from: float) -> Similar:
    try:
        from backchannel.agents.memory.similar import SimilarQueries  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"guess_from={guess_from} needs {error.name}: pip install 'backchannel[guess]', or omit guess_from",
            name=error.name,
        ) from None
    return SimilarQueries(guess_from)


def _apply(
    connection: Connection, sections: dict[str, Rows], held: Snapshot | None, version: int, key: bytes
) -> tuple[dict[str, Rows], Checksum]:
    """Return the sections of `version` and their checksum, from the sections of version `held`."""
    changes = snapshots.difference(connection, held.version if held else 0, version)
    removed: defaultdict[str, list[str]] = defaultdict(list)
    live: defaultdict[str, dict[str, bytes]] = defaultdict(dict)
    checksum = held.checksums(key) if held else Checksum(key=key)
    for section, name in changes.removed:
        old = sections[section].get(name) if section in sections else None
        if old is not None:
            checksum.remove(section, name, old)
        removed[section].append(name)
    for section, name, value in changes.live:
        live[section][name] = value
        checksum.add(section, name, value)
    updated = dict(sections)
    for section in {*removed, *live}:
        updated[section] = sections.get(section, Rows()).updated(removed[section], live[section])
    return updated, checksum
