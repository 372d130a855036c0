"""Event files: whatever their form, the same lines."""

import gzip
import os
import threading
from pathlib import Path

import pytest
import zstandard

from backchannel.schemas.codec import MAX_RECORD_BYTES
from backchannel.streams.turns.event_file import EventFile
from backchannel.streams.turns.identity import SourceError

LINES = [f'{{"event": {number}}}'.encode() for number in range(50_000)]
FORMS = ["events.jsonl", "events.jsonl.gz", "events.jsonl.zst", "fifo", "fifo.gz", "fifo.zst"]


def write(path: Path, content: bytes) -> str:
    """Write a file in the form of its suffix, two compressed parts one after the other; a FIFO by a thread."""
    if path.suffix == ".gz":
        content = gzip.compress(content[:1000]) + gzip.compress(content[1000:])
    elif path.suffix == ".zst":
        content = zstandard.compress(content[:1000]) + zstandard.compress(content[1000:])
    if path.stem != "fifo":
        path.write_bytes(content)
        return str(path)
    path.unlink(missing_ok=True)
    os.mkfifo(path)

    def feed() -> None:
        with path.open("wb", buffering=0) as fifo:  # a piece at a time: the first may be too short to tell the form
            for piece in (content[:1], content[1:3], content[3:]):
                fifo.write(piece)

    threading.Thread(target=feed, daemon=True).start()
    return str(path)


def read(path: str, start: int = 0, *, complete: bool = False) -> list[tuple[int, bytes]]:
    with EventFile(path, complete=complete) as file:
        return [pair for chunk in file.chunks(start) for pair in zip(chunk.offsets, chunk.lines, strict=True)]


def base_of(path: str) -> str:
    with EventFile(path) as file:
        return file.base


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("start", [0, 1, 777, 49_999, 50_000])
def test_lines_from_anywhere_in_every_form(tmp_path: Path, name: str, start: int) -> None:
    path = write(tmp_path / name, b"\n".join(LINES) + b"\n")
    assert read(path, start) == list(enumerate(LINES))[start:]


def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path: Path) -> None:
    plain, marked = (
        write(tmp_path / name, mark + b"\n".join(LINES)) for name, mark in (("plain", b""), ("marked", b"\xef\xbb\xbf"))
    )
    assert read(marked) == read(plain)
    assert base_of(marked) == base_of(plain)


@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
def test_empty_lines_are_passed_over_and_keep_their_numbers(tmp_path: Path, ending: bytes) -> None:
    path = write(tmp_path / "events", ending.join([b"{}", b"", b"", b"[]", b"", b'"c"']))
    assert read(path) == [(0, b"{}"), (3, b"[]"), (5, b'"c"')]


@pytest.mark.parametrize("block", [1, 5, 6, 7])
def test_lines_are_the_same_wherever_a_block_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    """Between the two characters of a line's end, too: a file is identified by its lines."""
    file = tmp_path / "events"
    file.write_bytes(b'{"a":1}\r\n' * 5)
    monkeypatch.setattr("backchannel.streams.turns.event_file.BLOCK", block)
    with EventFile(str(file)) as events:
        assert [line for chunk in events.chunks() for line in chunk.lines] == [b'{"a":1}'] * 5


def test_an_empty_file_has_no_name(tmp_path: Path) -> None:
    path = write(tmp_path / "empty", b"")
    assert base_of(path) == ""
    assert read(path) == []


@pytest.mark.parametrize("last", [b'{"a": 1', b'{"a": "b', b"17", b'{"a": NaN}'])
def test_a_half_written_last_line_is_left(tmp_path: Path, last: bytes) -> None:
    path = write(tmp_path / "events", b"{}\n" + last)
    with EventFile(path) as file:
        assert [line for chunk in file.chunks() for line in chunk.lines] == [b"{}"]
        assert file.unfinished == 1
    assert read(path, complete=True)[1:] == [(1, last)]
    assert read(write(tmp_path / "fifo", b"{}\n" + last))[1:] == [(1, last)]  # the end of a pipe is its end
    with Path(path).open("ab") as grown:
        grown.write(b"more}\n")
    assert read(path)[1:] == [(1, last + b"more}")]


def test_a_last_line_that_is_json_is_complete(tmp_path: Path) -> None:
    assert read(write(tmp_path / "events", b'{}\n{"a": 1} ')) == [(0, b"{}"), (1, b'{"a": 1} ')]


def test_an_endless_line_costs_no_memory(tmp_path: Path) -> None:
    path = write(tmp_path / "events", b"a\n" + b"x" * (20 * MAX_RECORD_BYTES) + b"\nb\n")
    (_, first), (_, second), (number, last) = read(path)
    assert (first, number, last) == (b"a", 2, b"b")
    assert len(second) > MAX_RECORD_BYTES


def test_standard_input_is_read_like_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Path(write(tmp_path / "events", b"\n".join(LINES))).open("rb") as piped:
        monkeypatch.setattr("sys.stdin", piped)
        with EventFile("-") as file:
            assert file.size is None
            assert [line for chunk in file.chunks(10) for line in chunk.lines] == LINES[10:]


@pytest.mark.parametrize("name", ["cut.gz", "cut.zst"])
@pytest.mark.parametrize("rest", [b"\0\1\2\3" * 10, b""])
def test_a_damaged_file_is_a_clear_error(tmp_path: Path, name: str, rest: bytes) -> None:
    path = write(tmp_path / name, b"\n".join(LINES))
    whole = Path(path).read_bytes()
    middle = len(whole) // 2
    Path(path).write_bytes(whole[:middle] + (rest and rest + whole[middle + len(rest) :]))
    with pytest.raises(SourceError, match=f"{name} is damaged"):
        read(path)


def test_a_file_that_was_cut_is_a_clear_error(tmp_path: Path) -> None:
    path = write(tmp_path / "events", b"a\nb\n")
    with pytest.raises(SourceError, match="has 2 lines, but an earlier run has read 5"):
        read(path, 5)


def test_utf_16_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="UTF-16"):
        EventFile(write(tmp_path / "events", "{}\n".encode("utf-16")))


def test_a_missing_file_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="No such file"):
        EventFile(str(tmp_path / "none"))
