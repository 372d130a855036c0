"""Fixtures shared by all tests."""

import os
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from sqlalchemy import create_engine

from backchannel.ops.health import command as health
from tests.support.servers import start_postgres

# The duration of an example says more about the machine than about the code. CI always runs the same examples; new ones
# are generated where somebody can look into failures.
settings.register_profile(
    "ours", deadline=None, derandomize="CI" in os.environ, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("ours")

_BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def public_log() -> Callable[[str], Path]:
    """Return a function that finds a public log by its path within the data folder, or skips the test with a reason.

    The folder is ../shared/data, relative to the repository, or else the one that BACKCHANNEL_DATA names.
    """
    folder = _BESIDE if _BESIDE.is_dir() else Path(os.environ.get("BACKCHANNEL_DATA", _BESIDE))

    def find(name: str) -> Path:
        if not (folder / name).exists():
            pytest.skip(f"no {folder / name}: set BACKCHANNEL_DATA to the folder that holds {name}")
        return folder / name

    return find


@pytest.fixture(scope="module")
def patient_health() -> Iterator[None]:
    """Let `health` wait for answers as long as a busy machine takes: its patience is in seconds of the clock."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(health, "PATIENCE_S", 60.0)
        yield


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """URL of the PostgreSQL server that BACKCHANNEL_POSTGRES names, or of one that runs during the tests."""
    if given := os.environ.get("BACKCHANNEL_POSTGRES"):
        yield given
        return
    with start_postgres() as server:
        yield server.url


@pytest.fixture(scope="session")
def new_schema(postgres_url: str) -> Iterator[Callable[[], str]]:
    """Return a function that creates an empty PostgreSQL schema, dropped after the tests, and returns its URL."""
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
    """Return a function that returns the URL of a new, empty store; the test runs on each kind of store."""
    if request.param == "postgresql":
        create: Callable[[], str] = request.getfixturevalue("new_schema")
        return create
    return lambda: f"sqlite:///{tmp_path_factory.mktemp('store') / 'store.db'}"


@pytest.fixture
def store_url(new_store: Callable[[], str]) -> str:
    """URL of a new, empty store, of each kind."""
    return new_store()
