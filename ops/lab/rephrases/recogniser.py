"""Rewrites of a recogniser's real errors, in simulated sessions.

SLURP has recordings of sentences, and what a recogniser made of each. The sessions are made up:

- What people want follows Zipf's law over the sentences. They say it, which is any recording of the sentence.
- Understood means that the hypothesis is the sentence. Then nine in ten click; else nobody does.
- Who was not understood says it again, three times in four, up to three times in all; one in five barges in before.
- One session in two goes on to another want.

Judged are further wants, of which none was learned: as they are heard in the same recordings, and in others that were
kept apart, one in five of each sentence, to see what is not a matter of having heard that very recording.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from msgspec import Struct
from numpy.random import Generator

from backchannel.agents.outcomes import RewardConfig
from backchannel.agents.rewrites.learner import RephraseConfig
from backchannel.ops.lab.rephrases.pairs import Hypothesis, hypotheses, open_log
from backchannel.ops.lab.rephrases.rewriter import Rewriter
from backchannel.ops.lab.rephrases.verdicts import Verdicts
from backchannel.schemas.events import BargeIn, Click, Impression, Query, Result
from backchannel.schemas.text import normalize
from backchannel.schemas.turn import Turn

START: Final = 1_700_000_000_000
_SESSION_GAP_MS: Final = 2_000
_AGAIN, _ATTEMPTS, _CLICKS, _BARGES_IN, _GOES_ON = 0.75, 3, 0.9, 0.2, 0.5


class Traffic(Struct, frozen=True):
    """The verdicts after so many turns.

    Attributes:
        turns: learned from.
        heard: on the recordings that are in the traffic.
        unheard: on recordings that are not.
        right: of the rewrites, how many turn a wrong form into what is meant by it most often.
        valid_broken: of the wrong forms that are themselves proper queries, how many are rewritten to something else.
        valid: how many such forms there are.
    """

    turns: int
    heard: Verdicts
    unheard: Verdicts
    right: int
    valid_broken: int
    valid: int


class _Sentence(Struct, frozen=True):
    slurp_id: int
    sentence: str
    intent: str
    entities: list[dict[str, str]]


def grow(data: Path, config: RephraseConfig, sizes: Sequence[int], judged: int, seed: int) -> Iterator[Traffic]:
    """Yield the verdicts as the traffic grows to each of `sizes` sessions.

    Args:
        data: the folder that has slurp_asr.
        config: when a rewrite is published.
        sizes: ascending.
        judged: wants to judge on, of each kind of recording.
        seed: of all chance.
    """
    people, chance, judges = (np.random.default_rng(one) for one in np.random.SeedSequence(seed).spawn(3))
    speech = _Speech(hypotheses(data), people)
    meaning = sentences(data)
    wants = speech.wants(judged, judges)
    tests = [
        list(filter(None, (speech.utter(want, judges, kept_apart=apart) for want in wants))) for apart in (False, True)
    ]
    valid = {one.heard for one in speech.all if one.heard != one.meant and one.heard in meaning}
    meant: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for one in speech.all:
        meant[one.heard][meaning[one.meant]] += 1
    rewriter = Rewriter(RewardConfig(), config)
    sessions = turns = 0
    for size in sizes:
        while sessions < size:
            batch = [
                turn
                for number in range(sessions, min(sessions + 5_000, size))
                for turn in _session(number, speech, chance)
            ]
            rewriter.learn(batch)
            turns += len(batch)
            sessions = min(sessions + 5_000, size)
        rewrites = rewriter.rewrites()
        heard, unheard = (_judge(test, rewrites, meaning, speech.understood) for test in tests)
        broken = sum(meaning.get(rewrites.get(form, form)) != meaning[form] for form in valid)
        right = sum(meaning.get(to) == meant[form].most_common(1)[0][0] for form, to in rewrites.items())
        yield Traffic(turns, heard, unheard, right, broken, len(valid))


def _judge(
    test: Sequence[Hypothesis], rewrites: Mapping[str, str], meaning: Mapping[str, str], ever_understood: Set[str]
) -> Verdicts:
    counts: Counter[str] = Counter()
    for one in test:
        understood = one.heard == one.meant
        counts["wrong"] += not understood
        counts["winnable"] += not understood and one.meant in ever_understood
        target = rewrites.get(one.heard)
        if target is not None:
            right = target == one.meant or meaning.get(target, target) == meaning[one.meant]
            counts["wins"] += right and not understood
            counts["losses"] += not right
    return Verdicts(len(test), counts["wrong"], counts["wins"], counts["losses"], len(rewrites), counts["winnable"])


class _Speech:
    """The sentences, by how often they are wanted, and their recordings, a fifth of which is kept apart.

    Attributes:
        all: recordings.
        understood: the sentences that somebody was understood to say, in the recordings that are not kept apart.
    """

    def __init__(self, heard: Sequence[Hypothesis], rng: Generator) -> None:
        self.all: Final = heard
        recordings: defaultdict[str, list[Hypothesis]] = defaultdict(list)
        for one in heard:
            recordings[one.meant].append(one)
        self._sentences: Final = [str(one) for one in rng.permutation(sorted(recordings))]
        popularity = 1.0 / np.arange(1, len(self._sentences) + 1)
        self._popularity: Final = popularity / popularity.sum()
        self._spoken: Final[dict[bool, dict[str, list[Hypothesis]]]] = {False: {}, True: {}}
        for sentence in self._sentences:
            shuffled = [recordings[sentence][place] for place in rng.permutation(len(recordings[sentence]))]
            apart = len(shuffled) // 5
            self._spoken[True][sentence] = shuffled[:apart]
            self._spoken[False][sentence] = shuffled[apart:]
        self.understood: Final = {
            sentence
            for sentence, spoken in self._spoken[False].items()
            if any(one.heard == one.meant for one in spoken)
        }

    def wants(self, count: int, rng: Generator) -> list[str]:
        """Draw sentences."""
        return [self._sentences[place] for place in rng.choice(len(self._sentences), count, p=self._popularity)]

    def utter(self, want: str, rng: Generator, *, kept_apart: bool = False) -> Hypothesis | None:
        """Draw a recording; None where none was kept apart."""
        spoken = self._spoken[kept_apart][want]
        return spoken[int(rng.integers(len(spoken)))] if spoken else None


def _session(number: int, speech: _Speech, rng: Generator) -> list[Turn]:
    ts = START + number * _SESSION_GAP_MS
    said: list[tuple[int, Hypothesis, bool, bool]] = []
    for want in speech.wants(2 if rng.random() < _GOES_ON else 1, rng):
        for attempt in range(1, _ATTEMPTS + 1):
            one = speech.utter(want, rng)
            assert one is not None  # of five recordings one is kept apart, of fewer none
            understood = one.heard == one.meant
            clicked = understood and rng.random() < _CLICKS
            barged_in = not understood and rng.random() < _BARGES_IN
            said.append((ts, one, clicked, barged_in))
            ts += round(4_000 + 6_000 * rng.random())
            if understood or attempt == _ATTEMPTS or rng.random() >= _AGAIN:
                break
        ts += round(5_000 + 40_000 * rng.random())
    session = f"session-{number}"
    queries = [
        Query(event_id=f"q{place}", ts=at, session_id=session, query_id=f"{session}-{place}", text=one.asr_text)
        for place, (at, one, _, _) in enumerate(said)
    ]
    return [
        _turn(query, one, clicked, barged_in, following)
        for query, following, (_, one, clicked, barged_in) in zip(queries, [*queries[1:], None], said, strict=True)
    ]


def _turn(query: Query, one: Hypothesis, clicked: bool, barged_in: bool, following: Query | None) -> Turn:
    ids: dict[str, Any] = {"session_id": query.session_id, "query_id": query.query_id, "ts": query.ts}
    entity = f"answer to {one.heard}"
    shown = Impression(event_id="i", results=(Result(entity, 1),), **ids)
    clicks = [Click(event_id="c", entity_id=entity, **ids)] * clicked
    return Turn.of(query, [shown, *clicks, *[BargeIn(event_id="b", **ids)] * barged_in], following)


def sentences(data: Path) -> dict[str, str]:
    """Return what each sentence of SLURP means, normalised sentence -> intent with entities, as annotated."""
    with open_log(data / "slurp_asr" / "test.jsonl.gz") as lines:
        rows = msgspec.json.Decoder(_Sentence).decode_lines(b"".join(lines).decode())
    return {
        normalize(row.sentence): f"{row.intent} {sorted((one['type'], one['text']) for one in row.entities)}"
        for row in rows
    }
