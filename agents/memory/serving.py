"""The memory index, serving: the entities that have worked for a query.

A row of the section holds the evidence for one query as of its last change. Scores are computed on recall, from the
decayed evidence, so a row need not be republished as it ages.
"""

from collections.abc import Collection, Container, Iterable, Iterator, Mapping
from typing import ClassVar, Final, Protocol, Self

import msgspec
import numpy as np
from msgspec import Struct, structs

from backchannel.agents.serving import Sections
from backchannel.agents.statistics import gamma_rate
from backchannel.agents.sums import ALL
from backchannel.schemas.snapshot import Snapshot
from backchannel.schemas.text import normalize

NOTHING: Final = 2.0**-20
"""Minimum total clicks (prior plus observed) for recall."""

LIKED: Final = 20.0
"""How often choosing an entity over the others is worth as much as saying that one likes it."""
NOTHING_LIKED: Final[Mapping[str, int]] = {}


class Guess(Struct, frozen=True):
    """The known query that an unseen query is taken for.

    Attributes:
        query: the known query, normalised.
        similarity: the similarity of the two queries, 0 to 1 (see `similar`).
    """

    query: str
    similarity: float


class Recalled(Struct, frozen=True):
    """An entity that has worked for a query, or is predicted to.

    Attributes:
        entity_id: the id of the entity.
        score: the Q2E score, 0 to 1: the expected gain of showing the entity for the query where it is examined.
        lower: the lower credible bound of the score, at the configured confidence.
        evidence: the examined exposures behind the score (decayed); 0 if the score is predicted.
        propensity: the probability that the entity is among those recalled: below 1 for a challenger that is explored.
        guess: the known query that the entity was recalled for; None if that is the query itself. The score and its
            bound are then multiplied by the similarity, as if it were the probability that both queries mean the same.
        taught: whether the user, or somebody for the user, said that it comes first.
    """

    entity_id: str
    score: float
    lower: float
    evidence: float
    guess: Guess | None = None
    propensity: float = 1.0
    taught: bool = False


class Similar(Protocol):
    """An index of known queries: `similar.SimilarQueries`, which needs more packages than serving does."""

    def nearest(self, query: str, known: Container[str]) -> Guess | None:
        """Return the one of the `known` queries that is most like `query`; None if none is similar enough."""

    def updated(self, added: Iterable[str], known: Container[str]) -> "Similar":
        """Return the index of the queries that are `known` now, including those `added`."""


class Header(Struct, frozen=True):
    """The parameters of all rows.

    Attributes:
        kappa: the weight of the prior, in exposures.
        personal_kappa: the largest weight of the evidence of all users beside a user's own, in exposures.
        deviations: the distance of the lower bound from the score, in standard normal deviations.
        half_life_ms: the half-life of the evidence, ms.
        examined: the probabilities that positions 1, 2 ... 10 are examined, (10,).
        top: the number of a row's entities that are not challengers.
    """

    kappa: float
    personal_kappa: float
    deviations: float
    half_life_ms: int
    examined: tuple[float, ...]
    top: int = 1000


class PairEvidence(Struct, frozen=True, array_like=True):
    """The evidence for one query-entity pair.

    Attributes:
        entity_id: the id of the entity.
        gain: the gain of its clicks (decayed).
        exposure: the examined exposures (decayed).
        prior: the predicted score, 0 to 1.
    """

    entity_id: str
    gain: float
    exposure: float
    prior: float = 0.0


class Row(Struct, frozen=True, array_like=True):
    """The evidence for one query as of `at` (event time, ms), best entity first."""

    at: int
    entities: tuple[PairEvidence, ...]


class OwnRow(Struct, frozen=True, array_like=True):
    """The evidence from one user, by query, as of `at` (event time, ms)."""

    at: int
    queries: dict[str, list[PairEvidence]]


_decode_row = msgspec.json.Decoder(Row).decode
_decode_own_row = msgspec.json.Decoder(OwnRow).decode
_decode_header = msgspec.json.Decoder(Header).decode


