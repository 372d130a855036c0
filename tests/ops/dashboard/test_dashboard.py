"""The dashboard: its data, its access control, and its page in a browser."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, NoReturn
from urllib.parse import quote

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from click.testing import CliRunner
from litestar.testing import TestClient
from litestar.types import ASGIApp
from msgspec import structs
from playwright.sync_api import sync_playwright

from backchannel.agents.bandit.features import Categorical
from backchannel.agents.bandit.learner import BanditConfig
from backchannel.agents.horizon.learner import HorizonConfig
from backchannel.agents.ranking.learner import RankingConfig
from backchannel.ops.cli import main
from backchannel.ops.dashboard import browse, server
from backchannel.ops.dashboard.server import application
from backchannel.ops.dashboard.state import Observatory
from backchannel.ops.lab.load import mixed_stream
from backchannel.ops.web.guard import is_loopback
from backchannel.schemas.events import Click, Event, Impression, Never, Query, Result, Teach
from backchannel.streams.config import Config
from backchannel.streams.kafka import dead_letters
from backchannel.streams.kafka.config import KafkaConfig
from backchannel.streams.kafka.topics import TopicError
from backchannel.streams.pipeline.local import LocalPipeline
from backchannel.streams.snapshots.teachings import Teachings
from backchannel.streams.store.engine import Store
from tests.support.ledgers import sqlite_url
from tests.support.servers import missing

CONFIG = Config(kafka=KafkaConfig(servers="127.0.0.1:1"))
TEXT = "what was asked first"
CUISINES = ("thai", "greek")
GARBLED = ("play the velvet song knight", "play the song velvet knight", "play the song velvet night")
"""What people say first, second, and last, when they are understood."""


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a store learned without a broker."""
    url = sqlite_url(tmp_path_factory.mktemp("dashboard"))
    with LocalPipeline(url, CONFIG, "s") as embedded:
        events = mixed_stream(400, np.random.default_rng(2), queries=1, gap_ms=3_000)
        embedded.feed([structs.replace(event, text=TEXT) if hasattr(event, "text") else event for event in events])
        embedded.finish()
        embedded.commit()
        embedded.publish()
    return url


def sessions(count: int) -> Iterator[Event]:
    """Yield sessions that ask in three ways; every fourth person gives up after the second."""
    for number in range(count):
        for turn, text in enumerate(GARBLED[: 2 if number % 4 == 0 else 3]):
            ids: dict[str, Any] = {"session_id": f"s{number}", "query_id": f"s{number}-{turn}"}
            ts = 1_700_000_000_000 + number * 60_000 + turn * 8_000
            yield Query(event_id=f"q{number}-{turn}", ts=ts, text=text, **ids)
            if turn == 2:
                yield Impression(event_id=f"i{number}", ts=ts, results=(Result("e", 1),), **ids)
                yield Click(event_id=f"c{number}", ts=ts, entity_id="e", **ids)


