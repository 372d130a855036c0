"""The playground: a person searches, and what is learned changes the next results."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from click.testing import CliRunner
from litestar.testing import TestClient
from litestar.types import ASGIApp
from matplotlib.image import imread

from backchannel.ops.cli import main
from backchannel.ops.lab.playground import server
from backchannel.ops.lab.playground.server import application
from backchannel.ops.lab.playground.session import BUDGET, Playground
from backchannel.ops.lab.search.build import engine, popularity
from backchannel.ops.lab.search.generated import generated_corpus
from tests.support.ledgers import sqlite_url
from tests.support.servers import missing


@pytest.fixture
def playground(tmp_path: Path) -> Iterator[Playground]:
    corpus = generated_corpus(1, documents=200, queries=60)
    played = Playground(corpus, engine(corpus, popularity(corpus, range(60)), None), sqlite_url(tmp_path))
    yield played
    played.close()


def test_what_was_clicked_is_remembered(playground: Playground) -> None:
    before = playground.search("desk lamp")
    assert (before.version, before.rewriting) == (None, None)
    assert 0 < len(before.results) <= BUDGET
    assert all(one.remembered is None for one in before.results)
    chosen = before.results[-1].doc_id
    playground.click(before.query_id, chosen)
    learned = playground.next_person()
    assert (learned.person, learned.turns, learned.clicks, learned.remembered) == (2, 1, 1, 1)
    for _ in range(6):
        again = playground.search("Desk lamp!")
        if chosen in {one.doc_id for one in again.results}:
            playground.click(again.query_id, chosen)
        learned = playground.next_person()
    after = playground.search("desk lamp")
    assert after.version == learned.version
    assert {one.strategy for one in after.asked} >= {"lexical", "memory"}
    assert all(one.reward is not None for one in after.asked)
    assert {one.doc_id: one.remembered for one in after.results}.get(chosen, 1.0)
    assert next(one for one in after.asked if one.strategy == "memory").found >= 1
    assert ("category", "desk lamp") in after.understood


def test_what_people_rephrase_becomes_a_rewrite(playground: Playground) -> None:
    for _ in range(25):
        playground.search("desk lmap")
        right = playground.search("desk lamp")
        playground.click(right.query_id, right.results[0].doc_id)
        learned = playground.next_person()
    assert ("desk lmap", "desk lamp") in learned.rewrites
    answer = playground.search("desk lmap")
    assert answer.rewriting is not None
    assert answer.served == "desk lamp"
    assert playground.search("desk lmap", rewrite=False).served == "desk lmap"


def test_the_order_is_learned_and_explained(playground: Playground) -> None:
    first = playground.search("desk lamp")
    assert (first.order, {one.score for one in first.results}) == ("", {None})
    playground.simulate(60)
    answer = playground.search("desk lamp")
    assert "order of results" in answer.order
    scores = [one.score for one in answer.results]
    assert None not in scores
    for one in answer.results:
        assert sum(reason.contribution for reason in one.reasons) == pytest.approx(one.score)
    assert sum(one.moved for one in answer.results) == 0


def test_simulated_people_click(playground: Playground) -> None:
    learned = playground.simulate(30)
    assert learned.turns == 30
    assert learned.clicks > 5
    assert learned.version == 1
    assert learned.person == 31


def client_of(playground: Playground) -> TestClient[ASGIApp]:
    return TestClient(application(playground), base_url="http://127.0.0.1")


def test_the_page_talks_to_its_server_and_to_nobody_else(playground: Playground) -> None:
    with client_of(playground) as client:
        for path in server._ASSETS:
            assert client.get(path).status_code == 200
        found = client.post("/api/search", json={"text": "kettle\0"}).json()
        shown = found["results"][0]["doc_id"]
        click = {"query_id": found["query_id"], "doc_id": shown}
        assert client.post("/api/click", json=click).status_code == 200
        assert client.post("/api/click", json={**click, "doc_id": "none"}).status_code == 404
        assert client.post("/api/click", json={**click, "query_id": "none"}).status_code == 404
        wrongs: list[Any] = [{}, {"text": ""}, {"text": 3}, {"text": "x" * 501}, []]
        for wrong in wrongs:
            assert client.post("/api/search", json=wrong).status_code == 400, wrong
        # What a page of another site can send without asking.
        assert client.post("/api/next", content="{}").status_code == 415
        assert client.post("/api/next", json={}, headers={"Host": "evil.example"}).status_code == 403
        assert client.post("/api/next", json={}).json()["clicks"] == 1
        assert client.get("/api/about").json()["documents"] == 200


def test_nothing_comes_from_elsewhere() -> None:
    assets = files("backchannel.ops") / "lab" / "playground" / "assets"
    for name in ("index.html", "playground.js", "playground.css"):
        assert not re.search(r"https?://|innerHTML", (assets / name).read_text()), name


def test_a_page_for_others_is_refused() -> None:
    result = CliRunner().invoke(main, ["playground", "--host", "0.0.0.0"])
    assert result.exit_code == 2
    assert "anybody who reaches the page" in result.output


@pytest.fixture(scope="module")
def browser() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        missing("no chromium: install Debian's package `chromium`")
    return found


@pytest.fixture(scope="module")
def url(browser: str) -> Iterator[str]:
    command = [sys.executable, "-m", "backchannel", "playground", "--no-dense", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()
        assert process.wait() == 0


def draw(browser: str, url: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000"),
            *(f"--user-data-dir={folder}", *arguments, f"{url}#{quote('desk lamp')}"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("size", ["1280,900", "390,844"])
def test_a_browser_draws_it(browser: str, url: str, size: str, tmp_path: Path) -> None:
    done = draw(browser, url, tmp_path, "--dump-dom", f"--window-size={size}")
    assert "results for “desk lamp”" in done.stdout, done.stderr
    assert "generated: 800 documents" in done.stdout
    assert "did not work" not in done.stdout
    assert 0 < done.stdout.count("<li>") <= BUDGET
    assert "You are person 1. Nothing learned yet" in done.stdout


def test_it_is_drawn_in_light_and_in_dark(browser: str, url: str, tmp_path: Path) -> None:
    brightness = []
    for scheme in (0, 1):  # Chromium's numbers of dark and light
        picture = tmp_path / f"{scheme}.png"
        draw(browser, url, tmp_path, f"--blink-settings=preferredColorScheme={scheme}", f"--screenshot={picture}")
        brightness.append(float(imread(picture)[..., :3].mean()))
    assert brightness[0] < 0.3
    assert brightness[1] > 0.7
