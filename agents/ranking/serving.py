"""The ranking layer, serving: candidates in, an order out.

Scores are the product of the encoded candidates and the weights. To explore, one of DRAWS models drawn from the
posterior decides; it moves no candidate more than a few places from its place by the mean, so a page never
looks random. The models are drawn once per section, with a seed derived from it: the probability of an order
is the share of the models that produce it.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from math import inf
from typing import ClassVar, Final, Self
from zlib import crc32

import msgspec
import numpy as np
from msgspec import Struct

from backchannel.agents.bandit.features import Numeric, Value
from backchannel.agents.bandit.serving import EncodingError
from backchannel.agents.memory.serving import Recalled
from backchannel.agents.ranking.features import (
    MEMORY_EVIDENCE,
    MEMORY_SCORE,
    SCORE,
    CandidateEncoder,
    CandidateFeature,
    number_of,
)
from backchannel.agents.ranking.tastes import NO_TASTES, Weights, contributions
from backchannel.agents.serving import Sections
from backchannel.agents.sums import Floats, Integers
from backchannel.schemas.events import Normalizer
from backchannel.schemas.snapshot import Snapshot

DRAWS: Final = 16
EXAMINED_DECAY: Final = 0.7
"""Without a logged curve, position p is taken to be examined with probability p to the power of minus this: learner and
summary say so alike."""


class Candidate(Struct, frozen=True):
    """A candidate for a place on the page.

    Attributes:
        entity_id: The entity.
        features: The engine's features of it, flat; `score` is the caller's own score, a finite number.
        ranks: Its rank, from 1, in the list of each strategy that brought it.
    """

    entity_id: str
    features: Mapping[str, Value] = {}
    ranks: Mapping[str, int] = {}


def remembered(candidate: Candidate, known: Recalled | None) -> Candidate:
    """Return a candidate with the memory index's features of it."""
    score, evidence = (known.score, known.evidence) if known else (0.0, 0.0)
    features = {**candidate.features, MEMORY_SCORE: score, MEMORY_EVIDENCE: evidence}
    return Candidate(candidate.entity_id, features, candidate.ranks)


class Reason(Struct, frozen=True):
    """The contribution of one column to a candidate's score, relative to the average candidate of the list.

    Attributes:
        column: The column.
        contribution: What it adds to the score.
        personal: Whether it does so for this user only: by the user's own choices, or as was taught.
    """

    column: str
    contribution: float
    personal: bool = False

    def __str__(self) -> str:
        said = f"{self.column} {'raises' if self.contribution > 0 else 'lowers'} it by {abs(self.contribution):.2g}"
        return f"{said} for this user" if self.personal else said


class Ranked(Struct, frozen=True):
    """A candidate in its place; log it as a `Result` of the impression.

    Attributes:
        entity_id: The entity.
        position: The position, from 1.
        score: The expected gain if it is examined, relative to the average candidate of the list.
        features: The features that it was ranked by: its own, and those that the policy supplied.
        ranks: The ranks of the candidate, as given.
        reasons: The contributions to the score, largest first; empty unless requested.
        taught: Whether somebody said that it comes first.
    """

    entity_id: str
    position: int
    score: float
    features: Mapping[str, Value] = {}
    ranks: Mapping[str, int] = {}
    reasons: tuple[Reason, ...] = ()
    taught: bool = False


class Ranking(Struct, frozen=True):
    """An order; its fields go into the `impression` event.

    Attributes:
        results: The first k candidates, best first.
        learned: Whether clicks affected the order; if False, it is the prior's.
        propensity: The probability of this order of the first k.
        normalizers: Feature -> its mean and standard deviation in the list.
        examined: The probabilities that the policy assumes for the examination of positions 1, 2 ...
        policy_version: The version that ranked.
    """

    results: tuple[Ranked, ...]
    learned: bool
    propensity: float
    normalizers: Mapping[str, Normalizer] = {}
    examined: tuple[float, ...] = ()
    policy_version: int | None = None


