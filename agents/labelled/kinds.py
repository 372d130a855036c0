"""Sets of turns that are reported on: all of them, and those of a day, a device, an intent or a locale."""

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import lru_cache
from typing import Final, TypeVar

import msgspec
import numpy as np

from backchannel.agents.columnar.columns import Columns
from backchannel.agents.columnar.frames import MISSING, Codes
from backchannel.agents.sums import ALL, Floats, Integers, Key, SumReader, SumTable, unique_inverse

_T = TypeVar("_T")

KINDS: Final = ("all", "day", "device", "intent", "locale")
ROOM: Final = 4000
"""Rows that are kept of a table of sums by kind; those with the fewest turns (decayed) go first."""
PUBLISHED: Final = 100
"""Values of a kind that are published: those with the most turns (decayed)."""

_DAY_MS: Final = 86_400_000
_part = re.compile(r"[\w=' .-]+").findall


@lru_cache(maxsize=1 << 14)
def parts_of(form: str) -> frozenset[str]:
    """Return the parts of an interpretation: acts or intents, and `slot=value`."""
    return frozenset(filter(None, (part.strip() for part in _part(form))))


def acts_of(form: str) -> set[str]:
    """Return the acts or intents of an interpretation: what it names without a value."""
    return {part for part in parts_of(form) if "=" not in part}


def groups_of(columns: Columns) -> Iterator[tuple[str, list[str], Integers]]:
    """Yield each kind with its values, sorted, and the index of each turn's value among these, (turns,).

    An empty value means unknown, except of the kind `all`.
    """
    query, pools = columns.turns.query, columns.pools

    def device(code: int) -> str:
        found = msgspec.msgpack.decode(pools.contexts[code]).get("device", "") if code != MISSING else ""
        return found if isinstance(found, str) else ""

    def intent(code: int) -> str:
        return "+".join(sorted(acts_of(pools.forms[code])))[:128] if code != MISSING else ""

    def locale(code: int) -> str:
        return pools.labels[code] if code != MISSING else ""

    named: list[tuple[Codes | Integers, Callable[[int], str]]] = [
        (np.zeros(len(columns), dtype=np.int64), lambda _: ""),
        (query.ts // _DAY_MS, lambda day: str(np.datetime64(day, "D"))),
        (query.context, device),
        (query.form, intent),
        (query.locale, locale),
    ]
    for kind, (codes, name_of) in zip(KINDS, named, strict=True):
        # Names are sorted, and few: those of distinct codes.
        found, places = unique_inverse(codes)
        known, merged = np.unique([name_of(code) for code in found.tolist()], return_inverse=True)
        yield kind, known.tolist(), merged[places]


def published(sums: SumReader, table: SumTable, encoding: str, at: int) -> dict[str, dict[str, Floats]]:
    """Return kind -> value -> its sums at `at`, of the values with the most turns.

    Args:
        sums: the sums of all turns so far.
        table: a table with the keys encoding, kind and value, whose first sum is the number of turns.
        encoding: the encoding of its sums.
        at: the event time (ms) that sums are decayed to.
    """
    stored = sums.read(table, "encoding", [encoding])
    totals = {key[1:]: row for key, row in zip(stored.keys, stored.at(at), strict=True) if row[0] > 0}
    found: defaultdict[str, dict[str, Floats]] = defaultdict(dict)
    for kind, value in sorted(totals, key=lambda key: (-totals[key][0], key)):
        if len(found[kind]) < PUBLISHED:
            found[kind][value] = totals[kind, value]
    return found


def by_kind(section: Mapping[str, bytes], of: type[_T]) -> dict[str, dict[str, _T]]:
    """Return kind -> value -> what was published of its turns, from the rows of a section other than `ALL`."""
    return {
        kind: msgspec.json.decode(row, type=dict[str, of])  # type: ignore[valid-type]
        for kind, row in sorted(section.items())
        if kind != ALL
    }


def excess(sums: SumReader, table: SumTable, crowded: Collection[str], at: int) -> list[Key]:
    """Return the rows over ROOM of each crowded encoding: those with the fewest turns; see `Learner.excess`."""
    dropped: list[Key] = []
    for encoding in sorted(crowded):
        stored = sums.read(table, "encoding", [encoding])
        ranked = sorted(zip((-stored.at(at)[:, 0]).tolist(), stored.keys, strict=True))
        dropped += (key for _, key in ranked[ROOM:])
    return dropped
