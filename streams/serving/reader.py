"""The policy reader of a serving process. It needs neither Kafka nor Faust nor River."""

import logging
import os
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from typing import Final, Self
from weakref import WeakSet

import numpy as np
from msgspec import Struct, ValidationError
from sqlalchemy import Connection

from backchannel.agents.memory.serving import Memory, Similar
from backchannel.agents.rewrites.serving import Online, Rewriter
from backchannel.agents.taught.serving import NOTHING_TAUGHT, Taught
from backchannel.schemas.errors import BackchannelError
from backchannel.schemas.snapshot import Checksum, Snapshot
from backchannel.streams.extras import install
from backchannel.streams.serving.policy import Policy
from backchannel.streams.serving.rows import Rows
from backchannel.streams.snapshots import teachings
from backchannel.streams.snapshots import versions as snapshots
from backchannel.streams.snapshots.signing import accepted_keys
from backchannel.streams.snapshots.versions import CorruptPolicyError, SignatureError
from backchannel.streams.store.engine import Store, StoreAwayError

logger = logging.getLogger(__name__)

REFUSED_S: Final = 60.0
"""Seconds after which a version that could not be served is read again: it may have been restored."""


TAUGHT_S: Final = 0.25
"""Seconds, at most, between two looks at what was taught: it is to be served in the next interaction."""


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

    `policy` is immutable and replaced as a whole, so use one reference per request. Whatever is wrong with the store or
    with a version, the newest policy that loads is served, and `status` says what is wrong.

    A process that is forked, as by a server that loads the application first, gets a reader of its own: with its own
    connections, background thread and randomness, whatever `rng` was.

    Args:
        store: SQLAlchemy URL of the store; or an open store, which stays open when the reader closes.
        poll_s: seconds between refreshes after `start`, or within a `with` block.
        rng: the policy's source of randomness; by default seeded by the operating system.
        key: the key with which versions must be signed. The environment variable BACKCHANNEL_SIGNING_KEY overrides it,
            and BACKCHANNEL_OTHER_SIGNING_KEY may name another one that is accepted, too, while keys are changed.
            Without a key, signatures are not checked.
        guess_from: the similarity, 0.5 to 1, from which `recall` serves an unknown query as a known one; 0.9 suits
            errors of typing and speech recognition. None: no guesses. Guessing needs the extra `guess`, and about 100
            bytes of memory for each known query.
        personal: whether to read what is known about single users: the personal sections, and rules that are not for
            everyone. False is for a database role that may not read it.

    Raises:
        StoreError: the URL is invalid.
        ValueError: `poll_s` or `guess_from` is out of bounds.
        ModuleNotFoundError: `guess_from` is given, and the extra is not installed.
    """

    def __init__(
        self,
        store: str | Store,
        poll_s: float = 1.0,
        rng: np.random.Generator | None = None,
        key: str = "",
        guess_from: float | None = None,
        *,
        personal: bool = True,
    ) -> None:
        if not poll_s > 0:
            raise ValueError(f"poll_s: {poll_s} s between two refreshes; it must be more than 0")
        self._similar: Final = None if guess_from is None else _similar_queries(guess_from)
        self._store: Final = Store(store) if isinstance(store, str) else store
        self._opened: Final = isinstance(store, str)
        self._poll_s: Final = poll_s
        self._personal: Final = personal
        self._keys: Final = accepted_keys(key)
        self._key = self._keys[0]  # of the version that is served
        self._rng = rng or np.random.default_rng()
        self._lock = threading.Lock()
        self._policy: Policy | None = None
        self._sections: dict[str, Rows] = {}
        self._stamp = ""  # of the version that is served
        self._taught = NOTHING_TAUGHT
        self._taught_rows: Mapping[str, bytes] = {}
        self._taught_at = teachings.NO_CHANGE
        self._checked = time.monotonic()
        self._error: str | None = None
        self._said: str | None = None  # of the errors, what was logged or raised last
        self._refused = ("", 0.0, "")  # a version's stamp, until when it is not read again, and why
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._forked = False
        _readers.add(self)

    @property
    def policy(self) -> Policy:
        """The newest policy that was read.

        Raises:
            NoPolicyError: there is no policy yet.
        """
        if self._forked:
            self._resume()
        if self._policy is None:
            self.refresh()
        policy = self._policy
        if policy is None:
            self._said = self._error
            reason = self._error or "nothing has been published to this store yet"
            raise NoPolicyError(f"no policy to serve: {reason}. `backchannel run` publishes one")
        return policy

    @property
    def status(self) -> ReaderStatus:
        """How the reader is doing."""
        if self._forked:
            self._resume()
        version = self._policy.version if self._policy else None
        return ReaderStatus(version, time.monotonic() - self._checked, self._error)

    def refresh(self) -> bool:
        """Check for another version to serve, read the rows that changed, and replace the policy.

        Returns:
            whether another version is served now. Errors are not raised; see `status`.
        """
        with self._lock:
            changed, error = False, None
            try:
                changed, error = self._refresh()
                self._listen()
            except Exception as fault:
                # Of any kind: whoever can write to the store could otherwise end the thread that refreshes.
                error = error or _words(fault)
            self._error = error
        if self._policy is not None:  # otherwise `policy` raises it
            self._log()
        return changed

    def _log(self) -> None:
        """Log what is wrong, unless it was said already."""
        error, said = self._error, self._said
        self._said = error
        if error is not None and error != said:
            logger.warning("%s", error)

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
        pause = min(self._poll_s, TAUGHT_S)
        due = time.monotonic() + self._poll_s
        while not self._stop.wait(pause):
            if time.monotonic() + pause / 2 >= due:
                self.refresh()
                self._log()  # in a service that begins before there is a policy, too
                due = time.monotonic() + self._poll_s
                continue
            with self._lock, suppress(Exception):  # the next refresh says what is wrong
                self._listen()

    def _listen(self) -> None:
        """Read what was taught since the last time, and serve it with the policy."""
        if self._policy is None:
            return
        with self._store.read() as connection:
            rows, at = teachings.read(
                connection,
                self._taught_rows,
                self._taught_at,
                self._keys,
                lambda fault: logger.warning("%s", fault),
                personal=self._personal,
            )
        if at != self._taught_at:
            self._taught = Taught(rows)  # before the rows count as read: it may fail
            self._taught_rows, self._taught_at = rows, at
            self._policy = self._policy.with_taught(self._taught)

    def _refresh(self) -> tuple[bool, str | None]:
        """Return whether another version is served now, and what is wrong."""
        with self._store.read() as connection:
            if self._policy is None:
                self._store.check(connection)
            served = snapshots.current(connection).version
            stamp, retained = self._stamp, []
            if served is not None:
                stamp = snapshots.stamp(connection, served)
                if stamp != self._stamp:
                    retained = snapshots.versions(connection)
        self._checked = time.monotonic()
        if served is None:
            gone = "the store has no version any more: it was emptied, or restored from before the first one"
            return False, gone if self._policy else None
        if stamp == self._stamp:
            return False, None
        refused, until, fault = self._refused
        if stamp == refused and self._checked < until:
            return False, fault
        held = self._policy.version if self._policy else 0
        newest = served if isinstance(served, int) else sys.maxsize  # SQLite would store anything
        older = [one for one in retained if held < one < newest]
        return self._swap([served, *older], stamp)

    def _swap(self, versions: list[int], stamp: str) -> tuple[bool, str | None]:
        """Serve the first of `versions` that loads, and return whether one did, and why the first did not."""
        fault: str | None = None
        for version in versions:
            try:
                # Each in a transaction of its own: an error may end it.
                with self._store.read() as connection:
                    self._policy, self._sections = self._load(connection, version)
            except StoreAwayError:
                raise
            except Exception as error:
                fault = fault or f"version {version} is not served: {_words(error)}"
            else:
                self._stamp = stamp if fault is None else ""
                break
        else:
            version = 0
        if fault is not None:
            self._refused = stamp, time.monotonic() + REFUSED_S, fault
        return bool(version), fault

    def _load(self, connection: Connection, version: int) -> tuple[Policy, dict[str, Rows]]:
        key, header = self._signed(connection, version)
        # The rows that we hold may be damaged, or erased from the store: then all rows are read again.
        held = self._policy.snapshot if self._policy and key == self._key else None
        for base in (held, None) if held else (None,):
            before = self._sections if base else {}
            sections, checksum = self._apply(connection, before, base, header, key)
            if header.confirms(checksum, key, personal=self._personal):
                self._key = key
                similar = self._policy.similar if base and self._policy else self._similar
                if similar is not None:
                    known = sections.get(Memory.name, Rows())
                    similar = similar.updated(known.added_to(before.get(Memory.name, Rows())), known)
                online, rewrites = None, sections.get(Rewriter.name, Rows())
                if Rewriter.is_online(rewrites):
                    held_online = self._policy.online if base and self._policy else None
                    earlier = before.get(Rewriter.name, Rows()) if held_online else Rows()
                    online = held_online or _online_rewrites()
                    online = online.updated(rewrites.added_to(earlier), rewrites) if online else None
                policy = Policy(header, sections, self._rng, similar, self._taught, online=online)
                if self._policy:
                    policy.prepare(self._policy)
                return policy, sections
        if self._personal and header.confirms(checksum, key, personal=False):
            raise CorruptPolicyError(
                "its rows about single users cannot be read: connect as a role that may, or set "
                "serve.personal = false, or PolicyReader(personal=False)"
            )
        raise CorruptPolicyError("its rows do not match the checksum of its header: roll back, or restore the store")

    def _apply(
        self, connection: Connection, sections: dict[str, Rows], held: Snapshot | None, header: Snapshot, key: bytes
    ) -> tuple[dict[str, Rows], Checksum]:
        """Return the sections of the version with `header` and their checksum, from the sections of version `held`."""
        left_out = () if self._personal else header.personal
        changes = snapshots.difference(connection, held.version if held else 0, header.version, left_out)
        removed: defaultdict[str, list[str]] = defaultdict(list)
        live: defaultdict[str, dict[str, bytes]] = defaultdict(dict)
        checksum = held.checksums(key, personal=self._personal) if held else Checksum(key=key)
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

    def _signed(self, connection: Connection, version: int) -> tuple[bytes, Snapshot]:
        """Return the header of a version, and the key that signed it."""
        for key in self._keys:
            try:
                header = snapshots.header(connection, version, key)
            except SignatureError:
                if key == self._keys[-1]:
                    raise
            else:
                if header is None:
                    break
                return key, header
        raise CorruptPolicyError("it is not in the store: roll back, or restore the store")

    def _resume(self) -> None:
        """Go on in a process that was forked."""
        with self._lock:
            if self._forked:
                self._forked = False
                if self._thread is not None:
                    self.start()

    def _after_fork(self) -> None:
        # Other threads are gone, with what they hold; and all children would draw the same numbers.
        self._lock, self._stop = threading.Lock(), threading.Event()
        bits = type(self._rng.bit_generator)
        self._rng = np.random.Generator(bits())
        if self._policy is not None:
            self._policy.reseed(self._rng)
        self._forked = True


_readers: Final[WeakSet[PolicyReader]] = WeakSet()


def _after_fork() -> None:
    for reader in list(_readers):
        reader._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _words(error: Exception) -> str:
    if isinstance(error, ValidationError):  # the rows match their checksum
        return f"another version of Backchannel published it, and this one cannot read it ({error})"
    return str(error) if isinstance(error, BackchannelError) else f"{type(error).__name__}: {error}"


def _similar_queries(guess_from: float) -> Similar:
    try:
        from backchannel.agents.memory.similar import SimilarQueries  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"guess_from={guess_from} needs {error.name}: {install('guess')}, or omit guess_from",
            name=error.name,
        ) from None
    return SimilarQueries(guess_from)


def _online_rewrites() -> Online | None:
    try:
        from backchannel.agents.rewrites.online import OnlineRewrites  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        logger.warning("no online rewrites: they need %s: %s", error.name, install("guess"))
        return None
    return OnlineRewrites()
