"""The union of several strategies' results: without duplicates, in a fixed order, refilled to a budget.

A candidate of rank r, in a strategy that is asked for a candidates, comes at the point (r - 1/2) / a. So strategies
take turns in proportion to their allocations, and the order does not depend on how far each list is drawn. Candidates
at the same point come in the order of the strategies. Strategies with an allocation of 0 come after all others, in
turns.

There are two readings of a budget. *Drawn*: each strategy's allocation, duplicates included.
*Distinct*: further down the lists, in the same order, until that many distinct candidates are found.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from msgspec import Struct

from backchannel.schemas.events import MAX_DEPTH

UNASKED: Final = 1e6
"""First point of the candidates of strategies with an allocation of 0."""


class Candidate(Struct, frozen=True):
    """A candidate of the union.

    Attributes:
        item: the document.
        ranks: strategy -> its rank, from 1, for the strategies that were drawn deep enough to produce it.
    """

    item: int
    ranks: Mapping[str, int]


class Union(Struct, frozen=True):
    """The union of several strategies' results.

    Attributes:
        candidates: the candidates, without duplicates, in the union's order.
        depth: strategy -> the depth of its list to log: its allocation, even if its list is shorter;
            with a distinct budget, how far the list was walked, or MAX_DEPTH if it ended too early.
        drawn: the number of candidates drawn, duplicates included.
    """

    candidates: list[Candidate]
    depth: dict[str, int]
    drawn: int


def unite(lists: Mapping[str, Sequence[int]], allocation: Mapping[str, int], distinct: int | None = None) -> Union:
    """Unite the lists.

    Args:
        lists: strategy -> its results, best first; with a distinct budget, at least to that depth.
        allocation: strategy -> number of candidates to draw; 0 for missing strategies.
        distinct: the budget of distinct candidates; None if the allocation's total is the budget.
    """
    names = list(lists)
    asked = [allocation.get(name, 0) for name in names]

    def point(number: int, place: int) -> tuple[float, int]:
        return (place + 0.5) / asked[number] if asked[number] else UNASKED + place, number

    first: dict[int, tuple[float, int]] = {}
    for number, name in enumerate(names):
        drawn = lists[name] if distinct is not None else lists[name][: asked[number]]
        for place, item in enumerate(drawn):
            at = point(number, place)
            if item not in first or at < first[item]:
                first[item] = at
    kept = sorted(first, key=first.__getitem__)[:distinct]
    depth = dict(zip(names, asked, strict=True))
    if distinct is not None:
        last = first[kept[-1]] if kept else (UNASKED, 0)
        for number, name in enumerate(names):
            length = len(lists[name])
            reached = sum(point(number, place) <= last for place in range(length))
            ended = reached == length < distinct and (asked[number] > 0 or length > 0)
            depth[name] = MAX_DEPTH if ended else reached
    ranks: dict[int, dict[str, int]] = {item: {} for item in kept}
    for name in names:
        for rank, item in enumerate(lists[name][: depth[name]], start=1):
            if item in ranks:
                ranks[item][name] = rank
    candidates = [Candidate(item, ranks[item]) for item in kept]
    total = sum(min(depth[name], len(lists[name])) for name in names)
    return Union(candidates, {name: deep for name, deep in depth.items() if deep}, total)
