"""The dashboard: its data, and its access control."""

import re
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib.resources import files
from pathlib import Path
from typing import NoReturn

import pytest
from click.testing import CliRunner
from litestar.testing import TestClient
from litestar.types import ASGIApp
from sqlalchemy import update

from backchannel.agents.bandit.learner import BanditConfig
from backchannel.agents.bandit.section import Limits
from backchannel.ops.cli import main
from backchannel.ops.dashboard import browse, server
from backchannel.ops.dashboard.server import application
from backchannel.ops.dashboard.state import Observatory
from backchannel.ops.web.guard import is_loopback
from backchannel.streams.config import Config
from backchannel.streams.kafka import dead_letters
from backchannel.streams.kafka.topics import TopicError
from backchannel.streams.pipeline.local import LocalPipeline
from backchannel.streams.serving.reader import PolicyReader
from backchannel.streams.store import tables
from backchannel.streams.store.engine import Store, StoreAwayError
from tests.support.dashboards import CONFIG, GARBLED, TEXT
from tests.support.ledgers import sqlite_url


@contextmanager
def observed(url: str, guess_from: float | None = None) -> Iterator[Observatory]:
    with closing(Store(url)) as store, closing(Observatory(store, CONFIG, guess_from)) as observatory:
        yield observatory


@pytest.fixture
def observatory(learned: str) -> Iterator[Observatory]:
    with observed(learned) as one:
        yield one


def client_of(observatory: Observatory, token: str | None = None) -> TestClient[ASGIApp]:
    return TestClient(application(observatory, token), base_url="http://127.0.0.1")


def test_the_state_says_what_was_learned_without_a_broker(observatory: Observatory) -> None:
    state = observatory.state()
    assert state.store == "store.db"
    assert state.status in ("ok", "warn")  # no worker is missed where there never was one
    assert {check.name: check.status for check in state.checks}["workers"] == "ok"
    assert state.served == 1
    assert state.trends is not None
    assert sum(turns or 0 for turns in state.trends.answers.turns) == 400
    assert {one.strategy for one in state.segments} == set(CONFIG.bandit.expected)
    assert state.doubled.keys() == set(CONFIG.bandit.expected)
    assert all(one.low < one.value < one.high for one in state.doubled.values())
    assert state.ranking is not None
    assert "prior" in state.ranking.verdict
    assert [one.column for one in state.ranking.weights] == ["score"]
    assert state.lag.records == [None]
    assert state.goals == {}
    assert state.tastes is None
    assert state.horizon is None
    assert observatory.state() is state  # the next client gets the cached state


def test_the_state_has_goals_tastes_and_how_well_returns_were_predicted(returning: str) -> None:
    with observed(returning) as observatory:
        state = observatory.state()
    assert state.goals.keys() == {"lexical"}
    assert state.tastes is not None
    assert state.tastes.people == 80
    assert state.tastes.means["cuisine"]["greek"] > 0 > state.tastes.means["cuisine"]["thai"]
    assert state.horizon is not None
    assert state.horizon.surrogate.cohorts


def test_an_unavailable_store_is_reported(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path, "none.db")
    with observed(url) as one:
        state = one.state()
    assert (state.served, state.trends, state.segments, state.doubled, state.listings) == (None, None, [], {}, None)
    assert state.ranking is None
    assert {check.name: check.status for check in state.checks}["store"] == "critical"


