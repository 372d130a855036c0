"""The processes of the service: those that answer and, with a journal, the one that learns."""

import atexit
import gc
import logging
import multiprocessing
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Final, Literal

from granian import Granian
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from litestar.types import ASGIApp
from msgspec import Struct

from backchannel.ops.terminal import log_to_stderr
from backchannel.ops.web.addresses import check_address
from backchannel.schemas.errors import BackchannelError
from backchannel.streams.config import Config
from backchannel.streams.worker.remote import tune_memory

logger = logging.getLogger(__name__)

HEADERS_MS: Final = 10_000
"""Milliseconds within which the headers of a request must arrive."""

BACKLOG: Final = 1024
DRAIN_S: Final = 15
"""Seconds for a stopping process to finish the requests that it has begun."""

RESTART_S: Final = 2.0
"""Seconds before a dead learning process is restarted."""

LISTEN_POLL_S: Final = 0.05
"""Seconds between attempts to connect to a service that starts."""


class Plan(Struct, frozen=True, kw_only=True):
    """The settings of the processes, sent to each of them.

    Attributes:
        store: SQLAlchemy URL of the store.
        config: the configuration, with complete Kafka settings.
        events: the destination of events.
        journal: the folder of the journal.
        tokens: the accepted tokens; without any, only this machine may call.
        guess_from: see `PolicyReader`.
        log: the format of the log.
        host, port: the address to listen on.
        processes: the number of processes that answer.
    """

    store: str
    config: Config
    events: Literal["journal", "kafka", "none"]
    journal: Path
    tokens: tuple[str, ...]
    guess_from: float | None
    log: Literal["text", "json"]
    host: str
    port: int
    processes: int


def run(plan: Plan, listening: Callable[[], None]) -> None:
    """Serve until SIGTERM or SIGINT; then finish the requests in progress, and learn from all accepted events.

    Args:
        plan: the settings of the processes.
        listening: called once connections are accepted, in a thread.

    Raises:
        AddressError: the port is taken, or the address is not this machine's.
        LearningError: the store or the journal cannot be used.
    """
    multiprocessing.set_start_method("spawn", force=True)  # a fork would copy threads' locks, but not the threads
    check_address(plan.host, plan.port)
    with tempfile.TemporaryDirectory(prefix="backchannel-") as folder, ExitStack() as stack:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        if plan.events == "journal":
            learning = Learning(plan)
            stack.callback(learning.close)
        server = Granian(
            "backchannel",
            address=plan.host,
            port=plan.port,
            interface=Interfaces.ASGI,
            workers=plan.processes,
            http=HTTPModes.http1,
            http1_settings=HTTP1Settings(header_read_timeout=HEADERS_MS),
            websockets=False,
            backlog=BACKLOG,
            log_enabled=False,
            respawn_failed_workers=True,
            workers_kill_timeout=DRAIN_S,
        )
        server.on_startup(threading.Thread(target=_when_listening, args=(plan, listening), daemon=True).start)
        server.serve(target_loader=partial(make, plan), wrap_loader=False)


def _when_listening(plan: Plan, listening: Callable[[], None]) -> None:
    """Call `listening` once connections are accepted, which is when the first process is ready."""
    while True:
        with suppress(OSError):
            socket.create_connection((plan.host, plan.port), timeout=1).close()
            break
        time.sleep(LISTEN_POLL_S)
    listening()


def make(plan: Plan) -> ASGIApp:
    """Make the application of one process, in that process."""
    from backchannel.ops.serve.answering import application_of  # noqa: PLC0415 - metrics need the folder first

    log_to_stderr(plan.log)
    end_with_parent(lambda: os.kill(os.getpid(), signal.SIGTERM))
    # Everything is closed by then, and granian's threads abort if Python's interpreter is taken down under them.
    atexit.register(os._exit, 0)
    app = application_of(plan)
    tune_memory()
    gc.collect()
    gc.freeze()
    return app


class LearningError(BackchannelError, RuntimeError):
    """The learning process cannot start. The message says why and what to do."""


class Learning:
    """Keeps a process running that learns from the journal.

    Args:
        plan: the settings of the process.

    Raises:
        LearningError: the process cannot start.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan: Final = plan
        self._closing: Final = threading.Event()
        self._process, fault = self._start()
        if fault is not None:
            self._process.join()
            raise LearningError(fault)
        self._watch: Final = threading.Thread(target=self._keep, name="backchannel-learning", daemon=True)
        self._watch.start()

    def close(self) -> None:
        """Stop after learning from everything in the journal."""
        self._closing.set()
        self._process.terminate()
        self._watch.join()

    def _start(self) -> tuple[BaseProcess, str | None]:
        """Start the process; return it, and why it does not learn, or None."""
        context = multiprocessing.get_context("spawn")
        begun, theirs = context.Pipe(duplex=False)
        process = context.Process(target=learn, args=(self._plan, theirs), name="backchannel-learn", daemon=True)
        process.start()
        theirs.close()
        with closing(begun):
            try:
                return process, begun.recv()
            except EOFError:
                return process, "the learning process ended before it began to learn: see the log"

    def _keep(self) -> None:
        fault: str | None = None
        while True:
            self._process.join()
            if self._closing.is_set():
                return
            said = fault or f"the learning process has died: exit code {self._process.exitcode}"
            logger.error("%s; restarting it", said)
            if self._closing.wait(RESTART_S):
                return
            self._process, fault = self._start()
            if self._closing.is_set():  # meanwhile
                self._process.terminate()


def learn(plan: Plan, begun: Connection) -> None:
    """Learn from the journal until SIGTERM, or until the parent is gone: the main function of the learning process.

    Args:
        plan: the settings of the process.
        begun: receives None once learning has begun, or else the reason why it cannot.
    """
    stop = threading.Event()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process, and this one must end last
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    log_to_stderr(plan.log)
    tune_memory()
    end_with_parent(stop.set)
    try:
        from backchannel.streams.journal.learner import JournalLearner  # noqa: PLC0415 - imports all that learns

        learner = JournalLearner(plan.store, plan.config, plan.journal)
    except (BackchannelError, ModuleNotFoundError) as error:
        with suppress(OSError):
            begun.send(str(error))
        return
    with suppress(OSError):
        begun.send(None)
    begun.close()
    with closing(learner):
        learner.run(stop)


def end_with_parent(end: Callable[[], None]) -> None:
    """Call `end` when the parent process is gone, however it ended."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        end()

    threading.Thread(target=watch, name="backchannel-parent", daemon=True).start()
