"""Servers to test with, or a reason why there are none."""

import os
from typing import NoReturn

import pytest

from backchannel.ops.local.postgres import NOT_DURABLE, Postgres, PostgresError


def missing(what: str) -> NoReturn:
    """Fail on CI, and skip the test elsewhere, because a program to test with is not installed."""
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


def start_postgres(settings: dict[str, str] | None = None) -> Postgres:
    """Start a PostgreSQL server, with `settings` as in postgresql.conf, if it is installed."""
    try:
        return Postgres(NOT_DURABLE | (settings or {}))
    except PostgresError as error:
        missing(f"no PostgreSQL to test with: {error}")
