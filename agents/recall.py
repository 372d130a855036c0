"""The memory index, serving: which entities have worked for a query.

A row of the section is one query's evidence as of the time it last changed; the score is computed from it when it is
asked for, as the evidence has faded by then. So a row need not be published again for growing old.
"""

from collections.abc import Iterator, Mapping
from typing import Final, TypeVar

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from backchannel.schemas.text import normalize

HEADER: Final = ""
"""The key of the section's first row; a query is never empty."""

_T = TypeVar("_T", float, NDArray[np.float64])


class Recalled(Struct, frozen=True):
    """An entity that has worked for a query, or is predicted to.

    Attributes:
        entity_id: which.
        score: Q2E, 0 to 1: the estimated gain of showing it for the query where it is examined.
        lower: what the true score exceeds with the configured confidence.
        evidence: examined exposures that the score rests on, as far as not faded; 0: it is predicted.
    """

    entity_id: str
    score: float
    lower: float
    evidence: float


class Header(Struct, frozen=True):
    """What the rows were made with.

    Attributes:
        kappa: exposures that the prior is worth.
        deviations: how far below the score the lower bound is, in standard deviations of a normal distribution.
        half_life_ms: of evidence.
        curve: the examination curve in use, as the weights of its powers; see `examination`.
        examined: the same at positions 1, 2 ...
    """

    kappa: float
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


def posterior(alpha: _T, beta: _T, deviations: float) -> tuple[_T, _T]:
    """Return the mean of the posterior of a click rate, and its quantile at so many normal deviations; at most 1.

    Clicks are Poisson with the rate times the exposure, so the posterior is a gamma distribution. Its quantile is that
    of Wilson & Hilferty ("The distribution of chi-square", PNAS 1931), 0 where that says less.

    Args:
        alpha: clicks, those of the prior among them; more than 0.
        beta: exposures, likewise.
        deviations: negative for the lower bound.
    """
    mean = alpha / beta
    cube_root = 1.0 - 1.0 / (9.0 * alpha) + deviations / (3.0 * alpha**0.5)
    quantile = mean * (cube_root > 0) * cube_root**3
    return mean - (mean > 1.0) * (mean - 1.0), quantile - (quantile > 1.0) * (quantile - 1.0)


_decode_row = msgspec.json.Decoder(Row).decode
_decode_header = msgspec.json.Decoder(Header).decode


class Memory:
    """The memory index of one policy version.

    Args:
        section: its rows.
        watermark: event time (ms) as of which the policy forgets.
    """

    def __init__(self, section: Mapping[str, bytes], watermark: int) -> None:
        self._rows: Final = section
        self._watermark: Final = watermark
        header = section.get(HEADER)
        self.header: Final = None if header is None else _decode_header(header)

    def recall(self, query: str, k: int) -> list[Recalled]:
        """Return at most `k` entities, best first: in the order of their lower bounds when the query last changed."""
        text, header = normalize(query), self.header
        row = self._rows.get(text)
        if not text or row is None or header is None:
            return []
        found = _decode_row(row)
        fading = 2.0 ** (min(found.at - self._watermark, 0) / header.half_life_ms)
        kappa, deviations = header.kappa, -header.deviations
        recalled = []
        for one in found.entities[:k]:
            evidence = fading * one.exposure
            alpha = kappa * one.prior + fading * one.gain
            recalled.append(Recalled(one.entity_id, *posterior(alpha, kappa + evidence, deviations), evidence))
        return recalled

    def __len__(self) -> int:
        return len(self._rows) - (HEADER in self._rows)

    def queries(self) -> Iterator[str]:
        """Yield the queries that something is known of."""
        return (query for query in self._rows if query != HEADER)
