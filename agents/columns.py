"""Closed turns as columns: numpy arrays with interned codes, on which the judge and the learners work.

A `Frame` is a set of arrays of the same length; a `Ragged` holds any number of rows of one frame per row of another.
Strings are interned: arrays hold codes, which index the lists of a `Pools`. These are sorted, so codes compare as the
strings do; the code of a missing value is -1.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from itertools import chain, count, islice
from operator import attrgetter
from typing import Any, Final, Generic, Self, TypeAlias, TypeVar
from zlib import crc32

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from backchannel.agents.sums import Floats, Integers
from backchannel.schemas.events import ENVELOPE, BargeIn, Canary, Click, Impression, Query, Result, Signal, name_of
from backchannel.schemas.text import Fold, spelled
from backchannel.schemas.turn import Turn

Codes: TypeAlias = NDArray[np.int32]

MISSING: Final = -1


class Frame(Struct, frozen=True):
    """Columns of the same length; each is an array, a `Ragged` or another frame."""

    def __len__(self) -> int:
        return len(getattr(self, self.__struct_fields__[0]))

    def take(self, rows: NDArray[Any]) -> Self:
        """Return the rows at the indexes `rows`, (n,), in that order."""
        return type(self)(*(getattr(self, name).take(rows) for name in self.__struct_fields__))

    @classmethod
    def concat(cls, frames: Sequence[Self]) -> Self:
        """Return the rows of `frames`, at least one, one after the other."""
        if len(frames) == 1:
            return frames[0]
        return cls(*(_concat([getattr(one, name) for one in frames]) for name in cls.__struct_fields__))

    def recoded(self, codes: Mapping[str, Codes]) -> Self:
        """Return the frame with new codes: pool -> the new code of each old one, and MISSING at the end."""
        return type(self)(*(_recoded(name, getattr(self, name), codes) for name in self.__struct_fields__))

    def coded(self) -> Iterator[tuple[str, Codes]]:
        """Yield every array of codes, with the name of its pool."""
        for name in self.__struct_fields__:
            column = getattr(self, name)
            if isinstance(column, np.ndarray):
                if name in _POOLS:
                    yield _POOLS[name], column
            else:
                yield from (column.rows if isinstance(column, Ragged) else column).coded()


_F = TypeVar("_F", bound=Frame)
_S = TypeVar("_S")


class Ragged(Struct, Generic[_F], frozen=True):
    """Any number of rows for each row of another frame.

    Attributes:
        counts: the number of rows of each parent, (parents,).
        rows: the rows of the first parent, then those of the second, and so on.
    """

    counts: Integers
    rows: _F

    def __len__(self) -> int:
        return len(self.counts)

    @property
    def starts(self) -> Integers:
        """The index of each parent's first row, (parents,)."""
        return np.asarray(self.counts.cumsum() - self.counts)

    @property
    def parents(self) -> Integers:
        """The parent of each row, (rows,)."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    def take(self, rows: NDArray[Any]) -> Self:
        """See `Frame.take`."""
        counts = self.counts.take(rows)
        return type(self)(counts, self.rows.take(spans(self.starts.take(rows), counts)))


def spans(starts: Integers, counts: Integers) -> Integers:
    """Return start, start + 1 ... start + count - 1 for each start, concatenated."""
    return np.asarray(np.repeat(starts - (counts.cumsum() - counts), counts) + np.arange(int(counts.sum())))


def distinct(*codes: NDArray[Any]) -> tuple[Integers, Integers]:
    """Return the index of the first of each distinct row of `codes`, (rows,) each, and each row's number among
    these.
    """
    first = place = np.zeros(len(codes[0]), dtype=np.int64)
    for code in codes if len(place) else ():
        numbers = place * (int(code.max()) - int(code.min()) + 1) + (code.astype(np.int64) - int(code.min()))
        _, first, place = np.unique(numbers, return_index=True, return_inverse=True)
    return first, place


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

    `allocation_propensity` is NaN if none was logged.
    """

    rewrite: Codes
    results: Ragged[Results]
    allocation: Ragged[Drawn]
    planned: Ragged[Drawn]
    propensities: Ragged[Chances]
    allocation_propensity: Floats
    strategy_context: Codes
    user_context: Codes
    examined: Codes
    normalizers: Codes
    outcome: Codes
    canary: Ragged[Canaries]


class Clicks(Frame, frozen=True):
    """Clicks; `dwell_ms` is MISSING if none was logged."""

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


_OWN_COLUMNS: Final = frozenset(name_of(kind) for kind in (Impression, Click, BargeIn))


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


