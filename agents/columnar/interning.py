"""Interning: events become columns."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from itertools import chain, count, islice
from operator import attrgetter
from typing import Any, Final, TypeVar
from zlib import crc32

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from backchannel.agents.columnar.columns import (
    Canaries,
    Chances,
    Clicks,
    Columns,
    Drawn,
    Impressions,
    Names,
    Others,
    Pools,
    Queries,
    Ranks,
    Results,
    Turns,
)
from backchannel.agents.columnar.frames import MISSING, POOLS, Codes, Frame, Ragged
from backchannel.agents.sums import Integers
from backchannel.schemas.events import ENVELOPE, BargeIn, Canary, Click, Impression, Query, Result, Signal, name_of
from backchannel.schemas.text import Fold, spelled
from backchannel.schemas.turn import Turn

_F = TypeVar("_F", bound=Frame)
_S = TypeVar("_S")

_OWN_COLUMNS: Final = frozenset(name_of(kind) for kind in (Impression, Click, BargeIn))

_encode = msgspec.msgpack.Encoder().encode
_entity_id = attrgetter("entity_id")
_kind = attrgetter("kind")
_outcome = attrgetter("outcome")
_reply = attrgetter("reply")


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
        sessions = [crc32(one.session_id.encode("utf-8", "surrogatepass")) for one in queries]
        hashes = [
            crc32(one.query_id.encode("utf-8", "surrogatepass"), begun)
            for one, begun in zip(queries, sessions, strict=True)
        ]
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
            earlier=self._structs([one.earlier for one in queries]),
            session_hash=np.array(sessions, dtype=np.uint32),
            hash=np.array(hashes, dtype=np.uint32),
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
            distinct=np.array([one.distinct or 0 for one in shown], dtype=np.int32),
            propensities=self._by_strategy([one.propensities for one in shown], Chances, np.float64),
            allocation_propensity=np.array(whole, dtype=np.float64),  # None becomes NaN
            strategy_context=self._contexts([one.strategy_context for one in shown]),
            user_context=self._contexts([one.user_context for one in shown]),
            examined=self._contexts([one.examined for one in shown]),
            normalizers=self._contexts([one.normalizers for one in shown]),
            outcome=self._codes(shown, "outcome", _outcome),
            reply=self._codes(shown, "reply", _reply),
            canary=_canaries([one.canary for one in shown]),
        )

    def clicks(self, clicks: Sequence[Click]) -> Clicks:
        """Return the columns of `clicks`."""
        dwell = [MISSING if one.dwell_ms is None else one.dwell_ms for one in clicks]
        return Clicks(
            ts=np.array([one.ts for one in clicks], dtype=np.int64),
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
        pool = self._pools[POOLS[column]]
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
