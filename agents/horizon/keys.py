"""What rows of the long horizon are kept by: hashed people, sessions, and the set of strategies that a turn asked.

All rewards are kept by the same keys, and most of what a reward costs is finding them: so that is done once per batch.

A row is for a set of strategies, not for one of them, so a turn adds to one row, whatever it asked. What is known about
a single strategy is told from the sets when the policy is published. Sets whose names take more than LONGEST bytes
count as asking nobody: keys have a limit.
"""

from collections.abc import Sequence
from itertools import compress, count
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np

from backchannel.agents.columnar.frames import MISSING, spans
from backchannel.agents.learner import hash_of
from backchannel.agents.outcomes.outcomes import Outcomes
from backchannel.agents.outcomes.shared import once
from backchannel.agents.sums import Booleans, Integers, taken

LONGEST: Final = 1000
"""Bytes of a set, as JSON, that is kept."""
_PANEL: Final = 1 << 32

_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(list[str]).decode


class Lines(NamedTuple):
    """One line for each row and strategy in its set.

    Attributes:
        strategies: names, sorted.
        rows: the index of each line's row, (lines,), rising.
        codes: the index of each line's strategy, (lines,).
    """

    strategies: list[str]
    rows: Integers
    codes: Integers


@once
def sets_of(outcomes: Outcomes, configured: tuple[str, ...]) -> tuple[Integers, list[str]]:
    """Return the index of the set of strategies that each turn asked, (turns,), and the sets as JSON lists, sorted.

    Args:
        outcomes: the outcomes of turns.
        configured: names of the strategies that are told apart, at most 32; without any, those that turns name.
    """
    strategies = sorted(outcomes.strategies_of(configured))
    asked = outcomes.asked_of(strategies)
    # Bits, exact in doubles: each turn asks a strategy once.
    masks = np.bincount(asked.rows, np.ldexp(1.0, asked.codes), len(outcomes)).astype(np.int64)
    distinct, place = np.unique(masks, return_inverse=True)
    masks_of = distinct.tolist()
    texts = [_encode([name for bit, name in enumerate(strategies) if mask >> bit & 1]).decode() for mask in masks_of]
    order, sets = _sorted([text if len(text.encode()) <= LONGEST else "[]" for text in texts])
    return order[place], sets


def lines_of(sets: Sequence[str]) -> Lines:
    """Return the lines of rows with some `sets`; see `sets_of`."""
    names = {text: _decode(text) for text in set(sets)}
    strategies = sorted(set().union(*names.values()))
    index = {name: code for code, name in enumerate(strategies)}
    place = {text: number for number, text in enumerate(names)}
    of_rows = np.fromiter(map(place.__getitem__, sets), np.int64, len(sets))
    counts = np.array([*map(len, names.values())], dtype=np.int64)
    codes = np.array([index[name] for own in names.values() for name in own], dtype=np.int64)
    rows = np.repeat(np.arange(len(sets)), counts[of_rows])
    return Lines(strategies, rows, codes[spans((counts.cumsum() - counts)[of_rows], counts[of_rows])])


@once
def panel_of(outcomes: Outcomes, salt: str, share: float) -> tuple[Integers, list[str]]:
    """Return the index of the hash of each turn's person, (turns,), and the hashes, sorted.

    Args:
        outcomes: the outcomes of turns.
        salt: see `Learner.salt`.
        share: the share of the people that is learned from, chosen by hash; the others are MISSING.
    """
    names, codes = outcomes.columns.pools.people, outcomes.people
    there = np.zeros(len(names), dtype=bool)
    there[codes] = True
    distinct = np.flatnonzero(there)
    hashes = [hash_of(salt, names[code]) for code in distinct.tolist()]
    if share < 1.0:
        chosen = [int(one[:8], 16) < share * _PANEL for one in hashes]
        distinct, hashes = distinct[chosen], [*compress(hashes, chosen)]
    _, first, order = np.unique(np.array(hashes, dtype="S24"), return_index=True, return_inverse=True)
    place = np.full(len(names), MISSING, dtype=np.int64)
    place[distinct] = order
    return place[codes], taken(hashes, first)


@once
def sessions_of(outcomes: Outcomes) -> tuple[Integers, list[int]]:
    """Return the index of the number of each turn's session, (turns,), and the numbers, sorted.

    They tell a person's sessions apart: 32 bits of a checksum, without a salt, as times would tell as much.
    """
    numbers, place = np.unique(outcomes.columns.turns.query.session_hash.astype(np.int64), return_inverse=True)
    return place, numbers.tolist()


def differs(values: Any) -> Booleans:
    """Return whether each value differs from the one before it, (n,); the first one does."""
    return np.append(True, values[1:] != values[:-1])[: len(values)].astype(bool)


def _sorted(texts: list[str]) -> tuple[Integers, list[str]]:
    """Return the index of each text among the distinct ones, sorted, and these."""
    distinct = sorted(set(texts))
    place = dict(zip(distinct, count()))
    return np.fromiter(map(place.__getitem__, texts), np.int64, len(texts)), distinct
