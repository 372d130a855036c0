"""`backchannel health`: one screen that says how a running system does, and what to do about it."""

import queue
import sys
import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar

import click
import msgspec
from msgspec import structs
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from backchannel.ops.commands.config import config_option
from backchannel.ops.commands.topics import kafka_config, servers_option
from backchannel.ops.health.checks import CHECKS, STATUSES, Check, Facts, judge, worst
from backchannel.ops.options import store_option
from backchannel.streams.config import Config
from backchannel.streams.kafka.topics import TopicError
from backchannel.streams.monitoring.vitals import read_brokers, read_store
from backchannel.streams.store.engine import StoreError

PATIENCE_S: Final = 2.5
"""Seconds in which store and brokers must answer, so that the command itself, which has to start, does within five."""

WATCH_S: Final = 2.0
"""Seconds between two looks of `--watch`."""

_STYLES: Final = {"ok": "green", "warn": "yellow", "critical": "bold red"}
_T = TypeVar("_T")


def _ask(question: Callable[[], _T]) -> Callable[[float], _T | str]:
    """Ask something that may hang, in a thread that is left behind if it does.

    Returns:
        a function that waits until a monotonic time and returns the answer, or why there is none.
    """
    answers: queue.SimpleQueue[_T | str] = queue.SimpleQueue()

    def run() -> None:
        try:
            answers.put(question())
        except (StoreError, TopicError) as error:
            answers.put(str(error))
        except Exception as error:  # whatever a driver raises, health has to be told
            answers.put(f"{type(error).__name__}: {error}")

    def wait(until: float) -> _T | str:
        try:
            return answers.get(timeout=max(until - time.monotonic(), 0))
        except queue.Empty:
            return f"no answer within {PATIENCE_S:g} s"

    threading.Thread(target=run, daemon=True).start()
    return wait


def look(store: str, config: Config) -> list[Check]:
    """Return all checks, after `PATIENCE_S` at the latest.

    Args:
        store: its URL.
        config: with the bounds, and with Kafka's settings complete.
    """
    now = time.time_ns() // 1_000_000
    until = time.monotonic() + PATIENCE_S
    asked_store, asked_brokers = _ask(lambda: read_store(store, now)), _ask(lambda: read_brokers(config.kafka))
    return judge(Facts(now, asked_store(until), asked_brokers(until)), config)


@click.command("health")
@store_option
@config_option
@servers_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, with all numbers.")
@click.option("--watch", is_flag=True, help="Look again and again, until Ctrl-C.")
@click.option("--check", "names", type=click.Choice(list(CHECKS)), multiple=True, help="Look at this only; repeatable.")
def health(
    *, store: str, config: Config, servers: str | None, as_json: bool, watch: bool, names: tuple[str, ...]
) -> None:
    """Check how the system is doing, and say what to do about it.

    It looks at the brokers and at the store, never at a worker, and answers within five seconds even if both hang. The
    bounds are in the section [health] of the configuration.

    \b
    Exit code: 0 all is well; 1 something is worth a look; 2 something is broken.
    For a probe: backchannel health --check workers --check commits
    For a store of `backchannel run`, without brokers: backchannel health --check policy --check store --check drift
    """
    config = structs.replace(config, kafka=kafka_config(config, servers))

    def checks() -> list[Check]:
        return [check for check in look(store, config) if check.name in names or not names]

    if watch and not as_json:
        _watch(checks)
    found = checks()
    if as_json:
        report = {"status": worst(found), "checks": found}
        click.echo(msgspec.json.format(msgspec.json.encode(report)))
    else:
        Console().print(_screen(found))
    sys.exit(STATUSES.index(worst(found)))


def _watch(checks: Callable[[], list[Check]]) -> None:
    try:
        with Live(console=Console(), screen=True, auto_refresh=False) as live:
            while True:
                live.update(_screen(checks()), refresh=True)
                time.sleep(WATCH_S)
    except KeyboardInterrupt:
        pass


def _screen(checks: list[Check]) -> Group:
    """What is worst comes last, next to the prompt."""
    status = worst(checks)
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for check in checks:
        said = Text(check.summary)
        if check.remedy:
            said.append(f"\n-> {check.remedy}", "italic")
        table.add_row(Text(check.status, _STYLES[check.status]), Text(check.name), said)
    return Group(table, Text(f"\nAll in all: {status}", _STYLES[status]))