_POOLS: Final = {
    "session": "people",
    "user": "people",
    "text": "texts",
    "spelled": "texts",
    "rewrite": "texts",
    "form": "forms",
    "entity": "entities",
    "strategy": "strategies",
    "locale": "labels",
    "kind": "labels",
    "outcome": "labels",
    "context": "contexts",
    "asr": "contexts",
    "nlu": "contexts",
    "fields": "contexts",
    "strategy_context": "contexts",
    "user_context": "contexts",
    "features": "contexts",
    "examined": "contexts",
    "normalizers": "contexts",
}
"""The pool of each column of codes."""


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


class Interner:
    """Makes frames of events; codes are in order of first occurrence, until `columns` sorts them.

    Events are read once, at one lookup per value: to keep them in the processor's cache,
    pass a few hundred at a time.

    Args:
        folds: the differences to ignore between queries of one key; see `schemas.text.spelled`.
    """

    def __init__(self, folds: Sequence[Fold] = ()) -> None:
        self._folds: Final = tuple(folds)
        self._pools: Final = {name: _pool() for name in Pools.__struct_fields__}
        self._lists: Final = _Lists()

    def __len__(self) -> int:
        return sum(map(len, self._pools.values())) + len(self._lists.numbers)

    def queries(self, queries: Sequence[Query]) -> Queries:
        """Return the columns of `queries`."""
        people, labels = self._pools["people"].__getitem__, self._pools["labels"].__getitem__
        texts, forms = self._pools["texts"].__getitem__, self._pools["forms"].__getitem__
        cells: list[int] = []
        folds = self._folds
        for one in queries:
            cells += (
                people(one.session_id),
                people(one.user_id),
                texts(one.text),
                texts(spelled(one.text, one.locale, folds) if folds or one.locale else one.text),
                forms(one.interpretation),
                labels(one.locale),
            )
        session, user, text, as_read, form, locale = _transposed(cells, 6)
        return Queries(
            ts=np.array([one.ts for one in queries], dtype=np.int64),
            session=session,
            user=user,
            text=text,
            spelled=as_read,
            form=form,
            locale=locale,
            context=self._contexts([one.context for one in queries]),
            asr=self._structs([one.asr for one in queries]),
            nlu=self._structs([one.nlu for one in queries]),
            hash=np.array([_hash(one) for one in queries], dtype=np.uint32),
        )

    def impressions(self, shown: Sequence[Impression]) -> Impressions:
        """Return the columns of impressions."""
        rewrites = [one.rewrite for one in shown]
        whole = [one.allocation_propensity for one in shown]
        return Impressions(
            rewrite=self._codes(rewrites, "rewrite", lambda one: one and one.target) if any(rewrites) else _none(shown),
            results=self._results([one.results for one in shown]),
            allocation=self._by_strategy([one.allocation for one in shown], Drawn, np.int32),
            planned=self._by_strategy([one.planned for one in shown], Drawn, np.int32),
            propensities=self._by_strategy([one.propensities for one in shown], Chances, np.float64),
            allocation_propensity=np.array(whole, dtype=np.float64),  # None becomes NaN
            strategy_context=self._contexts([one.strategy_context for one in shown]),
            user_context=self._contexts([one.user_context for one in shown]),
            examined=self._contexts([one.examined for one in shown]),
            normalizers=self._contexts([one.normalizers for one in shown]),
            outcome=self._codes(shown, "outcome", _outcome),
            canary=_canaries([one.canary for one in shown]),
        )

    def clicks(self, clicks: Sequence[Click]) -> Clicks:
        """Return the columns of `clicks`."""
        dwell = [MISSING if one.dwell_ms is None else one.dwell_ms for one in clicks]
        return Clicks(
            entity=self._codes(clicks, "entity", _entity_id),
            kind=self._codes(clicks, "kind", _kind),
            dwell_ms=np.array(dwell, dtype=np.int64),
        )

    def others(self, signals: Sequence[Signal]) -> Others:
        """Return the columns of signals of any types."""
        return Others(
            kind=self._codes(signals, "kind", _name),
            fields=self._contexts([_own_fields(one) for one in signals]),
        )

    def columns(self, turns: Turns) -> Columns:
        """Return turns with pools of their own, which are sorted and hold only the values in use."""
        values = {name: list(pool) for name, pool in self._pools.items()}
        used = {name: np.zeros(len(pool), dtype=bool) for name, pool in values.items()}
        for name, codes in turns.coded():
            used[name][codes] = True
        sorted_codes, kept = dict[str, Codes](), dict[str, list[Any]]()
        for name, pool in values.items():
            used[name][-1] = False  # MISSING is -1, which indexes the last place
            found = np.flatnonzero(used[name]).tolist()
            found.sort(key=pool[1:].__getitem__)
            sorted_codes[name] = np.full(len(pool), MISSING, dtype=np.int32)
            sorted_codes[name][found] = np.arange(len(found))
            kept[name] = [pool[1 + code] for code in found]
        return Columns(turns.recoded(sorted_codes), Pools(**kept))

    def pruned(self, frames: Sequence[Frame]) -> list[Frame]:
        """Forget the values that none of `frames` holds; return them with their new codes."""
        used = {name: np.zeros(len(pool), dtype=bool) for name, pool in self._pools.items()}
        for frame in frames:
            for name, codes in frame.coded():
                used[name][codes] = True
        codes_now = dict[str, Codes]()
        for name, pool in self._pools.items():
            used[name][-1] = False
            kept = np.flatnonzero(used[name])
            codes_now[name] = np.full(len(pool), MISSING, dtype=np.int32)
            codes_now[name][kept] = np.arange(len(kept))
            values = list(pool)[1:]
            self._pools[name] = _pool(values[code] for code in kept.tolist())
        self._lists.clear()
        return [frame.recoded(codes_now) for frame in frames]

    def _codes(self, some: Sequence[Any], column: str, get: Callable[[Any], Any]) -> Codes:
        pool = self._pools[_POOLS[column]]
        return np.fromiter(map(pool.__getitem__, map(get, some)), np.int32, len(some))

    def _results(self, some: Sequence[Sequence[Result]]) -> Ragged[Results]:
        entities, lists = self._pools["entities"], self._lists.numbers
        cells: list[int] = []
        cell = cells.append
        ranked = False
        for results in some:
            for one in results:
                cell(entities[one.entity_id])
                cell(one.position)
                cell(lists[one.strategies])
                if one.ranks or one.features:
                    ranked = True
        entity, position, producers = _transposed(cells, 3)
        every = list(chain.from_iterable(some)) if ranked else ()
        return Ragged(
            _lengths(some),
            Results(
                entity=entity,
                position=position,
                features=self._contexts([one.features for one in every]) if ranked else _none(entity),
                producers=self._in_lists(producers, Names),
                ranks=self._by_strategy([one.ranks for one in every] or [{}] * len(entity), Ranks, np.int32),
            ),
        )

    def _in_lists(self, numbers: Codes, frame: Callable[[Codes], _F]) -> Ragged[_F]:
        """Return the lists of strategies with the given numbers."""
        counts, codes = self._lists.codes(numbers, self._pools["strategies"])
        return Ragged(counts, frame(codes))

    def _by_strategy(
        self, some: Sequence[Mapping[str, Any]], frame: Callable[[Codes, NDArray[Any]], _F], kind: type[Any]
    ) -> Ragged[_F]:
        if not any(some):  # as is usual for fields that few producers log
            return Ragged(np.zeros(len(some), dtype=np.int64), frame(np.zeros(0, dtype=np.int32), np.zeros(0, kind)))
        numbers = np.fromiter(map(self._lists.numbers.__getitem__, map(tuple, some)), np.int32, len(some))
        values = np.fromiter(chain.from_iterable([one.values() for one in some]), kind)
        return self._in_lists(numbers, lambda strategies: frame(strategies, values))

    def _structs(self, some: Sequence[Struct | None]) -> Codes:
        if not any(some):  # as is usual of what few log
            return _none(some)
        encoded = [None if one is None else _encode(one) for one in some]
        return np.fromiter(map(self._pools["contexts"].__getitem__, encoded), np.int32, len(encoded))

    def _contexts(self, contexts: Sequence[Sized]) -> Codes:
        if not any(contexts):
            return _none(contexts)
        encoded = [_encode(one) if one else None for one in contexts]
        return np.fromiter(map(self._pools["contexts"].__getitem__, encoded), np.int32, len(encoded))


