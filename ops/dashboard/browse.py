"""The lists of the page: queries and rewrites."""

from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import Final, Literal

from msgspec import Struct
from sqlalchemy import Connection, func, select, union_all
from sqlalchemy.sql import ColumnElement

from backchannel.agents.rewrites.learner import RephraseGraph, records_of
from backchannel.agents.rewrites.serving import Rewriting
from backchannel.agents.sums import ALL
from backchannel.schemas.snapshot import Estimate
from backchannel.streams.store.engine import Store
from backchannel.streams.store.ledger import LedgerSums

LISTED: Final = 10
"""Maximum number of rows in a list."""


class AskedQuery(Struct, frozen=True):
    """A query, its turns (decayed) without a rewrite, and the share of them that succeeded, 0 to 1."""

    query: str
    turns: float
    success: float


class Lift(Struct, frozen=True):
    """The success of turns that were served a rewrite, and of those that were held out (both decayed).

    Attributes:
        turns, held_out: numbers of turns.
        gain: the difference of the shares that succeeded, with a 95% interval; None if either has no turns.
    """

    turns: float
    held_out: float
    gain: Estimate | None


class ListedRewrite(Struct, frozen=True):
    """A rewrite; see `Rewriting`."""

    source: str
    target: str
    layer: str
    probability: float
    turns: float
    withdrawn: str


class Listings(Struct, frozen=True):
    """Queries and rewrites.

    Attributes:
        asked: the most frequent queries.
        failing: the queries with the most turns that failed.
        live, withdrawn: numbers of live and of withdrawn rewrites.
        rewrites: the rewrites of the most frequent queries, live ones first.
        lift: the gain from rewrites.
    """

    asked: list[AskedQuery]
    failing: list[AskedQuery]
    live: int
    withdrawn: int
    rewrites: list[ListedRewrite]
    lift: Lift


def read_listings(
    store: Store, connection: Connection, graph: RephraseGraph, policy: dict[str, Rewriting], at: int
) -> Listings:
    """Read the lists.

    Args:
        store: the store.
        connection: a connection to it.
        graph: the learner of the rewrites.
        policy: the rewrites of the newest policy, by source.
        at: event time that sums are decayed to, ms.
    """
    sums = LedgerSums(store, connection)
    counted = {True: (0.0, 0.0), False: (0.0, 0.0)}
    for (_, target), (success, failure) in records_of(sums.read(graph.trials), at).items():
        one = counted[target == ALL]
        counted[target == ALL] = one[0] + success, one[1] + failure
    live = {source: one for source, one in policy.items() if not one.withdrawn}
    ordered = sorted(policy.items(), key=lambda item: (bool(item[1].withdrawn), -item[1].support, item[0]))
    return Listings(
        asked=_asked(store, connection, graph, at, "turns"),
        failing=_asked(store, connection, graph, at, "failed"),
        live=len(live),
        withdrawn=len(policy) - len(live),
        rewrites=[
            ListedRewrite(source, one.target, one.layer, one.probability, one.support, one.withdrawn)
            for source, one in [*ordered[:LISTED], *[item for item in ordered[LISTED:] if item[1].withdrawn][:LISTED]]
        ],
        lift=_lift(counted[False], counted[True]),
    )


def _asked(
    store: Store, connection: Connection, graph: RephraseGraph, at: int, order: Literal["turns", "failed"]
) -> list[AskedQuery]:
    """Return the queries with the most turns, or with the most failed turns; a rephrased turn has failed."""
    ends, rephrases = (store.sum_tables[one.name] for one in (graph.absorptions, graph.transitions))
    columns = [ends.c[name] for name in graph.absorptions.sums]  # successes first, then failures
    half = len(columns) // 2
    rephrased = _total([rephrases.c[name] for name in graph.transitions.sums])
    every = union_all(
        select(ends.c.state, _total(columns).label("turns"), _total(columns[half:]).label("failed")),
        select(rephrases.c.state, rephrased.label("turns"), rephrased.label("failed")),
    ).subquery()
    most = func.sum(every.c[order]).desc()
    query = select(every.c.state).group_by(every.c.state).order_by(most, every.c.state).limit(LISTED)
    names = list(connection.execute(query).scalars())
    # The sums carry weights that grow with time: only the reader knows their current values.
    sums = LedgerSums(store, connection)
    turns, succeeded = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
    for table in (graph.absorptions, graph.transitions):
        rows = sums.read(table, "state", names)
        for key, own in zip(rows.keys, rows.at(at), strict=True):
            turns[key[0]] += float(own.sum())
            if table is graph.absorptions:
                succeeded[key[0]] += float(own[:half].sum())
    return [AskedQuery(name, turns[name], succeeded[name] / max(turns[name], 1e-300)) for name in names]


def _total(columns: Sequence[ColumnElement[float]]) -> ColumnElement[float]:
    return reduce(add, columns)


def _lift(served: tuple[float, float], held: tuple[float, float]) -> Lift:
    turns, others = sum(served), sum(held)
    if not turns or not others:
        return Lift(turns, others, None)
    # Agresti & Caffo, The American Statistician 2000: one more success and failure on either side.
    one, other = ((success + 1.0) / (success + failure + 2.0) for success, failure in (served, held))
    half = 1.96 * (one * (1.0 - one) / (turns + 2.0) + other * (1.0 - other) / (others + 2.0)) ** 0.5
    gain = served[0] / turns - held[0] / others
    return Lift(turns, others, Estimate(gain, one - other - half, one - other + half))
