"""The rows of the rewrites in the policy, for those who write and those who read them, and who is held out."""

import msgspec
from msgspec import Struct

from backchannel.agents.sketches import unit_hash


class Settings(Struct, frozen=True, omit_defaults=True):
    """How rewrites are served.

    Attributes:
        held_out: the share of sessions that are served none.
    """

    held_out: float = 0.0


class RewriteRow(Struct, frozen=True, omit_defaults=True):
    """What the policy says of a state.

    Attributes:
        target: what it is to be rewritten to; empty if nothing is.
        probability: that somebody who starts with the state passes through the target and succeeds there.
        support: turns that the state had, as far as not faded.
        pinned: whether somebody has decreed it.
        withdrawn: why it is not served any more; empty while it is.
        blocked: targets that somebody has forbidden, be it to a personal rewrite; `ALL` forbids all.
    """

    target: str = msgspec.field(name="to", default="")
    probability: float = 0.0
    support: float = 0.0
    pinned: bool = False
    withdrawn: str = ""
    blocked: tuple[str, ...] = ()


PersonalRow = dict[str, tuple[str, float]]
"""A user's own rewrites: state -> target and probability."""


def is_held_out(session: str, share: float) -> bool:
    """Return whether a session belongs to the `share` of all that are served no rewrites; always the same answer."""
    # Another hash than that of the buckets in `distinct`: else all of these sessions would be one person there.
    return unit_hash("held out: " + session) < share
