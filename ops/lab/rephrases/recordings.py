"""What a real recogniser heard, and what a real NLU made of it: SLURP's recordings, and the calls of DSTC2."""

import gzip
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

import msgspec
from msgspec import Struct
from numpy.random import Generator

from backchannel.agents.rewrites.hypotheses import heard
from backchannel.agents.rewrites.likeness import Record
from backchannel.agents.sketches import unit_hash
from backchannel.schemas.events import Hypothesis
from backchannel.schemas.text import normalize

HABITUAL: Final = 0.5
"""Share of queries that are among the habits of the person who asks, by default."""
_HABITS: Final = 20  # sentences that a person is in the habit of saying
_OFTEN: Final = 1 / 3  # probability that a person says a habit no more, each time

Meaning: TypeAlias = tuple[str, tuple[tuple[str, str], ...]]


class Heard(Struct, frozen=True):
    """A recording.

    Attributes:
        query: the normalised text that was recognised.
        sentence: the text that was said.
        group: what is not split: both microphones' recordings of an utterance, or a caller's.
        understood: what the NLU made of it.
        meant: the annotated meaning.
        hypotheses: what the recogniser may have heard; see `hypotheses.heard`.
    """

    query: str
    sentence: str
    group: str
    understood: Meaning
    meant: Meaning
    hypotheses: Mapping[str, float] = {}

    @property
    def right(self) -> bool:
        """Whether the NLU understood what was meant."""
        return self.understood == self.meant

    @property
    def form(self) -> str:
        """What the NLU made of the recognised text, as an interpretation."""
        intent, entities = self.understood
        return f"{intent}({', '.join(f'{slot}={value}' for slot, value in entities)})"


def recordings(folder: Path) -> Iterator[Heard]:
    """Yield the recordings in which something was heard."""
    sentences = {one["slurp_id"]: one for one in _lines(folder / "sentences.jsonl.gz")}
    for one in _lines(folder / "recordings.jsonl.gz"):
        query, sentence = normalize(one["asr"]), sentences[one["slurp_id"]]
        if query and one["nlu"]:
            utterance = one["file"].partition(".")[0].removesuffix("-headset")
            meant = _meaning(sentence["intent"], sentence["entities"])
            understood = _meaning(*one["nlu"])
            yield Heard(query, sentence["sentence"], utterance, understood, meant)


def calls(folder: Path) -> Iterator[Heard]:
    """Yield the utterances of DSTC2 in which something was heard, with the recogniser's ten best hypotheses."""
    callers = {one["session_id"]: one["caller_id"] for one in _lines(folder / "dialogs.jsonl.gz")}
    for one in _lines(folder / "turns.jsonl.gz"):
        hypotheses = heard(Hypothesis(text, score) for text, score in one["asr"])
        if query := normalize(one["asr"][0][0]):
            understood, meant = _acts(one["slu"][0][0]), _acts(one["semantics"])
            yield Heard(query, one["transcription"], callers[one["session_id"]], understood, meant, hypotheses)


def halves(found: Sequence[Heard], half: int) -> tuple[list[Heard], list[Heard]]:
    """Return the recordings of the index and those that are asked."""
    return [one for one in found if half_of(one.group) != half], [one for one in found if half_of(one.group) == half]


def half_of(group: str) -> int:
    """Return the half, 0 or 1, in which a group's recordings ask."""
    return int(unit_hash(group) * 2)


def records_of(found: Sequence[Heard]) -> dict[str, Record]:
    """Return text -> how often the NLU was right and wrong on it."""
    return records_by(found, lambda one: one.query)


def records_by(found: Sequence[Heard], key: Callable[[Heard], str]) -> dict[str, Record]:
    """Return key -> how often the NLU was right and wrong on recordings that have it."""
    right, wrong = (Counter(key(one) for one in found if one.right == well) for well in (True, False))
    return {one: Record(right[one], wrong[one]) for one in sorted({*right, *wrong})}


class People:
    """Made-up people, who say some sentences habitually. SLURP does not tell who said what.

    Each query has a person of its own, and twenty sentences are habits. If habits are `alike`, ten of them have the
    intent of the query, so that they are easily mistaken for it, and ten are any; otherwise all are any. Neither is
    how people are: if habits are alike, a query with another intent than all of them was mostly misunderstood.

    A person said each habit a few times, on average three, in the other half of the recordings: so they are other
    utterances, mostly by others. A share of queries are `habitual`: the sentence is one of the habits. Otherwise the
    person says it for the first time.

    Args:
        index: the recordings of what people said before.
        rng: the source of randomness.
        habitual: the share, 0 to 1.
        alike: whether ten habits have the intent of the query.
    """

    def __init__(
        self, index: Sequence[Heard], rng: Generator, habitual: float = HABITUAL, *, alike: bool = True
    ) -> None:
        self._habitual: Final = habitual
        self._alike: Final = alike
        self._rng: Final = rng
        self._said: Final = defaultdict[str, list[Heard]](list)
        of_intent = defaultdict[str, set[str]](set)
        for one in index:
            self._said[one.sentence].append(one)
            of_intent[one.meant[0]].add(one.sentence)
        self._sentences: Final = sorted(self._said)
        self._of_intent: Final[Mapping[str, list[str]]] = {intent: sorted(some) for intent, some in of_intent.items()}

    def habits(self, query: Heard) -> dict[str, Record]:
        """Return the habits of somebody who asks a query: texts that succeeded more often than not, with records."""
        sentences = {query.sentence} if query.sentence in self._said and self._rng.random() < self._habitual else set()
        near = self._of_intent.get(query.meant[0], []) if self._alike else []
        for some, most in ((near, _HABITS // 2), (self._sentences, _HABITS)):
            others = [one for one in self._drawn(some, most) if one != query.sentence]
            sentences.update(others[: most - len(sentences)])
        said = [
            self._said[sentence][self._rng.integers(len(self._said[sentence]))]
            for sentence in sorted(sentences)
            for _ in range(self._rng.geometric(_OFTEN))
        ]
        return {text: record for text, record in records_of(said).items() if record.success > record.failure}

    def _drawn(self, some: Sequence[str], most: int) -> list[str]:
        return [some[place] for place in self._rng.permutation(len(some))[: most + 1].tolist()]


def _meaning(intent: str, entities: Sequence[Sequence[str]]) -> Meaning:
    return intent, tuple(sorted((kind, filler) for kind, filler in entities))


def _acts(acts: Sequence[tuple[str, Sequence[Sequence[str]]]]) -> Meaning:
    """Return what is meant by dialogue acts with their slots and values."""
    return _meaning(
        "+".join(sorted({act for act, _ in acts})), [(slot, value) for _, some in acts for slot, value in some]
    )


def _lines(path: Path) -> Iterator[Any]:
    with gzip.open(path) as lines:
        yield from map(msgspec.json.decode, lines)
