"""Closed turns as columns, on which the judge and the learners work; see `frames`.

The pools of values are sorted, so codes compare as the strings do; the code of a missing value is -1.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from typing import Any, Final, Self

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from backchannel.agents.columnar.frames import MISSING, Codes, Frame, Ragged
from backchannel.agents.sums import Floats, Integers
from backchannel.schemas.events import Query, Signal, name_of

TOGETHER: Final = 1 << 15
"""Turns from which columns are learned by themselves, to bound the memory that this takes."""


class Queries(Frame, frozen=True):
    """Queries.

    Attributes:
        ts: event time, ms.
        session: code of the session's id in `Pools.people`.
        user: code of the user's id in `Pools.people`.
        text: code of the text.
        spelled: code of the text as it is read in its locale; see `schemas.text.spelled`.
        form: code of the interpretation.
        locale: code of the locale.
        context: code of the query's own context.
        asr: code of how it was recognised.
        nlu: code of how the NLU understood it.
        earlier: code of what happened in the session before.
        session_hash: CRC-32 of the session id.
        hash: CRC-32 of session and query id.
    """

    ts: Integers
    session: Codes
    user: Codes
    text: Codes
    spelled: Codes
    form: Codes
    locale: Codes
    context: Codes
    asr: Codes
    nlu: Codes
    earlier: Codes
    session_hash: NDArray[np.uint32]
    hash: NDArray[np.uint32]


class Names(Frame, frozen=True):
    """Strategies."""

    strategy: Codes


class Ranks(Frame, frozen=True):
    """Strategies and the rank that a result has in the list of each, from 1."""

    strategy: Codes
    rank: Codes


class Results(Frame, frozen=True):
    """Results: the entity, its position, 1-based, and the strategies that produced it.

    `ranks` are those that were logged, of these and maybe of others; see `schemas.events.Result`.
    """

    entity: Codes
    position: Codes
    features: Codes
    producers: Ragged[Names]
    ranks: Ragged[Ranks]


class Drawn(Frame, frozen=True):
    """Strategies and how many candidates each was to draw."""

    strategy: Codes
    count: Codes


class Chances(Frame, frozen=True):
    """Strategies and the probability that each was asked."""

    strategy: Codes
    probability: Floats


class Canaries(Frame, frozen=True):
    """How decisions were made that two policies share; see `schemas.events.Canary`."""

    trial: Integers
    share: Floats
    propensity: Floats


class Impressions(Frame, frozen=True):
    """Impressions; `rewrite` is the query that was served instead. For the other columns see
    `schemas.events.Impression`.

    `distinct` is 0 and `allocation_propensity` NaN if none was logged.
    """

    rewrite: Codes
    results: Ragged[Results]
    allocation: Ragged[Drawn]
    planned: Ragged[Drawn]
    distinct: Codes
    propensities: Ragged[Chances]
    allocation_propensity: Floats
    strategy_context: Codes
    user_context: Codes
    examined: Codes
    normalizers: Codes
    outcome: Codes
    reply: Codes
    canary: Ragged[Canaries]


class Clicks(Frame, frozen=True):
    """Clicks; `dwell_ms` is MISSING if none was logged."""

    ts: Integers
    entity: Codes
    kind: Codes
    dwell_ms: Integers


class Others(Frame, frozen=True):
    """Signals of types without columns of their own: the type's name, and the fields specific to the type."""

    kind: Codes
    fields: Codes


class Turns(Frame, frozen=True):
    """Closed turns; see `schemas.turn.Turn`.

    Attributes:
        query: the queries, (turns,).
        following: the session's next query, at most one per turn.
        impressions: each turn's impressions, in the order in which they were logged.
        clicks: each turn's clicks, in the order in which they were logged.
        barge_ins: number of barge-ins, (turns,).
        others: signals of all other types, by type, each in the order in which they were logged.
    """

    query: Queries
    following: Ragged[Queries]
    impressions: Ragged[Impressions]
    clicks: Ragged[Clicks]
    barge_ins: Integers
    others: Ragged[Others]


