"""The evidence of a failure: what holds of a turn and of the query after it, each a bin of a number or a hashed name.

A turn becomes a vector of zeros and ones. So products of vectors are whole numbers, and their sums are exact. What is
absent from the events (`asr`, `nlu`, `outcome`, the next query) is a bin of its own: it neither counts as low nor as
high.
"""

from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import accumulate, pairwise
from math import exp, log
from typing import Final
from zlib import crc32

import msgspec
import numpy as np
from msgspec import Struct
from rapidfuzz.distance import Indel
from rapidfuzz.fuzz import token_set_ratio

from backchannel.agents.columnar.columns import Columns, Queries
from backchannel.agents.columnar.frames import MISSING
from backchannel.agents.failures.rules import RULES, first_to_hold
from backchannel.agents.labelled.bins import bin_of, range_of
from backchannel.agents.labelled.kinds import parts_of
from backchannel.agents.sums import Floats, Integers
from backchannel.schemas.events import Recognition, Understanding

_SHARES: Final = (0.01, 0.2, 0.4, 0.6, 0.8, 0.95)
_PROBABILITIES: Final = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)

BINS: Final[dict[str, tuple[float, ...]]] = {
    "wake word": _PROBABILITIES,
    "surprise of the recogniser": (0.05, 0.1, 0.2, 0.4, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0),
    "lead of the best hypothesis": (0.1, 0.3, 0.6, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0),
    "likeness of the hypotheses": (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
    "entropy of the hypotheses": (0.2, 0.5, 0.8, 1.1, 1.4, 1.7, 2.0),
    "words": (1, 2, 3, 4, 5, 6, 8, 10),
    "certainty of the NLU": _PROBABILITIES,
    "lead of the interpretation": (0.1, 0.3, 0.5, 0.7, 0.9),
    "interpretations": (1, 2, 3, 4, 5),
    "parts of the interpretation": (1, 2, 3, 4),
    "share of the text that was interpreted": _SHARES,
    "results": (1, 2, 5),
    "clicks": (1, 2),
    "barge-ins": (1, 2),
    "seconds until the next query": (3, 5, 7, 10, 15, 20, 40),
    "likeness of the next query": (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
    "words of the next query": _SHARES,
    "likeness of the next query to another hypothesis": (0.3, 0.5, 0.7, 0.9, 1.0),
    "overlap with the next interpretation": (0.01, 0.4, 0.6, 1.0),
    "values that the next query changes": (1, 2),
    "certainty of the NLU about the next query": (0.3, 0.5, 0.7, 0.9, 0.97),
    "surprise of the recogniser at the next query": (0.1, 0.3, 0.7, 1.5, 3.0),
}
"""Number -> the lower bounds of its bins from the second one on."""

NAMES: Final[dict[str, int]] = {
    "outcome": 16,
    "context": 16,
    "act": 16,
    "slot": 16,
    "next act": 16,
    "word": 128,
    "pair of words": 96,
    "next word": 32,
    "outcome, with": 96,
    "context, with": 64,
}
"""Names of a kind -> the number of slots that they are hashed to."""

_SIZES: Final = {"constant": 1} | {name: len(edges) + 2 for name, edges in BINS.items()} | NAMES | {"rule": len(RULES)}
_STARTS: Final = dict(zip(_SIZES, accumulate((0, *_SIZES.values())), strict=False))
WIDTH: Final = sum(_SIZES.values())
"""The length of a vector."""
RULED: Final = slice(_STARTS["rule"], _STARTS["rule"] + len(RULES))
"""The slots of the rules, of which each turn has one; see `rules`."""
ENCODING: Final = f"{crc32(repr((BINS, NAMES, [rule.name for rule in RULES])).encode()):08x}"
"""Vectors of another encoding mean something else: their sums are kept apart."""

_CROSSED: Final = frozenset(
    {
        "certainty of the NLU",
        "share of the text that was interpreted",
        "overlap with the next interpretation",
        "act",
        "next act",
    }
)
_HYPOTHESES: Final = 5
_recognition: Final = lru_cache(maxsize=4096)(msgspec.msgpack.Decoder(Recognition).decode)
_understanding: Final = lru_cache(maxsize=4096)(msgspec.msgpack.Decoder(Understanding).decode)


class Said(Struct, frozen=True):
    """A query, as its evidence needs it."""

    ts: int
    text: str
    parts: frozenset[str]
    asr: Recognition | None
    nlu: Understanding | None


def is_told(columns: Columns) -> Integers:
    """Return the indexes of the turns whose events say how they went: those with `asr`, `nlu` or an `outcome`."""
    turns = columns.turns
    told = (turns.query.asr != MISSING) | (turns.query.nlu != MISSING)
    told[turns.impressions.parents[turns.impressions.rows.outcome != MISSING]] = True
    return np.flatnonzero(told)


def evidence(columns: Columns) -> list[dict[str, int]]:
    """Return the evidence of turns: in words -> its slot in a vector."""
    turns, pools = columns.turns, columns.pools
    shown = turns.impressions
    results = np.bincount(shown.parents, shown.rows.results.counts, len(columns)).astype(int).tolist()
    outcomes: list[str | None] = [None] * len(columns)
    labels = [*pools.labels, None]
    for row, code in zip(shown.parents.tolist(), shown.rows.outcome.tolist(), strict=True):
        if code != MISSING:
            outcomes[row] = labels[code]
    following = iter(_said(columns, turns.following.rows))
    codes = set(turns.query.context.tolist()) - {MISSING}
    contexts = {MISSING: {}} | {code: msgspec.msgpack.decode(pools.contexts[code]) for code in codes}
    found = []
    for row, (said, next_, context) in enumerate(
        zip(_said(columns, turns.query), turns.following.counts.tolist(), turns.query.context.tolist(), strict=True)
    ):
        numbers: dict[str, float | None] = {
            "results": results[row],
            "clicks": int(turns.clicks.counts[row]),
            "barge-ins": int(turns.barge_ins[row]),
            **_of_query(said),
        }
        names = [("act", act) for act in sorted(_acts(said))]
        names += (("slot", slot) for slot in sorted(_slots(said)))
        names += (("word", word) for word in _words(said))
        names += (("pair of words", pair) for pair in _pairs(said.text))
        known = [f"{name}={value}" for name, value in contexts[context].items() if isinstance(value, str)]
        names += (("context", one) for one in known)
        if next_:
            after = next(following)
            numbers |= _of_next(said, after)
            names += (("next act", act) for act in sorted(_acts(after)))
            names += (("next word", word) for word in sorted(set(after.text.lower().split())))
        found.append(_slotted(numbers, names, outcomes[row], known))
    return found


def vectors(found: Iterable[Iterable[int]], turns: int) -> Floats:
    """Return the vectors, (turns, WIDTH), of the slots that each of some turns has."""
    matrix = np.zeros((turns, WIDTH))
    for row, slots in zip(matrix, found, strict=True):
        row[list(slots)] = 1.0
    return matrix


def _slotted(
    numbers: dict[str, float | None], names: Iterable[tuple[str, str]], outcome: str | None, context: Iterable[str]
) -> dict[str, int]:
    slots = {"constant": 0}
    crossed: list[str] = []
    asked = [f"words: {range_of(BINS['words'], bin_of(BINS['words'], numbers['words']))}"]
    for name, edges in BINS.items():
        place = bin_of(edges, numbers.get(name))
        said = f"{name}: {range_of(edges, place)}"
        slots[said] = _STARTS[name] + place
        if name in _CROSSED:
            crossed.append(said)
    for kind, name in (*names, ("outcome", outcome or "unknown")):
        said = f"{kind}: {name}"
        slots[said] = _hashed(kind, name)
        if kind in _CROSSED:
            crossed.append(said)
        if kind == "act":
            asked.append(said)
    for one in context:
        for said in asked:
            slots[f"context, with: {one}, {said}"] = _hashed("context, with", f"{one}, {said}")
    rule = first_to_hold(numbers, outcome)
    slots[f"rule: {RULES[rule].name}"] = RULED.start + rule
    for said in crossed:
        both = f"{outcome or 'unknown'}, {said}"
        slots[f"outcome, with: {both}"] = _hashed("outcome, with", both)
    return slots


def _hashed(kind: str, name: str) -> int:
    return _STARTS[kind] + crc32(name.encode(errors="surrogatepass")) % NAMES[kind]


def _of_query(said: Said) -> dict[str, float | None]:
    """Return the numbers of a query by itself."""
    numbers: dict[str, float | None] = {
        "words": len(said.text.split()),
        "parts of the interpretation": len(said.parts),
        "share of the text that was interpreted": _interpreted(said),
    }
    if said.asr is not None:
        numbers["wake word"] = said.asr.wake
        numbers |= _of_hypotheses(tuple((one.text, one.score) for one in said.asr.hypotheses))
    if said.nlu is not None:
        score = said.nlu.score
        second = max((one.score for one in said.nlu.alternatives), default=0.0)
        numbers["certainty of the NLU"] = score
        numbers["lead of the interpretation"] = None if score is None else score - second
        numbers["interpretations"] = 1 + len(said.nlu.alternatives)
    return numbers


def _of_hypotheses(hypotheses: tuple[tuple[str, float], ...]) -> dict[str, float | None]:
    if not hypotheses:
        return {}
    best, score = hypotheses[0]
    masses = [exp(min(other - score, 0.0)) for _, other in hypotheses]
    total = sum(masses)
    numbers: dict[str, float | None] = {
        "surprise of the recogniser": -score,
        "entropy of the hypotheses": -sum(one / total * log(one / total) for one in masses if one > 0),
    }
    if len(hypotheses) > 1:
        likeness = [Indel.normalized_similarity(best, text) for text, _ in hypotheses[1:]]
        numbers["lead of the best hypothesis"] = score - hypotheses[1][1]
        numbers["likeness of the hypotheses"] = sum(likeness) / len(likeness)
    return numbers


def _of_next(said: Said, after: Said) -> dict[str, float | None]:
    """Return the numbers of a query and the next one."""
    parts, others = said.parts, after.parts
    values, next_values = (dict(part.split("=", 1) for part in some if "=" in part) for some in (parts, others))
    numbers: dict[str, float | None] = {
        "seconds until the next query": (after.ts - said.ts) / 1000,
        "likeness of the next query": Indel.normalized_similarity(said.text, after.text),
        "words of the next query": token_set_ratio(said.text, after.text) / 100,
        "overlap with the next interpretation": len(parts & others) / max(min(len(parts), len(others)), 1),
        "values that the next query changes": sum(
            next_values.get(slot, value) != value for slot, value in values.items()
        ),
    }
    if said.asr is not None and len(said.asr.hypotheses) > 1:
        numbers["likeness of the next query to another hypothesis"] = max(
            Indel.normalized_similarity(one.text, after.text) for one in said.asr.hypotheses[1:]
        )
    if after.nlu is not None:
        numbers["certainty of the NLU about the next query"] = after.nlu.score
    if after.asr is not None and after.asr.hypotheses:
        numbers["surprise of the recogniser at the next query"] = -after.asr.hypotheses[0].score
    return numbers


def _interpreted(said: Said) -> float:
    """Return the share of the text's characters that are values of the interpretation, 0 to 1."""
    text = said.text.lower()
    values = {part.split("=", 1)[1].lower() for part in said.parts if "=" in part}
    return min(sum(len(value) for value in values if value in text) / max(len(text), 1), 1.0)


def _words(said: Said) -> list[str]:
    """Return the words of the text and of the next best hypotheses."""
    texts = [said.text, *(one.text for one in said.asr.hypotheses[:_HYPOTHESES])] if said.asr else [said.text]
    return sorted({word for text in texts for word in text.lower().split()})


def _pairs(text: str) -> list[str]:
    words = ["^", *text.lower().split(), "$"]
    return sorted({" ".join(pair) for pair in pairwise(words)})


def _acts(said: Said) -> set[str]:
    return {part for part in said.parts if "=" not in part}


def _slots(said: Said) -> set[str]:
    return {part.split("=", 1)[0] for part in said.parts if "=" in part}


def _said(columns: Columns, queries: Queries) -> Iterator[Said]:
    """Yield queries, with what their events say about them."""
    pools = columns.pools
    forms = [*pools.forms, ""]
    for ts, text, form, asr, nlu in zip(
        queries.ts.tolist(),
        queries.text.tolist(),
        queries.form.tolist(),
        queries.asr.tolist(),
        queries.nlu.tolist(),
        strict=True,
    ):
        yield Said(
            ts,
            pools.texts[text],
            parts_of(forms[form]),
            None if asr == MISSING else _recognition(pools.contexts[asr]),
            None if nlu == MISSING else _understanding(pools.contexts[nlu]),
        )
