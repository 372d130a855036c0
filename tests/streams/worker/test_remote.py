"""Remote objects answer in order, and do not outlive their owner."""

import asyncio
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from contextlib import closing
from typing import Any

import pytest

from backchannel.streams.worker import remote
from backchannel.streams.worker.remote import RemoteObject


class Sum:
    """An object to call."""

    def __init__(self, total: int) -> None:
        self.total = total

    def add(self, number: int, seconds: float = 0.0) -> int:
        time.sleep(seconds)
        self.total += number
        logging.getLogger("sum").warning("it is %d", self.total)
        return self.total

    def echo(self, text: str) -> str:
        return text

    def divide(self, number: int) -> float:
        return self.total / number


def fail(_: int) -> None:
    raise ValueError("no such value")


class StrangeError(Exception):
    """An error that cannot be unpickled."""

    def __init__(self, one: int, other: int) -> None:
        super().__init__("no such thing")


def fail_strangely(_: int) -> None:
    raise StrangeError(1, 2)


def run(scenario: Callable[[RemoteObject], Coroutine[Any, Any, None]], make: Callable[[int], object] = Sum) -> None:
    with closing(RemoteObject("summing", make, 1)) as apart:
        asyncio.run(scenario(apart))


def test_calls_are_made_in_order_and_what_is_logged_there_is_logged_here(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(apart: RemoteObject) -> None:
        await apart.started()
        assert await asyncio.gather(*(apart.call("add", number) for number in (1, 2, 3))) == [2, 4, 7]

    run(scenario)
    assert caplog.messages == ["it is 2", "it is 4", "it is 7"]


def test_an_error_is_raised_here_with_where_it_was() -> None:
    async def scenario(apart: RemoteObject) -> None:
        with pytest.raises(ZeroDivisionError) as raised:
            await apart.call("divide", 0)
        assert "self.total / number" in raised.value.__notes__[0]
        assert await apart.call("divide", 2) == 0.5

    run(scenario)


def test_a_call_that_was_cancelled_is_made_all_the_same() -> None:
    async def scenario(apart: RemoteObject) -> None:
        await apart.started()
        adding = asyncio.create_task(apart.call("add", 1, 0.2))
        await asyncio.sleep(0.05)
        adding.cancel()
        await asyncio.wait([adding])
        assert await apart.call("add", 1) == 3

    run(scenario)


def test_long_calls_and_long_answers_do_not_wait_for_one_another() -> None:
    long = "x" * (4 * remote.PIPE_BYTES)

    async def scenario(apart: RemoteObject) -> None:
        await apart.started()
        assert await asyncio.gather(*(apart.call("echo", long) for _ in range(3))) == [long] * 3

    run(scenario)


def test_signals_are_for_its_owner() -> None:
    """Service managers and terminals send signals to all processes of a group."""

    async def scenario(apart: RemoteObject) -> None:
        await apart.started()
        (process,) = multiprocessing.active_children()
        os.kill(process.pid or 0, signal.SIGTERM)
        os.kill(process.pid or 0, signal.SIGINT)
        assert await apart.call("add", 1) == 2

    run(scenario)


def test_its_death_is_an_error() -> None:
    async def scenario(apart: RemoteObject) -> None:
        await apart.started()
        (process,) = multiprocessing.active_children()
        process.kill()
        for _ in range(2):
            with pytest.raises(RuntimeError, match="the summing process has died: exit code -9"):
                await apart.call("add", 1)

    run(scenario)


@pytest.mark.parametrize(("make", "error"), [(fail, ValueError), (fail_strangely, RuntimeError)])
def test_so_is_that_it_cannot_be_made(make: Callable[[int], None], error: type[Exception]) -> None:
    """The error is the object's own: nobody is sent to look for a lack of memory."""

    async def scenario(apart: RemoteObject) -> None:
        for _ in range(2):
            with pytest.raises(error, match="no such") as raised:
                await apart.started()
            assert "-9" not in str(raised.value)

    run(scenario, make)


@pytest.mark.parametrize("method", ["add", "echo"])
def test_one_that_hangs_is_said_and_killed(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if it has to read a call that is longer than what a pipe holds."""
    monkeypatch.setattr(remote, "SILENT_BEATS", 2)
    monkeypatch.setattr(remote, "KILLED_BEATS", 4)

    async def scenario(apart: RemoteObject) -> None:
        await apart.started()
        (process,) = multiprocessing.active_children()
        os.kill(process.pid or 0, signal.SIGSTOP)
        waiting = asyncio.create_task(apart.call(method, "x" * (4 * remote.PIPE_BYTES) if method == "echo" else 1))
        with pytest.raises(RuntimeError, match="died: it sent no heartbeat"):
            await waiting
        assert "no heartbeat" in (apart.stuck or "")

    run(scenario)


def test_a_stop_has_a_limit(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(remote, "STOP_S", 0.2)

    async def scenario(apart: RemoteObject) -> None:
        await apart.started()
        (process,) = multiprocessing.active_children()
        os.kill(process.pid or 0, signal.SIGSTOP)
        waiting = asyncio.create_task(apart.call("add", 1))
        await asyncio.sleep(0.1)
        apart.close()
        assert process.exitcode == -signal.SIGKILL
        with pytest.raises(RuntimeError, match="has died"):
            await waiting

    run(scenario)
    assert "is killed" in caplog.text


OWNER = """
import asyncio, os, signal, sys
from backchannel.streams.worker.remote import RemoteObject

async def live():
    apart = RemoteObject("adding", list)
    await apart.started()
    print("started", flush=True)
    if sys.argv[1] == "killed":
        os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    asyncio.run(live())
"""


@pytest.mark.parametrize("how", ["killed", "without closing it"])
def test_it_ends_with_its_owner(how: str) -> None:
    """The output ends once every process that could write to it has ended."""
    owner = subprocess.run([sys.executable, "-c", OWNER, how], stdout=subprocess.PIPE, text=True, check=False)
    assert owner.stdout == "started\n"
    assert owner.returncode == (-signal.SIGKILL if how == "killed" else 0)
