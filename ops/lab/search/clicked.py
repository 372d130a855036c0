"""The fixed allocation that earns the most clicks: the baseline to beat in what the policy is paid for.

People want some relevant documents more than others, and look at the top of a page first. So this allocation may differ
much from the one with the best recall.
"""

from collections.abc import Sequence
from itertools import islice

import numpy as np

from backchannel.ops.lab.search.harness import Allocations, Harness
from backchannel.ops.lab.search.people import People

VISITS = 2_000
"""Most visits that allocations are compared on."""


def most_clicked(
    harness: Harness, people: People, starts: Sequence[Allocations], distinct: int | None, visits: int
) -> Allocations:
    """Return the fixed allocation that earns the most clicks in visits, (strategies,), found like `Harness.best_fixed`.

    Args:
        harness: the strategies' results.
        people: who visits; others than those whom the policy learns from, so that it does not profit from their luck.
        starts: allocations to start from.
        distinct: see `Harness.recall_at`.
        visits: the number of visits to compare on; at most VISITS are.
    """
    visited = list(islice(people.visits(), min(visits, VISITS)))
    queries = {visit.query for visit in visited}
    known: dict[tuple[int, ...], int] = {}

    def worth(allocation: Allocations) -> float:
        key = tuple(allocation.tolist())
        if key not in known:
            orders = {query: harness.order(query, np.asarray(allocation), distinct) for query in queries}
            known[key] = sum(len(people.clicks(visit, orders[visit.query])) for visit in visited)
        return float(known[key])

    return max((harness.climb(start, worth) for start in starts), key=worth)
