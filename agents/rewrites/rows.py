"""The rows of the rewrites' sections, and the sessions that are held out."""

import msgspec
from msgspec import Struct

from backchannel.agents.sketches import unit_hash


class Settings(Struct, frozen=True, omit_defaults=True):
    """How rewrites are served.

    Attributes:
        held_out: the share of sessions that are served no rewrites, 0 to 1.
    """

    held_out: float = 0.0


class RewriteRow(Struct, frozen=True, omit_defaults=True):
    """The rewrite of a state, and what is forbidden.

    Attributes:
        target: the state that it is rewritten to; empty if it has no rewrite.
        probability: the probability that somebody who asks the state passes through the target and succeeds there.
        support: the turns of the state (decayed).
        pinned: whether an operator decreed the rewrite.
        withdrawn: the reason why the rewrite is no longer served; empty while it is served.
        blocked: the targets that an operator has forbidden, for personal rewrites too; `ALL` forbids every target.
    """

    target: str = msgspec.field(name="to", default="")
    probability: float = 0.0
    support: float = 0.0
    pinned: bool = False
    withdrawn: str = ""
    blocked: tuple[str, ...] = ()


PersonalRow = dict[str, tuple[str, float]]
"""A user's own rewrites: state -> target, and its probability, 0 to 1."""


def is_held_out(session: str, share: float) -> bool:
    """Return whether a session is one of the `share`, 0 to 1, of all sessions that are served no rewrites."""
    # Sketches hash the bare name. With the same hash here, all held-out sessions would fall into the same buckets.
    return unit_hash("held out: " + session) < share
