"""Failure points: the first component that failed in a turn, learned from a few labels.

Labelled turns add X'X and X'Y of their evidence (see `evidence`), by fold of people; all turns whose events say how
they went add their evidence by intent, device, locale and day. The weights are solved at publish and applied to all of
these sums, so a new label also changes what is said of earlier turns. `model` says how. Until there are enough labels,
`rules` tell what they can.

Assumptions, as `docs/design.md` asks of every learner: labels are few and made by people who are trusted, so nobody's
labels are bounded; shares count turns, so who asks more counts more. Positions, depth and overlap do not enter. An
error that the system recovered from is labelled `correct`, and what nobody can do is `unsupported`, not a defect.
"""

from collections.abc import Sequence
from itertools import chain
from typing import Annotated, Any, Final, Self, get_args

import msgspec
import numpy as np
from msgspec import Meta, Struct

from backchannel.agents.failures import rules
from backchannel.agents.failures.evidence import ENCODING, RULED, WIDTH, evidence, is_told, vectors
from backchannel.agents.failures.serving import Diagnoser, Shares, Weights
from backchannel.agents.labelled.kinds import KINDS, published
from backchannel.agents.labelled.labels import labels_of
from backchannel.agents.labelled.learner import LabelLearner
from backchannel.agents.labelled.ridge import Fit, LabelSums
from backchannel.agents.learner import Changed
from backchannel.agents.outcomes.outcomes import Outcomes
from backchannel.agents.sums import ALL, GRID, Delta, Floats, Integers, SumReader
from backchannel.schemas.events import FailurePoint
from backchannel.schemas.snapshot import Estimate

POINTS: Final[tuple[str, ...]] = get_args(FailurePoint)


class FailureConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """How failure points are learned from labels."""

    labels_half_life_days: Annotated[float, Meta(ge=1, le=100_000, description="half-life of labels, in days")] = 365.0
    half_life_days: Annotated[
        float, Meta(ge=0.1, le=100_000, description="half-life of the turns that shares are of, in days")
    ] = 30.0
    min_labels: Annotated[
        float,
        Meta(ge=1, le=1e6, description="labels (decayed) below which a failure point is unknown, rather than rare"),
    ] = 5.0
    sampled: Annotated[
        int,
        Meta(
            ge=0,
            le=100_000,
            description="labelled turns to keep for `diagnose --challenger`, which compares another learner with the "
            "published one; 0: none",
        ),
    ] = 10_000


class FailurePoints(LabelLearner):
    """The learner of failure points. Its section: "" -> `Weights`; kind -> value -> `Shares`."""

    name = Diagnoser.name
    serving = Diagnoser
    encoding = ENCODING
    width = WIDTH
    points = len(POINTS)

    def __init__(self, config: FailureConfig) -> None:
        super().__init__(("failure_labels", config.labels_half_life_days), ("failure_turns", config.half_life_days))
        self.config: Final = config

    @classmethod
    def configured(cls, config: Any) -> Self:
        """See `Learner.configured`."""
        return cls(config.failures)

    def learn(self, outcomes: Outcomes) -> Delta:
        """See `Learner.learn`. Turns without `asr`, `nlu`, `outcome` and labels add nothing."""
        labelled, labels = labels_of(outcomes.columns, "failure_point", POINTS)
        rows = np.union1d(is_told(outcomes.columns), labelled)
        if not len(rows):
            return {}
        columns = outcomes.columns.take(rows)
        slots = [list(set(one.values())) for one in evidence(columns)]
        counts = np.fromiter(map(len, slots), np.int64, len(slots))
        flat = np.fromiter(chain.from_iterable(slots), np.int64, int(counts.sum()))

        def of_turns(places: Integers, values: int, weights: Floats) -> Floats:
            lines = np.repeat(places, counts) * WIDTH + flat
            total = np.bincount(lines, np.repeat(weights, counts), values * WIDTH)
            return np.asarray(total, dtype=float).reshape(values, WIDTH)

        delta = self._by_kind(columns, of_turns)
        if len(labelled):
            found = vectors((slots[row] for row in np.searchsorted(rows, labelled).tolist()), len(labelled))
            defects = np.rint(outcomes.defects[labelled] * GRID) / GRID

            def of_labels(own: Integers, weights: Floats) -> LabelSums:
                return LabelSums.of(found[own], labels[own], defects[own], weights)

            delta |= self._labelled(outcomes, labelled, of_labels)
        return delta

    def solve(self, sums: SumReader, changed: Changed, at: int) -> dict[str, bytes | None]:
        """See `Learner.solve`. Weights and shares are small, and solved anew whenever anything changed."""
        if not changed.keys() & {self.labels.name, self.turns.name}:
            return {}
        section: dict[str, bytes | None] = dict.fromkeys((ALL, *KINDS))
        found = self.fit(sums, at)
        if found is not None:
            section[ALL] = msgspec.json.encode(found[0])
        for kind, by_value in published(sums, self.turns, ENCODING, at).items():
            shares = {
                value: Shares(round(float(total[0]), 3), _shares(found, total)) for value, total in by_value.items()
            }
            section[kind] = msgspec.json.encode(shares)
        return section

    def fit(self, sums: SumReader, at: int, without: int | None = None) -> tuple[Weights, Fit] | None:
        """Return the weights to publish and the fit that they are from; None if there are too few labels.

        Args:
            sums: the sums of all turns so far.
            at: the event time (ms) that sums are decayed to.
            without: a fold of people not to learn from, see `fold_of`; None: learn from all.
        """
        return self.fit_of(self.folds(sums, at, without))

    def fit_of(self, folds: Sequence[LabelSums]) -> tuple[Weights, Fit] | None:
        """Return what `fit` does, from the sums of labelled turns of each fold of people."""
        labels = np.sum([one.labels for one in folds], axis=0) if folds else np.zeros(len(POINTS))
        known = np.flatnonzero(labels >= self.config.min_labels).tolist()
        if len(folds) < 2 or len(known) < 2:
            return None
        folds = [one.only(known) for one in folds]
        fit = Fit.of(folds)
        model = fit.model
        gram = np.sum([one.gram[0] for one in folds], axis=0)
        points = [POINTS[place] for place in known]
        defects = np.sum([one.numbers for one in folds], axis=0) / model.labels
        return Weights(
            points=points,
            encoding=ENCODING,
            weights=model.weights.round(6).tolist(),
            means=model.means.round(6).tolist(),
            covariance=model.covariance.round(8).tolist(),
            labels=model.labels.round(3).tolist(),
            mean=(gram / gram[0]).round(4).tolist(),
            defects=dict(zip(points, defects.round(4).tolist(), strict=True)),
        ), fit


def _shares(found: tuple[Weights, Fit] | None, total: Floats) -> dict[str, Estimate]:
    """Return the shares in turns with some sum of vectors, (WIDTH,); without weights those that rules tell."""
    turns = float(total[0])
    if found is None:
        return rules.shares(total[RULED], turns)
    weights, fit = found
    return dict(zip(weights.points, fit.shares(total, turns), strict=True))