@pytest.fixture(scope="module")
def rephrased(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a store with two versions, a rewrite in the second, and a rule for everyone."""
    url = sqlite_url(tmp_path_factory.mktemp("rephrased"))
    with LocalPipeline(url, CONFIG, "s") as embedded:
        events = list(sessions(40))
        embedded.feed(events[:20])
        embedded.commit()
        embedded.publish()
        embedded.feed(events[20:])
        embedded.finish()
        embedded.commit()
        embedded.publish()
        rule = Never(entity_id="song/13")
        ids: dict[str, Any] = {"session_id": "s", "query_id": "q", "user_id": "boss"}
        Teachings(embedded.store, CONFIG.taught).write([Teach(event_id="t", ts=1, rule=rule, everyone=True, **ids)])
    return url


@pytest.fixture(scope="module")
def returning(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a store of 80 people, half of whom come back each day; goals and tastes are learned, too."""
    config = structs.replace(
        CONFIG,
        bandit=BanditConfig(goal=2.0),
        ranking=RankingConfig(
            features=(Categorical("cuisine", CUISINES),), prior={"cuisine=thai": 1.0}, personal=("cuisine",)
        ),
        horizon=HorizonConfig(salt="a salt for tests only", least_days=0.5, days=1.0),
    )
    url = sqlite_url(tmp_path_factory.mktemp("returning"))
    with LocalPipeline(url, config, "s") as embedded:
        embedded.feed(list(visits(80)))
        embedded.finish()
        embedded.commit()
        embedded.publish()
    return url


def visits(people: int) -> Iterator[Event]:
    """Yield one query of every second person on each day, and of the others on the first day only."""
    for day in range(8):
        for person in range(0, people, 2 if day else 1):
            ids: dict[str, Any] = {"session_id": f"s{person}-{day}", "query_id": f"q{person}-{day}"}
            ids["ts"] = 1_700_000_000_000 + day * 86_400_000 + person * 1000
            yield Query(event_id="q", text="dinner", user_id=f"u{person}", **ids)
            shown = [
                Result(one, place, ("lexical",), features={"cuisine": one}) for place, one in enumerate(CUISINES, 1)
            ]
            yield Impression(event_id="i", results=tuple(shown), allocation={"lexical": 2}, **ids)
            if person % 2 == 0:
                yield Click(event_id="c", entity_id="greek", **ids)


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
            assert "error" in response.json()
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


@contextmanager
def serving(store: str) -> Iterator[str]:
    """Run the command and yield the URL of its page, with the token."""
    command = [sys.executable, "-m", "backchannel", "dashboard", "--store", store, "--servers", "127.0.0.1:1"]
    with subprocess.Popen([*command, "--port", "0", "--token", "t"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()
        assert process.wait() == 0


def chromium() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        missing("no chromium: install Debian's package `chromium`")
    return found


def drawn(url: str, query: str, folder: Path) -> str:
    """Return the page's HTML after a browser has drawn it and asked `query`."""
    done = subprocess.run(
        [
            *(chromium(), "--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom"),
            *(f"--user-data-dir={folder}", "--virtual-time-budget=20000", f"{url}#{quote(query)}"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "does not answer: Failed" not in done.stdout
    assert "is served" in done.stdout, done.stderr
    return done.stdout


def test_a_browser_draws_it(learned: str, tmp_path: Path) -> None:
    with serving(learned) as url:
        page = drawn(url, TEXT, tmp_path)
    assert "Version 1 is served" in page
    assert page.count("<canvas") == 3  # rates, rewards and shares; without workers there is no intake
    assert re.search(r'role="img" aria-label="success: \d', page)
    assert "other checks are fine" in page or "checks are fine" in page
    for tile in ("Success of a turn", "Gain of the newest policy", "Rewrites live", "Age of the served version"):
        assert f"<span>{tile}</span><b>" in page
    assert f'<a href="#{quote(TEXT)}">{TEXT}</a>' in page
    assert re.search(r"<td[^>]*>1 \(served\)</td>", page)
    assert f"“{TEXT}”" in page
    assert re.search(r"<td[^>]*>entity-\d+</td>", page)


def test_a_browser_draws_the_path_of_a_rewrite(rephrased: str, tmp_path: Path) -> None:
    with serving(rephrased) as url:
        page = drawn(url, GARBLED[0], tmp_path)
    assert re.search(f"“{GARBLED[0]}” [^“]*“{GARBLED[2]}”", page)
    between = r"</b> → \d+\.\d% → <b>"
    assert re.search(f'<p id="path"><b>{between.join(GARBLED)}</b> → \\d+\\.\\d% → success</p>', page)


def test_a_browser_compares_versions(rephrased: str) -> None:
    with serving(rephrased) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(url)
        page.get_by_role("button", name="since 1").click()
        page.wait_for_selector("#changes li")
        assert "From version 1" in page.inner_text("#changes h3")
        assert "never 'song/13'" in page.inner_text("#rules")
        browser.close()


def test_a_browser_shows_what_comes_later_and_tastes(returning: str, tmp_path: Path) -> None:
    with serving(returning) as url:
        page = drawn(url, TEXT, tmp_path)
    assert re.search(r"<th[^>]*>goals</th>", page)
    assert re.search(r"what a signal adds to that: success [+−]\d+\.\d points, clicked", page)
    assert re.search(r'<table id="cohorts">.*\d\.\d points \([+−]', page, re.DOTALL)
    assert re.search(r"Own choices of 80 users are known.*cuisine=greek \+\d\.\d", page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "most"), [(1280, 3000), (390, 6000)])
def test_the_page_is_short_and_accessible(
    learned: str, width: int, most: int, scheme: Literal["light", "dark"]
) -> None:
    with serving(learned) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        # The checker is injected as a script of its own, which the page's policy forbids.
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme, bypass_csp=True)
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(url)
        page.wait_for_selector("#tiles .tile")
        wide, high = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.scrollHeight]")
        found = Axe().run(page).response["violations"]
        browser.close()
    assert said == []
    assert wide == width
    assert high < most
    assert [(one["id"], one["nodes"][0]["html"]) for one in found] == []
