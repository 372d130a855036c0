"""What the tests share."""

import os
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import settings
from sqlalchemy import create_engine

from backchannel.ops.local.postgres import NOT_DURABLE, Postgres, PostgresError

# How long an example takes says more about the machine than about us. On CI the examples are always the same ones: new
# ones are sought where somebody looks.
settings.register_profile("ours", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("ours")

_BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def public_log() -> Callable[[str], Path]:
    """Return a function that finds a public log by its path within the data folder, or skips the test, saying why.

    The folder is ../shared/data, seen from the repository, or else what BACKCHANNEL_DATA names.
    """
    folder = _BESIDE if _BESIDE.is_dir() else Path(os.environ.get("BACKCHANNEL_DATA", _BESIDE))

    def find(name: str) -> Path:
        if not (folder / name).exists():
            pytest.skip(f"no {folder / name}: set BACKCHANNEL_DATA to the folder that holds {name}")
        return folder / name

    return find


def missing(what: str) -> NoReturn:
    """Something to test with is not installed: a failure on CI; elsewhere the test is skipped."""
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


def start_postgres(settings: dict[str, str] | None = None) -> Postgres:
    """Start a server, if there is one to start."""
    try:
        return Postgres(NOT_DURABLE | (settings or {}))
    except PostgresError as error:
        missing(f"no PostgreSQL to test with: {error}")


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """URL of the PostgreSQL that BACKCHANNEL_POSTGRES names, or of one that runs as long as the tests."""
    if given := os.environ.get("BACKCHANNEL_POSTGRES"):
        yield given
        return
    with start_postgres() as server:
        yield server.url


@pytest.fixture(scope="session")
def new_schema(postgres_url: str) -> Iterator[Callable[[], str]]:
    """Returns the URL of an empty schema of its own in PostgreSQL, dropped after the tests."""
    engine = create_engine(postgres_url, isolation_level="AUTOCOMMIT")
    names = (f"backchannel_test_{os.getpid()}_{number}" for number in count(1))
    made = []

    def create() -> str:
        made.append(next(names))
        with engine.connect() as connection:
            connection.exec_driver_sql(f"CREATE SCHEMA {made[-1]}")
        return engine.url.update_query_dict({"options": f"-csearch_path={made[-1]}"}).render_as_string(False)

    yield create
    with engine.connect() as connection:
        for name in made:
            connection.exec_driver_sql(f"DROP SCHEMA {name} CASCADE")
    engine.dispose()


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def new_store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], str]:
    """Returns the URL of a new, empty store: the test runs on each kind of store there is."""
    if request.param == "postgresql":
        create: Callable[[], str] = request.getfixturevalue("new_schema")
        return create
    return lambda: f"sqlite:///{tmp_path_factory.mktemp('store') / 'store.db'}"


@pytest.fixture
def store_url(new_store: Callable[[], str]) -> str:
    """URL of a new, empty store, of each kind in turn."""
    return new_store()
