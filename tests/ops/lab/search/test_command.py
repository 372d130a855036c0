"""The command, and its report."""

from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from backchannel.ops.cli import main
from backchannel.ops.lab.search.findings import Findings
from backchannel.ops.lab.search.seeds import OverSeeds


@pytest.fixture(autouse=True)
def own_cache(cache_folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", cache_folder)


def test_it_reports_the_policy_beside_every_baseline(tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    arguments = ["generated", "--no-dense", "--turns", "300", "--budget", "12", "--memory", "--report", str(report)]
    result = CliRunner().invoke(main, ["lab", "search", *arguments, "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    found = msgspec.json.decode(result.stdout, type=Findings)
    assert found.origin.startswith("a generated catalogue")
    names = {method.name for method in found.methods}
    assert {"learned", "best fixed", "most clicked", "even split", "rank fusion", "lexical alone"} <= names
    assert "best per query" in names
    assert {one.server: one.against_clicked.value == 0 for one in found.clicks}["clicked"]
    assert found.method("best fixed").against_fixed.value == 0
    assert found.method("lexical alone").condensed_less_bm25.value == 0
    assert found.method("best per query").drawn.value >= found.method("learned").drawn.value
    assert all(
        method.distinct.value >= method.drawn.value - 1e-9 for method in found.methods if "fixed" not in method.name
    )
    assert all(method.judged == 1 and method.raw == method.condensed for method in found.methods)
    assert {row.name for row in found.repeated} >= {"learned", "best fixed", "memory alone"}
    assert sum(values["queries"] for values in found.kinds.values()) == found.held_out
    written = report.read_text()
    assert "Simulated people" in written
    assert "generated catalogue" in written
    assert written.count("<svg") == 4


def test_it_prints_a_table(tmp_path: Path) -> None:
    arguments = ["generated", "--no-dense", "--turns", "100", "--distinct", "--report", str(tmp_path / "report.html")]
    result = CliRunner().invoke(main, ["lab", "search", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "best fixed" in result.stdout
    assert "people are simulated" in result.stdout


def test_it_says_what_generators_cost_and_what_seeds_come_to(tmp_path: Path) -> None:
    arguments = ["generated", "--no-dense", "--costs", "--ranked", "--turns", "100", "--seeds", "2"]
    report = tmp_path / "report.html"
    result = CliRunner().invoke(
        main, ["lab", "search", *arguments, "--json", "--report", str(report)], catch_exceptions=False
    )
    found = msgspec.json.decode(result.stdout)
    first, second = (msgspec.convert(one, Findings) for one in found["runs"])
    costs = first.costs
    assert costs is not None
    assert second.costs is None
    assert (costs.documents, costs.queries) == (800, 300)
    assert set(costs.generators) == {"lexical", "all_words", "trigrams", "structured", "popular", "new"}
    assert "Costs on this machine" in report.read_text()
    assert (first.settings["seed"], second.settings["seed"]) == (1, 2)
    together = {one.method: one for one in msgspec.convert(found["over_seeds"], list[OverSeeds])}
    assert set(together) == {"learned", "learned, ranked", "best fixed", "best fixed, ranked"}
    learned = together["learned"]
    assert learned.recall.value == pytest.approx(
        (first.method("learned").drawn.value + second.method("learned").drawn.value) / 2
    )
    assert learned.recall.low < learned.recall.value < learned.recall.high
    assert together["best fixed"].against_fixed.value == 0.0


@pytest.mark.parametrize(
    ("corpus", "said"), [("nowhere", "no such folder"), ("", "no corpus: it needs"), ("few", "--simulate")]
)
def test_what_is_missing_is_said(corpus: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "few").mkdir()
    (tmp_path / "few" / "documents.jsonl").write_text('{"id": "a", "title": "lamp"}\n')
    arguments = [str(tmp_path / corpus), "--no-dense", "--report", str(tmp_path / "report.html")]
    result = CliRunner().invoke(main, ["lab", "search", *arguments])
    assert result.exit_code == 1
    assert said in result.output
