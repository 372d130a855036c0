"""The serving half of satisfaction: how satisfied people are, and how satisfied somebody probably is with one turn."""

from collections.abc import Mapping
from functools import cached_property
from typing import ClassVar, Final, Self

import msgspec
import numpy as np
from msgspec import Struct

from backchannel.agents.columnar.interning import columns_of
from backchannel.agents.labelled.kinds import by_kind
from backchannel.agents.serving import Sections
from backchannel.agents.sums import ALL, Floats
from backchannel.schemas.snapshot import Estimate, Snapshot
from backchannel.schemas.turn import Turn

_SUREST: Final = 0.99


class SatisfactionModel(Struct, frozen=True):
    """The model, as published.

    Attributes:
        encoding: the encoding of vectors.
        weights: what a turn's vector is multiplied by for the probability of a yes, (width,).
        answers: the effective number of answers that were no, and that were yes.
        rephrase_gap_s: the longest time between a query and its rephrase, as learned with, s.
    """

    encoding: str
    weights: list[float]
    answers: tuple[float, float]
    rephrase_gap_s: float

    def probabilities(self, vectors: Floats) -> Floats:
        """Return the probabilities, 0.01 to 0.99, of turns with `vectors`, (turns, width)."""
        return np.asarray(np.clip(vectors @ np.array(self.weights), 1.0 - _SUREST, _SUREST))


class Rate(Struct, frozen=True):
    """How many turns of a set people are satisfied with.

    Attributes:
        turns: number of turns (decayed).
        explicit: the share of them about which somebody said so; the others are predicted.
        satisfied: the share of the turns that people are satisfied with, with an interval of 95% from the predicted.
    """

    turns: float
    explicit: float
    satisfied: Estimate

    def __str__(self) -> str:
        one = self.satisfied
        return (
            f"{one.value:.1%} of turns ({one.low:.1%} to {one.high:.1%}); people said so about {self.explicit:.1%}, "
            "the others are predicted"
        )


class Satisfaction:
    """Predicts satisfaction, if there are enough answers to have learned from.

    Args:
        section: the rows of the section.
    """

    name: ClassVar[str] = "satisfaction"

    def __init__(self, section: Mapping[str, bytes]) -> None:
        self._rows: Final = section

    @classmethod
    def of(cls, sections: Sections, header: Snapshot) -> Self:  # noqa: ARG003 - a Serving
        """See `Serving.of`."""
        return cls(sections.get(cls.name, {}))

    @cached_property
    def model(self) -> SatisfactionModel | None:
        """The model; None if there are not enough answers."""
        row = self._rows.get(ALL)
        return None if row is None else msgspec.json.decode(row, type=SatisfactionModel)

    def predict(self, turn: Turn) -> float | None:
        """Return the probability, 0 to 1, that somebody is satisfied with a turn, from its signals; None: unknown.

        What was said about it does not count.
        """
        if self.model is None:
            return None
        # Serving has no rapidfuzz.
        from backchannel.agents.rephrases.detector import RephraseDetector  # noqa: PLC0415
        from backchannel.agents.satisfaction.evidence import slots_of, vectors  # noqa: PLC0415

        columns, rephrased = columns_of([turn]), np.zeros(1)
        after = turn.next
        if after is not None and after.ts - turn.query.ts <= 1000 * self.model.rephrase_gap_s:
            rephrased = RephraseDetector().probabilities(columns, np.zeros(1, dtype=np.int64))
        slots = slots_of(columns, rephrased)
        return float(self.model.probabilities(vectors(slots))[0])

    def rates(self) -> dict[str, dict[str, Rate]]:
        """Return the rates by kind (`all`, `day`, `device`, `intent`, `locale`) and value."""
        return by_kind(self._rows, Rate)

    @property
    def rate(self) -> Rate | None:
        """The rate of all turns; None if there are not enough answers to predict the others."""
        return self.rates().get("all", {}).get("")
