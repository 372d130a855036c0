"""A file is known by the lines that were read of it, however it was moved, compressed or appended to."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backchannel.streams.turns.event_file import EventFile
from backchannel.streams.turns.identity import Marker, SourceError, identify
from backchannel.streams.turns.position import TopicPosition
from tests.streams.turns.test_event_file import FORMS, write

Known = dict[str, TopicPosition]
HEADER = [b'{"export": "clicks"}']


def lines(day: str, count: int) -> list[bytes]:
    return [f'{{"{day}": {number}}}'.encode() for number in range(count)]


def content(lines: list[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)


def read(path: str, known: Known, *, until: int | None = None) -> str:
    """Read a file, or its first lines, and note it among the known ones; return its name."""
    with EventFile(path) as file:
        name = identify(file, known)
        for chunk in file.chunks():
            known[name] = TopicPosition(read=chunk.identity.lines, identity=chunk.identity)
            if until is not None and chunk.identity.lines >= until:
                break
    return name


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("count", [1, 2, 3, 1000, 50_000])
def test_in_every_form_and_grown_it_is_the_same(tmp_path: Path, name: str, count: int) -> None:
    known: Known = {}
    first = read(write(tmp_path / "first", content(lines("monday", count))), known)
    again = tmp_path / name
    assert read(write(again, content(lines("monday", count))), known) == first
    assert read(write(again, content(lines("monday", count + 70_000))), known) == first
    assert len(known) == 1


def test_a_pipe_can_be_read_after_it_was_identified(tmp_path: Path) -> None:
    known: Known = {}
    read(write(tmp_path / "first", content(lines("monday", 20_000))), known)
    with EventFile(write(tmp_path / "fifo", content(lines("monday", 30_000)))) as file:
        identify(file, known)
        assert [line for chunk in file.chunks(10) for line in chunk.lines] == lines("monday", 30_000)[10:]


@pytest.mark.parametrize("header", [HEADER, [b""], HEADER * 3])
@pytest.mark.parametrize(("monday", "tuesday"), [(1000, 500), (500, 1000), (7, 9), (100, 5)])
def test_two_files_that_begin_alike_are_two(tmp_path: Path, header: list[bytes], monday: int, tuesday: int) -> None:
    known: Known = {}
    paths = [
        write(tmp_path / day, content(header + lines(day, count)))
        for day, count in (("monday", monday), ("tuesday", tuesday))
    ]
    names = [read(path, known) for path in paths]
    assert names[0] != names[1]
    assert [read(path, known) for path in paths] == names


def test_a_file_that_lost_lines_is_an_error(tmp_path: Path) -> None:
    known: Known = {}
    read(write(tmp_path / "whole", content(lines("monday", 100))), known)
    with pytest.raises(SourceError, match=r"has 40 lines.*has read 100.*truncated"):
        read(write(tmp_path / "cut", content(lines("monday", 40))), known)


def test_a_file_that_was_changed_is_an_error(tmp_path: Path) -> None:
    known: Known = {}
    read(write(tmp_path / "before", content(lines("monday", 100))), known)
    with pytest.raises(SourceError, match=r"same 64 lines.*have changed"):
        read(write(tmp_path / "after", content(lines("monday", 80) + lines("tuesday", 40))), known)


def test_what_an_earlier_version_read_has_no_marks(tmp_path: Path) -> None:
    path = write(tmp_path / "events", content(lines("monday", 10)))
    name = read(path, {})
    assert read(path, {name: TopicPosition(read=10)}) == name


@given(st.lists(st.sampled_from([b"", b"a", b"bc"]), max_size=40), st.lists(st.integers(0, 40)), st.data())
def test_marks_do_not_depend_on_blocks(all_lines: list[bytes], stops: list[int], data: st.DataObject) -> None:
    at_once, in_blocks = Marker(stops), Marker(stops)
    at_once.add(all_lines)
    rest = all_lines
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        in_blocks.add(rest[:size])
        rest = rest[size:]
    assert (at_once.marks, at_once.digest) == (in_blocks.marks, in_blocks.digest)
