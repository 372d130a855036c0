"""The bench: what is measured once can be shown again, and together with what was measured at another time."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from backchannel.ops.bench import file
from backchannel.ops.bench.measure import Load, Measure
from backchannel.ops.cli import main


def run(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(main, ["bench", *arguments])
    assert result.exit_code == code, result.output
    return result.stdout if code == 0 else result.output


@pytest.fixture
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Two runs: the first one of two parts, the second one of one of them, again."""
    runs = iter((111.0, 222.0))

    def rates(load: Load) -> Iterator[Measure]:
        yield Measure("decode alone", next(runs), "events/s")

    def memory(load: Load) -> Iterator[Measure]:
        yield Measure("peak memory", 64.0, "MiB", 1.25, "fewer events")

    monkeypatch.setattr(file, "rates", rates)
    monkeypatch.setattr(file, "memory", memory)
    files = tmp_path / "first.json", tmp_path / "second.json"
    files[0].write_text(run("rates", "memory", "--json"))
    files[1].write_text(run("rates", "--rounds", "1", "--json"))
    return files


def test_a_document_says_what_was_measured_and_how(measured: tuple[Path, Path]) -> None:
    page = run("--of", str(measured[0]), "--markdown")
    assert "- `backchannel bench rates memory --events 200000 --rounds 5` on 20" in page
    assert "| decode alone | 111 events/s |  |  |" in page
    assert "| peak memory | 64 MiB | 1.25 | fewer events |" in page
    assert "numpy 2." in page


def test_what_is_measured_anew_goes_over_what_was_before(measured: tuple[Path, Path]) -> None:
    both = ["--of", str(measured[0]), "--of", str(measured[1])]
    page = run(*both, "--markdown")
    assert page.count("- `backchannel bench rates") == 2
    assert "222 events/s" in page
    assert "111 events/s" not in page
    assert page.index("## rates") < page.index("## memory")
    assert page.count("numpy 2.") == 1
    merged = measured[0].with_name("both.json")
    merged.write_text(run(*both, "--json"))
    assert run("--of", str(merged), "--markdown") == page
    assert "222 events/s" in run("--of", str(merged))


def test_what_is_no_record_is_refused(measured: tuple[Path, Path], tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text("{}")
    assert "not what `backchannel bench --json` prints" in run("--of", str(other), code=1)
    assert "name no parts" in run("memory", "--of", str(measured[0]), code=2)