class Settings(Struct, frozen=True):
    """The row of the section; see `learner.RankingConfig` and `weights.Weights`.

    Attributes:
        factor: A matrix L for which LL' is the covariance of the weights; empty while the prior order is served.
        half_life_days: The chosen half-life; 0 if nothing is forgotten.
    """

    features: tuple[CandidateFeature, ...]
    normalized: tuple[str, ...]
    query_features: tuple[CandidateFeature, ...]
    crosses: tuple[tuple[str, str], ...]
    encoding: str
    weights: list[float]
    prior: list[float]
    factor: list[list[float]]
    learned: bool
    gain: float
    deviation: float
    lists: float
    logged: float
    half_life_days: float
    exploration: float
    max_shift: int
    limits: dict[str, int]


class Weight(Struct, frozen=True):
    """The learned weight of one column.

    Attributes:
        column: Its name.
        weight: The gain per unit of the column.
        deviation: The standard deviation of `weight`; 0 while the prior order is served.
        prior: Its weight in the prior order, at the scale that fits the clicks best.
    """

    column: str
    weight: float
    deviation: float
    prior: float


class Summary(Struct, frozen=True):
    """A summary of the order that a version serves, for people.

    Attributes:
        learned: Whether clicks affect the order; if False, the prior order is served.
        lists: The number of lists learned from, decayed.
        logged: The share of these lists, 0 to 1, that log the examination curve of the version that ranked them.
        gain: The held-out improvement of the learned order over the prior's, in squared gain per list.
        deviation: The standard deviation of `gain`.
        weights: One for each column.
    """

    learned: bool
    lists: float
    logged: float
    gain: float
    deviation: float
    weights: tuple[Weight, ...]

    def __str__(self) -> str:
        if not self.lists:
            return "The order of results is the prior's: no lists were learned from."
        return (
            f"The order of results is {'learned' if self.learned else 'the prior'}: on held-out queries, clicks "
            f"improve on the prior by {self.gain:.2g} ± {self.deviation:.2g} per list. Of {self.lists:,.0f} lists, "
            f"{self.logged:.0%} had a logged examination curve; for the others, position p is taken to be examined "
            f"with probability p^-{EXAMINED_DECAY}."
        )


_CALLERS: Final = CandidateEncoder((Numeric(SCORE),), (SCORE,))
_UNLEARNED: Final = Settings(
    features=(Numeric(SCORE),),
    normalized=(SCORE,),
    query_features=(),
    crosses=(),
    encoding=_CALLERS.fingerprint,
    weights=[1.0],
    prior=[1.0],
    factor=[],
    learned=False,
    gain=0.0,
    deviation=0.0,
    lists=0.0,
    logged=0.0,
    half_life_days=0.0,
    exploration=0.0,
    max_shift=0,
    limits={},
)