def test_without_a_policy_the_store_is_asked_for_one_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may hang, each time."""
    asked = []
    refresh = PolicyReader.refresh

    def counted(reader: PolicyReader) -> bool:
        asked.append(reader)
        return refresh(reader)

    monkeypatch.setattr(PolicyReader, "refresh", counted)
    with observed(sqlite_url(tmp_path, "none.db")) as one:
        one.state()
    assert len(asked) == 1


def test_a_store_that_goes_away_while_it_is_read_is_no_error(
    observatory: Observatory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise StoreAwayError("it is away")

    monkeypatch.setattr("backchannel.ops.dashboard.state.read_trends", away)
    assert observatory.state().trends is None


def test_a_damaged_version_is_shown_by_the_check_and_left_out_of_the_list(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path)
    with LocalPipeline(url, CONFIG, "test") as pipeline:
        pipeline.publish()
    with closing(Store(url)) as store, store.write() as connection:
        connection.execute(update(tables.snapshot).values(header='{"version"'))
    with observed(url) as one:
        state = one.state()
    assert {check.name: check.status for check in state.checks}["policy"] == "critical"
    assert state.trends is not None
    assert state.trends.versions == []


def test_a_budget_below_the_minima_is_named(tmp_path: Path) -> None:
    bandit = BanditConfig(strategies=("lexical", "popular"), limits={"lexical": Limits(minimum=3)})
    url = sqlite_url(tmp_path)
    with LocalPipeline(url, Config(bandit=bandit), "test") as pipeline:
        pipeline.publish()
    with observed(url) as one, client_of(one) as client:
        response = client.get("/api/query", params={"text": "x", "budget": "2"})
        assert response.status_code == 400
        assert response.json()["error"].startswith("budget: 2 candidates; draw at least 3")


def test_queries_and_rewrites_are_listed(rephrased: str) -> None:
    with observed(rephrased) as one:
        found = one.state().listings
    assert found is not None
    assert {query.query for query in found.asked} == set(GARBLED)
    assert found.failing[0].success == 0.0
    assert found.asked[0].turns == pytest.approx(40, abs=1)
    assert (found.live, found.withdrawn) == (len(found.rewrites), 0)
    assert found.rewrites[0].target == GARBLED[2]
    assert found.lift.gain is None  # nobody was held out


def test_a_lift_has_an_interval() -> None:
    gain = browse._lift((80.0, 20.0), (30.0, 70.0)).gain
    assert gain is not None
    assert gain.value == pytest.approx(0.5)
    assert 0.35 < gain.low < 0.5 < gain.high < 0.65


def test_a_query_is_answered_with_its_uncertainty(observatory: Observatory) -> None:
    found = observatory.query(TEXT, {"device": "speaker"}, 20)
    assert (found.version, found.query, found.rewriting) == (1, TEXT, None)
    assert sum(choice.candidates for choice in found.choices) == 20
    assert sum(choice.expected for choice in found.choices) == pytest.approx(20)
    assert all(choice.deviation > 0 for choice in found.choices)
    assert found.recalled
    assert all(one.lower <= one.score for one in found.recalled)


def test_a_rewrite_is_explained_by_its_path(rephrased: str) -> None:
    with observed(rephrased) as one:
        found = one.query(GARBLED[0], {}, 20)
        other = one.query("never heard of", {}, 20)
    assert found.rewriting is not None
    assert found.rewriting.target == GARBLED[2]
    assert found.explanation is not None
    assert tuple(step.source for step in found.explanation.path) == GARBLED[:2]
    first, second = found.explanation.path
    assert second.target == GARBLED[2]
    assert 0 < second.share < first.share < 1
    assert found.explanation.target is not None
    # There is no other path, and some of those who arrive fail.
    arrived = first.share * second.share
    assert found.explanation.probability == pytest.approx(arrived * found.explanation.target.success, rel=0.05)
    assert other.explanation is not None
    assert (other.rewriting, other.explanation.path, other.explanation.source.turns) == (None, [], 0)


def test_a_query_is_answered_even_if_sums_may_not_be_read(rephrased: str, tmp_path: Path) -> None:
    """PostgreSQL's role for readers, for example, may read policies only."""
    url = sqlite_url(tmp_path)
    shutil.copy(rephrased.removeprefix("sqlite:///"), url.removeprefix("sqlite:///"))
    store = Store(url)
    with store.write() as connection:
        connection.exec_driver_sql("DROP TABLE transitions")
    store.close()
    with observed(url) as one:
        found = one.query(GARBLED[0], {}, 20)
    assert found.rewriting is not None
    assert found.explanation is None


def test_a_guess_is_marked_as_one(learned: str) -> None:
    with observed(learned, guess_from=0.8) as one:
        known = next(query for query in one.reader.policy.memory() if len(query) > 10)
        found = one.query(f"{known}x", {}, 10)
    assert {recalled.guess and recalled.guess.query for recalled in found.recalled} == {known}


