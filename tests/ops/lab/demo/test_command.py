import re
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from msgspec import structs

from backchannel.ops.lab.demo.command import demo
from backchannel.ops.lab.demo.findings import Findings
from backchannel.ops.lab.worlds.people import QUERY_KINDS
from backchannel.ops.lab.worlds.servers import STRATEGIES
from backchannel.schemas.codec import EventDecoder
from backchannel.schemas.events import Query
from backchannel.streams.serving.reader import PolicyReader


def run(*arguments: str) -> Findings:
    result = CliRunner().invoke(demo, [*arguments, "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return msgspec.json.decode(result.stdout, type=Findings)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def findings(folder: Path) -> Findings:
    return run("--turns", "4000", "--store", f"sqlite:///{folder}/demo.db", "--report", f"{folder}/demo.html")


def test_the_closed_loop_learns(findings: Findings) -> None:
    rates = {server: late.click_rate for server, late in findings.late.items()}
    assert rates["uniform"].high < rates["learned"].low
    assert rates["learned"].high < rates["best"].low
    assert findings.gap_closed.low > 0.3
    assert findings.late["learned"].defect_rate.high < findings.late["uniform"].defect_rate.low
    late = findings.shares["late"]
    assert late["garbled"]["memory"] > max(late["title"]["memory"], late["fresh"]["memory"])  # it helps there only
    assert max(late["fresh"], key=late["fresh"].__getitem__) == "new"
    assert findings.rewrites.right[-1] > 10 * findings.rewrites.right[0]
    assert findings.rewrites.garbled_served_right > 0.1


def test_findings_are_consistent(findings: Findings) -> None:
    assert findings.simulated
    assert findings.turns >= 4000
    assert findings.points == sorted(findings.points)
    assert findings.points[-1] == findings.turns
    for curve in findings.curves.values():
        assert len(curve.click_rate) == len(curve.defect_rate) == len(findings.points)
    for phase in ("early", "late"):
        for kind in QUERY_KINDS:
            assert sum(findings.shares[phase][kind].values()) == pytest.approx(1)
    assert len(findings.rewrites.learned) == findings.rewrites.right[-1] + findings.rewrites.wrong[-1]
    assert {remembered.rank for remembered in findings.memory} == {1, 2, 3}


def test_what_was_learned_is_served_from_the_store(findings: Findings, folder: Path) -> None:
    reader = PolicyReader(f"sqlite:///{folder}/demo.db")
    policy = reader.policy
    assert policy.version == findings.policy_version
    assert policy.strategies == STRATEGIES
    first = findings.rewrites.learned[0]
    rewriting = policy.rewrite(first.source)
    assert rewriting is not None
    assert rewriting.target == first.target
    reader.close()


def test_a_run_is_determined_by_its_seed(tmp_path: Path) -> None:
    report = f"{tmp_path}/demo.html"
    first, second = (run("--turns", "600", "--seed", "7", "--report", report) for _ in range(2))
    assert structs.replace(first, seconds=0.0) == structs.replace(second, seconds=0.0)


def test_a_store_that_holds_a_policy_is_refused(findings: Findings, folder: Path) -> None:
    store = f"sqlite:///{folder}/demo.db"
    result = CliRunner().invoke(demo, ["--turns", "600", "--store", store, "--report", f"{folder}/again.html"])
    assert result.exit_code == 2
    assert store in result.stderr
    assert not (folder / "again.html").exists()


def test_a_store_that_cannot_be_used_is_an_error(tmp_path: Path) -> None:
    result = CliRunner().invoke(demo, ["--turns", "600", "--store", "nonsense", "--report", f"{tmp_path}/demo.html"])
    assert result.exit_code == 1
    assert "nonsense" in result.stderr


def test_the_summary_says_what_was_found(tmp_path: Path) -> None:
    result = CliRunner().invoke(demo, ["--turns", "600", "--report", f"{tmp_path}/demo.html"], catch_exceptions=False)
    assert result.exit_code == 0
    for words in ("Simulated", "click rate", "gap between uniform and best", "Rewrites", "Memory index", "demo.html"):
        assert words in result.stdout


class _References(HTMLParser):
    """Collects a page's references and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.references: list[str] = []
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.references += [value or "" for name, value in attributes if name in ("src", "href", "xlink:href", "data")]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.usefixtures("findings")
def test_the_report_is_self_contained(folder: Path) -> None:
    html = (folder / "demo.html").read_text(encoding="utf-8")
    page = _References()
    page.feed(html)
    assert all(reference.startswith("#") for reference in page.references)
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert not re.search(r"@import|url\((?!#)", html)
    identities = re.findall(r' id="([^"]*)"', html)
    assert len(identities) == len(set(identities))


def test_the_report_shows_what_was_found(findings: Findings, folder: Path) -> None:
    page = _References()
    page.feed((folder / "demo.html").read_text(encoding="utf-8"))
    assert page.tags.count("svg") == 10  # five figures, each wide and narrow
    text = " ".join(page.text.split())
    assert text.lower().count("simulated") >= 4
    late, gap = findings.late, findings.gap_closed
    for found in (*(late[server].click_rate.value for server in late), gap.value, gap.low, gap.high):
        assert f"{100 * found:.0f}%" in text
    for words in (*STRATEGIES, *QUERY_KINDS, findings.rewrites.learned[0].source, findings.memory[0].title):
        assert words in text


def test_the_events_can_be_kept_and_learned_again(tmp_path: Path) -> None:
    file, store = tmp_path / "events.jsonl", f"sqlite:///{tmp_path}/demo.db"
    arguments = ("--turns", "500", "--report", f"{tmp_path}/demo.html")
    kept = run(*arguments, "--store", store, "--events", str(file))
    events = [EventDecoder().decode(line) for line in file.read_bytes().splitlines()]
    assert len(events) == kept.events
    assert len({event.query_id for event in events if isinstance(event, Query)}) == kept.turns
