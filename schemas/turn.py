"""The turn: one query and everything that happened to it within the attribution window."""

from msgspec import Struct

from backchannel.schemas.events import BargeIn, Click, Impression, Query


class Turn(Struct, frozen=True, gc=False):
    """A closed turn. It is complete in itself, so a learner needs nothing else.

    Attributes:
        query: what was asked.
        impressions: what was shown, in the order in which it was logged.
        clicks: what was chosen, likewise.
        barge_ins: the interruptions of the response, likewise.
        next: the session's next query within the attribution window: the possible rephrase.
    """

    query: Query
    impressions: tuple[Impression, ...] = ()
    clicks: tuple[Click, ...] = ()
    barge_ins: tuple[BargeIn, ...] = ()
    next: Query | None = None
