"""Objects in separate processes, so that long computations have an interpreter and a core to themselves."""

import asyncio
import atexit
import gc
import logging
import signal
import traceback
from collections.abc import Callable
from contextlib import suppress
from logging.handlers import QueueHandler
from multiprocessing import get_context
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any, Final, TypeAlias

_Answer: TypeAlias = tuple[Any, Exception | None, list[logging.LogRecord]]
"""The result of a call, its error, and the records logged meanwhile."""


class RemoteObject:
    """An object in another process, which starts when the object is first called.

    The process ends when it is closed, or with its owner, however its owner exits. Its log records are logged here.

    Args:
        name: name of the process, for error messages.
        make: function or class at the top level of a module, called in the process to make the object.
        args: arguments of `make`.
    """

    def __init__(self, name: str, make: Callable[..., object], *args: object) -> None:
        # Spawned, because a fork would copy the threads' locks, but not the threads.
        context = get_context("spawn")
        theirs, self._requests = context.Pipe(duplex=False)
        self._answers, answers = context.Pipe(duplex=False)
        self._theirs: Final = theirs, answers
        self._process: Final = context.Process(
            target=_serve, name=name, args=(theirs, answers, make, args), daemon=True
        )
        self._lock: Final = asyncio.Lock()
        atexit.register(self._requests.close)  # before Python waits for the process on exit

    async def started(self) -> None:
        """Wait until the object is made.

        Raises:
            RuntimeError: the process has died.
        """
        await self._ask(None)

    async def call(self, method: str, *args: object) -> Any:
        """Call a method of the object, after earlier calls, and return its result, or raise its error.

        The call is made even if the caller is cancelled meanwhile.

        Raises:
            RuntimeError: the process has died.
        """
        return await self._ask(method, *args)

    def close(self) -> None:
        """End the process after its current call."""
        self._requests.close()
        atexit.unregister(self._requests.close)
        if self._process.pid is not None:
            self._process.join()

    async def _ask(self, method: str | None, *args: object) -> Any:
        return await asyncio.shield(asyncio.create_task(self._call(method, args)))

    async def _call(self, method: str | None, args: tuple[object, ...]) -> Any:
        async with self._lock:
            if self._process.pid is None:
                self._process.start()
                for pipe in self._theirs:
                    pipe.close()
            with suppress(ConnectionError):
                # Not in a thread, which would wait for the interpreter lock after each of hundreds of writes.
                self._requests.send((method, args))
            try:
                answer: _Answer = await asyncio.to_thread(self._answers.recv)
            except (EOFError, ConnectionError):
                self._process.join()
                died = f"the {self._process.name} process has died: exit code {self._process.exitcode}"
                raise RuntimeError(f"{died}; -9 is a kill, as when memory runs out") from None
        result, error, records = answer
        for record in records:
            logging.getLogger(record.name).handle(record)
        if error is not None:
            raise error
        return result


def relax_collector() -> None:
    """Make Python collect reference cycles less often: events, turns and sums have none, and collecting costs a fifth.

    A commit's events are some hundred thousand objects, which must not trigger a collection.
    """
    gc.set_threshold(2_000_000, 20, 50)


def _serve(requests: Connection, answers: Connection, make: Callable[..., object], args: tuple[object, ...]) -> None:
    # The owner receives these signals too, and calls once more before it ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    relax_collector()
    logged: SimpleQueue[logging.LogRecord] = SimpleQueue()
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[QueueHandler(logged)])
    one = make(*args)
    with suppress(EOFError, ConnectionError):  # the owner has ended
        while True:
            answers.send((*_attempt(one, *requests.recv()), [logged.get() for _ in range(logged.qsize())]))


def _attempt(one: object, method: str | None, args: tuple[object, ...]) -> tuple[Any, Exception | None]:
    try:
        return (None if method is None else getattr(one, method)(*args)), None
    except Exception as error:
        error.add_note(traceback.format_exc())
        return None, error
