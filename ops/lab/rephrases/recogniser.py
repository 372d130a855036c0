"""Rewrites of a recogniser's real errors, in simulated sessions.

SLURP has recordings of sentences, and a recogniser's hypothesis for each. The sessions are made up:

- Wants follow Zipf's law over the sentences. A want is voiced by any recording of its sentence.
- A person is understood if the hypothesis is the sentence. Nine in ten then click; nobody clicks otherwise.
- A person who was not understood repeats the sentence three times in four, up to three attempts in all; one in five
  barges in first.
- Every second session goes on to another want.

Rewrites are evaluated on further wants, which are not learned from: in the recordings used for learning, and in others
that were kept apart, one in five of each sentence, to measure what does not depend on having heard the same recording.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from msgspec import Struct
from numpy.random import Generator

from backchannel.agents.outcomes.rewards import RewardConfig
from backchannel.agents.rewrites.config import RephraseConfig
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
    """The verdicts after some turns.

    Attributes:
        turns: number of turns learned from.
        heard: verdicts on recordings used for learning.
        unheard: verdicts on recordings kept apart.
        right: number of rewrites whose target has the most frequent meaning of their source.
        valid_broken: number of `valid` forms that are rewritten to something with another meaning.
        valid: number of wrong hypotheses that are also proper queries.
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
        data: the folder that contains slurp_asr.
        config: the configuration of rewrites.
        sizes: numbers of sessions, ascending.
        judged: the number of wants to evaluate on.
        seed: the seed of all randomness.
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
    """The sentences with their popularity and their recordings, a fifth of which is kept apart.

    Attributes:
        all: hypotheses for all recordings.
        understood: sentences that were recognised correctly at least once in the recordings not kept apart.
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
        """Draw `count` sentences by popularity."""
        return [self._sentences[place] for place in rng.choice(len(self._sentences), count, p=self._popularity)]

    def utter(self, want: str, rng: Generator, *, kept_apart: bool = False) -> Hypothesis | None:
        """Draw a recording of the sentence `want`; None if none was kept apart."""
        spoken = self._spoken[kept_apart][want]
        return spoken[int(rng.integers(len(spoken)))] if spoken else None


def _session(number: int, speech: _Speech, rng: Generator) -> list[Turn]:
    ts = START + number * _SESSION_GAP_MS
    said: list[tuple[int, Hypothesis, bool, bool]] = []
    for want in speech.wants(2 if rng.random() < _GOES_ON else 1, rng):
        for attempt in range(1, _ATTEMPTS + 1):
            one = speech.utter(want, rng)
            assert one is not None  # one recording in five is kept apart, so one is always left
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
    """Return the annotated meaning of each SLURP sentence: normalised sentence -> intent with entities."""
    with open_log(data / "slurp_asr" / "test.jsonl.gz") as lines:
        rows = msgspec.json.Decoder(_Sentence).decode_lines(b"".join(lines).decode())
    return {
        normalize(row.sentence): f"{row.intent} {sorted((one['type'], one['text']) for one in row.entities)}"
        for row in rows
    }
