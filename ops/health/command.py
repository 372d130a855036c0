"""`backchannel health`: one screen that shows how a running system is doing, and what to do about it."""

import queue
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar

import click
from msgspec import structs
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from backchannel.ops.exit_codes import FAILED, INCOMPLETE
from backchannel.ops.health.check import Check, Facts
from backchannel.ops.health.checks import CHECKS, judge, worst
from backchannel.ops.options import config_option, json_option, kafka_config, opened_store, servers_option, store_option
from backchannel.ops.terminal import print_json
from backchannel.schemas.errors import BackchannelError
from backchannel.streams.config import Config
from backchannel.streams.monitoring.vitals import read_brokers, read_store, without_markers
from backchannel.streams.store.engine import Store

PATIENCE_S: Final = 2.5
"""Seconds within which store and brokers must answer, so that the command, start-up included, takes less than five."""

WATCH_S: Final = 2.0
"""Seconds between two refreshes of `--watch`."""

_STYLES: Final = {"ok": "green", "warn": "yellow", "critical": "bold red"}
_CODES: Final = {"ok": 0, "warn": INCOMPLETE, "critical": FAILED}
_T = TypeVar("_T")


def _ask(question: Callable[[], _T]) -> Callable[[float], _T | str]:
    """Ask `question`, which may hang, in a thread that is abandoned if it does.

    Returns:
        A function that waits until a given monotonic time (s), and returns the answer, or why there is none.
    """
    answers: queue.SimpleQueue[_T | str] = queue.SimpleQueue()

    def run() -> None:
        try:
            answers.put(question())
        except BackchannelError as error:
            answers.put(str(error))
        except Exception as error:  # drivers raise anything, and health must report it
            answers.put(f"{type(error).__name__}: {error}")

    def wait(until: float) -> _T | str:
        try:
            return answers.get(timeout=max(until - time.monotonic(), 0))
        except queue.Empty:
            return f"no answer within {PATIENCE_S:g} s"

    threading.Thread(target=run, daemon=True).start()
    return wait


def gather(store: Store, config: Config) -> Facts:
    """Ask store and brokers, within `PATIENCE_S`; `config` holds the complete Kafka settings."""
    now = time.time_ns() // 1_000_000
    until = time.monotonic() + PATIENCE_S
    asked_store, asked_brokers = _ask(lambda: read_store(store, now)), _ask(lambda: read_brokers(config.kafka))
    found, brokers = asked_store(until), asked_brokers(until)
    if not isinstance(found, str) and not isinstance(brokers, str):
        passed = _ask(partial(without_markers, config.kafka, found, brokers))(until)
        brokers = brokers if isinstance(passed, str) else passed
    return Facts(now, found, brokers)


@click.command("health")
@store_option
@config_option
@servers_option
@json_option
@click.option("--watch", is_flag=True, help="Refresh until Ctrl-C.")
@click.option(
    "--check", "names", type=click.Choice(list(CHECKS)), multiple=True, help="Run this check only; repeatable."
)
def health(
    *, store: str, config: Config, servers: str | None, as_json: bool, watch: bool, names: tuple[str, ...]
) -> None:
    """Check how the system is doing, and what to do about it.

    It asks the brokers and the store, never a worker, and answers within five seconds even if both hang. Section
    [health] of the configuration sets the bounds.

    \b
    Exit code: 0 all is well; 3 a warning; 1 something is broken; 2 the command or the configuration is wrong.
    As a liveness probe: backchannel health --check workers --check commits
    Without brokers: backchannel health --check policy --check losses --check store --check drift
    """
    config = structs.replace(config, kafka=kafka_config(config, servers))

    with opened_store(store, check=False) as opened:

        def checks() -> list[Check]:
            return judge(gather(opened, config), config, names)

        if watch and not as_json:
            _watch(checks)
        found = checks()
    if as_json:
        report = {"status": worst(found), "checks": found}
        print_json(report)
    else:
        Console().print(_screen(found))
    sys.exit(_CODES[worst(found)])


def _watch(checks: Callable[[], list[Check]]) -> None:
    try:
        with Live(console=Console(), screen=True, auto_refresh=False) as live:
            while True:
                live.update(_screen(checks()), refresh=True)
                time.sleep(WATCH_S)
    except KeyboardInterrupt:
        pass


def _screen(checks: list[Check]) -> Group:
    """Lay out the checks, with the overall status last, next to the prompt."""
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
    return Group(table, Text(f"\nOverall: {status}", _STYLES[status]))
