"""The journal: nothing acknowledged is lost, whoever writes, dies or reads on."""

import errno
import os
import shutil
import threading
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backchannel.streams.journal.journal import (
    Journal,
    JournalError,
    JournalFullError,
    JournalReader,
    segments,
)

LARGE = 1 << 40


def lines(*records: str) -> bytes:
    return "".join(f"{record}\n" for record in records).encode()


def read_all(folder: Path, start: int = 0) -> list[tuple[int, str]]:
    reader = JournalReader(folder, start)
    found: list[tuple[int, str]] = []
    try:
        while True:
            offsets, records = reader.read()
            if not offsets:
                return found
            found += zip(offsets, map(bytes.decode, records), strict=True)
    finally:
        reader.close()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.text("abc", min_size=1, max_size=9), min_size=1, max_size=4), max_size=6), st.data())
def test_a_reader_resumes_at_any_offset(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[str]], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("journal")
    journal = Journal(folder, LARGE, segment_bytes=data.draw(st.sampled_from([1, 8, 20, 1000])))
    for batch in batches:
        journal.append(lines(*batch))
    journal.close()
    whole = read_all(folder)
    assert [record for _, record in whole] == [record for batch in batches for record in batch]
    end = sum(segments(folder)[-1]) if batches else 0
    start = data.draw(st.integers(0, end))
    assert read_all(folder, start) == [one for one in whole if one[0] >= start]


def test_half_a_line_of_a_killed_process_is_ended(tmp_path: Path) -> None:
    journal = Journal(tmp_path, LARGE)
    journal.append(lines("one"))
    (segment,) = tmp_path.glob("*.jsonl")
    with segment.open("ab") as file:
        file.write(b'{"type": "qu')
    assert [record for _, record in read_all(tmp_path)] == ["one"]
    journal.append(lines("two"))
    journal.close()
    assert [record for _, record in read_all(tmp_path)] == ["one", '{"type": "qu', "two"]


def test_half_a_line_at_the_end_of_a_segment_does_not_stop_the_reader(tmp_path: Path) -> None:
    journal = Journal(tmp_path, LARGE, segment_bytes=8)
    journal.append(lines("one"))
    (segment,) = tmp_path.glob("*.jsonl")
    with segment.open("ab") as file:
        file.write(b"torn-record")
    journal.append(lines("two"))
    journal.close()
    assert [record for _, record in read_all(tmp_path)] == ["one", "torn-record", "two"]


def test_threads_and_their_journals_write_side_by_side(tmp_path: Path) -> None:
    def write(number: int) -> None:
        journal = Journal(tmp_path, LARGE, segment_bytes=200)
        for place in range(10):
            journal.append(lines(f"{number}-{place}", f"{number}-{place}b"))
        journal.close()

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = [record for _, record in read_all(tmp_path)]
    assert len(found) == len(set(found)) == 80
    for number in range(4):
        own = [record for record in found if record.startswith(f"{number}-")]
        assert own == [f"{number}-{place}{end}" for place in range(10) for end in ("", "b")]


def test_a_full_journal_refuses_and_has_room_again_when_something_was_learned(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 100, segment_bytes=10)
    for _ in range(100 // 21):
        journal.append(lines("a" * 20))
    with pytest.raises(JournalFullError, match=r"serve\.journal_gb"):
        journal.append(lines("a" * 20))
    assert len(read_all(tmp_path)) == 100 // 21
    reader = JournalReader(tmp_path, 0)
    reader.remove_before(2 * 21, 0)
    reader.close()
    journal.append(lines("b"))
    journal.close()
    assert read_all(tmp_path)[0][0] == 2 * 21


def test_the_name_of_a_segment_is_on_disk_before_its_records_are_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    with closing(Journal(tmp_path, LARGE, segment_bytes=10)) as journal:
        monkeypatch.setattr(os, "fsync", lambda file: synced.append(os.fstat(file).st_ino))
        for begun in (1, 1, 2, 2, 3):
            journal.append(lines("12345"))
            assert synced == [tmp_path.stat().st_ino] * begun


def test_a_file_system_that_cannot_sync_folders_will_do_but_not_one_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fsync(file: int) -> None:
        raise OSError(fault, os.strerror(fault))

    with closing(Journal(tmp_path, LARGE)) as journal:
        monkeypatch.setattr(os, "fsync", fsync)
        fault = errno.EIO
        with pytest.raises(JournalFullError, match="cannot be written"):
            journal.append(lines("a"))
        fault = errno.EINVAL
        journal.append(lines("a"))
    assert [record for _, record in read_all(tmp_path)] == ["a"]


def test_a_folder_that_is_gone_refuses(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", 1 << 40)
    with closing(journal):
        shutil.rmtree(journal.folder)
        with pytest.raises(JournalFullError, match="cannot be written: No such file"):
            journal.append(b"{}\n")


def test_what_is_not_learned_is_never_removed(tmp_path: Path) -> None:
    journal = Journal(tmp_path, LARGE, segment_bytes=10)
    for number in range(5):
        journal.append(lines(f"{number}" * 20))
    journal.close()
    reader = JournalReader(tmp_path, 0)
    reader.remove_before(2 * 21 + 5, 0)
    assert [base for base, _ in segments(tmp_path)] == [42, 63, 84]
    reader.remove_before(LARGE, 0)
    assert [base for base, _ in segments(tmp_path)] == [84]  # the one that is written to
    reader.close()


def test_a_reader_says_what_was_removed_before_it_read_it(tmp_path: Path) -> None:
    journal = Journal(tmp_path, LARGE, segment_bytes=10)
    for number in range(3):
        journal.append(lines(f"{number}" * 20))
    journal.close()
    min(tmp_path.glob("*.jsonl")).unlink()
    reader = JournalReader(tmp_path, 0)
    assert reader.skipped == 21
    reader.close()


def test_a_journal_that_lost_its_end_goes_on_behind_what_was_learned(tmp_path: Path) -> None:
    journal = Journal(tmp_path, LARGE)
    journal.append(lines("one", "two"))
    (segment,) = tmp_path.glob("*.jsonl")
    os.truncate(segment, 4)  # as after a power failure
    journal.begin_at(8)
    journal.append(lines("three"))
    journal.close()
    assert read_all(tmp_path, 8) == [(8, "three")]
    assert read_all(tmp_path, 7) == [(8, "three")]


def test_only_one_process_reads(tmp_path: Path) -> None:
    Journal(tmp_path, LARGE).close()
    reader = JournalReader(tmp_path, 0)
    with pytest.raises(JournalError, match="--journal"):
        JournalReader(tmp_path, 0)
    reader.close()
    JournalReader(tmp_path, 0).close()


def test_a_journal_keeps_its_name_and_a_new_one_has_another(tmp_path: Path) -> None:
    first = Journal(tmp_path / "a", LARGE)
    again = Journal(tmp_path / "a", LARGE)
    other = Journal(tmp_path / "b", LARGE)
    assert first.source == again.source != other.source


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(JournalError, match="file"):
        Journal(tmp_path / "file", LARGE)
