"""What numbers say of a turn: how sure recogniser and NLU were, what was replied, and what came before and after.

A number that the events do not give is None or missing: unknown, which is neither low nor high.
"""

from collections import defaultdict
from collections.abc import Iterable
from math import exp, log
from typing import TypeAlias

from msgspec import Struct
from rapidfuzz.distance import Indel
from rapidfuzz.fuzz import token_set_ratio

from backchannel.agents.labelled.kinds import parts_of
from backchannel.schemas.events import Earlier, Hypothesis, Recognition, Understanding

Numbers: TypeAlias = dict[str, float | None]
"""The numbers of a turn by name; see `evidence.BINS`."""


class Said(Struct, frozen=True):
    """A query, as its evidence needs it."""

    ts: int
    text: str
    parts: frozenset[str]
    asr: Recognition | None
    nlu: Understanding | None
    earlier: Earlier | None

    @property
    def meanings(self) -> list[tuple[frozenset[str], float]]:
        """The parts of its interpretation and of the alternatives, with their probabilities; none without an NLU."""
        if self.nlu is None:
            return []
        others = [(parts_of(one.interpretation), one.score) for one in self.nlu.alternatives]
        return [(self.parts, self.nlu.score or 0.0), *others]


def of_query(said: Said) -> Numbers:
    """Return the numbers of a query by itself."""
    numbers: Numbers = {
        "words": len(said.text.split()),
        "parts of the interpretation": len(said.parts),
        "share of the text that was interpreted": _interpreted(said),
    }
    if said.asr is not None:
        numbers["wake word"] = said.asr.wake
        numbers |= _of_hypotheses(said.asr.hypotheses)
    if said.nlu is not None:
        score = said.nlu.score
        second = max((one.score for one in said.nlu.alternatives), default=0.0)
        numbers["certainty of the NLU"] = score
        numbers["lead of the interpretation"] = None if score is None else score - second
        numbers["interpretations"] = 1 + len(said.nlu.alternatives)
        numbers |= _of_meanings(said)
    return numbers


def of_earlier(said: Said) -> Numbers:
    """Return the numbers of a query and what happened in its session before."""
    if (before := said.earlier) is None:
        return {}
    numbers: Numbers = {
        "turns before": before.turns,
        "repeats before": before.repeats,
        "surprise of the recogniser before": before.surprise,
        "certainty of the NLU before": before.certainty,
    }
    if before.reply is not None:
        kept, changed = _taken_up(said.parts, parts_of(before.reply))
        numbers["values that the last reply had"] = kept
        numbers["values that the query changes"] = changed
    return numbers


def of_reply(said: Said, reply: str) -> Numbers:
    """Return the numbers of a query and the reply to it."""
    parts = parts_of(reply)
    values = values_of(parts)
    taken, changed = _taken_up(said.parts, parts)
    others = frozenset[str]().union(*(some for some, _ in said.meanings)) - said.parts
    text = said.text.lower()
    numbers: Numbers = {
        "values that the reply takes up": taken,
        "values that the reply changes": changed,
        "values of the reply that are other interpretations": len(parts & others),
        "values of the reply that were said": sum(value.lower() in text for value in values.values()),
    }
    if said.earlier is not None and said.earlier.reply is not None:
        before = parts_of(said.earlier.reply)
        numbers["share of the reply that was said before"] = len(parts & before) / max(len(parts), 1)
        numbers["values that are new in the reply"] = sum("=" in part for part in parts - before - said.parts)
    return numbers


def of_next(said: Said, after: Said, reply: str | None) -> Numbers:
    """Return the numbers of a query, the reply to it if that is known, and the next query."""
    parts, others = said.parts, after.parts
    values, next_values = values_of(parts), values_of(others)
    numbers: Numbers = {
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
    if said.nlu is not None:
        numbers["next parts that are other interpretations"] = max(
            (score for some, score in said.meanings[1:] if some & (others - parts)), default=0.0
        )
    if after.nlu is not None:
        numbers["certainty of the NLU about the next query"] = after.nlu.score
    if after.asr is not None and after.asr.hypotheses:
        numbers["surprise of the recogniser at the next query"] = -after.asr.hypotheses[0].score
    if reply is not None:
        kept, changed = _taken_up(others, parts_of(reply))
        numbers["next values that the reply had"] = kept
        numbers["values of the reply that the next query changes"] = changed
    return numbers


def values_of(parts: Iterable[str]) -> dict[str, str]:
    """Return slot -> value."""
    return dict(part.split("=", 1) for part in sorted(parts) if "=" in part)


def _of_hypotheses(hypotheses: tuple[Hypothesis, ...]) -> Numbers:
    if not hypotheses:
        return {}
    best, score = hypotheses[0].text, hypotheses[0].score
    masses = [exp(min(one.score - score, 0.0)) for one in hypotheses]
    total = sum(masses)
    words = best.lower().split()
    numbers: Numbers = {
        "surprise of the recogniser": -score,
        "surprise per word": -score / max(len(words), 1),
        "entropy of the hypotheses": -sum(one / total * log(one / total) for one in masses if one > 0),
    }
    if len(hypotheses) > 1:
        likeness = [Indel.normalized_similarity(best, one.text) for one in hypotheses[1:]]
        numbers["lead of the best hypothesis"] = score - hypotheses[1].score
        numbers["likeness of the hypotheses"] = sum(likeness) / len(likeness)
        heard = defaultdict[str, float](float)
        for one, mass in zip(hypotheses, masses, strict=True):
            for word in set(one.text.lower().split()):
                heard[word] += mass / total
        if words:
            numbers["certainty of the least certain word"] = min(heard[word] for word in words)
        numbers["certainty of a word that was left out"] = max(
            (mass for word, mass in heard.items() if word not in words), default=0.0
        )
    return numbers


def _of_meanings(said: Said) -> Numbers:
    believed = defaultdict[str, float](float)
    for parts, score in said.meanings:
        for part in parts or {""}:
            believed[part] += score
    numbers: Numbers = {
        "certainty that nothing was meant": believed.pop("", 0.0),
        "certainty of a part that was left out": max(
            (score for part, score in believed.items() if part not in said.parts), default=0.0
        ),
    }
    if said.parts:
        numbers["certainty of the least certain part"] = min(believed[part] for part in said.parts)
    return numbers


def _taken_up(parts: frozenset[str], reply: frozenset[str]) -> tuple[float | None, int]:
    """Return the share of values that a reply has or, where the value is a slot, gives; and how many it changes."""
    given = values_of(reply)
    asked = [part for part in parts if "=" in part]
    had = sum(part in reply or part.split("=", 1)[1] in given for part in asked)
    changed = sum(given.get(slot, value) != value for slot, value in values_of(asked).items())
    return (had / len(asked) if asked else None), changed


def _interpreted(said: Said) -> float:
    """Return the share of the text's characters that are values of the interpretation, 0 to 1."""
    text = said.text.lower()
    values = {part.split("=", 1)[1].lower() for part in said.parts if "=" in part}
    return min(sum(len(value) for value in values if value in text) / max(len(text), 1), 1.0)
