"""Sets of turns that are reported on: all of them, and those of a day, a device, an intent or a locale."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from functools import lru_cache
from typing import Final, TypeVar

import msgspec
import numpy as np

from backchannel.agents.columnar.columns import Columns
from backchannel.agents.columnar.frames import MISSING
from backchannel.agents.sums import ALL, Floats, Integers, Key, SumReader, SumTable

_T = TypeVar("_T")

KINDS: Final = ("all", "day", "device", "intent", "locale")
ROOM: Final = 4000
"""Rows that are kept of a table of sums by kind; those with the fewest turns (decayed) go first."""
PUBLISHED: Final = 100
"""Values of a kind that are published: those with the most turns (decayed)."""

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
    intents = ["+".join(sorted(acts_of(form)))[:128] for form in pools.forms]
    values: list[list[str]] = [
        [""] * len(columns),
        np.datetime_as_string(query.ts.astype("datetime64[ms]"), unit="D").tolist(),
        _devices(columns),
        [intents[code] if code != MISSING else "" for code in query.form.tolist()],
        [pools.labels[code] if code != MISSING else "" for code in query.locale.tolist()],
    ]
    for kind, own in zip(KINDS, values, strict=True):
        known, places = np.unique(own, return_inverse=True)
        yield kind, known.tolist(), places


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


def _devices(columns: Columns) -> list[str]:
    codes = columns.turns.query.context.tolist()
    named = {code: msgspec.msgpack.decode(columns.pools.contexts[code]) for code in set(codes) if code != MISSING}
    devices = (named.get(code, {}).get("device", "") for code in codes)
    return [device if isinstance(device, str) else "" for device in devices]
