"""The one process of a host that asks people: the one that holds a lock."""

import fcntl
import os
import tempfile
from hashlib import blake2b
from pathlib import Path
from threading import Lock
from typing import Final

from backchannel.agents.satisfaction.asking import AskConfig, Asker
from backchannel.agents.satisfaction.budget import Budget


class HostAsker:
    """Gives an `Asker` to one process of the host at a time, so that none asks what another has asked.

    The operating system frees the lock when its process ends, however it ends; then another one takes it, and asks from
    the next window of the budget on.

    Args:
        config: when people are asked.
        path: the file to lock.
    """

    def __init__(self, config: AskConfig, path: Path) -> None:
        self._config: Final = config
        self._path: Final = path
        self._lock: Final = Lock()
        self._file: int | None = None
        self._asker: Asker | None = None

    def current(self, now: int) -> Asker | None:
        """Return what decides when to ask at `now`, ms since the Unix epoch; None: another process asks, or nobody."""
        config = self._config
        if not (config.probability or config.teach):
            return None
        with self._lock:
            if self._asker is None and self._holds():
                self._asker = Asker(config, Budget(config.per_day, now, config.replica, config.replicas))
            return self._asker

    def close(self) -> None:
        """Free the lock."""
        with self._lock:
            if self._file is not None:
                os.close(self._file)
            self._file = self._asker = None

    def _holds(self) -> bool:
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError:  # the folder is shared: somebody else may have put something there
            return False
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(file)
            return False
        self._file = file
        return True


def lock_of(store: str) -> Path:
    """Return the file that the processes of this host that serve a store, and run as this user, lock."""
    digest = blake2b(store.encode(), digest_size=8).hexdigest()
    return Path(tempfile.gettempdir()) / f"backchannel-ask-{os.getuid()}-{digest}.lock"
