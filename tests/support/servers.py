"""Servers to test with, or a reason why there are none."""

import os
from typing import Final, NoReturn

import pytest

from backchannel.ops.local.postgres import Postgres, PostgresError

_NOT_DURABLE: Final = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
"""Settings for a server whose data need not survive a power cut: tests take half the time."""


def missing(what: str) -> NoReturn:
    """Fail on CI, and skip the test elsewhere, because a program to test with is not installed."""
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


def start_postgres(settings: dict[str, str] | None = None) -> Postgres:
    """Start a PostgreSQL server, with `settings` as in postgresql.conf, if it is installed."""
    try:
        return Postgres(_NOT_DURABLE | (settings or {}))
    except PostgresError as error:
        missing(f"no PostgreSQL to test with: {error}")
