"""The checksum depends only on the set of rows."""

from collections import Counter

from hypothesis import assume, given
from hypothesis import strategies as st

from backchannel.schemas.snapshot import Checksum, Checksums, Snapshot, nonce
from tests.support.cases import CHARACTERS

NAMES = st.text(CHARACTERS, max_size=4)
ROWS = st.tuples(NAMES, NAMES, st.binary(max_size=4))
EMPTY = Checksum().hexdigest()


def checksum(rows: list[tuple[str, str, bytes]], start: str = EMPTY) -> Checksum:
    total = Checksum(start)
    for row in rows:
        total.add(*row)
    return total


@given(st.lists(ROWS, max_size=6).flatmap(lambda rows: st.tuples(st.just(rows), st.permutations(rows))))
def test_order_does_not_matter(case: tuple[list[tuple[str, str, bytes]], list[tuple[str, str, bytes]]]) -> None:
    rows, permuted = case
    assert checksum(rows).hexdigest() == checksum(permuted).hexdigest()


@given(st.lists(ROWS, max_size=6), st.lists(ROWS, max_size=6))
def test_removing_undoes_adding(kept: list[tuple[str, str, bytes]], passing: list[tuple[str, str, bytes]]) -> None:
    total = checksum(passing + kept)
    for row in passing:
        total.remove(*row)
    assert total.hexdigest() == checksum(kept).hexdigest()
    for row in kept:
        total.remove(*row)
    assert total.hexdigest() == EMPTY


@given(st.lists(ROWS, max_size=6), st.lists(ROWS, max_size=6))
def test_it_goes_on_from_a_digest(before: list[tuple[str, str, bytes]], after: list[tuple[str, str, bytes]]) -> None:
    digest = checksum(before).hexdigest()
    assert len(digest) == 64
    assert checksum(after, digest).hexdigest() == checksum(before + after).hexdigest()


@given(st.lists(ROWS, max_size=4), st.lists(ROWS, max_size=4))
def test_other_rows_give_another_checksum(one: list[tuple[str, str, bytes]], two: list[tuple[str, str, bytes]]) -> None:
    assume(Counter(one) != Counter(two))
    assert checksum(one).hexdigest() != checksum(two).hexdigest()


@given(st.text(CHARACTERS, min_size=1, max_size=8), st.data())
def test_section_key_and_value_cannot_be_confused(joined: str, data: st.DataObject) -> None:
    cuts = st.tuples(st.integers(0, len(joined)), st.integers(0, len(joined))).map(sorted)
    digests = {
        (first, second): checksum([(joined[:first], joined[first:second], joined[second:].encode())]).hexdigest()
        for first, second in data.draw(st.lists(cuts, min_size=2, max_size=6))
    }
    assert len(set(digests.values())) == len(digests)


@given(st.lists(ROWS, max_size=6), st.lists(ROWS, max_size=6), st.sampled_from([b"", b"key"]))
def test_a_header_has_the_checksum_of_the_rows_that_are_not_personal(
    before: list[tuple[str, str, bytes]], after: list[tuple[str, str, bytes]], key: bytes
) -> None:
    personal = ("a",)
    checksums = Checksums(None, personal, key)
    for row in before:
        checksums.add(*row)
    header = _header(1, personal, checksums)
    checksums = Checksums(header, personal, key)
    for row in after:
        checksums.add(*row)
    header = _header(2, personal, checksums)
    everything, part = Checksum(key=key), Checksum(key=key)
    for row in before + after:
        everything.add(*row)
        if row[0] != "a":
            part.add(*row)
    assert header.confirms(everything, key)
    assert header.confirms(part, key, personal=False)
    assert header.confirms(part, key) == (part.hexdigest("") == everything.hexdigest(""))


def _header(version: int, personal: tuple[str, ...], checksums: Checksums) -> Snapshot:
    return Snapshot(
        version=version,
        parent=None,
        created=7,
        watermark=0,
        positions={},
        fingerprint="",
        rows={},
        personal=personal,
        **checksums.fields(nonce(version, 7)),
    )
