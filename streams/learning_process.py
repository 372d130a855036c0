"""A process that learns and commits, so that reading and learning have an interpreter, and a core, each."""

import asyncio
import atexit
import gc
import signal
import traceback
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Final, cast

import msgspec

from backchannel.streams.commits import Batch, Commit, commit
from backchannel.streams.config import Config
from backchannel.streams.learning import Learning
from backchannel.streams.ledger import Ledger
from backchannel.streams.store import Store

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(list[Batch]).decode


class LearningProcess:
    """Starts at once. Ends when it is closed, or with its owner, whatever that one dies of.

    Args:
        url: of the store, SQLAlchemy's.
        config: what to learn, and how.
    """

    def __init__(self, url: str, config: Config) -> None:
        # Spawned, because a fork would take along the threads' locks, but not the threads.
        context = get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process: Final = context.Process(target=_serve, args=(other, url, config), daemon=True)
        self._process.start()
        other.close()
        atexit.register(self._pipe.close)  # before Python waits for it, as it does at its end

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid or 0

    async def started(self) -> None:
        """Wait until it can learn.

        Raises:
            RuntimeError: the process has died.
        """
        await self._answer()

    async def commit(self, batches: Sequence[Batch]) -> Commit:
        """Learn and commit, see `commits.commit`, and raise what that raises. One at a time, not to be cancelled.

        Raises:
            RuntimeError: the process has died.
        """
        with suppress(ConnectionError):
            # Not in a thread, which would have to wait for the interpreter after each of some hundred writes.
            self._pipe.send_bytes(_encode(batches))
        return cast(Commit, await self._answer())

    async def _answer(self) -> Commit | None:
        try:
            answer: Commit | Exception | None = await asyncio.to_thread(self._pipe.recv)
        except (EOFError, ConnectionError):
            self._process.join()
            code = self._process.exitcode
            raise RuntimeError(
                f"the learning process has died: exit code {code}; -9 is a kill, as when memory runs out"
            ) from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        """Let it end, after what it is doing."""
        self._pipe.close()
        self._process.join()
        atexit.unregister(self._pipe.close)


def relax_collector() -> None:
    """Let Python look for reference cycles less often: events, turns and sums make none, and looking costs a fifth.

    A commit's events are some hundred thousand objects, which must not be taken for a reason to look.
    """
    gc.set_threshold(2_000_000, 20, 50)


def _serve(pipe: Connection, url: str, config: Config) -> None:
    # Its owner gets these too, and commits once more before it ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    relax_collector()
    learning, store = Learning(config), Store(url)
    store.create(learning.tables)
    ledger = Ledger(store, learning.tables)
    with suppress(EOFError, ConnectionError):  # its owner has ended
        pipe.send(None)
        while True:
            pipe.send(_outcome(learning, ledger, pipe.recv_bytes()))


def _outcome(learning: Learning, ledger: Ledger, batches: bytes) -> Commit | Exception:
    try:
        return commit(learning, ledger, _decode(batches))
    except Exception as error:
        error.add_note(traceback.format_exc())
        return error
