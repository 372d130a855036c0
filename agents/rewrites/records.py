"""The records of queries and of their rewrites: how often turns succeeded."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Final, TypeAlias

from msgspec import structs

from backchannel.agents.rewrites.chain import Chain
from backchannel.agents.rewrites.rows import RewriteRow
from backchannel.agents.sums import ALL, Key

Record: TypeAlias = tuple[float, ...]
"""Weights of success and of failure."""

_HARMFUL: Final = 1.6449  # standard deviations for 95% confidence of harm
_TRIED: Final = 0.5  # turns (decayed) from which a record counts, so that the first failure withdraws an online rewrite


def with_records(
    rows: Mapping[str, RewriteRow], chain: Chain[str], states: Sequence[str], records: Mapping[Key, Record]
) -> dict[str, RewriteRow]:
    """Return the rows of `states` with the records that online rewrites need, and more rows where they need them.

    Args:
        rows: the rows of those states that have one.
        chain: the part of the chain with these states.
        states: the states.
        records: the records of their rewrites, and for the target `ALL` those of their held-out sessions.
    """
    own = {
        chain.states[number]: (float(chain.success[number]), float(chain.support[number]))
        for number in chain.numbers(states).tolist()
    }
    tried = defaultdict[str, dict[str, bool]](dict)
    for (state, target), record in records.items():
        if target != ALL and sum(record) >= _TRIED:
            tried[state][target] = record[1] <= record[0] and not harm(record, records.get((state, ALL)))
    found = dict(rows)
    for state in states:
        success, support = own.get(state, (0.0, 0.0))
        if support >= _TRIED or state in tried:
            found[state] = structs.replace(
                rows.get(state, RewriteRow()), success=success, failure=support - success, tried=tried.get(state, {})
            )
    return found


def harm(served: Record | None, held_out: Record | None) -> str:
    """Return the reason to withdraw a rewrite; empty if there is none.

    A rewrite does harm if turns with it succeed less often than turns of held-out sessions, with 95% probability by the
    adjusted interval for a difference of rates (Agresti & Caffo, The American Statistician 2000).

    Args:
        served: the weights of success and failure with the rewrite, in turns.
        held_out: the weights of success and failure without it, in turns.
    """
    if served is None or held_out is None:
        return ""
    turns, others = sum(served), sum(held_out)
    rate, other = (served[0] + 1) / (turns + 2), (held_out[0] + 1) / (others + 2)
    error = sqrt(rate * (1 - rate) / (turns + 2) + other * (1 - other) / (others + 2))
    if other - rate <= _HARMFUL * error:
        return ""
    return (
        f"{served[0] / turns:.0%} of {turns:.1f} turns succeeded with it, "
        f"{held_out[0] / others:.0%} of {others:.1f} held out without it"
    )
