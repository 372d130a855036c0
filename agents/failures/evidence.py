"""The evidence of a failure: what holds of a turn and of the query after it, each a bin of a number or a hashed name.

A turn becomes a vector of zeros and ones. So products of vectors are whole numbers, and their sums are exact. What is
absent from the events (`asr`, `nlu`, `outcome`, `reply`, `earlier`, the next query) is a bin of its own: it neither
counts as low nor as high.
"""

from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import accumulate, pairwise, product
from typing import Final
from zlib import crc32

import msgspec
import numpy as np

from backchannel.agents.columnar.columns import Columns, Queries
from backchannel.agents.columnar.frames import MISSING, Codes
from backchannel.agents.failures.numbers import Numbers, Said, of_earlier, of_next, of_query, of_reply, values_of
from backchannel.agents.failures.rules import RULES, first_to_hold
from backchannel.agents.labelled.bins import bin_of, range_of
from backchannel.agents.labelled.kinds import parts_of
from backchannel.agents.sums import Floats, Integers
from backchannel.schemas.events import Earlier, Recognition, Understanding

_SHARES: Final = (0.01, 0.2, 0.4, 0.6, 0.8, 0.95)
_FEW_SHARES: Final = (0.01, 0.4, 0.6, 1.0)
_MASSES: Final = (0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
_PROBABILITIES: Final = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)

