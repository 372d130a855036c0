"""Tastes, serving: what a user's choices, and what was taught, add to the scores of candidates.

A row of the section holds one user's evidence about attribute values, as of its last change; see `personal` for the
sums. A value's weight is the ridge solution, drawn to what holds for all users together:

    (lift - mean * spread) / (ridge + spread)

Saying that one likes a value adds LIKED choices of a result with the value over one without it. They fade like the
user's own choices, which can overrule them.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Final, Self, TypeAlias

import msgspec
import numpy as np
from msgspec import Struct

from backchannel.agents.bandit.features import Value
from backchannel.agents.memory.serving import LIKED
from backchannel.agents.serving import Sections
from backchannel.agents.sums import ALL, Floats
from backchannel.schemas.snapshot import Snapshot

Weights: TypeAlias = Mapping[str, Mapping[str, float]]
"""Feature -> value -> what it adds to the score of a candidate that has the value."""

NO_TASTES: Final[Weights] = {}
_CHOICE: Final = 0.5  # the lift, and the spread, of choosing one of two results that were both examined


class Everybody(Struct, frozen=True, array_like=True):
    """The parameters of all rows, and all users' weights.

    Attributes:
        half_life_ms: the half-life of the evidence, ms.
        ridge: the strength of the pull towards all users' weights, in spread.
        means: feature -> value -> the weight for all users together, in gain.
    """

    half_life_ms: int
    ridge: float
    means: dict[str, dict[str, float]] = {}


class UserRow(Struct, frozen=True, array_like=True):
    """A user's lift and spread by feature and value, as of `at` (event time, ms)."""

    at: int
    values: dict[str, dict[str, tuple[float, float]]]


DEFAULT: Final = Everybody(30 * 86_400_000, 30.0)
"""For what was taught where no tastes are learned."""
_decode_everybody = msgspec.json.Decoder(Everybody).decode
_decode_row = msgspec.json.Decoder(UserRow).decode


class Tastes:
    """The tastes of one policy version.

    Args:
        section: the rows of the section.
        watermark: the event time (ms) that evidence is decayed to.
    """

    name: ClassVar[str] = "tastes"

    def __init__(self, section: Mapping[str, bytes], watermark: int) -> None:
        self._rows: Final = section
        self._watermark: Final = watermark
        everybody = section.get(ALL)
        self._everybody: Final = DEFAULT if everybody is None else _decode_everybody(everybody)

    @classmethod
    def of(cls, sections: Sections, header: Snapshot) -> Self:
        """See `Serving.of`."""
        return cls(sections.get(cls.name, {}), header.watermark)

    @property
    def people(self) -> int:
        """The number of users whose choices are known."""
        return len(self._rows.keys() - {ALL})

    @property
    def means(self) -> Weights:
        """The weights for all users together."""
        return self._everybody.means

    def weights(self, user: str | None, liked: Mapping[tuple[str, str], int]) -> Weights:
        """Return a user's weights; none if nothing is known about the user.

        Args:
            user: the `user_id`.
            liked: the features and values that the user is said to like, with the time at which that was said, ms.
        """
        row = self._rows.get(user) if user else None
        if row is None and not liked:
            return NO_TASTES
        everybody, evidence = self._everybody, dict[tuple[str, str], tuple[float, float]]()
        if row is not None:
            known = _decode_row(row)
            fading = self._fading(known.at)
            for feature, values in known.values.items():
                for value, (lift, spread) in values.items():
                    evidence[feature, value] = fading * lift, fading * spread
        for pair, at in liked.items():
            said = LIKED * _CHOICE * self._fading(at)
            lift, spread = evidence.get(pair, (0.0, 0.0))
            evidence[pair] = lift + said, spread + said
        weights: dict[str, dict[str, float]] = {}
        for (feature, value), (lift, spread) in evidence.items():
            mean = everybody.means.get(feature, {}).get(value, 0.0)
            weights.setdefault(feature, {})[value] = (lift - mean * spread) / (everybody.ridge + spread)
        return weights

    def _fading(self, at: int) -> float:
        fading: float = 2.0 ** (min(at - self._watermark, 0) / self._everybody.half_life_ms)
        return fading


def contributions(weights: Weights, features: Sequence[Mapping[str, Value]]) -> tuple[list[str], Floats]:
    """Return the columns, `NAME=VALUE`, and what each adds to each candidate, relative to the list's mean.

    Args:
        weights: see `Tastes.weights`.
        features: the features of each candidate; at least one candidate.

    Returns:
        the columns, and an array of the shape (candidates, columns).
    """
    names: list[str] = []
    added: list[list[float]] = []
    for feature, values in weights.items():
        texts = [text_of(one.get(feature)) for one in features]
        for value in sorted(values.keys() & set(texts)):
            names.append(f"{feature}={value}")
            added.append([values[value] if text == value else 0.0 for text in texts])
    found = np.array(added).reshape(len(names), len(features)).T
    return names, found - found.mean(axis=0)


def text_of(value: Value) -> str | None:
    """Return a value of a categorical feature as it is declared and taught; None for numbers."""
    if isinstance(value, bool):
        return ("false", "true")[value]
    return value if isinstance(value, str) else None