class Ranker:
    """The ranking's section of a policy, ready to rank.

    Args:
        section: The rows of `ResultRanking.solve`; if empty, candidates keep the caller's order.

    Attributes:
        settings: The row of the section.
        encoder: The encoder of candidates.

    Raises:
        EncodingError: This version encodes candidates differently from the one that learned the section.
    """

    name: ClassVar[str] = "ranking"

    def __init__(self, section: Mapping[str, bytes]) -> None:
        row = section.get("")
        self.settings: Final = _UNLEARNED if row is None else msgspec.json.decode(row, type=Settings)
        settings = self.settings
        self.encoder: Final = CandidateEncoder(
            settings.features, settings.normalized, settings.query_features, settings.crosses
        )
        if self.encoder.fingerprint != settings.encoding:
            raise EncodingError(
                f"the ranking's features have fingerprint {settings.encoding}, here the same ones give "
                f"{self.encoder.fingerprint}: run the same version of Backchannel in publisher and reader"
            )
        self._weights: Final = np.array(settings.weights)
        self._reversed: Final = dict(zip(self.encoder.columns, settings.weights, strict=True)).get(SCORE, 0.0) < 0.0
        self._models: Final = self._draw(crc32(row or b""))

    @classmethod
    def of(cls, sections: Sections, header: Snapshot) -> Self:  # noqa: ARG003 - Serving's
        """See `Serving.of`. If no ranking is learned, the order is the caller's."""
        return cls(sections.get(cls.name, {}))

    def rank(
        self,
        context: Mapping[str, Value],
        candidates: Sequence[Candidate],
        k: int,
        rng: np.random.Generator,
        *,
        explain: bool = False,
        first: str | None = None,
        tastes: Weights = NO_TASTES,
    ) -> Ranking:
        """Order candidates, with the entity `first` in the first place if it is one of them; see `Policy.rank`.

        Args:
            tastes: What values of features add to the scores, for the user who asks.

        Raises:
            ValueError: k is less than 1, an entity is twice among the candidates, a rank is less than 1, or a score
                that the order follows is not finite.
        """
        if k < 1:
            raise ValueError(f"k: {k} results; show at least 1")
        if not candidates:
            return Ranking((), self.settings.learned, 1.0)
        _require_distinct(candidates)
        _require_ranks(candidates)
        features = [one.features for one in candidates]
        if not any(SCORE in one for one in features):  # then the order of the candidates is the caller's
            features = [{**one, SCORE: 1.0 / place} for place, one in enumerate(features, 1)]
        encoder, size = self.encoder, np.array([len(candidates)])
        numbers = encoder.numbers(features, [one.ranks for one in candidates] if encoder.ranked else ())
        if np.isnan(numbers).any():  # missing, or a score that counts as missing
            _require_finite(candidates)
        means, deviations = normalizers = encoder.normalizers(numbers, size)
        vectors = encoder.encode(numbers, normalizers, features, (context,), size)
        scores = vectors @ self._weights
        scores -= scores.sum() / len(scores)
        own = contributions(tastes, features) if tastes else None
        personal = None if own is None else own[1].sum(axis=1)
        if personal is not None:
            scores += personal
        order, propensity = self._choose(vectors, scores, features, k, rng, personal=personal)
        head = None
        if first is not None:
            head = next((place for place, one in enumerate(candidates) if one.entity_id == first), None)
        if head is not None:
            order = [head, *(place for place in order if place != head)][:k]
        centre = vectors.mean(axis=0) if explain else None
        results = tuple(
            [
                Ranked(
                    candidates[place].entity_id,
                    position,
                    score,
                    features[place],
                    candidates[place].ranks,
                    () if centre is None else self._reasons(vectors[place] - centre, own, place),
                    place == head,
                )
                for position, (place, score) in enumerate(zip(order, scores[order].tolist(), strict=True), 1)
            ]
        )
        logged = map(Normalizer, means[0].tolist(), deviations[0].tolist())
        return Ranking(results, self.settings.learned, propensity, dict(zip(encoder.normalized, logged, strict=True)))

    def summary(self) -> Summary:
        """Return a summary of the learned order, for people."""
        settings = self.settings
        factor = np.array(settings.factor) if settings.factor else np.zeros((len(self._weights), 1))
        columns = zip(
            self.encoder.columns,
            settings.weights,
            np.linalg.norm(factor, axis=1).tolist(),
            settings.prior,
            strict=True,
        )
        return Summary(
            learned=settings.learned,
            lists=settings.lists,
            logged=settings.logged,
            gain=settings.gain,
            deviation=settings.deviation,
            weights=tuple(Weight(*one) for one in columns),
        )

    def _draw(self, seed: int) -> Floats | None:
        """Return DRAWS models, (d, DRAWS); None without exploration."""
        settings = self.settings
        if not settings.factor or not settings.exploration or not settings.max_shift:
            return None
        normal = np.random.default_rng(seed).standard_normal((len(self._weights), DRAWS))
        return self._weights[:, np.newaxis] + settings.exploration * (np.array(settings.factor) @ normal)

    def _choose(
        self,
        vectors: Floats,
        scores: Floats,
        features: Sequence[Mapping[str, Value]],
        k: int,
        rng: np.random.Generator,
        *,
        personal: Floats | None,
    ) -> tuple[list[int], float]:
        """Return the indexes of the first k candidates, and the probability of their order.

        Args:
            personal: The part of the scores that is the user's, (candidates,); None if it is zero.
        """
        best = self._by_score(scores, features)
        if self._models is None:
            return self._limited(best, features, k), 1.0
        shift, limits = self.settings.max_shift, self.settings.limits
        # The models reorder what may come among the first k; with limits, that may be any candidate.
        pool = best if limits else best[: k + 2 * shift]
        count = len(pool)
        places = np.arange(count)
        by_model = (vectors.take(pool, axis=0) @ self._models).T
        if personal is not None:
            by_model += personal[pool]
        drawn = (count - 1) - by_model.argsort(axis=1).argsort(axis=1)
        # A candidate's place is the drawn model's, within bounds; the mean breaks ties.
        bounded = np.minimum(np.maximum(drawn, places - shift), places + shift)
        bounded *= count
        bounded += places
        orders = bounded.argsort(axis=1)
        chosen = int(rng.integers(DRAWS))
        if limits:
            heads = [self._limited(order, features, k) for order in pool[orders]]
            return heads[chosen], heads.count(heads[chosen]) / DRAWS
        heads = orders[:, :k].tolist()
        head: list[int] = pool[heads[chosen]].tolist()
        return head, heads.count(heads[chosen]) / DRAWS

    def _by_score(self, scores: Floats, features: Sequence[Mapping[str, Value]]) -> Integers:
        """Return the indexes of the candidates, best first.

        Those that score alike are in the order of the caller's scores, which bounds and the grid may have made alike.
        """
        best: Integers = (-scores).argsort(kind="stable")
        ordered = scores[best]
        if not (ordered[1:] == ordered[:-1]).any():
            return best
        own = np.array([number_of(one.get(SCORE)) for one in features])
        return np.lexsort((own if self._reversed else -own, -scores))

    def _limited(self, order: Integers, features: Sequence[Mapping[str, Value]], k: int) -> list[int]:
        """Return the first k of `order` that keep to the limits, filled up with the best of the others."""
        limits = self.settings.limits
        if not limits:
            head: list[int] = order[:k].tolist()
            return head
        seen: Counter[tuple[str, Value]] = Counter()
        kept: list[int] = []
        left: list[int] = []
        for place in order.tolist():
            values = [(name, value) for name in limits if (value := features[place].get(name)) is not None]
            if len(kept) < k and all(seen[value] < limits[value[0]] for value in values):
                kept.append(place)
                seen.update(values)
            else:
                left.append(place)
        return kept + left[: k - len(kept)]

    def _reasons(self, centred: Floats, personal: tuple[list[str], Floats] | None, place: int) -> tuple[Reason, ...]:
        everybody = zip(self.encoder.columns, (self._weights * centred).tolist(), strict=True)
        reasons = [Reason(*pair) for pair in everybody if pair[1]]
        if personal is not None:
            own = zip(personal[0], personal[1][place].tolist(), strict=True)
            reasons += [Reason(*pair, personal=True) for pair in own if pair[1]]
        return tuple(sorted(reasons, key=lambda reason: -abs(reason.contribution)))


def _require_distinct(candidates: Sequence[Candidate]) -> None:
    if len({one.entity_id for one in candidates}) < len(candidates):
        entity, count = Counter(one.entity_id for one in candidates).most_common(1)[0]
        raise ValueError(
            f"candidates: {entity!r} is among them {count} times; give it once, with its ranks in all strategies' lists"
        )


def _require_ranks(candidates: Sequence[Candidate]) -> None:
    wrong = [(one, name) for one in candidates if (ranks := one.ranks) for name in ranks if ranks[name] < 1]
    if wrong:
        one, name = wrong[0]
        raise ValueError(
            f"candidates: ranks.{name} of {one.entity_id!r}: {one.ranks[name]}; ranks count from 1, and a strategy "
            "that did not bring it has none"
        )


def _require_finite(candidates: Sequence[Candidate]) -> None:
    for one in candidates:
        score = one.features.get(SCORE, 0.0)
        if not (score is None or isinstance(score, str) or abs(score) < inf):
            raise ValueError(
                f"candidates: features.{SCORE} of {one.entity_id!r}: {score}; give a finite number, or leave it out"
            )