BINS: Final[dict[str, tuple[float, ...]]] = {
    "wake word": _PROBABILITIES,
    "turns before": (1, 2, 3, 5, 8, 12),
    "repeats before": (1, 2),
    "surprise of the recogniser before": (0.2, 0.4, 0.7, 1.0, 1.5, 2.0),
    "certainty of the NLU before": (0.5, 0.6, 0.7, 0.8, 0.9),
    "values that the last reply had": _FEW_SHARES,
    "values that the query changes": (1, 2),
    "surprise of the recogniser": (0.05, 0.1, 0.2, 0.4, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0),
    "surprise per word": (0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.8, 1.2, 2.0),
    "certainty of the least certain word": _PROBABILITIES,
    "certainty of a word that was left out": _MASSES,
    "lead of the best hypothesis": (0.1, 0.3, 0.6, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0),
    "likeness of the hypotheses": (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
    "entropy of the hypotheses": (0.2, 0.5, 0.8, 1.1, 1.4, 1.7, 2.0),
    "words": (1, 2, 3, 4, 5, 6, 8, 10),
    "certainty of the NLU": _PROBABILITIES,
    "lead of the interpretation": (0.1, 0.3, 0.5, 0.7, 0.9),
    "interpretations": (1, 2, 3, 4, 5),
    "certainty that nothing was meant": _MASSES,
    "certainty of a part that was left out": _MASSES,
    "certainty of the least certain part": _PROBABILITIES,
    "parts of the interpretation": (1, 2, 3, 4),
    "share of the text that was interpreted": _SHARES,
    "values that the reply takes up": _FEW_SHARES,
    "values that the reply changes": (1, 2),
    "values of the reply that are other interpretations": (1, 2),
    "values of the reply that were said": (1, 2),
    "share of the reply that was said before": _FEW_SHARES,
    "values that are new in the reply": (1, 2, 3),
    "results": (1, 2, 5),
    "clicks": (1, 2),
    "barge-ins": (1, 2),
    "seconds until the next query": (3, 5, 7, 10, 15, 20, 40),
    "likeness of the next query": (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
    "words of the next query": _SHARES,
    "likeness of the next query to another hypothesis": (0.3, 0.5, 0.7, 0.9, 1.0),
    "overlap with the next interpretation": (0.01, 0.4, 0.6, 1.0),
    "values that the next query changes": (1, 2),
    "next parts that are other interpretations": _MASSES,
    "next values that the reply had": _FEW_SHARES,
    "values of the reply that the next query changes": (1, 2),
    "certainty of the NLU about the next query": (0.3, 0.5, 0.7, 0.9, 0.97),
    "surprise of the recogniser at the next query": (0.1, 0.3, 0.7, 1.5, 3.0),
}
"""Number -> the lower bounds of its bins from the second one on."""

NAMES: Final[dict[str, int]] = {
    "outcome": 16,
    "context": 16,
    "act": 16,
    "slot": 16,
    "act, after": 64,
    "reply act": 16,
    "reply slot": 16,
    "act, with reply": 64,
    "next act": 16,
    "act, with next": 64,
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
_earlier: Final = lru_cache(maxsize=4096)(msgspec.msgpack.Decoder(Earlier).decode)
_understanding: Final = lru_cache(maxsize=4096)(msgspec.msgpack.Decoder(Understanding).decode)


def is_told(columns: Columns) -> Integers:
    """Return the indexes of the turns whose events say how they went: those with `asr`, `nlu`, an `outcome` or a
    `reply`.
    """
    turns = columns.turns
    told = (turns.query.asr != MISSING) | (turns.query.nlu != MISSING)
    shown = turns.impressions
    told[shown.parents[(shown.rows.outcome != MISSING) | (shown.rows.reply != MISSING)]] = True
    return np.flatnonzero(told)


def evidence(columns: Columns) -> list[dict[str, int]]:
    """Return the evidence of turns: in words -> its slot in a vector."""
    turns, pools = columns.turns, columns.pools
    shown = turns.impressions
    results = np.bincount(shown.parents, shown.rows.results.counts, len(columns)).astype(int).tolist()
    outcomes, replies = _last(columns, shown.rows.outcome), _last(columns, shown.rows.reply)
    following = iter(_said(columns, turns.following.rows))
    codes = set(turns.query.context.tolist()) - {MISSING}
    contexts = {MISSING: {}} | {code: msgspec.msgpack.decode(pools.contexts[code]) for code in codes}
    found = []
    for row, (said, next_, context) in enumerate(
        zip(_said(columns, turns.query), turns.following.counts.tolist(), turns.query.context.tolist(), strict=True)
    ):
        numbers: Numbers = {
            "results": results[row],
            "clicks": int(turns.clicks.counts[row]),
            "barge-ins": int(turns.barge_ins[row]),
            **of_query(said),
            **of_earlier(said),
        }
        acts, reply = sorted(_acts(said.parts)), replies[row]
        names = [("act", act) for act in acts]
        names += (("slot", slot) for slot in sorted(values_of(said.parts)))
        names += (("word", word) for word in _words(said))
        names += (("pair of words", pair) for pair in _pairs(said.text))
        known = [f"{name}={value}" for name, value in contexts[context].items() if isinstance(value, str)]
        names += (("context", one) for one in known)
        if said.earlier is not None and said.earlier.reply is not None:
            names += _pairs_of("act, after", acts, _acts(parts_of(said.earlier.reply)))
        if reply is not None:
            numbers |= of_reply(said, reply)
            replied = parts_of(reply)
            names += (("reply act", act) for act in sorted(_acts(replied)))
            names += (("reply slot", slot) for slot in sorted(values_of(replied)))
            names += _pairs_of("act, with reply", acts, _acts(replied))
        if next_:
            after = next(following)
            numbers |= of_next(said, after, reply)
            names += (("next act", act) for act in sorted(_acts(after.parts)))
            names += _pairs_of("act, with next", acts, _acts(after.parts))
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
    numbers: Numbers, names: Iterable[tuple[str, str]], outcome: str | None, context: Iterable[str]
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


def _words(said: Said) -> list[str]:
    """Return the words of the text and of the next best hypotheses."""
    texts = [said.text, *(one.text for one in said.asr.hypotheses[:_HYPOTHESES])] if said.asr else [said.text]
    return sorted({word for text in texts for word in text.lower().split()})


def _pairs(text: str) -> list[str]:
    words = ["^", *text.lower().split(), "$"]
    return sorted({" ".join(pair) for pair in pairwise(words)})


def _pairs_of(kind: str, acts: Iterable[str], others: Iterable[str]) -> Iterator[tuple[str, str]]:
    for act, other in product(sorted(acts) or ("none",), sorted(others) or ("none",)):
        yield kind, f"{act}, {other}"


def _acts(parts: Iterable[str]) -> set[str]:
    return {part for part in parts if "=" not in part}


def _last(columns: Columns, codes: Codes) -> list[str | None]:
    """Return each turn's last label, (turns,), from the labels of all impressions."""
    found: list[str | None] = [None] * len(columns)
    for row, code in zip(columns.turns.impressions.parents.tolist(), codes.tolist(), strict=True):
        if code != MISSING:
            found[row] = columns.pools.labels[code]
    return found


def _said(columns: Columns, queries: Queries) -> Iterator[Said]:
    """Yield queries, with what their events say about them."""
    pools = columns.pools
    forms = [*pools.forms, ""]
    for ts, text, form, asr, nlu, earlier in zip(
        queries.ts.tolist(),
        queries.text.tolist(),
        queries.form.tolist(),
        queries.asr.tolist(),
        queries.nlu.tolist(),
        queries.earlier.tolist(),
        strict=True,
    ):
        yield Said(
            ts,
            pools.texts[text],
            parts_of(forms[form]),
            None if asr == MISSING else _recognition(pools.contexts[asr]),
            None if nlu == MISSING else _understanding(pools.contexts[nlu]),
            None if earlier == MISSING else _earlier(pools.contexts[earlier]),
        )