def test_the_page_and_its_data_are_served(observatory: Observatory) -> None:
    with client_of(observatory) as client:
        for path in server._ASSETS:
            response = client.get(path)
            assert response.status_code == 200
            assert "default-src 'none'" in response.headers["Content-Security-Policy"]
        assert client.get("/api/state").json()["served"] == 1
        found = client.get("/api/query", params={"text": TEXT, "budget": "7"}).json()
        assert sum(choice["candidates"] for choice in found["choices"]) == 7
        for wrong in ({"context": "{"}, {"context": "[]"}, {"budget": "many"}, {"context": '{"a": null}'}):
            response = client.get("/api/query", params={"text": "x", **wrong})
            assert response.status_code == 400, wrong
            assert response.json()["error"].startswith(f"{next(iter(wrong))}: ")
        assert client.post("/api/state").status_code == 405
        assert client.get("/../pyproject.toml").status_code == 404


def test_versions_are_compared_and_rules_for_everyone_shown(rephrased: str) -> None:
    with observed(rephrased) as observatory:
        assert [(one.rule, one.by) for one in observatory.state().rules] == [("never 'song/13'", "boss")]
        with client_of(observatory) as client:
            said = client.get("/api/changes", params={"from": 1, "to": 2}).json()
            assert said[0].startswith("From version 1, ")
            assert "Rewrites: 2 new, 0 gone, 0 different." in said
            for versions, status in (("from=1&to=9", 404), ("from=1", 400), ("from=x&to=2", 400)):
                response = client.get(f"/api/changes?{versions}")
                assert response.status_code == status
                assert "error" in response.json()


def test_the_reasons_of_invalid_records_need_a_broker(
    observatory: Observatory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: object) -> NoReturn:
        raise TopicError("Kafka does not answer")

    monkeypatch.setattr(dead_letters, "read", read)
    with client_of(observatory) as client:
        response = client.get("/api/invalid-records")
    assert (response.status_code, response.json()) == (503, {"error": "Kafka does not answer"})


def test_another_sites_page_cannot_read_it(observatory: Observatory) -> None:
    """A request through an attacker's name that resolves to 127.0.0.1 carries that name as its Host."""

    with client_of(observatory) as client:
        assert client.get("/api/state", headers={"Host": "evil.example"}).status_code == 403
        assert client.get("/api/state", headers={"Host": "localhost:1234"}).status_code == 200


def test_a_token_is_asked_for_and_kept_in_a_cookie(observatory: Observatory) -> None:
    with client_of(observatory, "s3cret") as client:
        for path in ("/", "/api/state", "/dashboard.js", "/?token=guess", "/?token=geh%C3%BChr"):
            assert client.get(path).status_code == 401
        assert client.get("/", headers={"Authorization": "Bearer s3cret"}).status_code == 200
        response = client.get("/?token=s3cret", follow_redirects=False)
        assert (response.status_code, response.headers["Location"]) == (303, "/")
        assert "HttpOnly" in response.headers["Set-Cookie"]
        assert client.get("/api/state").status_code == 200


@pytest.mark.parametrize(
    ("host", "only_here"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("example.org", False),
    ],
)
def test_loopback_addresses(host: str, only_here: bool) -> None:
    assert is_loopback(host) == only_here


def test_an_empty_token_is_none(learned: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a variable that is not set, in a script: everybody would know it."""
    tokens = []

    def serve(_app: ASGIApp, _host: str, _port: int, token: str | None) -> None:
        tokens.append(token)

    monkeypatch.setattr("backchannel.ops.dashboard.command.serve", serve)
    for host in ("127.0.0.1", "0.0.0.0"):
        done = CliRunner().invoke(main, ["dashboard", "--store", learned, "--host", host, "--token", ""])
        assert done.exit_code == 0, done.output
    here, everywhere = tokens
    assert here is None
    assert everywhere


def test_a_store_that_was_never_made_ends_the_command(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path, "none.db")
    result = CliRunner().invoke(main, ["dashboard", "--store", url])
    assert result.exit_code == 1
    assert "there is no file" in result.output
    assert not (tmp_path / "none.db").exists()


def test_the_page_loads_nothing_from_other_hosts() -> None:
    """All assets come from the dashboard's own server; no other host is named."""
    assets = files("backchannel.ops") / "dashboard" / "assets"
    for name in ("index.html", "dashboard.js", "dashboard.css"):
        assert not re.search(r"https?://|innerHTML", (assets / name).read_text()), name
    assert "MIT" in (assets / "uPlot.LICENSE").read_text()
