"""The memory index, serving: which entities have worked for a query.

A row of the section is one query's evidence as of the time it last changed; the score is computed from it when it is
asked for, as the evidence has faded by then. So a row need not be published again for growing old.
"""

from collections.abc import Container, Iterable, Iterator, Mapping
from typing import ClassVar, Final, Protocol, Self

import msgspec
from msgspec import Struct, structs

from backchannel.agents.serving import Sections
from backchannel.agents.statistics import gamma_rate
from backchannel.agents.sums import ALL
from backchannel.schemas.snapshot import Snapshot
from backchannel.schemas.text import normalize

NOTHING: Final = 2.0**-20
"""Clicks, of the prior and of people, below which an entity is not recalled."""


class Guess(Struct, frozen=True):
    """A known query that one which nobody asked yet is taken for.

    Attributes:
        query: which, normalised.
        similarity: of both, 0 to 1; see `similar`.
    """

    query: str
    similarity: float


class Recalled(Struct, frozen=True):
    """An entity that has worked for a query, or is predicted to.

    Attributes:
        entity_id: which.
        score: Q2E, 0 to 1: the estimated gain of showing it for the query where it is examined.
        lower: what the true score exceeds with the configured confidence.
        evidence: examined exposures that the score rests on, as far as not faded; 0: it is predicted.
        guess: None: all this is of the query that was asked. Otherwise it is of that query, with `score` and `lower`
            times the similarity: as if that were the probability that the two mean the same, and the entity worthless
            if they do not.
    """

    entity_id: str
    score: float
    lower: float
    evidence: float
    guess: Guess | None = None


class Similar(Protocol):
    """Where to find what an unseen query is like: `similar.SimilarQueries`, which needs more packages than we do."""

    def nearest(self, query: str, known: Container[str]) -> Guess | None:
        """Return which of the `known` queries `query` is most like; None if it is not much like any."""

    def updated(self, added: Iterable[str], known: Container[str]) -> "Similar":
        """Return the same for the queries that are `known` now, those `added` among them."""


class Header(Struct, frozen=True):
    """What the rows were made with.

    Attributes:
        kappa: exposures that the prior is worth.
        personal_kappa: exposures that everybody's evidence is worth at most, beside a user's own.
        deviations: how far below the score the lower bound is, in standard deviations of a normal distribution.
        half_life_ms: of evidence.
        curve: the examination curve in use, as the weights of its powers; see `examination`.
        examined: the same at positions 1, 2 ...
    """

    kappa: float
    personal_kappa: float
    deviations: float
    half_life_ms: int
    curve: tuple[float, ...]
    examined: tuple[float, ...]


class Evidence(Struct, frozen=True, array_like=True):
    """What is known of one entity for one query: gain and examined exposure as of some time, and a predicted score."""

    entity_id: str
    gain: float
    exposure: float
    prior: float = 0.0


class Row(Struct, frozen=True, array_like=True):
    """One query's evidence as of `at` (event time, ms), best entity first."""

    at: int
    entities: tuple[Evidence, ...]


class OwnRow(Struct, frozen=True, array_like=True):
    """What is known of one user, by query, as of `at` (event time, ms)."""

    at: int
    queries: dict[str, list[Evidence]]


_decode_row = msgspec.json.Decoder(Row).decode
_decode_own_row = msgspec.json.Decoder(OwnRow).decode
_decode_header = msgspec.json.Decoder(Header).decode


class Memory:
    """The memory index of one policy version.

    Args:
        section: its rows.
        own: the rows of users.
        watermark: event time (ms) as of which the policy forgets.
        similar: what unseen queries are taken for; None: nothing is recalled for them.
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

    def recall(self, query: str, k: int, user: str | None = None) -> list[Recalled]:
        """Return at most `k` entities, best first: in the order of their lower bounds when the query last changed.

        With a user who is known to have been shown something for the query, in the order of the bounds that are left
        when everybody's evidence counts for `personal_kappa` exposures at most and the user's own is added.

        For a query that nothing is known of, what is recalled for the known query that it is most like, as a guess.
        """
        header = self.header
        text, row = query, self._rows.get(query)
        if row is None:  # else it is normalised already
            text = normalize(query)
            row = self._rows.get(text)
        if not text or header is None:
            return []
        known = self._own.get(user) if user else None
        own = _decode_own_row(known) if known else None
        if own and text in own.queries:
            return self._blended(header, _decode_row(row) if row else None, own.queries[text], own.at)[:k]
        if row is None:
            return self._guessed(text, k, user)
        found = _decode_row(row)
        fading = self._fading(header, found.at)
        kappa, deviations = header.kappa, -header.deviations
        recalled = []
        for one in found.entities[:k]:
            evidence = fading * one.exposure
            alpha = kappa * one.prior + fading * one.gain
            if alpha < NOTHING:
                continue
            recalled.append(Recalled(one.entity_id, *gamma_rate(alpha, kappa + evidence, deviations), evidence))
        return recalled

    def _guessed(self, text: str, k: int, user: str | None) -> list[Recalled]:
        guess = self._similar.nearest(text, self._rows) if self._similar else None
        if guess is None:
            return []
        share = guess.similarity
        return [
            structs.replace(one, score=share * one.score, lower=share * one.lower, guess=guess)
            for one in self.recall(guess.query, k, user)
        ]

    def _blended(self, header: Header, row: Row | None, own: list[Evidence], own_at: int) -> list[Recalled]:
        kappa = header.kappa
        clicks: dict[str, tuple[float, float]] = {one.entity_id: (0.0, kappa) for one in own}
        if row is not None:
            fading = self._fading(header, row.at)
            for one in row.entities:
                clicks[one.entity_id] = kappa * one.prior + fading * one.gain, kappa + fading * one.exposure
        fading = self._fading(header, own_at)
        of_user = {one.entity_id: (fading * one.gain, fading * one.exposure) for one in own}
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
        """Yield the queries that something is known of."""
        return (query for query in self._rows if query != ALL)
