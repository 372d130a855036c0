"""Event files: whatever their form, the same lines under the same name."""

import gzip
from pathlib import Path

import pytest
import zstandard

from backchannel.schemas.events import MAX_RECORD_BYTES
from backchannel.streams.turns.event_file import EventFile, SourceError

LINES = [f'{{"event": {number}}}'.encode() for number in range(50_000)]


def write(path: Path, content: bytes) -> str:
    if path.suffix == ".gz":
        content = gzip.compress(content[:1000]) + gzip.compress(content[1000:])
    elif path.suffix == ".zst":
        content = zstandard.compress(content[:1000]) + zstandard.compress(content[1000:])
    path.write_bytes(content)
    return str(path)


def read(path: str, start: int = 0) -> list[tuple[int, bytes]]:
    with EventFile(path) as file:
        return [pair for offsets, lines in file.chunks(start) for pair in zip(offsets, lines, strict=True)]


def name_of(path: str) -> str | None:
    with EventFile(path) as file:
        return file.name


@pytest.mark.parametrize("name", ["events.jsonl", "events.jsonl.gz", "events.jsonl.zst"])
@pytest.mark.parametrize("start", [0, 1, 777, 49_999, 50_000])
def test_lines_from_anywhere_in_every_form(tmp_path: Path, name: str, start: int) -> None:
    path = write(tmp_path / name, b"\n".join(LINES) + b"\n")
    assert read(path, start) == list(enumerate(LINES))[start:]


def test_a_stream_is_known_by_its_first_line(tmp_path: Path) -> None:
    content = b"\n".join(LINES)
    names = {
        name_of(write(tmp_path / name, content + more))
        for name in ("a.jsonl", "b.gz", "c.zst")
        for more in (b"", b"\n{}\n")
    }
    assert len(names) == 1
    assert name_of(write(tmp_path / "other", b"{}\n" + content)) not in names


def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path: Path) -> None:
    plain, marked = (
        write(tmp_path / name, mark + b"\n".join(LINES)) for name, mark in (("plain", b""), ("marked", b"\xef\xbb\xbf"))
    )
    assert read(marked) == read(plain)
    assert name_of(marked) == name_of(plain)


def test_empty_lines_are_passed_over_and_keep_their_numbers(tmp_path: Path) -> None:
    path = write(tmp_path / "events", b"a\n\n\nb\n\nc")
    assert read(path) == [(0, b"a"), (3, b"b"), (5, b"c")]


def test_an_empty_file_has_no_name(tmp_path: Path) -> None:
    path = write(tmp_path / "empty", b"")
    assert name_of(path) is None
    assert read(path) == []


def test_an_endless_line_costs_no_memory(tmp_path: Path) -> None:
    path = write(tmp_path / "events", b"a\n" + b"x" * (20 * MAX_RECORD_BYTES) + b"\nb\n")
    (_, first), (_, second), (number, last) = read(path)
    assert (first, number, last) == (b"a", 2, b"b")
    assert len(second) > MAX_RECORD_BYTES


def test_a_pipe_is_read_like_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Path(write(tmp_path / "events", b"\n".join(LINES))).open("rb") as piped:
        monkeypatch.setattr("sys.stdin", piped)
        file = EventFile("-")
        assert file.size is None
        assert [line for _, lines in file.chunks(10) for line in lines] == LINES[10:]
        file._raw.close()


@pytest.mark.parametrize("name", ["cut.gz", "cut.zst"])
def test_a_damaged_file_is_a_clear_error(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, b"\n".join(LINES))
    whole = Path(path).read_bytes()
    middle = len(whole) // 2
    Path(path).write_bytes(whole[:middle] + b"\0\1\2\3" * 10 + whole[middle + 40 :])
    with pytest.raises(SourceError, match=f"{name} is damaged"):
        read(path)


def test_a_file_that_was_cut_is_a_clear_error(tmp_path: Path) -> None:
    path = write(tmp_path / "events", b"a\nb\n")
    with pytest.raises(SourceError, match="has 2 lines, but an earlier run has read 5"):
        read(path, 5)


def test_a_missing_file_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="No such file"):
        EventFile(str(tmp_path / "none"))
