"""Features of users, for the bandit: the serving half of `user_history`.

A row of the section holds one user's turns as of their last change. They decay until the features are read, so rows
need not be published again only because time passes. `Policy.allocate` logs the features with the decision, and the
bandit learns from the logged context; so it never learns from what came later.
"""

from collections.abc import Mapping
from math import log2
from typing import ClassVar, Final, Self

import msgspec
from msgspec import Struct

from backchannel.agents.bandit.features import OF_USER
from backchannel.agents.serving import Sections
from backchannel.agents.sums import ALL
from backchannel.schemas.snapshot import Snapshot

TURNS: Final = f"{OF_USER}turns"
"""log2(1 + turns) of the user's turns (decayed); 0 if nothing is known."""

REWARD: Final = f"{OF_USER}reward"
"""The mean success of the user's turns minus that of all users, -1 to 1; 0 if nothing is known."""

DEFECTS: Final = f"{OF_USER}defects"
"""The share of defects among the user's turns minus that of all users, -1 to 1; 0 if nothing is known."""

USER_FEATURES: Final = frozenset({TURNS, REWARD, DEFECTS})

PRIOR: Final = 10.0
"""Prior strength, in turns, that pulls a user towards the average."""


class Everybody(Struct, frozen=True, array_like=True):
    """The mean success and the share of defects of all users' turns, and the half-life (ms) of turns."""

    reward: float
    defects: float
    half_life_ms: int


class UserRow(Struct, frozen=True, array_like=True):
    """A user's turns, their success added up, and their defects, as of `at` (event time, ms)."""

    at: int
    turns: float
    reward: float
    defects: float


_decode_everybody = msgspec.json.Decoder(Everybody).decode
_decode_row = msgspec.json.Decoder(UserRow).decode


class Users:
    """The users of one policy version.

    Args:
        section: the rows of the section.
        watermark: event time (ms) that turns are decayed to.
    """

    name: ClassVar[str] = "users"

    def __init__(self, section: Mapping[str, bytes], watermark: int) -> None:
        self._rows: Final = section
        self._watermark: Final = watermark
        everybody = section.get(ALL)
        self._everybody: Final = None if everybody is None else _decode_everybody(everybody)

    @classmethod
    def of(cls, sections: Sections, header: Snapshot) -> Self:
        """See `Serving.of`."""
        return cls(sections.get(cls.name, {}), header.watermark)

    def features(self, user: str) -> dict[str, float]:
        """Return the features of a user; all 0, the average, for an unknown one."""
        everybody, row = self._everybody, self._rows.get(user) if user else None
        if everybody is None or row is None:
            return dict.fromkeys(sorted(USER_FEATURES), 0.0)
        known = _decode_row(row)
        decay = 2.0 ** (min(known.at - self._watermark, 0) / everybody.half_life_ms)
        turns = decay * known.turns
        return {
            DEFECTS: (decay * known.defects - turns * everybody.defects) / (turns + PRIOR),
            REWARD: (decay * known.reward - turns * everybody.reward) / (turns + PRIOR),
            TURNS: log2(1.0 + turns),
        }
