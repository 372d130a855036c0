"""`backchannel convert` from outside: its output, and its errors about files that it cannot read."""

import gzip
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from backchannel.ops.cli import main
from backchannel.schemas.codec import EventDecoder, EventError

LOG = b"""<sessiontrack2013><session num="1" starttime="0"><interaction num="1" starttime="1.5"><query>war</query>
<results><result rank="1"><clueweb12id>a</clueweb12id></result></results></interaction></session></sessiontrack2013>"""


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["convert", *map(str, arguments)])


def complaint(result: Result) -> str:
    """Return the error message; a failed command prints nothing else."""
    assert result.exit_code == 1 or result.stderr.startswith("Usage: "), result.output
    assert result.stdout == ""
    return re.sub(r"\s+", " ", result.stderr)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log.xml"
    path.write_bytes(LOG)
    return path


def test_events_go_to_stdout_and_their_counts_to_stderr(log: Path) -> None:
    result = run("trec-session", log)
    decoded = EventDecoder().decode_many(result.stdout_bytes.splitlines())
    assert [event.ts for event in decoded if not isinstance(event, EventError)] == [1_356_998_401_500] * 2
    assert (result.exit_code, result.stderr.splitlines()[0]) == (0, "impression: 1, query: 1")


def test_output_names_a_file(log: Path, tmp_path: Path) -> None:
    result = run("trec-session", log, "--output", tmp_path / "events.jsonl")
    assert (result.exit_code, result.stdout) == (0, "")
    assert (tmp_path / "events.jsonl").read_bytes() == run("trec-session", log).stdout_bytes


def test_start_dates_the_first_session(log: Path) -> None:
    result = run("trec-session", log, "--start", "1970-01-02")
    assert EventDecoder().decode(result.stdout_bytes.splitlines()[0]).ts == 86_400_000 + 1500


def test_gzip_is_recognised_by_content(log: Path) -> None:
    plain = run("trec-session", log)
    log.write_bytes(gzip.compress(LOG))
    assert run("trec-session", log).stdout_bytes == plain.stdout_bytes


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"type": "query"}\n', "log.xml: not XML"),
        (b"<html/>", "log.xml: the root element is <html>"),
        (LOG[:-40], "log.xml: not XML"),
        (gzip.compress(LOG)[:-40], "log.xml: cannot be read .* damaged"),
        (b"\x1f\x8b\x08\x00garbage", "log.xml: cannot be read .* damaged"),
        (
            LOG.replace(b"war", b"w" * 2001),
            "log.xml: sessiontrack2013/1/1/query: text: Expected `str` of length <= 2000",
        ),
    ],
)
def test_a_bad_log_is_named_with_what_was_found(log: Path, content: bytes, message: str) -> None:
    log.write_bytes(content)
    result = run("trec-session", log)
    assert result.exit_code == 1
    assert re.search(message, result.stderr)


def test_missing_files_are_named(tmp_path: Path) -> None:
    assert "missing.xml: No such file" in complaint(run("trec-session", tmp_path / "missing.xml"))
    assert "missing: No such file" in complaint(run("dstc2", tmp_path / "missing"))
    assert re.search("dialogs.jsonl.gz: No such file .* --help", complaint(run("dstc2", tmp_path)))


@pytest.mark.parametrize(("command", "words"), [("trec-session", "the dates are made up"), ("dstc2", "a proxy")])
def test_help_names_the_substitutes_for_missing_data(command: str, words: str) -> None:
    assert words in re.sub(r"\s+", " ", run(command, "--help").stdout)


def test_the_dialogues_are_written_the_same_each_time(public_log: Callable[[str], Path]) -> None:
    first, second = (run("dstc2", public_log("dstc2")) for _ in range(2))
    assert first.stderr.splitlines()[0] == "barge_in: 1,427, click: 2,839, impression: 9,934, query: 11,486"
    assert first.stdout_bytes == second.stdout_bytes
    assert not any(isinstance(it, EventError) for it in EventDecoder().decode_many(first.stdout_bytes.splitlines()))