def columns_of(turns: Sequence[Turn]) -> Columns:
    """Return `turns` as columns."""
    interner = Interner()
    following = [turn.next for turn in turns if turn.next is not None]
    impressions, shown = _flat([turn.impressions for turn in turns])
    clicks, clicked = _flat([turn.clicks for turn in turns])
    others, signals = _flat([others_of(turn.signals) for turn in turns])
    return interner.columns(
        Turns(
            query=interner.queries([turn.query for turn in turns]),
            following=Ragged(
                np.array([turn.next is not None for turn in turns], dtype=np.int64), interner.queries(following)
            ),
            impressions=Ragged(impressions, interner.impressions(shown)),
            clicks=Ragged(clicks, interner.clicks(clicked)),
            barge_ins=_lengths([turn.barge_ins for turn in turns]),
            others=Ragged(others, interner.others(signals)),
        )
    )


def others_of(signals: Mapping[str, Iterable[_S]]) -> list[_S]:
    """Return the signals of a turn, given by event type, that have no columns of their own, in the order of `Turns`."""
    return list(chain.from_iterable(signals[name] for name in sorted(signals.keys() - _OWN_COLUMNS)))


_encode = msgspec.msgpack.Encoder().encode
_entity_id = attrgetter("entity_id")
_kind = attrgetter("kind")
_outcome = attrgetter("outcome")