class Pools(Struct, frozen=True):
    """The values behind codes: each list is sorted and has no duplicates; `contexts` holds values packed by
    MessagePack.
    """

    people: list[str]
    texts: list[str]
    forms: list[str]
    entities: list[str]
    strategies: list[str]
    labels: list[str]
    contexts: list[bytes]

    @classmethod
    def united(cls, several: Sequence[Self]) -> tuple[Self, list[dict[str, Codes]]]:
        """Return the union of `several` pools, and for each of these its codes in the union; see `Frame.recoded`."""
        values: dict[str, list[Any]] = {}
        codes: list[dict[str, Codes]] = [{} for _ in several]
        for name in cls.__struct_fields__:
            own = [getattr(one, name) for one in several]
            values[name] = sorted(set().union(*own))
            index = dict(zip(values[name], count()))
            for mapped, some in zip(codes, own, strict=True):
                mapped[name] = np.array([*map(index.__getitem__, some), MISSING], dtype=np.int32)
        return cls(**values), codes


class Columns(Struct, frozen=True):
    """Closed turns, with the pools of their codes."""

    turns: Turns
    pools: Pools

    def __len__(self) -> int:
        return len(self.turns)

    def take(self, rows: NDArray[Any]) -> "Columns":
        """Return the turns at the indexes `rows`, (n,)."""
        return Columns(self.turns.take(rows), self.pools)

    @classmethod
    def concat(cls, several: Sequence["Columns"]) -> "Columns":
        """Return the turns of `several`, at least one, one after the other."""
        if len(several) == 1:
            return several[0]
        pools, codes = Pools.united([one.pools for one in several])
        frames = [one.turns.recoded(mapped) for one, mapped in zip(several, codes, strict=True)]
        return cls(Turns.concat(frames), pools)

    @classmethod
    def portions(cls, several: Iterable["Columns"]) -> Iterator["Columns"]:
        """Yield the turns of `several` in the same order, those that follow each other joined up to TOGETHER turns."""
        some: list[Columns] = []
        for one in several:
            some.append(one)
            if sum(map(len, some)) >= TOGETHER:
                yield cls.concat(some)
                some = []
        if some:
            yield cls.concat(some)

    def query(self, row: int) -> Query:
        """Return the query of a turn, without query and event ids, which nothing learns from."""
        asked, pools = self.turns.query, self.pools

        def value(code: int, pool: Sequence[Any]) -> Any:
            return None if code == MISSING else pool[code]

        context = value(asked.context[row], pools.contexts)
        return Query(
            event_id="",
            ts=int(asked.ts[row]),
            session_id=pools.people[asked.session[row]],
            query_id="",
            text=pools.texts[asked.text[row]],
            user_id=value(asked.user[row], pools.people),
            locale=value(asked.locale[row], pools.labels),
            interpretation=value(asked.form[row], pools.forms),
            context=msgspec.msgpack.decode(context) if context else {},
        )

    def contexts(self) -> list[dict[str, Any]]:
        """Return the contexts by code; the last one is empty, for MISSING."""
        return [*map(msgspec.msgpack.decode, self.pools.contexts), {}]

    def others(self, kind: type[Signal]) -> tuple[Integers, list[dict[str, Any]]]:
        """Return the turn of each signal of a type without columns of its own, (signals,), and its fields by name."""
        others, labels = self.turns.others, self.pools.labels
        name = name_of(kind)
        if name not in labels:
            return np.zeros(0, dtype=np.int64), []
        rows = np.flatnonzero(others.rows.kind == labels.index(name))
        decoded = self.contexts()
        return others.parents[rows], [decoded[code] for code in others.rows.fields[rows].tolist()]

    def by_strategy(self, lists: Ragged[Any], values: NDArray[Any]) -> list[dict[str, Any]]:
        """Return each list of strategies as a dict: strategy -> its value, in the order of the list."""
        names, ends = self.pools.strategies, lists.counts.cumsum().tolist()
        pairs = zip(map(names.__getitem__, lists.rows.strategy.tolist()), values.tolist(), strict=True)
        every = list(pairs)
        return [dict(every[end - count : end]) for end, count in zip(ends, lists.counts.tolist(), strict=True)]
