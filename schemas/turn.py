"""The turn: a query and all its signals within the attribution window."""

from collections.abc import Iterable
from typing import Self, TypeVar, cast

from msgspec import Struct

from backchannel.schemas.events import BargeIn, Click, Impression, Query, Signal, name_of

_SignalT = TypeVar("_SignalT", bound=Signal)


class Turn(Struct, frozen=True, gc=False):
    """A closed turn. It is self-contained: a learner needs nothing else.

    Attributes:
        query: the query as asked.
        signals: event type -> its signals, in the order in which they were logged; types without signals are absent.
        next: the session's next query within the attribution window: the possible rephrase.
    """

    query: Query
    signals: dict[str, tuple[Signal, ...]] = {}
    next: Query | None = None

    @classmethod
    def of(cls, query: Query, signals: Iterable[Signal] = (), next: Query | None = None) -> Self:  # noqa: A002 - the field's name
        """Return the turn of a query and its signals, keeping their order."""
        by_type: dict[str, list[Signal]] = {}
        for signal in signals:
            by_type.setdefault(name_of(type(signal)), []).append(signal)
        return cls(query, {name: tuple(some) for name, some in by_type.items()}, next)

    def all(self, kind: type[_SignalT]) -> tuple[_SignalT, ...]:
        """Return the signals of one type, in the order in which they were logged."""
        return cast("tuple[_SignalT, ...]", self.signals.get(name_of(kind), ()))

    @property
    def impressions(self) -> tuple[Impression, ...]:
        """The impressions of results."""
        return cast("tuple[Impression, ...]", self.signals.get("impression", ()))

    @property
    def clicks(self) -> tuple[Click, ...]:
        """The clicks on results."""
        return cast("tuple[Click, ...]", self.signals.get("click", ()))

    @property
    def barge_ins(self) -> tuple[BargeIn, ...]:
        """The interruptions of the response."""
        return cast("tuple[BargeIn, ...]", self.signals.get("barge_in", ()))
