"""The dashboard's page in a browser."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

from tests.support.dashboards import GARBLED, TEXT
from tests.support.servers import missing


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
