"""A file in any order is read in the order of time, with little memory."""

import io
import os
import random
import tempfile
from errno import EIO, ENOSPC
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backchannel.schemas.codec import EventDecoder, encode
from backchannel.schemas.events import Query
from backchannel.streams.turns.event_file import Chunk, EventFile
from backchannel.streams.turns.identity import SourceError
from backchannel.streams.turns.position import TopicPosition
from backchannel.streams.turns.sorting import SortedFile


def query(number: int, ts: int) -> bytes:
    return encode(Query(event_id=f"e{number}", ts=ts, session_id="s", query_id=f"q{number}", text=""))


def read(path: Path, start: int = 0, was: TopicPosition | None = None, run_bytes: int = 1 << 20) -> list[Chunk]:
    with SortedFile(EventFile(str(path)), EventDecoder(), run_bytes) as file:
        if was is not None:
            file.continues(was)
        return list(file.chunks(start))


def lines(chunks: list[Chunk]) -> list[bytes]:
    return [line for chunk in chunks for line in chunk.lines]


@given(st.lists(st.none() | st.integers(0, 9), min_size=1, max_size=60), st.integers(1, 2000))
def test_it_sorts_by_time_and_keeps_the_order_of_equals(
    tmp_path_factory: pytest.TempPathFactory, times: list[int | None], run_bytes: int
) -> None:
    path = tmp_path_factory.mktemp("sort") / "events"
    every = [b"invalid" if ts is None else query(number, ts) for number, ts in enumerate(times)]
    path.write_bytes(b"\n".join(every) + b"\n")
    chunks = read(path, run_bytes=run_bytes)
    last, keys = 0, []
    for ts in times:  # an invalid line stays behind the one before it
        last = last if ts is None else ts
        keys.append(last)
    expected = [number for _, number in sorted(zip(keys, range(len(keys)), strict=True))]
    assert [number for chunk in chunks for number in chunk.numbers] == expected
    assert lines(chunks) == [every[number] for number in expected]
    assert [offset for chunk in chunks for offset in chunk.offsets] == list(range(len(every)))


def test_more_than_a_run_of_long_lines(tmp_path: Path) -> None:
    every = [query(number, number) + b" " * 200_000 for number in range(30)]
    shuffled = random.Random(0).sample(every, len(every))
    (tmp_path / "events").write_bytes(b"\n".join(shuffled))
    assert lines(read(tmp_path / "events", 7)) == every[7:]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (ENOSPC, f"No space left on device: sorting needs .* {tempfile.gettempdir()}"),
        (EIO, r"Input/output error$"),
    ],
)
def test_a_folder_without_room_is_named_and_a_disk_that_fails_is_not_told_as_a_full_one(
    fault: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing(io.BytesIO):
        """A file that cannot be written, and not be closed in peace either."""

        def writelines(self, _: object) -> None:
            raise OSError(fault, os.strerror(fault))

        def __exit__(self, *_: object) -> None:
            raise OSError(fault, os.strerror(fault))

    path = tmp_path / "events"
    path.write_bytes(query(1, 1) + b"\n")
    monkeypatch.setattr("backchannel.streams.turns.sorting.TemporaryFile", Failing)
    with pytest.raises(SourceError, match=said):
        read(path)


def test_what_has_grown_goes_on_and_what_has_grown_in_between_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "events"
    path.write_bytes(b"\n".join([query(2, 20), query(1, 10)]) + b"\n")
    (chunk,) = read(path)
    was = TopicPosition(read=2, identity=chunk.identity)
    assert chunk.identity.lines == 2
    with path.open("ab") as grown:
        grown.write(query(3, 30) + b"\n")
    assert lines(read(path, 2, was)) == [query(3, 30)]
    with path.open("ab") as grown:
        grown.write(query(4, 15) + b"\n")
    with pytest.raises(SourceError, match="older than some of the 2"):
        read(path, 2, was)
