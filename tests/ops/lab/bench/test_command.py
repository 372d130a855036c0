"""The bench: results can be shown again, alone or merged with those of other runs."""

import platform
import re
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from backchannel.ops.cli import main
from backchannel.ops.lab.bench.command import PARTS
from backchannel.ops.lab.bench.measure import Measure
from backchannel.ops.lab.bench.record import WHAT_MATTERS, BenchRun, Part
from backchannel.streams.extras import install


def run(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(main, ["bench", *arguments])
    assert result.exit_code == code, result.output
    return result.stdout if code == 0 else result.output


@pytest.fixture
def measured(tmp_path: Path) -> tuple[Path, Path]:
    """Return the files of two runs: the first of two parts, the second of one of these again."""

    def write(name: str, command: str, **parts: Part) -> Path:
        record = BenchRun(command, datetime(2026, 11, 21, tzinfo=UTC), "a machine", ["numpy 2.4"], parts)
        (tmp_path / name).write_bytes(msgspec.json.encode([record]))
        return tmp_path / name

    memory = Part(70.0, [Measure("peak memory", 64.0, "MiB", 1.25, "fewer events")])
    return (
        write("first.json", "backchannel bench rates memory", rates=rates(111.0), memory=memory),
        write("second.json", "backchannel bench rates", rates=rates(222.0)),
    )


def rates(found: float) -> Part:
    return Part(50.0, [Measure("decode alone", found, "events/s")])


def test_results_can_be_shown_later(tmp_path: Path) -> None:
    found = tmp_path / "bench.json"
    found.write_text(run("rates", "--events", "10000", "--rounds", "1", "--json"))
    page = run("--of", str(found), "--markdown")
    assert re.search(r"\| decode alone \| [\d,]+ events/s \|  \|  \|", page)
    assert f"Python {platform.python_version()}" in page
    assert "`backchannel bench rates --events 10000 --rounds 1`" in page
    assert "msgspec 0." in page


def test_the_document_has_results_and_conditions(measured: tuple[Path, Path]) -> None:
    page = run("--of", str(measured[0]), "--markdown")
    assert "- `backchannel bench rates memory` on 2026-11-21, in 2 minutes: a machine" in page
    assert "| decode alone | 111 events/s |  |  |" in page
    assert "| peak memory | 64 MiB | 1.25 | fewer events |" in page


def test_the_document_begins_with_what_matters(measured: tuple[Path, Path]) -> None:
    assert WHAT_MATTERS.keys() <= PARTS.keys()
    page = run("--of", str(measured[0]), "--markdown")
    assert "What matters" not in page
    what = next(iter(WHAT_MATTERS["rates"]))
    measured[0].write_text(measured[0].read_text().replace("decode alone", what))
    page = run("--of", str(measured[0]), "--markdown")
    assert page.index("## What matters") < page.index(f"| rates: {what} | 111") < page.index("<details")


def test_a_later_run_takes_precedence(measured: tuple[Path, Path]) -> None:
    both = ["--of", str(measured[0]), "--of", str(measured[1])]
    page = run(*both, "--markdown")
    assert page.count("- `backchannel bench rates") == 2
    assert "222 events/s" in page
    assert "111 events/s" not in page
    assert page.index("<summary>rates<") < page.index("<summary>memory<")
    assert page.count("numpy 2.") == 1
    merged = measured[0].with_name("both.json")
    merged.write_text(run(*both, "--json"))
    assert run("--of", str(merged), "--markdown") == page
    assert "222 events/s" in run("--of", str(merged))


def test_an_invalid_record_is_refused(measured: tuple[Path, Path], tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text("{}")
    assert "`backchannel bench --json`" in run("--of", str(other), code=1)
    assert "--of" in run("memory", "--of", str(measured[0]), code=2)


def test_a_part_that_fails_is_reported_and_the_others_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")  # no Java, no Maven
    told = run("kafka", "rates", "--events", "10000", "--rounds", "1", "--markdown", code=3)
    assert re.search("kafka .*BrokerError", told)
    assert re.search("The rest .*BrokerError", told)
    assert "| decode alone |" in told


def test_a_part_that_needs_more_packages_names_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "jellyfish.py").write_text("raise ModuleNotFoundError(name=__name__)")
    monkeypatch.syspath_prepend(tmp_path)
    told = run("rates", "--events", "10000", "--rounds", "1", code=3)
    assert re.search(rf"rates .*{re.escape(install('learn'))}", told)
