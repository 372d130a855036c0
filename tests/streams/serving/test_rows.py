"""Rows shared between versions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backchannel.streams.serving.rows import Rows

KEYS = st.sampled_from("abcdefg")
CHANGES = st.lists(st.tuples(st.sets(KEYS), st.dictionaries(KEYS, st.binary(max_size=2))), max_size=8)


@given(st.dictionaries(KEYS, st.binary(max_size=2)), CHANGES, st.sampled_from([0, 3, 1000]))
def test_a_version_is_what_the_changes_made_of_it_and_stays_so(
    base: dict[str, bytes], changes: list[tuple[set[str], dict[str, bytes]]], few: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("backchannel.streams.serving.rows._FEW", few)
        expected, rows = dict(base), Rows(base)
        versions = []
        for removed, live in changes:
            for key in removed:
                expected.pop(key, None)
            expected |= live
            rows = rows.updated(removed, live)
            versions.append((rows, dict(expected)))
        for before, earlier in versions:
            for found, wanted in versions:
                assert sorted(found.added_to(before)) == sorted(wanted.keys() - earlier.keys())
        for found, wanted in versions:
            assert dict(found) == wanted
            assert len(found) == len(wanted)
            for key in "abcdefg":
                assert found.get(key) == wanted.get(key)
                assert (key in found) == (key in wanted)
                if key not in wanted:
                    with pytest.raises(KeyError):
                        _ = found[key]
