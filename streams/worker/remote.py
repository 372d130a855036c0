"""Objects in separate processes, so that long computations have an interpreter and a core to themselves."""

import asyncio
import atexit
import ctypes
import gc
import logging
import pickle
import signal
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from logging.handlers import QueueHandler
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from queue import SimpleQueue
from typing import Any, Final, TypeAlias

logger = logging.getLogger(__name__)

BEAT_S: Final = 1.0
"""Seconds between two heartbeats of a process."""

SILENT_BEATS: Final = 15
"""Missed heartbeats before the process is reported as hanging: suspended, or waiting for the interpreter
lock. They are counted here, so that no process is blamed when all of them were suspended together."""

KILLED_BEATS: Final = 60
"""Missed heartbeats before the process is killed. Whatever it was doing is fenced, like any commit."""

START_BEATS: Final = 120
"""Missed heartbeats allowed before the first one: importing what the object needs takes seconds."""

BUSY_S: Final = 120.0
"""Interval, s, at which a call that is still running is logged."""

STOP_S: Final = 10.0
"""Seconds for a closing process to end its current call before it is killed."""

PIPE_BYTES: Final = 1 << 20
"""Bytes of a call that can be sent without waiting for a busy process, where the system allows so large a pipe."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_KEPT: Final = 1 << 25
"""Bytes of the largest array whose memory is kept, and half of what is kept: glibc comes to that by itself, but only
once it has freed such an array, and would begin with 128 KiB."""

_Answer: TypeAlias = tuple[Any, Exception | None, list[logging.LogRecord]]
"""The result of a call, its error, and the records logged meanwhile."""


class RemoteObject:
    """An object in another process, which starts when the object is first called.

    The process ends when it is closed, or when its owner exits, however it exits. One that hangs is killed, which ends
    its owner, too. Its log records are logged here. A call is sent while the one before it is being made, so the
    process need not wait for its owner in between.

    Args:
        name: name of the process, for error messages.
        make: a function or class at the top level of a module, called in the process to make the object.
        args: the arguments of `make`.
    """

    def __init__(self, name: str, make: Callable[..., object], *args: object) -> None:
        # Spawned, because a fork would copy the threads' locks, but not the threads.
        context = get_context("spawn")
        theirs, self._requests = context.Pipe(duplex=False)
        self._answers, answers = context.Pipe(duplex=False)
        self._theirs: Final = theirs, answers
        self._beats: Final = context.Value("Q", 0, lock=False)
        self._process: Final = context.Process(
            target=_serve, name=name, args=(theirs, answers, self._beats, make, args), daemon=True
        )
        # Not more: only the first call's answer is read while another call is sent. The process could not send a long
        # second answer to an owner that waits to send it a long third call.
        self._sending: Final = asyncio.Semaphore(2)
        self._answering: Final = asyncio.Lock()
        self._missing = 0  # heartbeats
        self._hung = False
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

    @property
    def stuck(self) -> str | None:
        """Why the process seems to hang, in words; None if it does not."""
        if self._missing < SILENT_BEATS or not self._beats.value:
            return None
        return f"the {self._process.name} process has sent no heartbeat for {self._missing * BEAT_S:g} s"

    def close(self) -> None:
        """End the process after its current call, or kill it if that takes too long."""
        self._requests.close()
        atexit.unregister(self._requests.close)
        if self._process.pid is None:
            return
        self._process.join(STOP_S)
        if self._process.exitcode is None:
            logger.warning("the %s process has not ended within %g s and is killed", self._process.name, STOP_S)
            self._process.kill()
            self._process.join()

    async def _ask(self, method: str | None, *args: object) -> Any:
        return await asyncio.shield(asyncio.create_task(self._call(method, args)))

    async def _call(self, method: str | None, args: tuple[object, ...]) -> Any:
        async with self._sending:
            if self._process.pid is None:
                self._start()
            with suppress(ConnectionError):
                # Not in a thread, which would wait for the interpreter lock after each of hundreds of writes.
                self._requests.send((method, args))
            async with self._answering:
                busy = asyncio.create_task(self._say_if_busy(method or "starting"))
                try:
                    answer: _Answer = await asyncio.to_thread(self._answers.recv)
                except (EOFError, ConnectionError):
                    self._process.join()
                    raise RuntimeError(f"the {self._process.name} process has died: {self._cause()}") from None
                finally:
                    busy.cancel()
        result, error, records = answer
        for record in records:
            logging.getLogger(record.name).handle(record)
        if error is not None:
            raise error
        return result

    def _start(self) -> None:
        self._process.start()
        # Not a task: none runs while a call is sent to a process that hangs.
        threading.Thread(target=self._watch_over, daemon=True).start()
        for pipe in self._theirs:
            pipe.close()
        with suppress(ImportError, OSError):  # another system, or one that does not allow as much
            from fcntl import F_SETPIPE_SZ, fcntl  # noqa: PLC0415 - Windows has no such module

            fcntl(self._requests.fileno(), F_SETPIPE_SZ, PIPE_BYTES)

    def _cause(self) -> str:
        code = self._process.exitcode or 0
        if self._hung:
            return "it sent no heartbeat, and was killed"
        if code == -signal.SIGKILL:
            return "exit code -9, a kill, as when memory runs out"
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}; its error is above"

    def _watch_over(self) -> None:
        seen = 0
        while not wait([self._process.sentinel], BEAT_S):
            beats = self._beats.value
            self._missing = 0 if beats != seen else self._missing + 1
            seen = beats
            if self._missing == SILENT_BEATS and seen:
                logger.warning("%s", self.stuck)
            if self._missing >= (KILLED_BEATS if seen else START_BEATS):
                self._hung = True
                self._process.kill()
                return

    async def _say_if_busy(self, call: str) -> None:
        started = time.monotonic()
        while True:
            await asyncio.sleep(BUSY_S)
            logger.warning(
                "the %s process is still busy: %s has taken %.0f s so far",
                self._process.name,
                call,
                time.monotonic() - started,
            )


def tune_memory() -> None:
    """Make Python collect reference cycles less often, and glibc keep what arrays free.

    Events, turns and sums have no cycles, and collecting takes a fifth of the time: a commit's events are some hundred
    thousand objects, which must not trigger a collection. Arrays are of the same sizes in every batch: getting their
    memory from the system each time takes a fifteenth of the time of learning.
    """
    gc.set_threshold(2_000_000, 20, 50)
    with suppress(AttributeError, TypeError):  # another C library; Windows knows no handle of the process itself
        keep = ctypes.CDLL(None).mallopt
        keep(_M_MMAP_THRESHOLD, _KEPT)
        keep(_M_TRIM_THRESHOLD, 2 * _KEPT)


def _serve(
    requests: Connection, answers: Connection, beats: Any, make: Callable[..., object], args: tuple[object, ...]
) -> None:
    threading.Thread(target=_beat, args=(beats,), daemon=True).start()
    # The owner receives these signals too, and calls once more before it ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    tune_memory()
    logged: SimpleQueue[logging.LogRecord] = SimpleQueue()
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[QueueHandler(logged)])
    one, fault = _attempt(make, *args)
    with suppress(EOFError, ConnectionError):  # the owner has ended
        while True:
            method, given = requests.recv()
            result, error = (None, fault) if fault or method is None else _attempt(getattr(one, method), *given)
            answers.send((result, error, [logged.get() for _ in range(logged.qsize())]))


def _beat(beats: Any) -> None:
    while True:
        beats.value += 1
        time.sleep(BEAT_S)


def _attempt(call: Callable[..., Any], *args: object) -> tuple[Any, Exception | None]:
    try:
        return call(*args), None
    except Exception as error:
        sent: Exception = error
        try:
            pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
        except Exception:  # some errors cannot be pickled
            sent = RuntimeError(f"{type(error).__name__}: {error}")
        sent.add_note(traceback.format_exc())
        return None, sent
