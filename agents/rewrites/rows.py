"""The rows of the rewrites' sections, and the sessions that are held out."""

from collections.abc import Iterable
from typing import Final

import msgspec
import numpy as np
from msgspec import Struct

from backchannel.agents.rewrites.keeping import Fitted
from backchannel.agents.rewrites.ranker import Ranker
from backchannel.agents.sketches import unit_hash, unit_hashes
from backchannel.agents.sums import Booleans

_SALT: Final = "held out: "
"""Sketches hash the bare name: with the same hash here, all held-out sessions would fall into the same buckets."""


class Settings(Struct, frozen=True, omit_defaults=True):
    """How rewrites are served.

    Attributes:
        held_out: the share of sessions that are served no rewrites, 0 to 1.
        odds: the wins per loss that an online rewrite must reach, by their lower bound; 0: there are none.
        first: how often a process serves an online rewrite of a query before the next version has its record.
        ranker: the ranker of everybody's queries; None: the one that is shipped.
        fitted: what the ranker was fitted to; serving does not need it.
    """

    held_out: float = 0.0
    odds: float = 0.0
    first: int = 0
    ranker: Ranker | None = None
    fitted: Fitted | None = None


class RewriteRow(Struct, frozen=True, omit_defaults=True):
    """The rewrite of a state, and what is forbidden.

    Attributes:
        target: the state that it is rewritten to; empty if it has no rewrite.
        probability: the probability that somebody who asks the state passes through the target and succeeds there.
        support: the turns of the state (decayed).
        pinned: whether an operator decreed the rewrite.
        withdrawn: the reason why the rewrite is no longer served; empty while it is served.
        blocked: the targets that an operator has forbidden, for personal rewrites too; `ALL` forbids every target.
        success: the turns that succeeded without a rewrite (decayed). Only for online rewrites.
        failure: the turns that failed or were rephrased (decayed). Only for online rewrites.
        heard: whether it is served only where the target is among the recogniser's hypotheses, as it is an opposite.
        tried: the targets that were served as rewrites -> whether they may still be. Only for online rewrites.
    """

    target: str = msgspec.field(name="to", default="")
    probability: float = 0.0
    support: float = 0.0
    pinned: bool = False
    withdrawn: str = ""
    blocked: tuple[str, ...] = ()
    success: float = 0.0
    failure: float = 0.0
    tried: dict[str, bool] = {}
    heard: bool = False


PersonalRow = dict[str, tuple[str, float]]
"""A user's own rewrites: state -> target, and its probability, 0 to 1."""


class Habit(Struct, frozen=True, array_like=True):
    """A query that a user is in the habit of asking.

    Attributes:
        success: the turns in which it succeeded for the user (decayed).
        failure: those in which it failed (decayed).
        form: its interpretation; empty without one.
    """

    success: float
    failure: float
    form: str = ""


HabitRow = dict[str, Habit]
"""The queries that a user is in the habit of asking, by normalised text."""


class Usual(Struct, frozen=True):
    """What a user usually asks.

    Attributes:
        habits: the user's habits.
        ranker: the ranker of habits, which was trained on what became of those of other users; None: it is not known
            how far habits tell what was meant, so none is served.
    """

    habits: HabitRow
    ranker: Ranker | None = None


def is_held_out(session: str, share: float) -> bool:
    """Return whether a session is one of the `share`, 0 to 1, of all sessions that are served no rewrites."""
    return unit_hash(_SALT + session) < share


def held_out(sessions: Iterable[str], share: float) -> Booleans:
    """Return `is_held_out` of each session."""
    return np.asarray(unit_hashes(map(_SALT.__add__, sessions)) < share)
