"""The options that commands share: store, configuration, servers, seed, and forms of output."""

import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from backchannel.ops.numbers import FiniteRange
from backchannel.streams.config import Config, ConfigError, load
from backchannel.streams.kafka.config import SERVERS_VARIABLE, KafkaConfig, with_environment
from backchannel.streams.store.engine import Store, StoreError

STORE_VARIABLE = "BACKCHANNEL_STORE"

_Command = TypeVar("_Command", bound=Callable[..., Any] | click.Command)

store_option = click.option(
    "--store",
    default="sqlite:///backchannel.db",
    show_default=True,
    envvar=STORE_VARIABLE,
    show_envvar=True,
    metavar="URL",
    help="The SQL store: sqlite:///FILE, or postgresql://USER@HOST/DATABASE?sslmode=verify-full.",
)

config_option = click.option(
    "--config",
    "config",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=lambda _context, _option, path: _load(path),
    help="Configuration file (TOML); `backchannel config` prints one.  [default: the built-in defaults]",
    metavar="FILE",
)
"""Passes a validated `Config` to the command."""

servers_option = click.option(
    "--servers",
    envvar=SERVERS_VARIABLE,
    show_envvar=True,
    metavar="HOST:PORT",
    help="Kafka brokers, comma-separated.  [default: kafka.servers]",
)

host_option = click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")

log_option = click.option(
    "--log", type=click.Choice(["text", "json"]), default="text", show_default=True, help="Format of the log."
)

seed_option = click.option(
    "--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Seed of all randomness."
)

json_option = click.option("--json", "as_json", is_flag=True, help="Print as JSON.")

guess_option = click.option(
    "--guess-from",
    type=FiniteRange(0.5, 1.0),
    metavar="SIMILARITY",
    help="Answer an unknown query with what is known about the most similar known one, if they are at least this "
    "similar (0.5 to 1), as `PolicyReader` does with `guess_from`.  [default: do not guess]",
)


def port_option(default: int) -> Callable[[_Command], _Command]:
    """Return the option `--port` with a default."""
    return click.option(
        "--port",
        type=click.IntRange(0, 65_535),
        default=default,
        show_default=True,
        help="Port to listen on; 0 takes any free port.",
    )


def kafka_config(config: Config, servers: str | None) -> KafkaConfig:
    """Return how to reach Kafka: `--servers` overrides the environment, which overrides the file.

    Raises:
        click.UsageError: a setting is invalid; the message names it.
    """
    try:
        return with_environment(config.kafka, {**os.environ, SERVERS_VARIABLE: servers or ""})
    except ValueError as error:
        raise click.UsageError(f"Kafka settings: {error}") from None


@contextmanager
def opened_store(url: str, *, create: bool = False, check: bool = True) -> Iterator[Store]:
    """Open a store for the duration of a `with` block.

    Args:
        url: SQLAlchemy URL of the store.
        create: whether to create a missing store.
        check: whether to check that this version of Backchannel can use the store.

    Raises:
        click.BadParameter: the URL is invalid, or its driver is not installed.
        StoreError: the store cannot be used.
    """
    try:
        opened = Store(url)
    except StoreError as error:
        raise click.BadParameter(str(error), param_hint="--store") from None
    with closing(opened) as store:
        if create:
            store.create([])
        if check:
            with store.read() as connection:
                store.check(connection)
        yield store


def _load(path: Path | None) -> Config:
    if path is None:
        return Config()
    try:
        return load(path)
    except ConfigError as error:
        raise click.BadParameter(str(error)) from None