def _name(event: Signal) -> str:
    return name_of(type(event))


def _own_fields(event: Signal) -> dict[str, Any]:
    left_out = ENVELOPE | event.unlearned
    return {name: getattr(event, name) for name in event.__struct_fields__ if name not in left_out}


class _Lists:
    """Lists of strategies, few of which are distinct: each is looked up as a whole, and its strategies only once.

    Attributes:
        numbers: list -> its number, assigned on the first lookup.
    """

    def __init__(self) -> None:
        self.numbers: Final[defaultdict[tuple[str, ...], int]] = defaultdict(count().__next__)
        self.clear()

    def clear(self) -> None:
        """Forget all lists, because the codes of strategies change."""
        self.numbers.clear()
        self.numbers.default_factory = count().__next__
        self._known = Ragged(np.zeros(0, dtype=np.int64), Names(np.zeros(0, dtype=np.int32)))

    def codes(self, numbers: Codes, strategies: Mapping[str, int]) -> tuple[Integers, Codes]:
        """Return the number of strategies in each list, (lists,), and their codes, list by list."""
        if len(self._known) < len(self.numbers):
            counts, names = _flat(list(islice(self.numbers, len(self._known), None)))
            codes = np.array([strategies[name] for name in names], dtype=np.int32)
            self._known = Ragged(
                np.concatenate([self._known.counts, counts]), Names.concat([self._known.rows, Names(codes)])
            )
        lists = self._known.take(numbers)
        return lists.counts, lists.rows.strategy


def _none(some: Sized) -> Codes:
    """Return MISSING for each of `some`."""
    return np.full(len(some), MISSING, dtype=np.int32)


def _transposed(cells: Sequence[int], width: int) -> Codes:
    """Return the columns of a table given row by row, (width, rows)."""
    return np.ascontiguousarray(np.array(cells, dtype=np.int32).reshape(-1, width).T)


def _pool(values: Iterable[Any] = ()) -> defaultdict[Any, int]:
    known = {value: code for code, value in enumerate(values)}
    return defaultdict(count(len(known)).__next__, {None: MISSING} | known)


def _hash(query: Query) -> int:
    return crc32((query.session_id + query.query_id).encode(errors="surrogatepass"))


def _numbers(get: Callable[[Any], int], some: Sequence[Any], kind: type[Any]) -> NDArray[Any]:
    return np.fromiter(map(get, some), kind, len(some))


def _canaries(some: Sequence[Canary | None]) -> Ragged[Canaries]:
    """Return at most one canary per impression."""
    found = [one for one in some if one is not None]
    return Ragged(
        np.array([one is not None for one in some], dtype=np.int64),
        Canaries(
            trial=np.array([one.trial for one in found], dtype=np.int64),
            share=np.array([one.share for one in found], dtype=np.float64),
            propensity=np.array([one.propensity for one in found], dtype=np.float64),
        ),
    )


def _lengths(some: Sequence[Any]) -> Integers:
    return np.fromiter(map(len, some), np.int64, len(some))


def _flat(some: Sequence[Iterable[Any]]) -> tuple[Integers, list[Any]]:
    return _lengths(some), list(chain.from_iterable(some))


def _concat(parts: Sequence[Any]) -> Any:
    if isinstance(parts[0], Ragged):
        rows = [one.rows for one in parts]
        return Ragged(np.concatenate([one.counts for one in parts]), type(rows[0]).concat(rows))
    return type(parts[0]).concat(parts) if isinstance(parts[0], Frame) else np.concatenate(parts)


def _recoded(name: str, column: Any, codes: Mapping[str, Codes]) -> Any:
    if isinstance(column, Ragged):
        return Ragged(column.counts, column.rows.recoded(codes))
    if isinstance(column, Frame):
        return column.recoded(codes)
    return codes[_POOLS[name]].take(column, mode="wrap") if name in _POOLS else column