class Memory:
    """The memory index of one policy version.

    Args:
        section: the rows of the memory index, by query.
        own: the rows of the personal layer, by user.
        watermark: the event time (ms) that evidence is decayed to.
        similar: the index that finds a known query for an unseen one; None to recall nothing for unseen queries.
    """

    name: ClassVar[str] = "memory"
    personal: ClassVar[str] = "personal"

    def __init__(
        self, section: Mapping[str, bytes], own: Mapping[str, bytes], watermark: int, similar: Similar | None = None
    ) -> None:
        self._rows: Final = section
        self._own: Final = own
        self._watermark: Final = watermark
        self._similar: Final = similar
        header = section.get(ALL)
        self.header: Final = None if header is None else _decode_header(header)

    @classmethod
    def of(cls, sections: Sections, header: Snapshot, similar: Similar | None = None) -> Self:
        """See `Serving.of`."""
        return cls(sections.get(cls.name, {}), sections.get(cls.personal, {}), header.watermark, similar)

    def recall(
        self,
        query: str,
        k: int,
        user: str | None = None,
        *,
        explore: int = 0,
        rng: np.random.Generator | None = None,
        without: Collection[str] = (),
        liked: Mapping[str, int] = NOTHING_LIKED,
    ) -> list[Recalled]:
        """Return at most `k` entities for a query, best first, and none of those in `without`.

        Those in `liked` count as if the user had chosen them LIKED times over the others, at the time, ms, at which
        that was said.

        The last `explore` of them are drawn, by `rng`, from the challengers: entities with so little evidence that they
        may turn out to be the best. Each challenger is as likely as the others.

        Entities are ranked by their lower bounds as of the last change of the query. For a user who was shown something
        for this query, the evidence of all users is scaled down to at most `personal_kappa` exposures, the user's own
        is added, and entities are ranked by the resulting bounds. For an unseen query, the entities of the most similar
        known query are returned as guesses.
        """
        header = self.header
        text, row = query, self._rows.get(query)
        if row is None:  # keys are normalised, so a query that is found is, too
            text = normalize(query)
            row = self._rows.get(text)
        if not text or header is None:
            return []
        known = self._own.get(user) if user else None
        own = _decode_own_row(known) if known else None
        pairs = own.queries.get(text) if own else None
        if pairs or liked:
            at = own.at if own else self._watermark
            blended = self._blended(header, _decode_row(row) if row else None, pairs or [], at, liked)
            return [one for one in blended if one.entity_id not in without][:k]
        if row is None:
            return self._guessed(text, k, user, without)
        found = _decode_row(row)
        if not explore or rng is None:
            entities = found.entities
            if without:
                entities = tuple([one for one in entities if one.entity_id not in without])
            return self._recalled(header, found, entities[:k])
        first = [one for one in found.entities[: header.top] if one.entity_id not in without]
        challengers = [one for one in found.entities[header.top :] if one.entity_id not in without]
        slots = min(explore, k, len(challengers))
        best = self._recalled(header, found, first[: k - slots])
        drawn = [challengers[place] for place in sorted(rng.permutation(len(challengers))[:slots].tolist())]
        propensity = slots / max(len(challengers), 1)
        return best + [structs.replace(one, propensity=propensity) for one in self._recalled(header, found, drawn)]

    def _recalled(self, header: Header, found: Row, pairs: Iterable[PairEvidence]) -> list[Recalled]:
        fading = self._fading(header, found.at)
        kappa, deviations = header.kappa, -header.deviations
        recalled = []
        for one in pairs:
            evidence = fading * one.exposure
            alpha = kappa * one.prior + fading * one.gain
            if alpha < NOTHING:
                continue
            recalled.append(Recalled(one.entity_id, *gamma_rate(alpha, kappa + evidence, deviations), evidence))
        return recalled

    def _guessed(self, text: str, k: int, user: str | None, without: Collection[str]) -> list[Recalled]:
        guess = self._similar.nearest(text, self._rows) if self._similar else None
        if guess is None:
            return []
        share = guess.similarity
        return [
            structs.replace(one, score=share * one.score, lower=share * one.lower, guess=guess)
            for one in self.recall(guess.query, k, user, without=without)
        ]

    def _blended(
        self, header: Header, row: Row | None, own: list[PairEvidence], own_at: int, liked: Mapping[str, int]
    ) -> list[Recalled]:
        kappa = header.kappa
        clicks: dict[str, tuple[float, float]] = {one.entity_id: (0.0, kappa) for one in own}
        if row is not None:
            fading = self._fading(header, row.at)
            for one in row.entities:
                clicks[one.entity_id] = kappa * one.prior + fading * one.gain, kappa + fading * one.exposure
        fading = self._fading(header, own_at)
        of_user = {one.entity_id: (fading * one.gain, fading * one.exposure) for one in own}
        said = {entity: LIKED * self._fading(header, at) for entity, at in liked.items()}
        most = max(said.values(), default=0.0)
        for entity in {**clicks, **said} if said else ():
            clicks.setdefault(entity, (0.0, kappa))
            gain, exposure = of_user.get(entity, (0.0, 0.0))
            of_user[entity] = gain + said.get(entity, 0.0), exposure + said.get(entity, most)
        recalled = []
        for entity, (alpha, beta) in clicks.items():
            gain, exposure = of_user.get(entity, (0.0, 0.0))
            share = min(1.0, header.personal_kappa / beta)
            if share * alpha + gain >= NOTHING:
                bounds = gamma_rate(share * alpha + gain, share * beta + exposure, -header.deviations)
                recalled.append(Recalled(entity, *bounds, beta - kappa + exposure))
        return sorted(recalled, key=lambda one: (-one.lower, -one.score, one.entity_id))

    def _fading(self, header: Header, at: int) -> float:
        fading: float = 2.0 ** (min(at - self._watermark, 0) / header.half_life_ms)
        return fading

    def __len__(self) -> int:
        return len(self._rows) - (ALL in self._rows)

    def queries(self) -> Iterator[str]:
        """Yield the queries that have a row."""
        return (query for query in self._rows if query != ALL)
